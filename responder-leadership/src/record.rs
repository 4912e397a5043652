//! What `responder run --record` writes, so that every decision can be reproduced: one [`Begin`], then [`Entry`]s, a
//! line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Effect, Event},
    machine::{Adopted, Machine},
    settings::Settings,
};

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// The machine's settings.
    pub settings: Settings,
    /// What it took over.
    pub adopted: Option<Adopted>,
}

/// Every other line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// CLOCK_BOOTTIME.
    pub at: Duration,
    /// What the machine was told.
    pub event: Event,
    /// What it decided.
    pub effects: Vec<Effect>,
}

/// A machine that goes through a record.
#[derive(Clone, Debug)]
pub struct Replay {
    machine: Machine,
}

impl Replay {
    /// Begins.
    #[must_use]
    pub fn new(begin: Begin) -> Self {
        Self { machine: Machine::new(begin.settings, begin.adopted) }
    }

    /// What this machine decides where the recorded one was at `entry`.
    pub fn step(&mut self, entry: &Entry) -> Vec<Effect> {
        self.machine.handle(entry.at, entry.event.clone())
    }

    /// The machine as it is now.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}
