//! Gets a toolchain that builds the eBPF objects, installing what is missing.

use std::{env, path::Path, process::Command};

use anyhow::{Result, anyhow, bail};
use ebpf_build::{
    Choice, Compiler, Kind, LINKER_VERSION, Linker, Obstacle, Survey, Wanted, choose, inherited, linker_dir,
};

use crate::{
    step::say,
    tools::{self, Consent, run},
};

/// Debian's compiler, its cargo and its library source.
const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The LLVM of [`DEBIAN`]'s compiler, as long as it is not installed and cannot be asked.
const DEBIAN_LLVM: u32 = 22;

/// Finds a toolchain and says which; where there is none, installs what one of the wanted kind lacks, rustup's
/// first.
///
/// # Errors
///
/// There is none and it may not or cannot be installed; the error says how to do it by hand.
pub(crate) fn ensure(wanted: Wanted, consent: Consent) -> Result<Choice> {
    let choice = find_or_complete(wanted, consent)?;
    say(choice.to_string());
    Ok(choice)
}

fn find_or_complete(wanted: Wanted, consent: Consent) -> Result<Choice> {
    let none = match choose(&Survey::take(), wanted) {
        Ok(choice) => return Ok(choice),
        Err(none) => none,
    };
    let plans = plans(&none.refused, wanted);
    let by_hand = plans.iter().map(Plan::by_hand).collect::<Vec<_>>().join("\nor\n");
    if plans.is_empty() {
        bail!("{none}. Install Rust by rustup, or use --toolchain debian");
    }
    if consent == Consent::Withheld {
        bail!("{none}. To install what is missing, run this with --yes, or\n{by_hand}");
    }
    say(none.to_string());
    let mut failures = String::new();
    for plan in plans {
        consent.obtain("what is missing", &plan.by_hand())?;
        match plan.carry_out().and_then(|()| Ok(choose(&Survey::take(), Wanted::Only(plan.kind()))?)) {
            Ok(mut choice) => {
                choice.why = "completed just now".to_owned();
                return Ok(choice);
            }
            Err(error) => {
                say(format!("that did not work: {error:#}"));
                failures.push_str(&format!("\n{} could not be completed: {error:#}", plan.kind()));
            }
        }
    }
    Err(anyhow!("{none}{failures}\nBy hand:\n{by_hand}"))
}

/// What would complete a toolchain.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// The library source unless the toolchain has it, and a linker for its LLVM.
    Rustup(Compiler),
    /// Debian's packages, if they are not there, and a linker.
    Debian(Option<Compiler>),
}

/// The ways to complete a toolchain, the preferred one first.
fn plans(refused: &[(Compiler, Obstacle)], wanted: Wanted) -> Vec<Plan> {
    let mut plans = Vec::new();
    let candidates = refused
        .iter()
        .filter(|(compiler, obstacle)| compiler.kind == Kind::Rustup && *obstacle != Obstacle::TooOld);
    // One that has its source if there is one: nothing promises that rustup can download.
    if let Some((compiler, _)) = candidates.min_by_key(|(compiler, _)| !compiler.has_source) {
        plans.push(Plan::Rustup(compiler.clone()));
    }
    if wanted.allows(Kind::Debian) {
        let installed = refused
            .iter()
            .find(|(compiler, obstacle)| compiler.kind == Kind::Debian && *obstacle != Obstacle::TooOld);
        plans.push(Plan::Debian(installed.map(|(compiler, _)| compiler.clone())));
    }
    plans
}

impl Plan {
    fn kind(&self) -> Kind {
        match self {
            Self::Rustup(_) => Kind::Rustup,
            Self::Debian(_) => Kind::Debian,
        }
    }

    fn compiler(&self) -> Option<&Compiler> {
        match self {
            Self::Rustup(compiler) => Some(compiler),
            Self::Debian(compiler) => compiler.as_ref(),
        }
    }

