//! Who may and who should answer.

use std::{cmp::Reverse, net::IpAddr};

use super::Machine;
use crate::{
    event::Eligible,
    group::{claim_score, score},
    id::{Group, NodeName, SessionId},
    lease::{Fitness, Reach},
};

/// How willing a node is; the least comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Tier {
    Fit,
    LastResort,
}

fn tier(fitness: &Fitness, reach: &Reach) -> Option<Tier> {
    match fitness {
        _ if reach.is_nothing() => None,
        Fitness::Fit => Some(Tier::Fit),
        Fitness::LastResort(_) => Some(Tier::LastResort),
        Fitness::Unfit(_) => None,
    }
}

impl Machine {
    /// How willing this node is to take something.
    pub(super) fn own_tier(&self) -> Option<Tier> {
        if self.stopping.is_some() { None } else { tier(&self.fitness, &self.reach) }
    }

    /// The other nodes that may be given something.
    pub(super) fn others(&self) -> impl Iterator<Item = (Tier, SessionId)> + '_ {
        let others = self.peers.keys().filter(|node| **node != self.settings.node);
        others.filter_map(|node| {
            let session = self.live(node)?;
            Some((tier(&session.fitness, &session.reach)?, session.id.clone()))
        })
    }

    /// Whether some other node is fit.
    pub(super) fn another_is_fit(&self) -> bool {
        self.others().any(|(tier, _)| tier == Tier::Fit)
    }

    /// Whether this node may answer for a VIP that it holds.
    pub(super) fn able(&self, vip: &IpAddr, eligible: &Eligible) -> bool {
        let unfit = matches!(self.fitness, Fitness::Unfit(_));
        !unfit && eligible.includes(&self.settings.node) && self.reach.covers(vip)
    }

    /// Whether another node may answer for a VIP that it holds.
    pub(super) fn other_able(&self, node: &NodeName, vip: &IpAddr, eligible: &Eligible) -> bool {
        eligible.includes(node) && self.live(node).is_some_and(|session| session.reach.covers(vip))
    }

    /// The nodes that come before this one to take a group.
    pub(super) fn takers_before(&self, group: Group) -> Vec<NodeName> {
        let demand = self.demand.get(usize::from(group));
        let useful = demand.is_none_or(|demand| {
            demand.is_empty() || demand.iter().any(|(vip, eligible)| self.able(vip, eligible))
        });
        let own =
            self.own_tier().map(|tier| (tier, !useful, Reverse(claim_score(&self.settings.node, group))));
        let before = self.others().filter(|(tier, id)| {
            let rank = (*tier, !self.useful(&id.node, group), Reverse(claim_score(&id.node, group)));
            own.is_none_or(|own| rank < own)
        });
        before.map(|(_, id)| id.node).collect()
    }

    /// The best node to be given a group; one that may answer for some VIP of it, where any is known.
    pub(super) fn successor(&self, group: Group) -> Option<(Tier, SessionId)> {
        self.others().min_by_key(|(tier, id)| {
            (*tier, !self.useful(&id.node, group), Reverse(claim_score(&id.node, group)))
        })
    }

    /// Whether another node may answer for some VIP of a group, where any is known.
    fn useful(&self, node: &NodeName, group: Group) -> bool {
        self.demand.get(usize::from(group)).is_none_or(|demand| {
            demand.is_empty() || demand.iter().any(|(vip, eligible)| self.other_able(node, vip, eligible))
        })
    }

    /// The best other node to be given a VIP.
    pub(super) fn bearer(&self, vip: &IpAddr, eligible: &Eligible) -> Option<(Tier, SessionId)> {
        let key = vip.to_string();
        let able = self.others().filter(|(_, id)| self.other_able(&id.node, vip, eligible));
        able.min_by_key(|(tier, id)| (*tier, Reverse(score(&id.node, &key))))
    }
}
