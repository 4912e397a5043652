//! Taking groups and handing them over.

use std::{collections::BTreeMap, time::Duration};

use super::{Gives, Machine, place::Tier};
use crate::{
    event::Note,
    flaw::Flaw,
    id::{Group, NodeName, Object, SessionId},
    lease::{Claim, Content, Fitness, Seen},
};

/// Whether a group has to be looked at again without a new reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    Yes,
    No,
}

impl Machine {
    /// Looks at every group that may need something.
    pub(super) fn advance_claims(&mut self) {
        let unsettled = self.unsettled.clone();
        let free = |group: &Group| {
            self.claim(*group).and_then(|claim| claim.holder.as_ref()).is_none_or(|id| self.dead(id))
        };
        self.chosen = if unsettled.iter().any(free) { self.choose() } else { BTreeMap::new() };
        for group in unsettled {
            if self.advance_claim(group) == Settled::Yes {
                self.unsettled.remove(&group);
            }
        }
    }

    fn advance_claim(&mut self, group: Group) -> Settled {
        let object = Object::Claim(group);
        if !self.may_write(&object) {
            return Settled::No;
        }
        let Some(view) = self.claims.get(usize::from(group)).cloned() else {
            return Settled::Yes;
        };
        match view.seen {
            Seen::Good(claim) => match &claim.holder {
                Some(holder) if self.is_me(holder) => self.hold(group, &claim),
                Some(holder) if self.dead(holder) => self.take(group, &claim),
                Some(_) => {
                    self.moves.remove(&group);
                    self.bear(group, &claim)
                }
                None => self.take_unclear(group, &claim, view.changed_at),
            },
            Seen::Bad(_) => {
                let nothing = self.nobodys();
                self.take_unclear(group, &nothing, view.changed_at)
            }
            Seen::Absent => self.create(group),
        }
    }

    fn nobodys(&mut self) -> Claim {
        Claim { holder: None, exceptions: [].into(), written: self.signature() }
    }

    /// Takes what somebody may still hold who has not seen that the Lease does not say so any more.
    fn take_unclear(&mut self, group: Group, claim: &Claim, since: Duration) -> Settled {
        let at = since + self.unclear_for();
        if self.now < at {
            self.wake_at(at);
            return Settled::No;
        }
        // Those that come before this node may know of it later: since their sessions began, or, this one, since its own list.
        let before = self.takers_before(group);
        let began = before.iter().filter_map(|node| self.peers.get(node)).map(|peer| peer.since).max();
        let theirs = began.map_or(at, |began| (began + self.unclear_for()).min(at + self.unclear_for()));
        if self.now < theirs {
            self.wake_at(theirs);
            return Settled::No;
        }
        self.take(group, claim)
    }

    /// Creates an absent claim as nobody's. It may have been there, and been deleted, without this node having seen it,
    /// which a creation does not exclude: so it is taken by another write, once that has become clear.
    fn create(&mut self, group: Group) -> Settled {
        if self.own_tier().is_none() {
            return Settled::Yes;
        }
        let since = *self.free_since.entry(group).or_insert(self.now);
        let count = u32::try_from(self.takers_before(group).len()).unwrap_or(u32::MAX);
        let turn_at = since + self.settings.times.turn().saturating_mul(count);
        if self.now < turn_at {
            self.wake_at(turn_at);
            return Settled::No;
        }
        let nothing = self.nobodys();
        self.write_claim(group, nothing, Gives::default(), None);
        Settled::No
    }

    /// Takes what is free when it is this node's turn.
    fn take(&mut self, group: Group, claim: &Claim) -> Settled {
        let Some(tier) = self.own_tier() else {
            return Settled::Yes;
        };
        if tier == Tier::LastResort && self.another_is_fit() {
            return Settled::Yes;
        }
        let before = self.takers_before(group);
        let since = *self.free_since.entry(group).or_insert(self.now);
        let turn = self.settings.times.turn();
        let count = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let mut turn_at = since + turn.saturating_mul(count);
        // What fails while the cluster runs is no cold start, however new this agent is.
        let ran = claim.holder.as_ref().is_some_and(|id| {
            self.peers.get(&id.node).is_some_and(|peer| peer.seen_alive == Some(id.incarnation))
        });
        if !ran && let Some(settled_at) = self.settling_until(&before) {
            turn_at = turn_at.max(settled_at + turn.saturating_mul(count));
        }
        if self.now < turn_at {
            self.wake_at(turn_at);
            return Settled::No;
        }
        let exceptions =
            if self.has(Flaw::ForgetExceptions) { [].into() } else { self.kept_exceptions(claim) };
        let id = self.own_id();
        let mut taken = Claim { holder: Some(id), exceptions, written: self.signature() };
        let mut placed = [].into();
        self.place_exceptions(group, &mut taken, &mut placed);
        let note = Note::Took { group, from: claim.holder.clone() };
        self.write_claim(group, taken, Gives::default(), Some(note));
        Settled::No
    }

