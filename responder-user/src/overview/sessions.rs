//! Nodes and their agents.

use std::{collections::BTreeMap, time::Duration};

use responder_leadership::{
    id::{Incarnation, NodeName, SessionId},
    lease::{Fitness, Reach, Seen, SessionState},
};
use serde::Serialize;

use super::{Facts, age_ms};
use crate::cluster::{codec, names::Named};

/// Whether a node's agent lives, as far as can be told from here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "life", content = "why")]
pub enum Life {
    /// It renews its session.
    Live,
    /// It has not renewed it in time: nothing is answered there, and the next that wants something of it revokes it.
    Expired,
    /// It ended, or was revoked: by which node.
    Ended(NodeName),
    /// Its Lease cannot be understood, for this reason.
    Unreadable(String),
    /// There is a Node, but no session.
    Absent,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SessionView {
    /// Its name.
    pub node: NodeName,
    /// Whether its agent lives.
    #[serde(flatten)]
    pub life: Life,
    /// Which life of it.
    pub incarnation: Option<Incarnation>,
    /// Since when that is so, in ms.
    pub since_ms: Option<u64>,
    /// Since it was last written, in ms.
    pub renewed_ms: Option<u64>,
    /// How long it is good for, in ms.
    pub lease_ms: Option<u64>,
    /// Whether it should hold anything.
    pub fitness: Option<Fitness>,
    /// What it can announce.
    pub reach: Option<Reach>,
    /// Groups held.
    pub claims: usize,
    /// Addresses that it answers for.
    pub vips: usize,
}

impl SessionView {
    pub(super) fn absent(node: NodeName) -> Self {
        Self {
            node,
            life: Life::Absent,
            incarnation: None,
            since_ms: None,
            renewed_ms: None,
            lease_ms: None,
            fitness: None,
            reach: None,
            claims: 0,
            vips: 0,
        }
    }

    /// Whether this session, in this incarnation, answers.
    #[must_use]
    pub fn answers_as(&self, id: &SessionId) -> bool {
        self.life == Life::Live && self.incarnation == Some(id.incarnation)
    }

    /// Whether this session has certainly ended.
    #[must_use]
    pub fn has_ended(&self, id: &SessionId) -> bool {
        let ended = matches!(self.life, Life::Ended(_));
        self.incarnation.is_some_and(|now| now > id.incarnation || (now == id.incarnation && ended))
    }

    /// Whether it takes what nobody holds, if only as a last resort.
    #[must_use]
    pub fn may_take(&self) -> bool {
        self.life == Life::Live && self.would_take()
    }

    /// Whether it would do so if it lives.
    #[must_use]
    pub fn would_take(&self) -> bool {
        let fitness = self.fitness.as_ref();
        fitness.is_some_and(|fitness| !matches!(fitness, Fitness::Unfit(_)))
            && self.reach.as_ref().is_some_and(|reach| !reach.is_nothing())
    }

    /// Whether it may be given something.
    #[must_use]
    pub fn is_willing(&self) -> bool {
        self.life == Life::Live
            && self.fitness == Some(Fitness::Fit)
            && self.reach.as_ref().is_some_and(|reach| !reach.is_nothing())
    }
}

/// Every node that has a session or a Node object, by name.
pub(super) fn sessions(facts: &Facts) -> Vec<SessionView> {
    let mut all: BTreeMap<NodeName, SessionView> = BTreeMap::new();
    for node in facts.nodes.iter().flatten().filter_map(|node| node.metadata.name.as_deref()) {
        all.insert(node.into(), SessionView::absent(node.into()));
    }
    for lease in facts.leases.iter().flatten() {
        let Some(Named::Session(node)) = lease.metadata.name.as_deref().and_then(Named::parse) else {
            continue;
        };
        let mut view = SessionView::absent(node.clone());
        let spec = lease.spec.as_ref();
        view.since_ms = age_ms(facts.now, spec.and_then(|spec| spec.acquire_time.as_ref()));
        view.renewed_ms = age_ms(facts.now, spec.and_then(|spec| spec.renew_time.as_ref()));
        match codec::decode_session(lease, &node) {
            Seen::Good(session) => {
                view.life = match session.state {
                    SessionState::Ended { by } => {
                        view.since_ms = view.renewed_ms;
                        Life::Ended(by)
                    }
                    SessionState::Live if is_late(facts, &node, &view, session.duration) => Life::Expired,
                    SessionState::Live => Life::Live,
                };
                view.incarnation = Some(session.id.incarnation);
                view.lease_ms = Some(session.duration.as_millis().try_into().unwrap_or(u64::MAX));
                view.fitness = Some(session.fitness);
                view.reach = Some(session.reach);
            }
            Seen::Bad(reason) => view.life = Life::Unreadable(reason),
            Seen::Absent => {}
        }
        all.insert(node, view);
    }
    all.into_values().collect()
}

fn is_late(facts: &Facts, node: &NodeName, view: &SessionView, duration: Duration) -> bool {
    let age = view.renewed_ms.map(Duration::from_millis);
    !facts.seen_alive.contains(node) && age.is_some_and(|age| age > duration)
}

/// The nodes whose sessions look expired by this machine's clock, with the time in which a live one would be renewed.
pub(crate) fn late(facts: &Facts) -> BTreeMap<NodeName, Duration> {
    let all = sessions(facts).into_iter().filter(|session| session.life == Life::Expired);
    all.map(|session| (session.node, Duration::from_millis(session.lease_ms.unwrap_or_default()))).collect()
}
