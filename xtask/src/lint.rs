//! `cargo xtask lint`

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use ebpf_build::{Endian, Wanted, target_dir};

use crate::{
    build::{cargo, workspace},
    others, sources,
    step::{say, step},
    toolchain,
    tools::{self, Consent, run as execute},
    total::Total,
};

/// Check the form of everything: formatting, lints, documentation, licences, sizes
///
/// Needs the toolchain for the eBPF objects, as the agent embeds them, and cargo-deny for the dependencies'
/// licences and advisories. What cannot be checked here is named as skipped above the total.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install cargo-deny if it is missing (it takes some minutes to build)
    #[arg(long)]
    install: bool,
    /// Install a missing eBPF toolchain without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut total = Total::default();
    let host = ["--workspace", "--exclude", "responder-ebpf"];
    if works(cargo().args(["fmt", "--version"])) {
        check(&mut total, "formatting", || execute(cargo().args(["fmt", "--all", "--check"])));
    } else {
        total.skipped("formatting", "this toolchain has no rustfmt: rustup component add rustfmt");
    }
    check(&mut total, "file lengths", sources::lengths);
    check(&mut total, "paths of machines", sources::machine_paths);

    let choice = step("eBPF toolchain", || toolchain::ensure(Wanted::Auto, Consent::new(arguments.yes)))?;
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    if works(cargo().args(["clippy", "--version"])) {
        check(&mut total, "clippy", || execute(cargo().arg("clippy").args(host).args(clippy)));
    } else {
        total.skipped("clippy", "this toolchain has no clippy: rustup component add clippy");
    }
    let bin = choice.compiler.sysroot.join("bin");
    if bin.join("cargo-clippy").is_file() {
        check(&mut total, "clippy of the eBPF crate", || {
            let mut command = ebpf_build::cargo(&choice, &workspace());
            command.env("PATH", first_on_path(bin)?);
            command.args(["clippy", "--release", "--package", "responder-ebpf", "--lib", "--bins"]);
            command.args(["-Z", "build-std=core", "--target", Endian::Little.target(), "--target-dir"]);
            command.arg(target_dir(&workspace()).join("ebpf")).args(["--", "-D", "warnings"]);
            execute(&mut command)
        });
    } else {
        let reason = format!("{} has no clippy (with Debian: rust-web-clippy)", choice.compiler);
        total.skipped("clippy of the eBPF crate", reason);
    }
    check(&mut total, "eBPF objects for big-endian machines", || others::big_endian(&choice));
    match others::aarch64(Consent::new(arguments.yes)) {
        Ok(mut command) => check(&mut total, "agent for aarch64", || execute(&mut command)),
        Err(reason) => total.skipped("agent for aarch64", format!("{reason:#}")),
    }
    check(&mut total, "documentation", || {
        // For those who work on it: nothing here is a library for others.
        let private = ["--no-deps", "--document-private-items"];
        execute(cargo().arg("doc").args(host).args(private).env("RUSTDOCFLAGS", "-D warnings"))
    });
    check(&mut total, "no planted faults in the agent", no_flaws);
    dependencies(&mut total, arguments.install);
    println!("{total}");
    Ok(if total.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whoever builds the agent must not get what lets tests plant faults into its decisions.
fn no_flaws() -> Result<()> {
    let output = cargo().args(["tree", "--edges", "features", "--package", "responder-user"]).output()?;
    let tree = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !tree.contains("responder-leadership") {
        bail!("`cargo tree` does not show that the agent has the leadership machine: {}", output.status);
    }
    match tree.lines().find(|line| line.contains("\"flaws\"")) {
        Some(line) => bail!("responder-user is built with {}", line.trim()),
        None => Ok(()),
    }
}

/// Licences, sources and duplicates of the dependencies, and advisories about them.
fn dependencies(total: &mut Total, install: bool) {
    let names = ["licences of dependencies", "advisories about dependencies"];
    if install && tools::on_path("cargo-deny").is_none() {
        let installed = step("cargo-deny", || execute(cargo().args(["install", "--locked", "cargo-deny"])));
        if let Err(error) = installed {
            say(format!("{error:#}"));
        }
    }
    if !works(cargo().args(["deny", "--version"])) {
        for name in names {
            total.skipped(name, "needs cargo-deny: cargo xtask lint --install");
        }
        return;
    }
    check(total, names[0], || execute(cargo().args(["deny", "check", "licenses", "bans", "sources"])));
    // Its database comes from the network; without it there is nothing to say.
    if works(cargo().args(["deny", "fetch", "db"])) {
        check(total, names[1], || execute(cargo().args(["deny", "check", "--disable-fetch", "advisories"])));
    } else {
        total.skipped(names[1], "the advisory database cannot be fetched");
    }
}

fn check(total: &mut Total, name: &str, run: impl FnOnce() -> Result<()>) {
    match step(name, run) {
        Ok(()) => total.passed(),
        Err(error) => {
            say(format!("{error:#}"));
            total.failed(name);
        }
    }
}

/// Whether a command ends well; what it prints is not shown.
fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn first_on_path(dir: PathBuf) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").context("PATH is not set")?;
    let Ok(path) = env::join_paths(std::iter::once(dir).chain(env::split_paths(&path))) else {
        bail!("PATH cannot be extended");
    };
    Ok(path)
}
