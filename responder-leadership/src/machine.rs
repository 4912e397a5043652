//! The decisions: stub.

use std::time::Duration;

use crate::{
    event::{Effect, Event, Holdings},
    id::Incarnation,
    settings::Settings,
};

/// What an agent finds that takes over its predecessor's datapath.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// The session that the pinned maps belong to.
    pub incarnation: Incarnation,
    /// What the maps answer for: everything else may have been given away by a write still under way.
    pub answering: Holdings,
}

/// One node's part of the leadership protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Machine {
    settings: Settings,
}

impl Machine {
    /// A machine that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings, _adopted: Option<Adopted>) -> Self {
        Self { settings }
    }

    /// Plants a fault.
    #[cfg(feature = "flaws")]
    #[must_use]
    pub fn with_flaw(self, _flaw: crate::flaw::Flaw) -> Self {
        self
    }

    /// Takes note of an event at `now` (CLOCK_BOOTTIME) and decides.
    pub fn handle(&mut self, _now: Duration, _event: Event) -> Vec<Effect> {
        Vec::new()
    }

    /// When [`Event::Tick`] must be told at the latest, if nothing else is.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        None
    }

    /// Settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
