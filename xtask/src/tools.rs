//! Programs that the steps need, and how they are installed.

use std::{
    env, fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};
use ebpf_build::cache_dir;

use crate::{root, step::say};

/// Whether something may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Without asking: `--yes`, or `CI` is set.
    Given,
    /// Whoever sits at the terminal is asked.
    Ask,
    /// There is nobody to ask.
    Withheld,
}

impl Consent {
    /// From `--yes`, the environment variable `CI` and whether standard input is a terminal.
    pub(crate) fn new(yes: bool) -> Self {
        let ci = env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        match yes || ci {
            true => Self::Given,
            false if io::stdin().is_terminal() => Self::Ask,
            false => Self::Withheld,
        }
    }

    /// Whether these commands may run; says which.
    ///
    /// # Errors
    ///
    /// They may not: the error gives them, to be run by hand.
    pub(crate) fn obtain(self, what: &str, commands: &str) -> Result<()> {
        let agreed = match self {
            Self::Given => true,
            Self::Withheld => false,
            Self::Ask => {
                say(format!("{what} would be installed by\n{commands}"));
                print!("    Go on? [Y/n] ");
                io::stdout().flush()?;
                let mut answer = String::new();
                io::stdin().lock().read_line(&mut answer)?;
                matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
            }
        };
        if !agreed {
            bail!("{what} must be installed. By hand:\n{commands}\nor run this again with --yes");
        }
        say(format!("installing {what}"));
        Ok(())
    }
}

/// Installs those of these Debian packages that are not installed.
///
/// # Errors
///
/// There is no consent, no root, no apt-get, or a package cannot be had.
pub(crate) fn install(packages: &[&str], consent: Consent) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    consent.obtain(&missing.join(", "), &by_hand(&missing))?;
    update();
    apt_install(&missing)
}

/// Fetches the package lists, once: a fresh machine has none, and old ones name files that are gone.
fn update() {
    static UPDATED: OnceLock<()> = OnceLock::new();
    if UPDATED.get().is_none() {
        // A list of another vendor may fail, and be of no use here.
        if let Err(error) = apt(&["update"]) {
            say(format!("going on with the package lists as they are: {error:#}"));
        }
        UPDATED.get_or_init(|| ());
    }
}

/// The command that installs these packages, for a person.
pub(crate) fn by_hand(packages: &[&str]) -> String {
    let sudo = if root::is_root() { "" } else { "sudo " };
    format!(
        "  {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

fn apt_install(packages: &[&str]) -> Result<()> {
    // Never at the price of a package that excludes one of these.
    apt(&[&["install", "-y", "--no-install-recommends", "--no-remove"], packages].concat())
}

/// Runs apt-get, waiting for another one to end.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = root::command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive".as_ref())])?;
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    run(command.args(arguments))
}

/// Those of these packages that are not installed.
///
/// # Errors
///
/// This is no Debian.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if on_path("dpkg-query").is_none() {
        bail!(
            "packages can only be installed on Debian and its relatives; what is needed is in Debian's {}",
            packages.join(", ")
        );
    }
    let installed = |package: &&str| {
        let query = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
        query.is_ok_and(|output| output.stdout == b"installed")
    };
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

/// Runs a command whose output goes where ours goes.
///
/// # Errors
///
/// It does not run, or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// A command as it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Finds a program on the path, and where the administrator's are even if the path leaves those out.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH");
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs = path.iter().flat_map(env::split_paths).chain(usual);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The `arping` of Thomas Habets, unpacked into the tool cache: its package and that of iputils's exclude each other.
///
/// # Errors
///
/// As [`install`]; or the package cannot be downloaded or unpacked.
pub(crate) fn arping_habets(consent: Consent) -> Result<PathBuf> {
    let place = cache_dir()?.join("arping-habets");
    let program = place.join("usr/sbin/arping");
    install(&["libnet1", "libpcap0.8"], consent)?;
    if program.is_file() {
        return Ok(program);
    }
    consent.obtain(
        "Habets's arping (not on the path)",
        "  apt-get download arping && dpkg-deb -x arping_*.deb …",
    )?;
    let temporary = place.with_extension(process::id().to_string());
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let unpacked = download_and_unpack("arping", &temporary);
    let result = unpacked.and_then(|()| Ok(fs::rename(temporary.join("unpacked"), &place)?));
    fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    result.with_context(|| format!("cannot put Habets's arping into {}", place.display()))?;
    Ok(program)
}

/// Unpacks a package into `unpacked` in the directory `place`.
fn download_and_unpack(package: &str, place: &Path) -> Result<()> {
    // As whoever runs this: apt's own user may not write here, and need not.
    let download = || {
        let mut command = Command::new("apt-get");
        command.current_dir(place).args(["-q", "-o", "APT::Sandbox::User=root", "download", package]);
        run(&mut command)
    };
    if download().is_err() {
        update();
        download()?;
    }
    let packages = fs::read_dir(place)?.collect::<Result<Vec<_>, _>>()?;
    let deb =
        packages.iter().map(fs::DirEntry::path).find(|path| path.extension().is_some_and(|ext| ext == "deb"));
    let deb = deb.with_context(|| format!("`apt-get download {package}` left no package"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(place.join("unpacked")))
}
