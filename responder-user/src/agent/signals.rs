//! The signals that the agent heeds, also while it waits for another agent to end.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::datapath::pins::{Lock, Pins};

/// Takes the agent's lock, waiting for another agent to end. `None`: told to end meanwhile.
pub(super) async fn take_lock(pins: &Pins, signals: &mut Signals) -> Result<Option<Lock>> {
    if let Ok(lock) = pins.try_lock() {
        return Ok(Some(lock));
    }
    tracing::info!(
        bpffs = %pins.root().display(),
        "another agent runs here; waiting for its end to take over"
    );
    let waiting = pins.clone();
    let wait = tokio::task::spawn_blocking(move || waiting.wait_for_lock());
    tokio::select! {
        lock = wait => Ok(Some(lock.context("waiting for the lock")??)),
        () = signals.end.recv() => {
            // The thread that waits cannot be told; it ends with the process.
            std::process::exit(0);
        }
    }
}

/// The signals that the agent heeds.
pub(super) struct Signals {
    pub(super) end: EndSignals,
    pub(super) hangup: Signal,
}

/// The signals that ask the agent to end.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// Waits for one.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
