//! `responder detach`: removing every trace.

use std::{os::unix::net::UnixStream, path::Path};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    control,
    datapath::{
        egress,
        object::is_ours,
        pins::{Pins, names},
        xdp,
    },
};

/// Detaches all programs and removes all pins below `bpffs`, and the control socket.
///
/// # Errors
///
/// If an agent runs there, or the kernel refuses.
pub fn run(bpffs: &Path, run_dir: &Path) -> Result<()> {
    let Some(pins) = Pins::existing(bpffs)? else {
        eprintln!("nothing is pinned at {}", bpffs.display());
        return Ok(());
    };
    let lock = pins.try_lock()?;
    let interfaces = nix::net::if_::if_nameindex().context("cannot list the interfaces")?;
    let mut detached = 0;
    for interface in &interfaces {
        let index = interface.index();
        let name = interface.name().to_string_lossy();
        let mut found = pins.xdp_link(index).exists()
            || xdp::query(index)?.is_some_and(|x| is_ours(&pins, "xdp", x.prog_id));
        if found {
            xdp::detach(&pins, index)?;
        }
        // It may be there without the other, where somebody else's XDP program is, and a filter leaves no pin.
        found |= egress::detach(&pins, index, Some(&name))?;
        if found {
            eprintln!("detached from {name}");
            detached += 1;
        }
    }
    pins.remove()?;
    drop(lock);
    let socket = control::socket_path(run_dir);
    // An agent with other pins may be the one that listens there.
    if UnixStream::connect(&socket).is_ok() {
        eprintln!("left {}: another agent listens there", socket.display());
        eprintln!("removed {} ({detached} interfaces)", bpffs.display());
        return Ok(());
    }
    if socket.exists() {
        std::fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display()))?;
    }
    if names(run_dir).is_empty() && run_dir.is_dir() {
        std::fs::remove_dir(run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    }
    eprintln!("removed {} ({detached} interfaces)", bpffs.display());
    Ok(())
}

/// Waits until somebody asks this process to end.
///
/// # Errors
///
/// If signals cannot be waited for.
pub async fn stay() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    eprintln!("nothing is left here; waiting for a signal");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
