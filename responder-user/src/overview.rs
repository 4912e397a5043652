//! The whole cluster, as its Leases, Services, EndpointSlices and Nodes say: pure, and from read rights alone.
//!
//! * this file: facts in, view out.
//! * `sessions`: nodes and their agents. `claims`: who holds the groups, and who should. `vips`: who answers, and why.
//! * `render`: for people. [`news`]: what has changed between two looks.
//!
//! The Leases' own times are compared with this machine's clock, which nothing of the protocol ever does: here it is
//! for people. A session that looks expired by it may be renewed all the same; see [`Facts::seen_alive`].

mod claims;
pub mod news;
mod render;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;
mod vips;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use responder_leadership::{
    id::{Group, NodeName, SessionId},
    lease::Seen,
};
use serde::Serialize;

pub use self::{
    claims::ClaimView,
    render::{Shown, text},
    sessions::{Life, SessionView},
    vips::{RefusedView, VipView},
};
pub(crate) use self::{render::time, sessions::late};
use crate::{
    cluster::{
        codec::{self, Record},
        names::Named,
    },
    decision::services::{Protected, Rules, ServiceKey, Services, SliceKey},
};

/// What was read. `None`: it could not be, and [`Facts::problems`] says why.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Namespace of the Leases.
    pub namespace: String,
    /// The node that this runs on, if it is one.
    pub this_node: Option<NodeName>,
    /// The Leases in it.
    pub leases: Option<Vec<Lease>>,
    /// All Services.
    pub services: Option<Vec<Service>>,
    /// All EndpointSlices.
    pub slices: Option<Vec<EndpointSlice>>,
    /// All Nodes.
    pub nodes: Option<Vec<Node>>,
    /// What the agents announce, as far as that is known here.
    pub rules: Rules,
    /// Addresses that no agent announces, whatever Services say.
    pub protected: BTreeMap<Protected, BTreeSet<IpAddr>>,
    /// Nodes whose sessions were seen being renewed, whatever the clocks say.
    pub seen_alive: BTreeSet<NodeName>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
    /// Now.
    pub now: Timestamp,
}

/// The whole cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClusterView {
    /// Namespace of the Leases.
    pub namespace: String,
    /// The node that this runs on, if it is one.
    pub this_node: Option<NodeName>,
    /// Number of groups; `None`: not known.
    pub claim_count: Option<NonZeroU16>,
    /// What could not be read or understood.
    pub problems: Vec<String>,
    /// Every node that has a session, or a Node object.
    pub sessions: Vec<SessionView>,
    /// The claims, by group.
    pub claims: Vec<ClaimView>,
    /// Every address that somebody must announce; without the right to read Services, the exceptions alone.
    pub vips: Vec<VipView>,
    /// Addresses of Services that are not announced by any node.
    pub refused: Vec<RefusedView>,
}

impl ClusterView {
    /// The session of a node.
    #[must_use]
    pub fn session(&self, node: &NodeName) -> Option<&SessionView> {
        self.sessions.iter().find(|session| session.node == *node)
    }

    /// Whether this session answers for what it holds.
    #[must_use]
    pub fn answers(&self, id: &SessionId) -> bool {
        self.session(&id.node).is_some_and(|session| session.answers_as(id))
    }

    /// What a node answers for, or may: groups and exceptions that name its session, unless that has certainly ended.
    #[must_use]
    pub fn held_by(&self, node: &NodeName) -> (Vec<Group>, Vec<IpAddr>) {
        let session = self.session(node);
        let holds = |id: &SessionId| id.node == *node && !session.is_some_and(|s| s.has_ended(id));
        let groups = self.claims.iter().filter(|claim| claim.holder.as_ref().is_some_and(holds));
        let exceptions = self.claims.iter().flat_map(|claim| &claim.exceptions);
        let groups = groups.map(|claim| claim.group).collect();
        (groups, exceptions.filter(|(_, id)| holds(id)).map(|(vip, _)| *vip).collect())
    }
}

/// Looks at everything.
#[must_use]
pub fn view(facts: &Facts) -> ClusterView {
    let mut problems = facts.problems.clone();
    let claim_count = claim_count(facts, &mut problems);
    let services = services(facts);
    let mut view = ClusterView {
        namespace: facts.namespace.clone(),
        this_node: facts.this_node.clone(),
        claim_count,
        problems,
        sessions: sessions::sessions(facts),
        claims: Vec::new(),
        vips: Vec::new(),
        refused: Vec::new(),
    };
    if let Some(count) = claim_count {
        view.claims = claims::claims(facts, count);
    }
    view.vips = vips::vips(facts, &services, &view);
    view.refused = vips::refused(&services);
    view.count(&services);
    view
}

/// The number of groups, as the record says; without one, as the claims that there are say.
fn claim_count(facts: &Facts, problems: &mut Vec<String>) -> Option<NonZeroU16> {
    let leases = facts.leases.as_ref()?;
    let name = |lease: &Lease| lease.metadata.name.as_deref().and_then(Named::parse);
    match leases.iter().find(|lease| name(lease) == Some(Named::Cluster)).map(codec::decode_record) {
        Some(Seen::Good(Record { claims, .. })) => return Some(claims),
        Some(Seen::Bad(reason)) => problems.push(format!(
            "the Lease {}/cluster, on which all agents must agree, cannot be understood: {reason}",
            facts.namespace
        )),
        Some(Seen::Absent) | None => problems.push(format!(
            "the Lease {}/cluster is missing: no agent has started in this namespace (is --namespace right?), or it \
             was deleted",
            facts.namespace
        )),
    }
    let counts: BTreeSet<NonZeroU16> = leases
        .iter()
        .filter_map(|lease| match name(lease)? {
            Named::Claim { claims, .. } => Some(claims),
            Named::Session(_) | Named::Cluster => None,
        })
        .collect();
    counts.first().copied().filter(|_| counts.len() == 1)
}

/// The Services, as an agent sees them.
pub(crate) fn services(facts: &Facts) -> Services {
    let mut services = Services::new(facts.rules.clone());
    for (what, addresses) in &facts.protected {
        services.protect(*what, addresses.clone());
    }
    for node in facts.nodes.iter().flatten() {
        services.node(node.metadata.name.as_deref().unwrap_or_default(), Some(node));
    }
    for slice in facts.slices.iter().flatten() {
        let (namespace, name) = key(&slice.metadata);
        services.slice(&SliceKey { namespace, name }, Some(slice));
    }
    for service in facts.services.iter().flatten() {
        let (namespace, name) = key(&service.metadata);
        services.service(&ServiceKey { namespace, name }, Some(service));
    }
    services
}

fn key(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// How long ago something was, in ms; what lies ahead, because clocks differ, is now.
fn age_ms(now: Timestamp, at: Option<&MicroTime>) -> Option<u64> {
    let at = at?.0;
    Some(u64::try_from(now.as_millisecond().saturating_sub(at.as_millisecond())).unwrap_or(0))
}
