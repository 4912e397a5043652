//! What needs root, and how to get it.

use std::{env, ffi::OsStr, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::Uid,
};

use crate::{step::say, tools::on_path};

/// Where the kernel's BPF file system belongs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A command that runs `program` as root: itself, or through sudo with the variables in `environment`.
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
    if on_path("sudo").is_none() {
        bail!(
            "`{}` needs root, and there is no sudo: run this as root",
            program.as_ref().display()
        );
    }
    let mut command = Command::new("sudo");
    command.arg("env");
    // sudo resets these, however it is configured.
    for name in ["PATH", "HOME"] {
        if let Some(value) = env::var_os(name) {
            command.arg(assignment(name, &value));
        }
    }
    command.args(environment.iter().map(|(name, value)| assignment(name, value)));
    command.arg(program);
    Ok(command)
}

fn assignment(name: &str, value: &OsStr) -> std::ffi::OsString {
    let mut assignment = std::ffi::OsString::from(name);
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// Makes sure that a BPF file system is mounted on [`BPFFS`]; says so if it mounts one. As root only.
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
    let nothing: Option<&Path> = None;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing)
        .with_context(|| format!("cannot mount a BPF file system on {BPFFS}"))
}
