//! Builds the eBPF objects and puts them where the agent embeds them from.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use ebpf_build::{Endian, OBJECTS, Request, Survey, Wanted, build, choose};

/// Forces a toolchain: `auto`, `rustup` or `debian`.
const TOOLCHAIN: &str = "RESPONDER_EBPF_TOOLCHAIN";

fn main() -> ExitCode {
    let Err(error) = run() else {
        return ExitCode::SUCCESS;
    };
    // Cargo shows such a line as an error of its own; a returned error would come with a backtrace.
    for line in format!("{error:#}").lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn run() -> Result<()> {
    let manifest = env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let out = env::var("OUT_DIR").context("OUT_DIR is not set")?;
    let workspace = Path::new(&manifest).parent().context("the package is not in the workspace")?;
    let wanted = env::var(TOOLCHAIN).unwrap_or_else(|_| "auto".into());
    let wanted: Wanted = wanted.parse().map_err(|error| anyhow!("{TOOLCHAIN}: {error}"))?;
    let choice = choose(&Survey::take(), wanted)
        .map_err(|none| anyhow!("{none}\nto see what is missing and install it: cargo xtask build-ebpf"))?;
    // The kernel's byte order is the agent's.
    let endian = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => Endian::Big,
        _ => Endian::Little,
    };
    let objects = build(&choice, &Request { verbose: false, ..Request::of(workspace, endian) })?;
    for (name, object) in OBJECTS.iter().zip(objects) {
        let copy = Path::new(&out).join(format!("{name}.o"));
        fs::copy(&object, &copy)
            .with_context(|| format!("cannot copy {} to {}", object.display(), copy.display()))?;
    }

    // Last: a script that fails is run again anyhow, and cargo would show these lines with the error.
    for source in [
        "responder-ebpf/src",
        "responder-ebpf/Cargo.toml",
        "responder-common/src",
        "responder-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        changes_with(&workspace.join(source));
    }
    println!("cargo::rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    for tool in [&choice.linker.path, &choice.compiler.rustc(), &choice.compiler.source()] {
        changes_with(tool);
    }
    Ok(())
}

fn changes_with(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
