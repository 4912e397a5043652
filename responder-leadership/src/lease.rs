//! What the Leases say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{NodeName, SessionId};

/// Whether a session may hold anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Its agent renews it.
    Live,
    /// Released by its agent, or revoked by another node's. What it held is free.
    Ended {
        /// The node that wrote this.
        by: NodeName,
    },
}

/// Whether a node should hold anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    /// Yes.
    Fit,
    /// Only while no fit node lives; with the reason.
    LastResort(String),
    /// No; with the reason.
    Unfit(String),
}

/// Which addresses a node can announce on its links.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// All.
    Any,
    /// Those that one of these prefixes covers.
    Prefixes(BTreeSet<IpNet>),
}

impl Reach {
    /// Whether `address` can be announced.
    #[must_use]
    pub fn covers(&self, address: &IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(address)),
        }
    }

    /// Whether nothing can be announced.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Prefixes(prefixes) if prefixes.is_empty())
    }
}

/// A node's heartbeat.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    pub id: SessionId,
    /// Live or ended.
    pub state: SessionState,
    /// How long an observer must have seen no change before it may revoke this.
    pub duration: Duration,
    /// Grows with every write of this incarnation, so that its agent knows its own writes again.
    pub renewal: u64,
    /// Which datapath answers for it: the identity of the pinned maps.
    pub datapath: String,
    /// Whether the node should hold anything.
    pub fitness: Fitness,
    /// What the node can announce.
    pub reach: Reach,
}

/// Who holds a group of VIPs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The group's holder; `None`: free.
    pub holder: Option<SessionId>,
    /// VIPs of the group that someone else holds.
    pub exceptions: BTreeMap<IpAddr, SessionId>,
    /// Who wrote this, and a number that grows with each of its writes.
    ///
    /// The API server does not store an update that changes nothing, and a version that stays does not stop a
    /// late write. So every write must differ from the one before.
    pub written: (SessionId, u64),
}

/// What a [`crate::event::Effect::Write`] writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A session.
    Session(Session),
    /// A claim.
    Claim(Claim),
}

/// What was found where a Lease should be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen<T> {
    /// Nothing.
    Absent,
    /// Something that cannot be understood, and why.
    Bad(String),
    /// This.
    Good(T),
}

impl<T> Seen<T> {
    /// The content, if it could be understood.
    #[must_use]
    pub const fn good(&self) -> Option<&T> {
        match self {
            Self::Good(content) => Some(content),
            Self::Absent | Self::Bad(_) => None,
        }
    }
}
