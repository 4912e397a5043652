//! What the machine is told, and what it wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Group, Incarnation, NodeName, Object, SessionId, Version},
    lease::{Claim, Content, Fitness, Reach, Seen, Session},
};

/// How a Lease was seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// By the watch, which shows everything in the order in which it was written.
    Watch,
    /// By the list that a watch begins with. It has an order of its own: what was written before an object that is seen
    /// may come after it, until [`Event::Synced`].
    List,
    /// By reading this one object.
    Read,
}

/// How a write ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done; the object has this version now.
    Done(Version),
    /// Certainly not done: the object has another version, exists already, or does not exist any more.
    Conflict,
    /// Certainly not done, for this reason (forbidden, invalid, too many requests).
    Refused(String),
    /// Perhaps done: no answer in time, a broken connection, an error of the server.
    Unknown(String),
}

/// Which nodes may answer for a VIP, as far as its Services are concerned.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eligible {
    /// All.
    Any,
    /// These.
    Only(Arc<BTreeSet<NodeName>>),
}

impl Eligible {
    /// Whether `node` may.
    #[must_use]
    pub fn includes(&self, node: &NodeName) -> bool {
        match self {
            Self::Any => true,
            Self::Only(nodes) => nodes.contains(node),
        }
    }
}

/// Something the machine is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A session as it is at a version. Absent: with the version at which it was last known.
    Session {
        /// Whose.
        node: NodeName,
        /// Its version.
        version: Version,
        /// What it says.
        seen: Seen<Session>,
        /// How it was seen.
        via: Via,
    },
    /// A claim, likewise.
    Claim {
        /// Which.
        group: Group,
        /// Its version.
        version: Version,
        /// What it says.
        seen: Seen<Claim>,
        /// How it was seen.
        via: Via,
    },
    /// A list of all Leases is complete: every object was told that was in it, and the absence of every other that
    /// had been told before. Later changes follow by the watch.
    Synced {
        /// Before the list was asked for.
        listed_at: Duration,
    },
    /// How a write ended.
    Written {
        /// Its number.
        write: u64,
        /// How.
        outcome: Outcome,
    },
    /// A read ended without an answer.
    Unread {
        /// Of what.
        object: Object,
    },
    /// VIPs that came, changed (with the nodes that may answer) or went (`None`).
    Demand(Vec<(IpAddr, Option<Eligible>)>),
    /// What can be said of this node.
    Local {
        /// Whether it should hold anything.
        fitness: Fitness,
        /// What it can announce.
        reach: Reach,
    },
    /// The nodes that should have an agent.
    Expected(BTreeSet<NodeName>),
    /// The longest lease duration in the cluster.
    Longest(Duration),
    /// An administrator wants a group to move.
    Move {
        /// Which.
        group: Group,
        /// Where to.
        to: NodeName,
    },
    /// Hand everything over and end.
    Stop,
    /// Time has passed.
    Tick,
}

/// What this node answers for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Holdings {
    /// Groups held.
    pub groups: BTreeSet<Group>,
    /// VIPs held as exceptions.
    pub exceptions: BTreeSet<IpAddr>,
    /// Of every group, held or not: the VIPs that do not follow it here, because someone else holds them or this
    /// node may not answer for them. Groups without any are not in it.
    pub silent: BTreeMap<Group, Arc<BTreeSet<IpAddr>>>,
}

/// Something the machine wants done. Effects are done in their order, each before the next.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Make the datapath answer for this and nothing else: what is lost first, then what is gained.
    ///
    /// If what is lost cannot be written, the deadline must be set to zero before anything else is done.
    Answer(Arc<Holdings>),
    /// Set the deadline (CLOCK_BOOTTIME).
    Deadline(Duration),
    /// Lower the deadline to this if it lies later.
    DeadlineAtMost(Duration),
    /// Create (no base) or update an object, if it still has the version `base`. The outcome is told by
    /// [`Event::Written`], at the latest after [`crate::settings::Times::request_timeout`].
    Write {
        /// Number for [`Event::Written`].
        id: u64,
        /// What.
        object: Object,
        /// The version that it must have; `None`: it must not exist.
        base: Option<Version>,
        /// What to write.
        content: Content,
        /// Whether this renews a session (in time, on the connection kept for that).
        renewal: bool,
    },
    /// Read an object, and tell it (absent: with version `known`), or [`Event::Unread`].
    Read {
        /// What.
        object: Object,
        /// The version that is known.
        known: Version,
    },
    /// Something an operator should know.
    Tell(Note),
    /// The machine has ended as it was told to.
    Finished,
}

/// Something an operator should know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// A new incarnation.
    SessionStarted {
        /// Which.
        incarnation: Incarnation,
    },
    /// The session of the agent before this one goes on.
    SessionAdopted {
        /// Which.
        incarnation: Incarnation,
    },
    /// The session is not ours any more; nothing is answered.
    SessionLost {
        /// Why.
        reason: String,
    },
    /// Renewals do not come back by the watch: the session was given up.
    WatchStale,
    /// Someone else uses this node's name.
    NameInUse {
        /// Its datapath.
        datapath: String,
    },
    /// A renewal failed.
    RenewalFailed {
        /// Why.
        reason: String,
        /// How many in a row.
        failures: u32,
    },
    /// The session of a node that did not renew it was revoked.
    Revoked {
        /// Whose.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// A group was taken.
    Took {
        /// Which.
        group: Group,
        /// Who had it.
        from: Option<SessionId>,
    },
    /// A group was given to this node.
    Received {
        /// Which.
        group: Group,
        /// Who had it.
        from: Option<SessionId>,
    },
    /// A group was given away.
    HandedOver {
        /// Which.
        group: Group,
        /// Who has it now; `None`: free.
        to: Option<SessionId>,
        /// Why.
        reason: String,
    },
    /// Single VIPs were given to other nodes.
    Excepted {
        /// Their group.
        group: Group,
        /// Which, and who has them now (`None`: the group's holder).
        vips: BTreeMap<IpAddr, Option<SessionId>>,
    },
    /// A group is not held any more, without having been given away.
    GroupLost {
        /// Which.
        group: Group,
        /// Why.
        reason: String,
    },
    /// A Lease that cannot be understood: it counts as nobody's.
    BadLease {
        /// Which.
        object: Object,
        /// What is wrong.
        reason: String,
    },
    /// The API server refused a write.
    WriteRefused {
        /// Of what.
        object: Object,
        /// Why.
        reason: String,
    },
    /// A move that an administrator wants cannot be done.
    MoveRefused {
        /// Which group.
        group: Group,
        /// Why.
        reason: String,
    },
}
