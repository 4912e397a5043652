//! A host: its datapath, its clock, its agent, its ways to the API server.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use responder_leadership::{
    event::{Effect, Event, Holdings},
    id::{Incarnation, Object, Version},
    lease::{Fitness, Reach},
    machine::Machine,
    settings::Times,
};

use crate::clock::{Clock, Instant};

/// The pinned maps, which outlive the agent.
#[derive(Clone, Debug)]
pub(crate) struct Maps {
    pub(crate) datapath: String,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) holdings: Arc<Holdings>,
    /// The VIPs that are answered while the deadline lies ahead, one bit each.
    pub(crate) on: u64,
    /// The deadline as it was written.
    pub(crate) deadline: Duration,
    /// The same as an instant.
    pub(crate) until: Instant,
}

impl Maps {
    pub(crate) fn new(datapath: String) -> Self {
        Self {
            datapath,
            incarnation: None,
            holdings: Arc::default(),
            on: 0,
            deadline: Duration::ZERO,
            until: 0,
        }
    }

    /// What is answered at `t`.
    pub(crate) fn answering(&self, t: Instant) -> u64 {
        if t < self.until { self.on } else { 0 }
    }
}

/// The stream of changes that an agent follows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// Whether it follows, or still has to list.
    pub(crate) follows: bool,
    /// Which stream: what belongs to an earlier one is not told.
    pub(crate) stream: u32,
    /// The next change of the log to send.
    pub(crate) next: usize,
    /// When the last one sent arrives.
    pub(crate) last: Instant,
    /// What could not arrive because the connection is cut.
    pub(crate) stalled: VecDeque<usize>,
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) machine: Machine,
    /// What is still to be done of the last decision.
    pub(crate) effects: VecDeque<Effect>,
    /// What came in the meantime, and whether it came by the watch.
    pub(crate) backlog: VecDeque<(Event, bool)>,
    /// What is known of each Lease by whatever way: the latest version.
    pub(crate) told: BTreeMap<Object, Version>,
    pub(crate) watch: Watch,
    /// The instant of the next [`Event::Tick`] that is scheduled.
    pub(crate) wake: Option<Instant>,
    /// How often it was woken at `spun.0`.
    pub(crate) spun: (Instant, u32),
    pub(crate) stopping: Option<Instant>,
}

/// What of a host's ways to the API server does not work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ways {
    pub(crate) requests: bool,
    pub(crate) responses: bool,
    pub(crate) watch: bool,
    /// Further delay of a request, up to this, in ns.
    pub(crate) slow: u64,
    /// Further delay of the watch, up to this, in ns.
    pub(crate) lag: u64,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its node, as an index. Two hosts may think that they are the same.
    pub(crate) node: usize,
    pub(crate) label: String,
    pub(crate) clock: Clock,
    /// Its wall clock at the beginning, in ms since 1970.
    pub(crate) wall: u64,
    pub(crate) times: Times,
    pub(crate) maps: Option<Maps>,
    /// How many datapaths it has had.
    pub(crate) datapaths: u32,
    pub(crate) agent: Option<Agent>,
    /// Grows with each agent: what belongs to an earlier one is not told.
    pub(crate) generation: u32,
    pub(crate) paused: bool,
    pub(crate) ways: Ways,
    pub(crate) fitness: Fitness,
    pub(crate) reach: Reach,
    /// When the last change of Services reaches it that is under way.
    pub(crate) services_at: Instant,
    /// Whether it should have an agent when the faults are over.
    pub(crate) wanted: bool,
}

impl Host {
    pub(crate) fn answering(&self, t: Instant) -> u64 {
        self.maps.as_ref().map_or(0, |maps| maps.answering(t))
    }
}
