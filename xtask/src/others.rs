//! Machines of other kinds than this one: what can be said of them without one.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::{Choice, Endian, Request};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::{
    build::{cargo, workspace},
    tools::{self, Consent, on_path, shown},
};

/// The agent's other target, and what compiles the C in its dependencies.
const AARCH64: &str = "aarch64-unknown-linux-gnu";
const AARCH64_C: &str = "aarch64-linux-gnu-gcc";
const AARCH64_C_PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Builds the objects for big-endian machines; they must have the programs and maps that those for this one have.
///
/// # Errors
///
/// They do not build, or differ.
pub(crate) fn big_endian(choice: &Choice) -> Result<()> {
    let objects = |endian| {
        let request = Request { verbose: false, ..Request::of(&workspace(), endian) };
        ebpf_build::build(choice, &request)
    };
    for (little, big) in objects(Endian::Little)?.iter().zip(objects(Endian::Big)?) {
        let (little, of_big) = (Content::of(little)?, Content::of(&big)?);
        ensure!(!of_big.is_little_endian, "{} is little-endian", big.display());
        ensure!(
            of_big.sections == little.sections && of_big.names == little.names,
            "{} has {:?} and {:?}, and for little-endian machines it has {:?} and {:?}",
            big.display(),
            of_big.sections,
            of_big.names,
            little.sections,
            little.names
        );
    }
    Ok(())
}

/// What an object is made of.
struct Content {
    is_little_endian: bool,
    /// Those with programs.
    sections: BTreeSet<String>,
    /// Programs and maps, with the sizes of the latter's definitions.
    names: BTreeSet<(String, u64)>,
}

impl Content {
    fn of(path: &Path) -> Result<Self> {
        let shown = path.display();
        let content = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let file = object::File::parse(&*content).with_context(|| format!("{shown} is no ELF object"))?;
        let is_text = |section: &object::Section<'_, '_>| section.kind() == object::SectionKind::Text;
        let sections = file.sections().filter(is_text).filter_map(|s| s.name().ok().map(str::to_owned));
        let globals = file.symbols().filter(|s| s.is_global() && s.is_definition());
        let names = globals.filter_map(|symbol| {
            let size = if symbol.kind() == object::SymbolKind::Text { 0 } else { symbol.size() };
            Some((symbol.name().ok()?.to_owned(), size))
        });
        Ok(Self {
            is_little_endian: file.is_little_endian(),
            sections: sections.collect(),
            names: names.collect(),
        })
    }
}

/// The command that checks the agent for aarch64, with what it needs installed if it may be.
///
/// # Errors
///
/// Something is missing: the library of Rust or the C compiler for it.
pub(crate) fn aarch64(consent: Consent) -> Result<Command> {
    library(consent)?;
    if on_path(AARCH64_C).is_none() {
        tools::install(&AARCH64_C_PACKAGES, consent)?;
    }
    let mut command = cargo();
    command.args(["check", "--package", "responder-user", "--target", AARCH64]);
    command.env(format!("CC_{}", AARCH64.replace('-', "_")), AARCH64_C);
    Ok(command)
}

/// Sees to it that the compiler has its library for the target.
fn library(consent: Consent) -> Result<()> {
    let is_there = || {
        let mut command = Command::new("rustc");
        command.current_dir(workspace()).args(["--print", "target-libdir", "--target", AARCH64]);
        let output = command.stderr(Stdio::null()).output();
        output.is_ok_and(|o| Path::new(String::from_utf8_lossy(&o.stdout).trim()).is_dir())
    };
    if is_there() {
        return Ok(());
    }
    if on_path("rustup").is_none() {
        bail!("Rust has no library for {AARCH64}, and there is no rustup to get it by");
    }
    let mut command = Command::new("rustup");
    command.current_dir(workspace()).args(["target", "add", AARCH64]);
    consent.obtain(&format!("Rust's library for {AARCH64}"), &format!("  {}", shown(&command)))?;
    tools::run(&mut command)?;
    ensure!(is_there(), "`{}` has changed nothing", shown(&command));
    Ok(())
}
