//! Where the build puts what the lab uses.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

/// An eBPF object: `$RESPONDER_BPF_DIR/NAME`, otherwise `target/bpf/NAME`.
///
/// # Errors
///
/// If it is not there; the message says how it gets there.
pub fn object(name: &str) -> Result<PathBuf> {
    let dir = env::var_os("RESPONDER_BPF_DIR").map_or_else(|| target().join("bpf"), PathBuf::from);
    let path = dir.join(name);
    ensure!(path.exists(), "no {}: build it with `cargo xtask build-ebpf`", path.display());
    Ok(path)
}

/// The agent's binary: `$RESPONDER_BIN`, otherwise `responder` in the directory of the running program or the one
/// above (tests run in `deps`).
///
/// # Errors
///
/// If it is not there; the message says how it gets there.
pub fn responder() -> Result<PathBuf> {
    if let Some(path) = env::var_os("RESPONDER_BIN") {
        return Ok(path.into());
    }
    beside("responder").context("build it with `cargo build -p responder-user`, or name it in RESPONDER_BIN")
}

/// This package's own program, in the same places.
///
/// # Errors
///
/// If it is not there; the message says how it gets there.
pub(crate) fn lab() -> Result<PathBuf> {
    beside("responder-lab").context("build it with `cargo build -p responder-lab`")
}

fn beside(name: &str) -> Result<PathBuf> {
    let exe = env::current_exe().context("the running program's path")?;
    match exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file()) {
        Some(path) => Ok(path),
        None => bail!("no `{name}` beside {}", exe.display()),
    }
}

/// The directory of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
