//! All that can happen in a small cluster, up to a number of faults and a time.
//!
//! Without faults everything happens at once and in order; time goes from one moment at which a machine wants to be
//! woken to the next. A fault is a choice at any step: a lost request, a lost response, a write that lands at any
//! later time, a watch that stands still for any time, an agent that stands still or dies, a host that starts anew, a
//! Lease that is deleted; a wish to move the first group counts as one, too. What is done again later (landing, going on) may be done at any step.

mod cluster;
mod step;

use std::{fmt, time::Duration};

use stateright::{Checker as _, Model, Property};

use self::cluster::Cluster;

/// A small cluster.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nodes.
    pub nodes: usize,
    /// Claims.
    pub claims: u16,
    /// At most so many faults.
    pub faults: u8,
    /// How long it is looked at.
    pub horizon: Duration,
    /// Whether it begins without any Lease.
    pub cold: bool,
    /// Whether Leases may be deleted.
    pub deletions: bool,
    /// A fault in all machines.
    #[cfg(feature = "flaws")]
    pub flaw: Option<responder_leadership::flaw::Flaw>,
}

impl Bounds {
    /// A cluster with this many nodes, claims and faults, at rest at first, until one node can have taken what another
    /// had.
    #[must_use]
    pub const fn of(nodes: usize, claims: u16, faults: u8) -> Self {
        Self {
            nodes,
            claims,
            faults,
            horizon: Duration::from_millis(1500),
            cold: false,
            deletions: false,
            #[cfg(feature = "flaws")]
            flaw: None,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, claims, faults, horizon, cold, deletions, .. } = self;
        let from = if *cold { "without Leases" } else { "at rest" };
        let kinds = if *deletions { ", deletions among them" } else { "" };
        write!(f, "{nodes} nodes, {claims} claims, {faults} faults{kinds}, {horizon:?}, beginning {from}")
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// How many states there are.
    pub states: usize,
    /// How many of them were come to on several ways, counted each time.
    pub visits: usize,
    /// How many steps the longest way has.
    pub depth: usize,
    /// What must not be, with the way to it.
    pub violation: Option<String>,
    /// What should be possible and was not seen.
    pub unseen: Vec<&'static str>,
}

/// Looks at every state.
#[must_use]
pub fn explore(bounds: Bounds, threads: usize) -> Found {
    let checker = bounds.checker().threads(threads).spawn_dfs().join();
    let mut violation = None;
    for (name, path) in checker.discoveries() {
        if name == ONE {
            let actions: Vec<String> = path.clone().into_actions().iter().map(|a| format!("{a:?}")).collect();
            let last = path.last_state();
            violation = Some(format!("{name}\n{}\n{last:#?}", actions.join("\n")));
        }
    }
    let unseen = SEEN.into_iter().filter(|name| checker.discovery(name).is_none()).collect();
    Found {
        states: checker.unique_state_count(),
        visits: checker.state_count(),
        depth: checker.max_depth(),
        violation,
        unseen,
    }
}

const ONE: &str = "one node at most answers for a VIP";
const SEEN: [&str; 3] =
    ["every VIP is answered", "another node answers for the first VIP", "nobody answers for the first VIP"];

/// Something that can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// What comes next if nothing goes wrong.
    Go,
    /// The same, where nodes have changes to see: this one sees the next one first.
    See(usize),
    /// The request that is about to arrive is lost.
    LoseRequest,
    /// It is executed, and its response is lost.
    LoseResponse,
    /// It is a write, and arrives at some later time.
    Delay,
    /// A delayed write arrives.
    Land(usize),
    /// The watch of a node stands still.
    HoldWatch(usize),
    /// It goes on.
    ReleaseWatch(usize),
    /// An agent stands still.
    Pause(usize),
    /// It goes on.
    Continue(usize),
    /// An agent dies.
    Kill(usize),
    /// A host starts anew, still without its agent.
    Reboot(usize),
    /// An agent starts.
    Start(usize),
    /// An administrator wants the first group to move to a node.
    Move(usize),
    /// The Lease of a claim is deleted.
    DeleteClaim(u16),
    /// The Lease of a session is deleted.
    DeleteSession(usize),
}

impl Model for Bounds {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        vec![Cluster::new(self)]
    }

    fn actions(&self, cluster: &Cluster, actions: &mut Vec<Action>) {
        cluster.actions(self, actions);
    }

    fn next_state(&self, cluster: &Cluster, action: Action) -> Option<Cluster> {
        let mut next = cluster.clone();
        next.act(self, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_, cluster: &Cluster| cluster.answered_once()),
            Property::sometimes(SEEN[0], |_, cluster: &Cluster| {
                cluster.vips().all(|vip| cluster.answerer(vip).is_some())
            }),
            Property::sometimes(SEEN[1], |_, cluster: &Cluster| {
                cluster.answerer(0).is_some_and(|node| Some(node) != cluster.first_answerer())
            }),
            Property::sometimes(SEEN[2], |_, cluster: &Cluster| cluster.answerer(0).is_none()),
        ]
    }

    fn within_boundary(&self, cluster: &Cluster) -> bool {
        cluster.since_begin() <= self.horizon
    }
}
