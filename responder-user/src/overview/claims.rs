//! Who holds the groups, and who should.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use k8s_openapi::api::coordination::v1::Lease;
use responder_leadership::{
    group::{group_of, spread},
    id::{Group, NodeName, SessionId},
    lease::Seen,
};
use serde::Serialize;

use super::{ClusterView, Facts, age_ms, vips::is_able};
use crate::{
    cluster::{codec, names::Named},
    decision::services::{Eligible, Services},
};

/// A group's claim.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClaimView {
    /// The Lease's name.
    pub name: String,
    /// The group.
    pub group: Group,
    /// Who holds it.
    pub holder: Option<SessionId>,
    /// Since when, in ms.
    pub since_ms: Option<u64>,
    /// VIPs of it that others hold.
    pub exceptions: BTreeMap<IpAddr, SessionId>,
    /// Addresses that somebody must announce.
    pub vips: usize,
    /// The node that comes first for it among those that are fit now.
    pub preferred: Option<NodeName>,
    /// Why nobody holds it, or why its holder does not count.
    pub problem: Option<String>,
}

impl ClaimView {
    /// Where it should be, if a live session holds it that is not there.
    #[must_use]
    pub fn misplaced(&self) -> Option<&NodeName> {
        let holder = self.holder.as_ref().filter(|_| self.problem.is_none())?;
        self.preferred.as_ref().filter(|preferred| **preferred != holder.node)
    }
}

/// The claims, by group.
pub(super) fn claims(facts: &Facts, count: NonZeroU16) -> Vec<ClaimView> {
    let leases: BTreeMap<&str, &Lease> =
        facts.leases.iter().flatten().filter_map(|l| Some((l.metadata.name.as_deref()?, l))).collect();
    let claim = |group| {
        let name = Named::Claim { claims: count, group }.name();
        let lease = leases.get(name.as_str()).copied();
        let since = lease.and_then(|lease| lease.spec.as_ref()?.acquire_time.as_ref());
        let mut view = ClaimView {
            group,
            holder: None,
            since_ms: age_ms(facts.now, since),
            exceptions: BTreeMap::new(),
            vips: 0,
            preferred: None,
            problem: None,
            name,
        };
        match lease.map(|lease| codec::decode_claim(lease, count, group)) {
            Some(Seen::Good(claim)) => {
                view.holder = claim.holder;
                view.exceptions = claim.exceptions;
            }
            Some(Seen::Bad(reason)) => {
                view.problem = Some(format!("its Lease cannot be understood: {reason}"))
            }
            Some(Seen::Absent) | None => view.problem = Some("its Lease does not exist yet".to_owned()),
        }
        view
    };
    (0..count.get()).map(claim).collect()
}

impl ClusterView {
    /// Counts, and finds what is wrong with each claim and where it should be.
    pub(super) fn count(&mut self, services: &Services) {
        let Some(count) = self.claim_count else {
            return;
        };
        let mut demands: BTreeMap<Group, Vec<(&IpAddr, &Eligible)>> = BTreeMap::new();
        for (vip, demand) in services.demands() {
            demands.entry(group_of(*vip, count)).or_default().push((vip, &demand.nodes));
        }
        let mut held: BTreeMap<NodeName, (usize, usize)> = BTreeMap::new();
        let mut claims = std::mem::take(&mut self.claims);
        let preferred = self.preferred(count, &demands);
        for claim in &mut claims {
            claim.vips = demands.get(&claim.group).map_or(0, Vec::len);
            claim.preferred = preferred.get(&claim.group).cloned();
            if claim.problem.is_none() {
                claim.problem = match &claim.holder {
                    Some(holder) => self.why_not(holder),
                    None => Some("nobody holds it".to_owned()),
                };
            }
            if let (Some(holder), None) = (&claim.holder, &claim.problem) {
                held.entry(holder.node.clone()).or_default().0 += 1;
            }
        }
        self.claims = claims;
        for owner in self.vips.iter().filter_map(|vip| vip.owner.as_ref()) {
            held.entry(owner.clone()).or_default().1 += 1;
        }
        for session in &mut self.sessions {
            (session.claims, session.vips) = held.get(&session.node).copied().unwrap_or_default();
        }
    }

    /// Who would have each group if all were free: a node that may answer for some VIP of it, where any is known.
    fn preferred(
        &self,
        count: NonZeroU16,
        demands: &BTreeMap<Group, Vec<(&IpAddr, &Eligible)>>,
    ) -> BTreeMap<Group, NodeName> {
        let willing: BTreeMap<_, _> =
            self.sessions.iter().filter(|s| s.is_willing()).map(|s| (s.node.clone(), s)).collect();
        let nothing_held = willing.keys().map(|node| (node.clone(), 0)).collect();
        spread(0..count.get(), count, nothing_held, |node, group| {
            let Some((session, demands)) = willing.get(node).zip(demands.get(&group)) else {
                return true;
            };
            demands.iter().any(|(vip, nodes)| is_able(session, vip, nodes))
        })
    }
}