    /// The packages that are the compiler.
    fn compiler_packages(&self) -> &'static [&'static str] {
        match self {
            Self::Rustup(_) => &[],
            Self::Debian(_) => &DEBIAN,
        }
    }

    /// The commands, for a person.
    fn by_hand(&self) -> String {
        let llvm = self.compiler().map_or(DEBIAN_LLVM, |compiler| compiler.version.llvm);
        let cargo = self.compiler().map_or_else(|| "/usr/bin/cargo".into(), Compiler::cargo);
        let packages = linker_packages(llvm);
        let packages: Vec<&str> =
            self.compiler_packages().iter().copied().chain(packages.iter().map(String::as_str)).collect();
        let mut commands = Vec::new();
        if let Some(command) = self.add_source() {
            commands.push(format!("  {}", tools::shown(&command)));
        }
        commands.push(tools::by_hand(&packages));
        if let Ok(command) = install_linker(llvm, &cargo) {
            commands.push(format!("  LLVM_PREFIX={} {}", llvm_prefix(llvm), tools::shown(&command)));
        }
        commands.join("\n")
    }

    fn carry_out(&self) -> Result<()> {
        if let Some(mut command) = self.add_source() {
            run(&mut command)?;
        }
        tools::install(self.compiler_packages(), Consent::Given)?;
        let survey = Survey::take();
        let same = |found: &&Compiler| match self {
            Self::Rustup(compiler) => found.sysroot == compiler.sysroot,
            Self::Debian(_) => found.kind == Kind::Debian,
        };
        let Some(compiler) = survey.compilers.iter().find(same) else {
            bail!("the compiler does not run although it is installed: {}", self.kind());
        };
        let llvm = compiler.version.llvm;
        let packages = linker_packages(llvm);
        tools::install(&packages.iter().map(String::as_str).collect::<Vec<_>>(), Consent::Given)?;
        // One may have been there that only lacked its LLVM library.
        let linker = linker_dir(llvm)?.join("bin/bpf-linker");
        if Linker::of(&linker).is_ok_and(|linker| linker.llvm == llvm) {
            return Ok(());
        }
        say("building bpf-linker, which takes a minute or two");
        run(install_linker(llvm, &compiler.cargo())?.env("RUSTC", compiler.rustc()))
    }

    fn add_source(&self) -> Option<Command> {
        let compiler =
            self.compiler().filter(|compiler| compiler.kind == Kind::Rustup && !compiler.has_source)?;
        let mut command = Command::new("rustup");
        command.args(["component", "add", "rust-src", "--toolchain", &compiler.name]);
        Some(command)
    }
}

/// What `bpf-linker` is built with.
fn linker_packages(llvm: u32) -> Vec<String> {
    let llvm = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    // LLVM's development package names these to the linker, but does not depend on all of them.
    let others = ["zlib1g-dev", "libzstd-dev", "libxml2-dev", "gcc", "libc6-dev"];
    llvm.into_iter().chain(others.map(str::to_owned)).collect()
}

fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn install_linker(llvm: u32, cargo: &Path) -> Result<Command> {
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os().filter(|(name, _)| !inherited(name)) {
        command.env_remove(name);
    }
    command.env("LLVM_PREFIX", llvm_prefix(llvm));
    command.env(format!("LLVM_SYS_{llvm}1_PREFIX"), llvm_prefix(llvm));
    command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]);
    command.arg(linker_dir(llvm)?);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ebpf_build::Version;

    use super::*;

    fn compiler(kind: Kind, name: &str, has_source: bool) -> Compiler {
        let verbose = "host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 23.1.0\n";
        Compiler {
            kind,
            name: name.to_owned(),
            sysroot: PathBuf::from("/toolchains").join(name),
            version: Version::parse(verbose).unwrap(),
            has_source,
        }
    }

    #[test]
    fn the_toolchain_with_its_source_is_completed() {
        let stable = (compiler(Kind::Rustup, "stable", false), Obstacle::NoSource);
        let nightly = (compiler(Kind::Rustup, "nightly", true), Obstacle::NoLinker(23));
        let debian = (compiler(Kind::Debian, "/usr", true), Obstacle::NoLinker(23));
        let plans = plans(&[stable, nightly.clone(), debian.clone()], Wanted::Auto);
        assert_eq!(plans, [Plan::Rustup(nightly.0), Plan::Debian(Some(debian.0))]);
    }

    #[test]
    fn commands_for_a_person() {
        let stable = compiler(Kind::Rustup, "stable", false);
        let commands = Plan::Rustup(stable).by_hand();
        assert!(commands.contains("rustup component add rust-src --toolchain stable\n"), "{commands}");
        assert!(commands.contains("llvm-23-dev libpolly-23-dev"), "{commands}");
        assert!(commands.contains("--features llvm-23"), "{commands}");
        assert!(!commands.contains("rustc-web"), "{commands}");

        let commands = Plan::Debian(None).by_hand();
        assert!(commands.contains("rustc-web cargo-web rust-web-src llvm-22-dev"), "{commands}");
        assert!(commands.contains("/usr/bin/cargo install bpf-linker"), "{commands}");
    }

    #[test]
    fn nothing_to_complete() {
        assert_eq!(plans(&[], Wanted::Only(Kind::Rustup)), []);
        let old = (compiler(Kind::Debian, "/usr", false), Obstacle::TooOld);
        assert_eq!(plans(&[old], Wanted::Auto), [Plan::Debian(None)]);
    }
}
