//! What a compiler says of itself.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

/// A compiler's version, as `rustc -vV` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Such as `1.95.0` or `1.97.0-nightly`.
    pub release: String,
    /// Major and minor of the release.
    pub number: (u32, u32),
    /// The major version of its LLVM: the linker's must be the same.
    pub llvm: u32,
    /// What it compiles for unless told otherwise, such as `x86_64-unknown-linux-gnu`.
    pub host: String,
}

impl Version {
    /// The oldest release that the eBPF crate compiles with: the workspace's `rust-version`.
    pub const OLDEST: (u32, u32) = (1, 95);

    /// Reads the output of `rustc -vV`.
    ///
    /// # Errors
    ///
    /// A line is missing or is not a version; a compiler without LLVM (another code generator) says no LLVM version.
    pub fn parse(verbose: &str) -> Result<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::trim)
                .with_context(|| format!("`rustc -vV` has no line `{name}: …`"))
        };
        let release = field("release")?;
        let llvm = field("LLVM version")?;
        let [Some(major), Some(minor)] = numbers(release) else {
            bail!("`rustc -vV` says release `{release}`, which is no version");
        };
        let [Some(llvm), _] = numbers(llvm) else {
            bail!("`rustc -vV` says LLVM version `{llvm}`, which is no version");
        };
        Ok(Self {
            release: release.to_owned(),
            number: (major, minor),
            llvm,
            host: field("host")?.to_owned(),
        })
    }

    /// Asks the compiler at `rustc`.
    ///
    /// # Errors
    ///
    /// It does not run, or says something unexpected.
    pub fn of(rustc: &Path) -> Result<Self> {
        Self::parse(&said_by(Command::new(rustc).arg("-vV"))?)
    }

    /// Whether it takes unstable features without being told to.
    #[must_use]
    pub fn unstable_features(&self) -> bool {
        self.release.ends_with("-nightly") || self.release.ends_with("-dev")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {}, LLVM {}", self.release, self.llvm)
    }
}

/// The first two numbers of a dotted version; a suffix such as `-nightly` ends it.
pub(crate) fn numbers(version: &str) -> [Option<u32>; 2] {
    let digits = version.split(|c: char| c != '.' && !c.is_ascii_digit()).next();
    let mut parts = digits.unwrap_or_default().split('.').map(|part| part.parse().ok());
    [parts.next().flatten(), parts.next().flatten()]
}

/// The standard output of a command that must succeed.
pub(crate) fn said_by(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn stable() {
        let version = Version::parse(STABLE).unwrap();
        assert_eq!(version.number, (1, 95));
        assert_eq!(version.llvm, 22);
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert!(!version.unstable_features());
        assert_eq!(version.to_string(), "rustc 1.95.0, LLVM 22");
    }

    #[test]
    fn nightly() {
        let version = Version::parse(&STABLE.replace("release: 1.95.0", "release: 1.97.0-nightly")).unwrap();
        assert_eq!(version.number, (1, 97));
        assert!(version.unstable_features());
    }

    #[test]
    fn without_llvm() {
        let other = STABLE.replace("LLVM version: 22.1.2\n", "");
        let error = Version::parse(&other).unwrap_err().to_string();
        assert!(error.contains("LLVM version"), "{error}");
    }

    #[test]
    fn no_version() {
        let error = Version::parse(&STABLE.replace("release: 1.95.0", "release: new")).unwrap_err();
        assert!(error.to_string().contains("`new`"), "{error}");
    }
}
