//! What people are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::{
    id::{Group, NodeName, Object, SessionId},
    lease::{Fitness, Reach},
};

/// What a machine holds and waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The session that is ours now.
    pub session: Option<SessionId>,
    /// Until when the datapath may answer (CLOCK_BOOTTIME), as last said; `None`: nothing was said yet.
    pub deadline: Option<Duration>,
    /// Groups held.
    pub groups: BTreeSet<Group>,
    /// VIPs held as exceptions.
    pub exceptions: BTreeSet<IpAddr>,
    /// Whether this node should hold anything.
    pub fitness: Fitness,
    /// What it can announce.
    pub reach: Reach,
    /// Whether a first list of all Leases is complete; until then nothing is decided.
    pub synced: bool,
    /// Whether everything is being handed over, to end.
    pub stopping: bool,
    /// Groups whose holder or exceptions may have to change.
    pub unsettled: BTreeSet<Group>,
    /// Objects with a write under way.
    pub writing: BTreeSet<Object>,
    /// Objects with a write that may or may not have happened.
    pub doubtful: BTreeSet<Object>,
    /// Objects with a write that failed, and how often in a row.
    pub failing: BTreeMap<Object, u32>,
    /// Moves that an administrator has asked for and that are not done.
    pub moves: BTreeMap<Group, NodeName>,
}

impl Machine {
    /// What it holds and waits for.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let answered = self.answered.as_deref();
        Overview {
            session: self.session(),
            deadline: self.deadline,
            groups: answered.map(|holdings| holdings.groups.clone()).unwrap_or_default(),
            exceptions: answered.map(|holdings| holdings.exceptions.clone()).unwrap_or_default(),
            fitness: self.fitness.clone(),
            reach: self.reach.clone(),
            synced: self.synced_at.is_some(),
            stopping: self.stopping.is_some(),
            unsettled: self.unsettled.clone(),
            writing: self.pending.keys().cloned().collect(),
            doubtful: self.doubts.keys().cloned().collect(),
            failing: self.retries.iter().map(|(object, retry)| (object.clone(), retry.failures)).collect(),
            moves: self.moves.clone(),
        }
    }
}
