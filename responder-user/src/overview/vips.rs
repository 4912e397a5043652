//! Who answers for each address, and why.

use std::{collections::BTreeSet, net::IpAddr};

use responder_leadership::{
    group::group_of,
    id::{Group, NodeName, SessionId},
    lease::Fitness,
};
use serde::Serialize;

use super::{
    ClaimView, ClusterView, Facts,
    sessions::{Life, SessionView},
};
use crate::decision::services::{Demand, Eligible, ServiceKey, Services};

/// An address that somebody must announce.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VipView {
    /// The address.
    pub vip: IpAddr,
    /// The Services that have it.
    pub services: Box<[ServiceKey]>,
    /// Its group.
    pub group: Option<Group>,
    /// The node that answers for it; `None`: nobody.
    pub owner: Option<NodeName>,
    /// Why that one, or why nobody.
    pub reason: String,
}

/// An address of a Service that no node announces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RefusedView {
    /// The Service.
    pub service: ServiceKey,
    /// The address.
    pub address: String,
    /// Why: a sentence whose subject is the address.
    pub reason: String,
}

/// Whether a session's node may answer for an address that it holds.
pub(super) fn is_able(session: &SessionView, vip: &IpAddr, nodes: &Eligible) -> bool {
    nodes.allows(session.node.as_str()) && session.reach.as_ref().is_some_and(|reach| reach.covers(vip))
}

/// What no node announces.
pub(super) fn refused(services: &Services) -> Vec<RefusedView> {
    let refusals = services.refusals().iter();
    let refused = refusals.map(|(refused, reason)| RefusedView {
        service: refused.service.clone(),
        address: refused.address.clone(),
        reason: reason.clone(),
    });
    refused.collect()
}

/// Every address, with its owner.
pub(super) fn vips(facts: &Facts, services: &Services, view: &ClusterView) -> Vec<VipView> {
    if facts.services.is_none() {
        let exceptions =
            view.claims.iter().flat_map(|claim| claim.exceptions.keys().map(move |vip| (claim, vip)));
        return exceptions.map(|(claim, vip)| vip_view(view, Some(claim), *vip, None)).collect();
    }
    let vips = services.demands().iter().map(|(vip, demand)| {
        let group = view.claim_count.map(|count| group_of(*vip, count));
        let claim = group.and_then(|group| view.claims.get(usize::from(group)));
        let mut demand = demand.clone();
        if facts.slices.is_none() {
            demand.nodes = Eligible::Any; // not known
        }
        vip_view(view, claim, *vip, Some(&demand))
    });
    vips.collect()
}

fn vip_view(view: &ClusterView, claim: Option<&ClaimView>, vip: IpAddr, demand: Option<&Demand>) -> VipView {
    let found = match claim {
        Some(claim) => owner(view, claim, &vip, demand.map(|demand| &demand.nodes)),
        None => Err("the claims are not known".to_owned()),
    };
    let (owner, reason) = match found {
        Ok((owner, reason)) => (Some(owner), reason),
        Err(reason) => (None, reason),
    };
    VipView {
        vip,
        services: demand.map(|demand| demand.services.clone()).unwrap_or_default(),
        group: claim.map(|claim| claim.group),
        owner,
        reason,
    }
}

/// The node that answers and why, or why none does.
fn owner(
    view: &ClusterView,
    claim: &ClaimView,
    vip: &IpAddr,
    nodes: Option<&Eligible>,
) -> Result<(NodeName, String), String> {
    if nodes == Some(&Eligible::Only(BTreeSet::new())) {
        return Err("no ready endpoint on any node (externalTrafficPolicy: Local)".to_owned());
    }
    let name = &claim.name;
    let (id, reason) = match (claim.exceptions.get(vip), &claim.holder) {
        (Some(id), _) => (id, format!("exception of {name}")),
        (None, Some(id)) => (id, format!("holds {name}")),
        (None, None) => {
            let why = claim.problem.clone().unwrap_or_else(|| "nobody holds it".to_owned());
            return Err(format!("{name}: {why}{}", view.why_nobody_takes()));
        }
    };
    if let Some(why) = view.why_not(id) {
        return Err(format!("{reason}: {why}{}", view.why_nobody_takes()));
    }
    let Some(session) = view.session(&id.node) else {
        return Err(format!("{reason}: {} has no session", id.node));
    };
    if let Some(Eligible::Only(eligible)) = nodes
        && !eligible.contains(id.node.as_str())
    {
        let list: Vec<_> = eligible.iter().map(String::as_str).collect();
        return Err(format!("{} {reason}, but its endpoints are on {}", id.node, list.join(", ")));
    }
    if !session.reach.as_ref().is_some_and(|reach| reach.covers(vip)) {
        let any =
            view.sessions.iter().any(|s| s.is_willing() && s.reach.as_ref().is_some_and(|r| r.covers(vip)));
        return Err(if any {
            format!("{} {reason}, but cannot announce it on any of its links", id.node)
        } else {
            "no live node has a link whose prefix covers it (see --any-subnet)".to_owned()
        });
    }
    if let Some(Fitness::Unfit(why)) = &session.fitness {
        let able = |s: &SessionView| is_able(s, vip, nodes.unwrap_or(&Eligible::Any));
        // Nobody's rather than there: it goes on only for as long as somebody is to have it.
        if !view.sessions.iter().any(|s| s.node != id.node && s.may_take() && able(s)) {
            return Err(format!("{} {reason}, but {why}, and no other node may take it", id.node));
        }
    }
    Ok((id.node.clone(), reason))
}

impl ClusterView {
    /// Why a session does not answer for what it holds; `None`: it does.
    pub(crate) fn why_not(&self, id: &SessionId) -> Option<String> {
        let Some(session) = self.session(&id.node) else {
            return Some(format!("the session of {} is missing", id.node));
        };
        if session.has_ended(id) {
            return Some(match &session.life {
                Life::Ended(by) if *by == id.node => format!("the session of {} has ended", id.node),
                Life::Ended(by) => format!("the session of {} was revoked by {by}", id.node),
                Life::Live | Life::Expired | Life::Unreadable(_) | Life::Absent => {
                    format!("it was held by an earlier session of {}", id.node)
                }
            });
        }
        match &session.life {
            Life::Live if session.incarnation == Some(id.incarnation) => None,
            Life::Live | Life::Ended(_) => {
                Some(format!("it names {id}, which is later than the session of that node"))
            }
            Life::Expired => Some(format!("the session of {} has expired", id.node)),
            Life::Unreadable(_) => Some(format!("the session of {} cannot be understood", id.node)),
            Life::Absent => Some(format!("the session of {} is missing", id.node)),
        }
    }

    /// What stands in the way of another node.
    fn why_nobody_takes(&self) -> &'static str {
        match self.sessions.iter().any(SessionView::may_take) {
            true => "; another node is about to take it",
            false => ", and no live node is fit to take it",
        }
    }
}
