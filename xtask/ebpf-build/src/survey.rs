//! What is installed on this machine.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    linker::{Linker, cargo_home},
    rustc::{Version, said_by},
};

/// Where a compiler comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A toolchain of rustup, or another compiler that comes first on the path.
    Rustup,
    /// The distribution's, in `/usr`: on Debian `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        })
    }
}

/// A compiler with its cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// Where it comes from.
    pub kind: Kind,
    /// The toolchain's name with rustup, its directory otherwise.
    pub name: String,
    /// `bin/rustc` and `bin/cargo` are in it, and the library source if it is installed.
    pub sysroot: PathBuf,
    /// What it says of itself.
    pub version: Version,
    /// Whether the source of the standard library is installed.
    pub has_source: bool,
}

impl Compiler {
    fn at(kind: Kind, name: &str, sysroot: &Path) -> Result<Self> {
        Ok(Self {
            kind,
            name: name.to_owned(),
            sysroot: sysroot.to_owned(),
            version: Version::of(&sysroot.join("bin/rustc"))?,
            has_source: source(sysroot).is_file(),
        })
    }

    /// The compiler itself, not a proxy that would choose again.
    #[must_use]
    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// Its cargo.
    #[must_use]
    pub fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }

    /// A file that is there if the library source is.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        source(&self.sysroot)
    }
}

fn source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock")
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Rustup => write!(f, "rustup's {} ({})", self.name, self.version),
            Kind::Debian => write!(f, "Debian's packages ({})", self.version),
        }
    }
}

/// All compilers and linkers that were found, the preferred ones first.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The active one first, Debian's last.
    pub compilers: Vec<Compiler>,
    /// Those of the cache first.
    pub linkers: Vec<Linker>,
}

impl Survey {
    /// Looks at this machine. What does not run counts as not installed.
    #[must_use]
    pub fn take() -> Self {
        let mut compilers: Vec<Compiler> = Vec::new();
        let mut add = |kind, name: &str, sysroot: &Path| {
            // A custom toolchain may be a link to another one.
            let place = sysroot.canonicalize().unwrap_or_else(|_| sysroot.to_owned());
            let new = compilers.iter().all(|known| known.sysroot != place);
            if new && place.join("bin/rustc").is_file() && place.join("bin/cargo").is_file() {
                compilers.extend(Compiler::at(kind, name, &place));
            }
        };
        let debian = Path::new("/usr");
        for (name, sysroot) in active().into_iter().chain(of_rustup().unwrap_or_default()) {
            if sysroot != debian {
                add(Kind::Rustup, &name, &sysroot);
            }
        }
        add(Kind::Debian, "/usr", debian);
        Self { compilers, linkers: Linker::installed() }
    }
}

/// The compiler that cargo uses now: `RUSTC` in a build script, otherwise the first one on the path.
fn active() -> Option<(String, PathBuf)> {
    let rustc = env::var_os("RUSTC").filter(|rustc| !rustc.is_empty());
    let rustc = rustc.unwrap_or_else(|| "rustc".into());
    let sysroot = said_by(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    let sysroot = PathBuf::from(sysroot.trim());
    let name = sysroot.file_name()?.to_string_lossy().into_owned();
    Some((name, sysroot))
}

/// Name and directory of all toolchains of rustup, the default first.
fn of_rustup() -> Result<Vec<(String, PathBuf)>> {
    let listed = said_by(rustup()?.args(["toolchain", "list", "-v"]))?;
    let mut toolchains = toolchains(&listed);
    toolchains.sort_by_key(|(default, ..)| !default);
    Ok(toolchains.into_iter().map(|(_, name, path)| (name, path)).collect())
}

/// The `rustup` program: on the path, or where it installs itself.
fn rustup() -> Result<Command> {
    let home = cargo_home().map(|home| home.join("bin/rustup")).filter(|path| path.is_file());
    let on_path = env::var_os("PATH");
    let on_path =
        on_path.iter().flat_map(env::split_paths).map(|dir| dir.join("rustup")).find(|path| path.is_file());
    on_path.or(home).map(Command::new).context("there is no rustup")
}

/// Reads lines such as `stable-x86_64-unknown-linux-gnu (active, default) …/toolchains/stable-x86_64-unknown-linux-gnu`.
fn toolchains(listed: &str) -> Vec<(bool, String, PathBuf)> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace)?;
        let path = &rest[rest.find('/')?..];
        Some((rest.contains("default"), name.to_owned(), PathBuf::from(path.trim())))
    };
    listed.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_toolchains() {
        let listed = "nightly-x86_64-unknown-linux-gnu /h/.rustup/toolchains/nightly-x86_64-unknown-linux-gnu\n\
            stable-x86_64-unknown-linux-gnu (active, default) /h/.rustup/toolchains/stable-x86_64-unknown-linux-gnu\n\
            debian\t/usr\n";
        let expected = [
            (
                false,
                "nightly-x86_64-unknown-linux-gnu",
                "/h/.rustup/toolchains/nightly-x86_64-unknown-linux-gnu",
            ),
            (
                true,
                "stable-x86_64-unknown-linux-gnu",
                "/h/.rustup/toolchains/stable-x86_64-unknown-linux-gnu",
            ),
            (false, "debian", "/usr"),
        ];
        let expected = expected.map(|(default, name, path)| (default, name.to_owned(), PathBuf::from(path)));
        assert_eq!(toolchains(listed), expected);
    }

    #[test]
    fn no_toolchains() {
        assert_eq!(toolchains("no installed toolchains\n"), []);
    }
}
