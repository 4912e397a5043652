//! `cargo xtask build-ebpf`

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use ebpf_build::{Endian, OBJECTS, Request, Wanted};

use crate::{
    build::workspace,
    object, root,
    step::{say, step},
    toolchain,
    tools::Consent,
    verify,
};

/// Build the eBPF objects (target/bpf/*.o) and have the kernel verify them
///
/// Needs a Rust toolchain that has its library source, and a bpf-linker with the same LLVM. Takes rustup's
/// if it has both, otherwise Debian's (rustc-web, cargo-web, rust-web-src); says which and why, and offers to
/// install what is missing. As root, also loads each program to have the kernel's verifier check it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which toolchain to use: auto, rustup or debian
    #[arg(long, default_value = "auto", value_name = "NAME", env = "RESPONDER_EBPF_TOOLCHAIN")]
    toolchain: Wanted,
    /// For machines of the other byte order, such as s390x, into target/bpf-big-endian; not loaded here
    #[arg(long)]
    big_endian: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Have the kernel verify the eBPF objects
///
/// Loads each program of target/bpf/*.o, or of the objects given, without attaching it: the kernel's verifier
/// must accept it. Needs root, and goes through sudo for it.
#[derive(clap::Args)]
pub(crate) struct VerifyArguments {
    /// The objects (those of `cargo xtask build-ebpf` if none is given)
    objects: Vec<PathBuf>,
}

/// Runs `cargo xtask build-ebpf`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let consent = Consent::new(arguments.yes);
    if arguments.big_endian {
        let request = Request::of(&workspace(), Endian::Big);
        for path in build(arguments.toolchain, consent, &request)? {
            say(relative(&path));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let objects = build(arguments.toolchain, consent, &Request::new(&workspace()))?;
    if root::is_root() {
        step("kernel verifier", || report(&objects, true))?;
    } else {
        report(&objects, false)?;
        say("kernel verifier: skipped, as it needs root (`cargo xtask verify-ebpf` goes through sudo)");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `cargo xtask verify-ebpf`.
pub(crate) fn verify(arguments: &VerifyArguments) -> Result<ExitCode> {
    root::ensure_root()?;
    let mut objects = arguments.objects.clone();
    if objects.is_empty() {
        let built = Request::new(&workspace()).out;
        objects.extend(OBJECTS.iter().map(|name| built.join(format!("{name}.o"))));
    }
    step("kernel verifier", || report(&objects, true))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the objects as `request` says, with a toolchain that is installed if need be.
///
/// # Errors
///
/// There is no toolchain, or the build fails.
pub(crate) fn build(wanted: Wanted, consent: Consent, request: &Request) -> Result<Vec<PathBuf>> {
    let choice = step("eBPF toolchain", || toolchain::ensure(wanted, consent))?;
    step("eBPF objects", || ebpf_build::build(&choice, request))
}

/// Prints the size of each object and its programs; the verifier's numbers, too, if it is to be asked.
///
/// # Errors
///
/// An object cannot be read, or the kernel refuses a program.
fn report(objects: &[PathBuf], load: bool) -> Result<()> {
    for object in objects {
        let size =
            fs::metadata(object).with_context(|| format!("cannot look at {}", object.display()))?.len();
        let verified = if load { verify::load(object)? } else { BTreeMap::new() };
        say(format!("{} ({} KiB)", relative(object), size.div_ceil(1024)));
        for program in object::programs(object)? {
            let walked = match verified.get(&program.name) {
                Some(Some(walked)) => format!(", verifier processed {walked}"),
                Some(None) => ", verified".to_owned(),
                None => String::new(),
            };
            say(format!(
                "  {:<16} {:<11} {:>5} instructions, {:>3} bytes of stack{walked}",
                program.name, program.section, program.instructions, program.stack
            ));
        }
    }
    Ok(())
}

/// A path as seen from the workspace.
fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}
