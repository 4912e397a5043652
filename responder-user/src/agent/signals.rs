//! The signals that the agent heeds.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the agent heeds.
pub(super) struct Signals {
    pub(super) end: EndSignals,
    /// Asks to read the file again.
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
