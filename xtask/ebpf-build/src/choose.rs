//! Which of the installed toolchains is taken, and why.

use std::{fmt, str::FromStr};

use crate::{
    linker::Linker,
    rustc::Version,
    survey::{Compiler, Kind, Survey},
};

/// Which toolchain to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The first that can build: rustup's active one, rustup's others, Debian's.
    #[default]
    Auto,
    /// Only this kind.
    Only(Kind),
}

impl Wanted {
    /// Whether a compiler of this kind may be taken.
    #[must_use]
    pub fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Auto => true,
            Self::Only(only) => only == kind,
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "rustup" => Ok(Self::Only(Kind::Rustup)),
            "debian" => Ok(Self::Only(Kind::Debian)),
            other => Err(format!("unknown toolchain `{other}`: auto, rustup or debian")),
        }
    }
}

/// Why a compiler cannot build the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It is older than [`Version::OLDEST`].
    TooOld,
    /// The source of the standard library is not installed.
    NoSource,
    /// No `bpf-linker` has its LLVM (major version).
    NoLinker(u32),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld => {
                let (major, minor) = Version::OLDEST;
                write!(f, "it is older than {major}.{minor}")
            }
            Self::NoSource => f.write_str("the source of its library is not installed"),
            Self::NoLinker(llvm) => write!(f, "there is no bpf-linker with LLVM {llvm}"),
        }
    }
}

/// A toolchain that can build the objects.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What compiles.
    pub compiler: Compiler,
    /// What links.
    pub linker: Linker,
    /// Why this one and not another, in a few words.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}: {}", self.compiler, self.linker, self.why)
    }
}

/// Nothing that is installed can build the objects.
#[derive(Debug, Clone)]
pub struct NoToolchain {
    /// What was asked for.
    pub wanted: Wanted,
    /// The compilers of the wanted kind, each with what stands in the way.
    pub refused: Vec<(Compiler, Obstacle)>,
}

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no installed toolchain can build the eBPF objects")?;
        for (compiler, obstacle) in &self.refused {
            write!(f, "; not {compiler}: {obstacle}")?;
        }
        for kind in [Kind::Rustup, Kind::Debian] {
            if self.wanted.allows(kind) && self.refused.iter().all(|(compiler, _)| compiler.kind != kind) {
                write!(f, "; {}", absent(kind))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for NoToolchain {}

/// Takes the first compiler that can build the objects.
///
/// # Errors
///
/// None can; the error names what stands in each one's way.
pub fn choose(survey: &Survey, wanted: Wanted) -> Result<Choice, NoToolchain> {
    let mut refused = Vec::new();
    for compiler in survey.compilers.iter().filter(|compiler| wanted.allows(compiler.kind)) {
        match linker_for(survey, compiler) {
            Ok(linker) => {
                let why = reason(survey, wanted, compiler, &refused);
                return Ok(Choice { compiler: compiler.clone(), linker: linker.clone(), why });
            }
            Err(obstacle) => refused.push((compiler.clone(), obstacle)),
        }
    }
    Err(NoToolchain { wanted, refused })
}

fn linker_for<'a>(survey: &'a Survey, compiler: &Compiler) -> Result<&'a Linker, Obstacle> {
    let llvm = compiler.version.llvm;
    if compiler.version.number < Version::OLDEST {
        return Err(Obstacle::TooOld);
    }
    if !compiler.has_source {
        return Err(Obstacle::NoSource);
    }
    survey.linkers.iter().find(|linker| linker.llvm == llvm).ok_or(Obstacle::NoLinker(llvm))
}

/// The reason for a choice: what was asked for or comes first, and what of the other kind.
fn reason(survey: &Survey, wanted: Wanted, taken: &Compiler, refused: &[(Compiler, Obstacle)]) -> String {
    if wanted != Wanted::Auto {
        return format!("{} was asked for", taken.kind);
    }
    let mut reasons = Vec::new();
    for (compiler, obstacle) in refused {
        reasons.push(format!("not {compiler}, as {obstacle}"));
    }
    match taken.kind {
        Kind::Rustup => {
            let other = survey.compilers.iter().find(|other| other.kind == Kind::Debian);
            reasons.push(match other.map(|debian| (debian, linker_for(survey, debian))) {
                None => absent(Kind::Debian).to_owned(),
                Some((_, Ok(_))) => "it comes before Debian's, which would do, too".to_owned(),
                Some((debian, Err(obstacle))) => format!("not {debian}, as {obstacle}"),
            });
        }
        Kind::Debian if refused.is_empty() => reasons.push(absent(Kind::Rustup).to_owned()),
        Kind::Debian => {}
    }
    reasons.join("; ")
}

fn absent(kind: Kind) -> &'static str {
    match kind {
        Kind::Rustup => "there is no toolchain of rustup",
        Kind::Debian => "Debian's (rustc-web, cargo-web) is not installed",
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
