//! What is known of an address.

use std::net::IpAddr;

use responder_leadership::id::NodeName;
use serde::Deserialize;

use crate::{
    control::AgentStatus,
    overview::{self, ClusterView},
    status::{FenceStatus, PinnedLinkStatus, Status, VipStatus},
};

/// All of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The address.
    pub address: IpAddr,
    /// What the cluster says; `None`: this is a host without one.
    pub cluster: Option<ClusterFacts>,
    /// This host, if anything of an agent is on it.
    pub here: Option<HostState>,
    /// The node that holds the address, if it is another one and was asked.
    pub holder: Option<Look>,
}

/// What the cluster says.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// The objects.
    pub objects: overview::Facts,
    /// What follows from them.
    pub view: ClusterView,
    /// Where the rules come from.
    pub rules: RulesFrom,
}

/// Where the rules come from that say what is announced at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RulesFrom {
    /// The command line.
    Arguments,
    /// The agent of a node.
    Agent(NodeName),
    /// Nowhere: they are the usual ones.
    Default,
}

/// A node looked at from elsewhere.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which.
    pub node: NodeName,
    /// Its state, or why it could not be had.
    pub state: Result<HostState, String>,
}

/// The part of [`Status`] that matters, as an agent serves it, too.
#[derive(Clone, Debug, Deserialize)]
pub struct HostState {
    /// What the agent says; `None` if none answers.
    pub agent: Option<AgentStatus>,
    /// Deadline and suppression.
    pub fence: FenceStatus,
    /// Links as the maps have them.
    pub links: Vec<PinnedLinkStatus>,
    /// Addresses as the maps have them.
    pub vips: Vec<VipStatus>,
}

impl From<Status> for HostState {
    fn from(status: Status) -> Self {
        let Status { agent, fence, links, vips, .. } = status;
        Self { agent, fence, links, vips }
    }
}

impl HostState {
    /// The node that its agent says it is.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        Some(&self.agent.as_ref()?.leadership.as_ref()?.node)
    }
}
