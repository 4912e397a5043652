//! The emulator: this machine's, or one from Debian's suites in the tool cache.

use std::{
    env, fs,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::cache_dir;

use super::fetch::{Lists, codename};
use crate::{
    kept::kept,
    step::say,
    tools::{self, Consent, on_path},
};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// From this version on, software emulation runs a guest's processors in parallel without corrupting it now and then.
const SOUND: u32 = 10;

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// This machine's processor.
    Kvm,
    /// Software.
    Tcg,
}

/// An emulator.
#[derive(Debug, Clone)]
pub(super) struct Qemu {
    program: PathBuf,
    /// Where its own libraries and firmware are, if it is not installed.
    root: Option<PathBuf>,
    major: u32,
    /// As it says.
    pub(super) version: String,
}

impl Qemu {
    /// Whether the program runs.
    fn of(program: PathBuf, root: Option<PathBuf>) -> Result<Self> {
        let mut qemu = Self { program, root, major: 0, version: String::new() };
        let output = qemu.command().arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", qemu.program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split("version ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.with_context(|| {
            format!("{} says {said:?} {}", qemu.program.display(), String::from_utf8_lossy(&output.stderr))
        })?;
        qemu.major = version.split('.').next().unwrap_or_default().parse().context("QEMU's version")?;
        qemu.version = version.to_owned();
        Ok(qemu)
    }

    /// Itself, with where it finds what it needs.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
            command.env("LD_LIBRARY_PATH", env::join_paths(libraries).unwrap_or_default());
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }

    /// How it is to run a guest's instructions.
    pub(super) fn options(&self, accelerator: Accelerator) -> [&'static str; 4] {
        match accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg if self.major >= SOUND => ["-accel", "tcg,thread=multi", "-cpu", "max"],
            Accelerator::Tcg => ["-accel", "tcg,thread=single", "-cpu", "max,-cx16"],
        }
    }
}

/// What this machine can do. Its processor is only asked for if it says itself that it can: nested in another virtual
/// machine without that, the device is there, and guests die.
pub(super) fn accelerator() -> Accelerator {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    fitting(&processor, device.is_ok())
}

fn fitting(processor: &str, device: bool) -> Accelerator {
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let able = flags.split_whitespace().any(|flag| ["vmx", "svm"].contains(&flag));
    if able && device { Accelerator::Kvm } else { Accelerator::Tcg }
}

/// # Errors
///
/// There are no machines for a host of this architecture.
fn check_architecture(architecture: &str) -> Result<()> {
    ensure!(architecture == "x86_64", "virtual machines are for x86_64 here, this is {architecture}");
    Ok(())
}

/// Finds one, or gets one: preferably one that is sound.
///
/// # Errors
///
/// This machine is of another architecture, or there is none and none can be had.
pub(super) fn ensure_qemu(consent: Consent) -> Result<Qemu> {
    check_architecture(env::consts::ARCH)?;
    let installed = on_path(PROGRAM).and_then(|program| Qemu::of(program, None).ok());
    if let Some(qemu) = installed.as_ref().filter(|qemu| qemu.major >= SOUND) {
        return Ok(qemu.clone());
    }
    let error = match cached() {
        Ok(Some(qemu)) => return Ok(qemu),
        Ok(None) => match fetch(consent) {
            Ok(qemu) => return Ok(qemu),
            Err(error) => error,
        },
        Err(error) => error,
    };
    say(format!("QEMU of this Debian's backports: {error:#}"));
    match installed {
        Some(qemu) => Ok(qemu),
        None => {
            tools::install(&[PACKAGE], consent)?;
            match on_path(PROGRAM) {
                Some(program) => Qemu::of(program, None),
                None => bail!("{PACKAGE} is installed, and there is no {PROGRAM}"),
            }
        }
    }
}

fn record() -> Result<PathBuf> {
    Ok(cache_dir()?.join("vm-qemu.version"))
}

fn cached() -> Result<Option<Qemu>> {
    let Ok(version) = fs::read_to_string(record()?) else {
        return Ok(None);
    };
    let root = cache_dir()?.join(format!("vm-qemu-{}", version.trim()));
    Ok(unpacked(&root).ok())
}

fn unpacked(root: &Path) -> Result<Qemu> {
    Qemu::of(root.join("usr/bin").join(PROGRAM), Some(root.to_owned()))
}

/// Unpacks it with the libraries that this machine does not have. Nothing is installed.
fn fetch(consent: Consent) -> Result<Qemu> {
    let codename = codename()?;
    let backports = format!("{codename}-backports");
    let suites = [codename.clone(), format!("{codename}-updates"), format!("{codename}-security")];
    consent.obtain(
        "QEMU (15 MB, into the tool cache)",
        &format!("  apt-get install -t {backports} {PACKAGE}"),
    )?;
    let suites: Vec<&str> = suites.iter().chain([&backports]).map(String::as_str).collect();
    let lists = Lists::fetch("vm-qemu-lists", &suites)?;
    let version = lists.version(PACKAGE, &backports)?;
    let name = version.replace([':', '~'], "-");
    let root = kept(&format!("vm-qemu-{name}"), |temporary| {
        let packages = lists.needed(PACKAGE, &backports, "qemu")?;
        let root = temporary.join("root");
        lists.unpack(&packages, &root)?;
        Ok(root)
    })?;
    let qemu = unpacked(&root)?;
    fs::write(record()?, name)?;
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_a_guest() {
        let with = |flags: &str| format!("processor\t: 0\nflags\t\t: fpu {flags} sse\nbugs\t\t: vmx\n");
        assert_eq!(fitting(&with("svm"), true), Accelerator::Kvm);
        assert_eq!(fitting(&with("vmx"), true), Accelerator::Kvm);
        // The device of a machine that is a guest itself and may have none.
        assert_eq!(fitting(&with("vme"), true), Accelerator::Tcg);
        assert_eq!(fitting(&with("vmx"), false), Accelerator::Tcg);
        assert_eq!(fitting("", true), Accelerator::Tcg);
    }

    #[test]
    fn other_architectures_are_named() {
        assert!(check_architecture("x86_64").is_ok());
        let error = check_architecture("aarch64").unwrap_err().to_string();
        assert!(error.ends_with("this is aarch64"), "{error}");
    }
}
