//! Who may and who should answer.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use super::Machine;
use crate::{
    event::Eligible,
    group::{claim_score, score, spread},
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

    /// Whether this node may answer for a VIP that it holds. One that is unfit does so until it has handed the VIP over, if
    /// there is somebody to have it.
    pub(super) fn able(&self, vip: &IpAddr, eligible: &Eligible) -> bool {
        let fit = !matches!(self.fitness, Fitness::Unfit(_)) || self.bearer(vip, eligible).is_some();
        eligible.includes(&self.settings.node) && self.reach.covers(vip) && fit
    }

    /// Whether another node may answer for a VIP that it holds.
    pub(super) fn other_able(&self, node: &NodeName, vip: &IpAddr, eligible: &Eligible) -> bool {
        eligible.includes(node) && self.live(node).is_some_and(|session| session.reach.covers(vip))
    }

    /// The nodes that come before this one to take a group.
    pub(super) fn takers_before(&self, group: Group) -> Vec<NodeName> {
        let useful = self.is_useful(group);
        let own =
            self.own_tier().map(|tier| (tier, !useful, Reverse(claim_score(&self.settings.node, group))));
        let chosen = self.chosen.get(&group);
        if chosen == Some(&self.settings.node) {
            return Vec::new();
        }
        let before = self.others().filter(|(tier, id)| {
            let rank = (*tier, !self.useful(&id.node, group), Reverse(claim_score(&id.node, group)));
            chosen == Some(&id.node) || own.is_none_or(|own| rank < own)
        });
        before.map(|(_, id)| id.node).collect()
    }

    /// Who is to take each group that is free: the node that comes first for it, but none takes more than its share while
    /// another has less. Every node that sees the same comes to the same.
    pub(super) fn choose(&self) -> BTreeMap<Group, NodeName> {
        let own = self.own_tier().map(|tier| (tier, self.settings.node.clone()));
        let others = self.others().map(|(tier, id)| (tier, id.node));
        let mut candidates: Vec<_> = others.chain(own).collect();
        let Some(best) = candidates.iter().map(|(tier, _)| *tier).min() else {
            return BTreeMap::new();
        };
        candidates.retain(|(tier, _)| *tier == best);
        let mut held: BTreeMap<NodeName, usize> = candidates.into_iter().map(|(_, node)| (node, 0)).collect();
        let mut free = Vec::new();
        for group in self.groups() {
            match self.claim(group).and_then(|claim| claim.holder.as_ref()) {
                Some(holder) if !self.dead(holder) => {
                    if let Some(count) = held.get_mut(&holder.node) {
                        *count += 1;
                    }
                }
                Some(_) | None => free.push(group),
            }
        }
        spread(free, self.settings.claims, held, |node, group| match *node == self.settings.node {
            true => self.is_useful(group),
            false => self.useful(node, group),
        })
    }

    /// Whether this node may answer for some VIP of a group, where any is known.
    fn is_useful(&self, group: Group) -> bool {
        self.demand.get(usize::from(group)).is_none_or(|demand| {
            demand.is_empty() || demand.iter().any(|(vip, eligible)| self.able(vip, eligible))
        })
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
