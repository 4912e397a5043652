//! Single VIPs given to other nodes, and back.

use std::{collections::BTreeMap, net::IpAddr};

use super::{GRACE_TURNS, Gives, Machine, claims::Settled, place::Tier};
use crate::{
    event::Note,
    id::{Group, Object, SessionId},
    lease::{Claim, Fitness},
};

impl Machine {
    /// The exceptions of a group that go on under its holder, which is this node: not its own, and not those of the dead.
    pub(super) fn kept_exceptions(&self, claim: &Claim) -> BTreeMap<IpAddr, SessionId> {
        let kept = claim.exceptions.iter().filter(|(_, id)| !self.is_me(id) && !self.dead(id));
        kept.map(|(vip, id)| (*vip, id.clone())).collect()
    }

    /// Names others for the VIPs of a group that this node may not answer for; `placed` says which.
    pub(super) fn place_exceptions(
        &self,
        group: Group,
        claim: &mut Claim,
        placed: &mut BTreeMap<IpAddr, Option<SessionId>>,
    ) {
        let demand = self.demand.get(usize::from(group));
        for (vip, eligible) in demand.into_iter().flatten() {
            if claim.exceptions.contains_key(vip) || self.able(vip, eligible) {
                continue;
            }
            if let Some((_, bearer)) = self.bearer(vip, eligible) {
                claim.exceptions.insert(*vip, bearer.clone());
                placed.insert(*vip, Some(bearer));
            }
        }
    }

    /// Keeps the VIPs that this node holds in another's group, or passes them on.
    pub(super) fn bear(&mut self, group: Group, claim: &Claim) -> Settled {
        let mut settled = Settled::Yes;
        let mut passed: BTreeMap<IpAddr, Option<SessionId>> = BTreeMap::new();
        let mine: Vec<IpAddr> =
            claim.exceptions.iter().filter(|(_, id)| self.is_me(id)).map(|(vip, _)| *vip).collect();
        for vip in &mine {
            match self.where_to(group, claim, vip) {
                Some(to) if self.may_pass(vip) => drop(passed.insert(*vip, to)),
                Some(_) => settled = Settled::No,
                None => {}
            }
        }
        let object = Object::Claim(group);
        let in_doubt = !mine.is_empty() && self.doubts.contains_key(&object);
        if passed.is_empty() && !in_doubt {
            return settled;
        }
        let mut exceptions = claim.exceptions.clone();
        for (vip, to) in &passed {
            match to {
                Some(id) => drop(exceptions.insert(*vip, id.clone())),
                None => drop(exceptions.remove(vip)),
            }
        }
        let gives = Gives { group: false, vips: passed.keys().copied().collect() };
        let note = (!passed.is_empty()).then_some(Note::Excepted { group, vips: passed });
        let changed = Claim { holder: claim.holder.clone(), exceptions, written: self.signature() };
        self.write_claim(group, changed, gives, note);
        Settled::No
    }

    /// Where a VIP should go that this node holds: `None` nowhere, `Some(None)` back to the group's holder.
    fn where_to(&mut self, group: Group, claim: &Claim, vip: &IpAddr) -> Option<Option<SessionId>> {
        let eligible = self.demand.get(usize::from(group)).and_then(|demand| demand.get(vip)).cloned();
        let Some(eligible) = eligible else {
            self.unwanted.entry(*vip).or_insert(self.now);
            return Some(None);
        };
        self.unwanted.remove(vip);
        let unfit = matches!(self.fitness, Fitness::Unfit(_));
        let leaves = self.stopping.is_some() || unfit || !self.able(vip, &eligible);
        let reluctant = matches!(self.fitness, Fitness::LastResort(_)) && self.another_is_fit();
        if !leaves && !reluctant {
            return None;
        }
        let holder = claim.holder.as_ref()?;
        let willing = self.others().any(|(tier, id)| id == *holder && tier == Tier::Fit);
        if willing && self.other_able(&holder.node, vip, &eligible) {
            return Some(None);
        }
        // Another last resort would pass it back.
        let bearer = self.bearer(vip, &eligible).filter(|(tier, _)| leaves || *tier == Tier::Fit);
        match bearer {
            Some((_, id)) => Some((id != *holder).then_some(id)),
            // Rather nobody's than here: the holder gives it to the first node that may have it.
            None => unfit.then_some(None),
        }
    }

    /// Whether a VIP has been held, or unwanted, long enough: whoever gave it may have known more.
    fn may_pass(&mut self, vip: &IpAddr) -> bool {
        let at = if self.stopping.is_some() || matches!(self.fitness, Fitness::Unfit(_)) {
            self.now
        } else if let Some(since) = self.unwanted.get(vip) {
            *since + self.unclear_for()
        } else {
            // It may have been given while this session was not known to be ours.
            let since = *self.received.entry(*vip).or_insert(self.now);
            since + self.settings.times.turn() * GRACE_TURNS
        };
        if self.now < at {
            self.wake_at(at);
        }
        self.now >= at
    }
}
