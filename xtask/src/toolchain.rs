//! Gets a toolchain that builds the eBPF objects, installing what is missing.

use std::{env, path::PathBuf, process::Command};

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
/// The LLVM of [`DEBIAN`]'s compiler.
const DEBIAN_LLVM: u32 = 22;

/// Finds a toolchain; where there is none, installs what one of the wanted kind lacks, rustup's first.
///
/// # Errors
///
/// There is none and it may not or cannot be installed; the error says how to do it by hand.
pub(crate) fn ensure(wanted: Wanted, consent: Consent) -> Result<Choice> {
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
        match plan
            .carry_out()
            .and_then(|()| Ok(choose(&Survey::take(), Wanted::Only(plan.kind()))?))
        {
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
    /// Debian's packages and a linker.
    Debian,
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
        plans.push(Plan::Debian);
    }
    plans
}

impl Plan {
    fn kind(&self) -> Kind {
        match self {
            Self::Rustup(_) => Kind::Rustup,
            Self::Debian => Kind::Debian,
        }
    }

    fn llvm(&self) -> u32 {
        match self {
            Self::Rustup(compiler) => compiler.version.llvm,
            Self::Debian => DEBIAN_LLVM,
        }
    }

    /// The cargo that builds the linker, and its compiler.
    fn cargo(&self) -> (PathBuf, PathBuf) {
        match self {
            Self::Rustup(compiler) => (compiler.cargo(), compiler.rustc()),
            Self::Debian => ("/usr/bin/cargo".into(), "/usr/bin/rustc".into()),
        }
    }

    fn packages(&self) -> Vec<String> {
        let llvm = self.llvm();
        let compiler: &[&str] = if *self == Self::Debian { &DEBIAN } else { &[] };
        let linker = [
            &format!("llvm-{llvm}-dev"),
            // Named by `llvm-config --libs` and its relatives, but not by the package's dependencies.
            &format!("libpolly-{llvm}-dev"),
            "zlib1g-dev",
            "libzstd-dev",
            "libxml2-dev",
            "gcc",
            "libc6-dev",
        ];
        compiler
            .iter()
            .chain(&linker)
            .map(|&package| package.to_owned())
            .collect()
    }

    /// The commands, for a person.
    fn by_hand(&self) -> String {
        let packages = self.packages();
        let mut commands = Vec::new();
        if let Some(command) = self.add_source() {
            commands.push(format!("  {}", tools::shown(&command)));
        }
        commands.push(tools::by_hand(
            &packages.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
        if let Ok(command) = self.install_linker() {
            let llvm = self.llvm();
            commands.push(format!(
                "  LLVM_PREFIX=/usr/lib/llvm-{llvm} {}",
                tools::shown(&command)
            ));
        }
        commands.join("\n")
    }

    fn carry_out(&self) -> Result<()> {
        if let Some(mut command) = self.add_source() {
            run(&mut command)?;
        }
        let packages = self.packages();
        tools::install(
            &packages.iter().map(String::as_str).collect::<Vec<_>>(),
            Consent::Given,
        )?;
        // A linker may be there that only lacked its LLVM.
        let linker = linker_dir(self.llvm())?.join("bin/bpf-linker");
        if Linker::of(&linker).is_ok_and(|linker| linker.llvm == self.llvm()) {
            return Ok(());
        }
        say("building bpf-linker, which takes a minute or two");
        run(&mut self.install_linker()?)
    }

    fn add_source(&self) -> Option<Command> {
        match self {
            Self::Rustup(compiler) if !compiler.has_source => {
                let mut command = Command::new("rustup");
                command.args(["component", "add", "rust-src", "--toolchain", &compiler.name]);
                Some(command)
            }
            Self::Rustup(_) | Self::Debian => None,
        }
    }

    fn install_linker(&self) -> Result<Command> {
        let llvm = self.llvm();
        let (cargo, rustc) = self.cargo();
        let mut command = Command::new(cargo);
        for (name, _) in env::vars_os().filter(|(name, _)| !inherited(name)) {
            command.env_remove(name);
        }
        let prefix = format!("/usr/lib/llvm-{llvm}");
        command
            .env("RUSTC", rustc)
            .env("LLVM_PREFIX", &prefix)
            .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
        command.args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ]);
        command.args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ]);
        command.arg(linker_dir(llvm)?);
        Ok(command)
    }
}
