//! A static program: no library of the image's is needed, so that there need be none.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use ebpf_build::Wanted;
use object::{
    Endianness, elf,
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::{
    build::{cargo, executables_of, workspace},
    step::say,
    toolchain,
    tools::{self, Consent, on_path, run, shown},
};

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "image";

/// What a program is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// Also known as amd64.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// Also known as arm64.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// This machine's.
    ///
    /// # Errors
    ///
    /// It is none of these.
    pub(super) fn here() -> Result<Self> {
        let here = env::consts::ARCH;
        let found = [Self::X86_64, Self::Aarch64].into_iter().find(|arch| arch.name() == here);
        found.with_context(|| format!("there is no image for {here}, what this machine is; name an --arch"))
    }

    /// As the kernel calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As images call it.
    pub(super) const fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// What the compiler builds for: with musl, since glibc looks names up with libraries that are not in the program.
    pub(super) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The C compiler for `ring`, and its Debian packages.
    fn c_compiler(self) -> (&'static str, &'static [&'static str]) {
        match self {
            _ if Self::here().is_ok_and(|here| here == self) => ("musl-gcc", &["gcc", "musl-tools"]),
            Self::X86_64 => ("x86_64-linux-gnu-gcc", &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]),
            Self::Aarch64 => ("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
        }
    }

    const fn machine(self) -> u16 {
        match self {
            Self::X86_64 => elf::EM_X86_64,
            Self::Aarch64 => elf::EM_AARCH64,
        }
    }
}

/// Builds it and returns where it is.
///
/// # Errors
///
/// What is missing may not or cannot be installed, or the build fails.
pub(super) fn build(arch: Arch, consent: Consent) -> Result<PathBuf> {
    // The agent embeds the eBPF objects.
    toolchain::ensure(Wanted::Auto, consent)?;
    let sysroot = library(arch, consent)?;
    let (compiler, packages) = arch.c_compiler();
    if on_path(compiler).is_none() {
        tools::install(packages, consent)?;
    }
    let variable = arch.target().replace('-', "_");
    let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
    let maps = path_maps(&sysroot)?;
    let flag = |begin: &str, (from, to): &(PathBuf, &str)| {
        let parts: [&OsStr; 4] = [begin.as_ref(), from.as_os_str(), "=".as_ref(), to.as_ref()];
        parts.into_iter().collect::<OsString>()
    };
    let rust: Vec<_> = maps.iter().map(|map| flag("--remap-path-prefix=", map)).collect();
    let c: Vec<_> = maps.iter().map(|map| flag("-ffile-prefix-map=", map)).collect();

    let mut command = cargo();
    command.args(["build", "--locked", "--profile", PROFILE, "--target", arch.target()]);
    command.args(["--package", "responder-user", "--bin", "responder"]);
    command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", rust.join(OsStr::new("\x1f")));
    command
        .env(format!("CC_{variable}"), compiler)
        .env(format!("CFLAGS_{variable}"), c.join(OsStr::new(" ")));
    if compiler != "musl-gcc" {
        // The compiler's own start files and libc are used; this only links them.
        command.env(linker, compiler);
    }
    let built = executables_of(&mut command)?;
    built.into_iter().map(|executable| executable.path).next().context("cargo built no agent")
}

/// Where the compiler is, whose library for this target is installed if it is missing.
fn library(arch: Arch, consent: Consent) -> Result<PathBuf> {
    let sysroot = sysroot()?;
    let there = || sysroot.join("lib/rustlib").join(arch.target()).join("lib").is_dir();
    if !there() {
        ensure!(
            on_path("rustup").is_some(),
            "{} has no library for {}, and there is no rustup to get it by: install Rust by rustup",
            sysroot.display(),
            arch.target()
        );
        let mut command = Command::new("rustup");
        command.current_dir(workspace()).args(["target", "add", arch.target()]);
        consent
            .obtain(&format!("Rust's library for {}", arch.target()), &format!("  {}", shown(&command)))?;
        run(&mut command)?;
        ensure!(there(), "`{}` has put nothing into {}", shown(&command), sysroot.display());
    }
    Ok(sysroot)
}

fn sysroot() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).current_dir(workspace()).args(["--print", "sysroot"]).output();
    let output = output.context("cannot run rustc")?;
    let sysroot = String::from_utf8(output.stdout).context("rustc's path is not UTF-8")?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// This machine's paths, which would be in the program, and what stands there in their place. The last that fits counts.
fn path_maps(sysroot: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cargo = set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")));
    let cargo = cargo.context("neither CARGO_HOME nor HOME is set")?;
    Ok(vec![(cargo, "/cargo"), (sysroot.join("lib/rustlib/src/rust"), "/rust"), (workspace(), ".")])
}

/// Fails unless this is a static program for an architecture.
///
/// # Errors
///
/// It is not.
pub(super) fn check(program: &[u8], arch: Arch) -> Result<()> {
    let header =
        elf::FileHeader64::<Endianness>::parse(program).context("the program is no 64-bit ELF file")?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    ensure!(machine == arch.machine(), "the program is for ELF machine {machine}, not for {}", arch.name());
    let mut interpreter = String::new();
    for part in header.program_headers(endian, program)? {
        if let Some(path) = part.interpreter(endian, program)? {
            write!(interpreter, "{}", String::from_utf8_lossy(path))?;
        }
    }
    if !interpreter.is_empty() {
        bail!("the program is not static: it needs {interpreter}, which the image does not have");
    }
    say(format!("a static program for {}", arch.name()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_not_static_or_for_another_machine_is_refused() {
        let error = |program: &[u8], arch| format!("{:#}", check(program, arch).unwrap_err());
        assert!(error(b"#!/bin/sh", Arch::X86_64).contains("no 64-bit ELF"));
        // This test is linked with glibc.
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        let here = Arch::here().unwrap();
        assert!(error(&own, here).contains("not static: it needs /"));
        let other = if here == Arch::X86_64 { Arch::Aarch64 } else { Arch::X86_64 };
        assert!(error(&own, other).contains(&format!("not for {}", other.name())));
    }
}
