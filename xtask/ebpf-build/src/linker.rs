//! `bpf-linker`: where it is, and which LLVM it carries.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::rustc::{numbers, said_by};

/// The release of `bpf-linker` that is installed where there is none.
pub const LINKER_VERSION: &str = "0.13.0";

/// A `bpf-linker` that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its release, such as `0.13.0`.
    pub release: String,
    /// The major version of its LLVM.
    pub llvm: u32,
}

impl Linker {
    /// Asks the program at `path`.
    ///
    /// # Errors
    ///
    /// It does not run (its LLVM library may be gone), or does not tell its versions.
    pub fn of(path: &Path) -> Result<Self> {
        let release = said_by(Command::new(path).arg("--version"))?;
        // Its own version says nothing of LLVM; LLVM answers this itself, before files are looked at.
        let llvm = said_by(Command::new(path).args([
            "--llvm-args=--version",
            "--output=/nonexistent/output",
            "/nonexistent/input",
        ]))?;
        Ok(Self {
            path: path.to_owned(),
            release: release.trim().trim_start_matches("bpf-linker ").to_owned(),
            llvm: llvm_major(&llvm)
                .with_context(|| format!("{} does not tell its LLVM version", path.display()))?,
        })
    }

    /// All that are installed: in the cache, in cargo's `bin` and on the path, in this order.
    pub(crate) fn installed() -> Vec<Self> {
        let mut places = Vec::new();
        if let Ok(kept) = cache_dir().and_then(|dir| Ok(std::fs::read_dir(dir)?)) {
            places.extend(kept.flatten().map(|entry| entry.path().join("bin")));
            // Newest first.
            places.sort_by(|a, b| b.cmp(a));
        }
        places.extend(cargo_home().map(|home| home.join("bin")));
        places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
        let mut found: Vec<Self> = Vec::new();
        for place in places {
            let path = place.join("bpf-linker");
            if path.is_file() && found.iter().all(|known| known.path != path) {
                found.extend(Self::of(&path));
            }
        }
        found
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {} (LLVM {}, {})", self.release, self.llvm, self.path.display())
    }
}

/// Where tools are kept that no package has: `$XDG_CACHE_HOME/responder-tools`, or below `~/.cache`.
///
/// # Errors
///
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|base| base.join("responder-tools"))
        .context("neither XDG_CACHE_HOME nor HOME is set: no place to keep tools in")
}

/// The root to install `bpf-linker` with this LLVM into; the program is in its `bin`.
///
/// # Errors
///
/// As [`cache_dir`].
pub fn linker_dir(llvm: u32) -> Result<PathBuf> {
    Ok(cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm{llvm}")))
}

/// `CARGO_HOME`, or where it is unless set.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let set =
        |name: &str| env::var_os(name).as_deref().filter(|value| *value != OsStr::new("")).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")))
}

/// Finds `LLVM version 22.1.8` in what LLVM prints, whoever built it.
fn llvm_major(said: &str) -> Option<u32> {
    said.lines().find_map(|line| {
        let (_, version) = line.split_once("LLVM version ")?;
        numbers(version)[0]
    })
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn llvm_version() {
        assert_eq!(llvm_major("Debian LLVM version 22.1.8\n  Optimized build.\n"), Some(22));
        assert_eq!(llvm_major("LLVM (http://llvm.org/):\n  LLVM version 21.1.0-rust\n"), Some(21));
        assert_eq!(llvm_major("bpf-linker 0.13.0\n"), None);
    }
}