    /// Until when a starting cluster's agents wait for each other, so that the first does not take everything: each waits
    /// for itself to have settled, and for those that come `before` it, but not for ever.
    fn settling_until(&self, before: &[NodeName]) -> Option<Duration> {
        let all_there = self.expected.as_ref().is_some_and(|expected| {
            !expected.is_empty() && expected.iter().all(|node| self.live(node).is_some())
        });
        let (synced, settle) = (self.synced_at?, self.settings.times.settle());
        if all_there || self.now >= synced + settle * 2 {
            return None;
        }
        let last = before.iter().filter_map(|node| self.peers.get(node)).map(|peer| peer.since).max();
        Some((last.unwrap_or(synced).max(synced) + settle).min(synced + settle * 2))
    }

    /// Keeps a group, or hands it over.
    fn hold(&mut self, group: Group, claim: &Claim) -> Settled {
        if let Some((to, reason)) = self.why_give(group) {
            if !self.reach.is_nothing() && self.is_giving() {
                return Settled::No; // planned moves go one by one
            }
            self.give(group, claim, to, reason);
            return Settled::No;
        }
        let mut kept = Claim { exceptions: self.kept_exceptions(claim), ..claim.clone() };
        let mut placed = [].into();
        self.place_exceptions(group, &mut kept, &mut placed);
        let object = Object::Claim(group);
        if kept.exceptions == claim.exceptions && !self.doubts.contains_key(&object) {
            return Settled::Yes;
        }
        let gives = Gives { group: false, vips: placed.keys().copied().collect() };
        let note = (!placed.is_empty()).then_some(Note::Excepted { group, vips: placed });
        kept.written = self.signature();
        if self.has(Flaw::IdenticalRewrite) {
            kept.written = claim.written.clone();
        }
        self.write_claim(group, kept, gives, note);
        Settled::No
    }

    /// To whom a group should go, and why. Without a successor it stays, and nothing is answered that may not be.
    fn why_give(&mut self, group: Group) -> Option<(SessionId, String)> {
        let successor = self.successor(group);
        if self.stopping.is_some() {
            // Without a successor the end of the session frees it.
            return successor.map(|(_, id)| (id, "the agent ends".to_owned()));
        }
        match &self.fitness {
            Fitness::Unfit(reason) => return Some((successor?.1, reason.clone())),
            Fitness::LastResort(reason) => {
                if let Some((Tier::Fit, id)) = successor {
                    return Some((id, reason.clone()));
                }
            }
            Fitness::Fit => {}
        }
        if self.reach.is_nothing() {
            return Some((successor?.1, "no link can announce anything".to_owned()));
        }
        if let Some(to) = self.moves.get(&group).cloned() {
            let found = self.others().find(|(tier, id)| *tier == Tier::Fit && id.node == to);
            if let Some((_, id)) = found {
                return Some((id, "an administrator has asked for it".to_owned()));
            }
            self.moves.remove(&group);
            if to != self.settings.node {
                let reason = format!("{to} has no session that is fit to hold it");
                self.tell(Note::MoveRefused { group, reason });
            }
        }
        let demand = self.demand.get(usize::from(group))?;
        // One that is less willing would give it back.
        let (_, id) = successor.filter(|(tier, _)| self.own_tier().is_some_and(|own| *tier <= own))?;
        let useless = !demand.is_empty() && !demand.iter().any(|(vip, eligible)| self.able(vip, eligible));
        let useful = demand.iter().any(|(vip, eligible)| self.other_able(&id.node, vip, eligible));
        (useless && useful).then(|| (id, "none of its addresses can be answered here".to_owned()))
    }

    fn give(&mut self, group: Group, claim: &Claim, to: SessionId, reason: String) {
        let to = Some(to);
        let given =
            Claim { holder: to.clone(), exceptions: self.kept_exceptions(claim), written: self.signature() };
        let note = Note::HandedOver { group, to, reason };
        // Its exceptions that are this node's go with the group.
        let own = claim.exceptions.iter().filter(|(_, id)| self.is_me(id));
        let gives = Gives { group: true, vips: own.map(|(vip, _)| *vip).collect() };
        self.write_claim(group, given, gives, Some(note));
    }

    fn is_giving(&self) -> bool {
        self.pending.values().any(|pending| !pending.gives.nothing())
    }

    /// The session that is ours. Only called while one is.
    pub(super) fn own_id(&self) -> SessionId {
        self.session().unwrap_or_else(|| self.id(self.had.unwrap_or_default()))
    }

    /// What makes a write differ from every other.
    pub(super) fn signature(&mut self) -> (SessionId, u64) {
        (self.own_id(), self.next_number())
    }

    pub(super) fn write_claim(&mut self, group: Group, claim: Claim, gives: Gives, note: Option<Note>) {
        let Some(view) = self.claims.get(usize::from(group)) else {
            return;
        };
        let at = (view.version, view.base());
        self.write(Object::Claim(group), at, Content::Claim(claim), gives, note);
    }
}
