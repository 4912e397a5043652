//! What needs root, and how to get it.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::Uid,
};

use crate::{
    step::say,
    tools::{self, on_path},
};

/// Where the kernel's BPF file system belongs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whether [`command`] can work: this is root, or there is sudo.
pub(crate) fn is_possible() -> bool {
    is_root() || on_path("sudo").is_some()
}

/// A command that runs `program` as root: as it is, or through sudo, which may ask for a password. Its
/// environment is this process's (what sudo would drop, too, if it is of use here) and `environment`.
///
/// # Errors
///
/// Not root, and there is no sudo.
pub(crate) fn command(program: impl AsRef<OsStr>, environment: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        return Ok(command);
    }
    if !is_possible() {
        bail!("`{}` needs root, and there is no sudo: run this as root", program.as_ref().display());
    }
    let mut command = Command::new("sudo");
    command.arg("env");
    let kept = env::vars_os().filter(|(name, _)| survives_sudo(&name.to_string_lossy()));
    command.args(kept.map(|(name, value)| assignment(&name, &value)));
    command.args(environment.iter().map(|(name, value)| assignment(name.as_ref(), value)));
    command.arg(program);
    Ok(command)
}

/// What would be lost or replaced by sudo, however it is configured.
fn survives_sudo(name: &str) -> bool {
    const KEPT: [&str; 6] = ["PATH", "HOME", "TERM", "CI", "NO_COLOR", "LANG"];
    const KEPT_PREFIXES: [&str; 4] = ["CARGO", "RUST", "RESPONDER_", "XDG_CACHE_HOME"];
    KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn assignment(name: &OsStr, value: &OsStr) -> OsString {
    [name, OsStr::new("="), value].into_iter().collect()
}

/// Goes on as root: starts this program anew through sudo with the same arguments unless it is root. What is
/// built should be built before, so that it belongs to whoever called.
///
/// # Errors
///
/// There is no sudo, or it cannot be started.
pub(crate) fn ensure_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let program = env::current_exe().context("cannot find this program's own file")?;
    say("this needs root: going on through sudo");
    let error = command(program, &[])?.args(env::args_os().skip(1)).exec();
    Err(anyhow!("cannot start sudo: {error}"))
}

/// Makes sure that a BPF file system is mounted on [`BPFFS`]; says so if it mounts one.
///
/// # Errors
///
/// It cannot be mounted: the kernel has none, or this is a container without the right to mount.
pub(crate) fn ensure_bpffs() -> Result<()> {
    let mounted = statfs(BPFFS).with_context(|| format!("cannot look at {BPFFS}"))?;
    if mounted.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    say(format!("mounting a BPF file system on {BPFFS}"));
    tools::run(command("mount", &[])?.args(["-t", "bpf", "bpf", BPFFS]))
}
