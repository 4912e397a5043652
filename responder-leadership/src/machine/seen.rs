//! What the machine is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Adopted, Doubt, Gives, Machine, Own, Peer, View};
use crate::{
    event::{Event, Note, Via},
    flaw::Flaw,
    group::group_of,
    id::{Group, Incarnation, NodeName, Object, Version},
    lease::{Claim, Seen, Session, SessionState},
};

impl<T> View<T> {
    /// Takes a newer state; says whether it is newer.
    fn accept(&mut self, version: Version, seen: Seen<T>, now: Duration) -> bool {
        let newer = match seen {
            // A deletion may be told with the version that the object had.
            Seen::Absent => version >= self.version && !matches!(self.seen, Seen::Absent),
            Seen::Bad(_) | Seen::Good(_) => version > self.version,
        };
        if newer {
            *self = Self { version, seen, changed_at: now };
        }
        newer
    }
}

impl Machine {
    pub(super) fn take_note(&mut self, event: Event) {
        match event {
            Event::Session { node, version, seen, via } => self.note_session(&node, version, seen, via),
            Event::Claim { group, version, seen, via } => {
                if via == Via::Read {
                    self.note_read(&Object::Claim(group), version);
                }
                self.see_claim(group, version, seen);
            }
            Event::Synced { listed_at } => self.note_synced(listed_at),
            Event::Written { write, outcome } => self.note_written(write, outcome),
            Event::Unread { object } => {
                if self.reading.remove(&object) {
                    self.back_off(object);
                }
            }
            Event::Demand(changes) => {
                for (vip, eligible) in changes {
                    let group = self.group_of(&vip);
                    if let Some(demand) = self.demand.get_mut(usize::from(group)) {
                        match eligible {
                            Some(eligible) => drop(demand.insert(vip, eligible)),
                            None => drop(demand.remove(&vip)),
                        }
                    }
                    self.unsettle(group);
                }
            }
            Event::Local { fitness, reach } => {
                if (&fitness, &reach) != (&self.fitness, &self.reach) {
                    (self.fitness, self.reach) = (fitness, reach);
                    self.unsettle_all();
                }
            }
            Event::Expected(nodes) => self.expected = Some(nodes),
            // Never shorter: an agent that had a longer one may still hold something.
            Event::Longest(longest) => self.longest = self.longest.max(longest),
            Event::Move { group, to } => {
                self.moves.insert(group, to);
                self.unsettle(group);
            }
            Event::Stop => {
                self.stopping.get_or_insert(self.now);
                self.unsettle_all();
            }
            Event::Tick => {}
        }
    }

    /// Has every group looked at again.
    pub(super) fn unsettle_all(&mut self) {
        self.unsettled.extend(self.groups());
        self.stale.extend(self.groups());
    }

    /// Has a group looked at again.
    pub(super) fn unsettle(&mut self, group: Group) {
        self.unsettled.insert(group);
        self.stale.insert(group);
    }

    fn note_read(&mut self, object: &Object, version: Version) {
        if !self.reading.remove(object) {
            return;
        }
        let unchanged = self.doubts.get(object).is_some_and(|doubt| doubt.version == version);
        if unchanged && self.has(Flaw::ResumeAfterRead) {
            self.doubts.remove(object);
            self.unsettle_all();
        }
    }

    fn note_session(&mut self, node: &NodeName, version: Version, seen: Seen<Session>, via: Via) {
        match via {
            Via::Read => self.note_read(&Object::Session(node.clone()), version),
            // An echo counts also where the response to the write was faster.
            Via::Watch if *node == self.settings.node => self.note_echo(version, &seen),
            Via::Watch | Via::List => {}
        }
        self.see_session(node, version, seen);
    }

    /// Takes a newer state of a session, however it was learnt.
    pub(super) fn see_session(&mut self, node: &NodeName, version: Version, seen: Seen<Session>) {
        let was_live = self.live(node).is_some();
        let now = self.now;
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer {
            view: View::unseen(now),
            since: now,
            lives: false,
            seen_alive: None,
        });
        let told = |seen: &Seen<Session>| {
            seen.good().map(|s| (s.id.clone(), s.state.clone(), s.fitness.clone(), s.reach.clone()))
        };
        let before = told(&peer.view.seen);
        if !peer.view.accept(version, seen, now) {
            return;
        }
        if let Some(session) = peer.view.seen.good() {
            if *node == self.settings.node {
                self.latest = self.latest.max(session.id.incarnation);
            } else if session.state == SessionState::Live && self.synced_at.is_some() {
                peer.seen_alive = Some(session.id.incarnation);
            }
        }
        let after = told(&peer.view.seen);
        let changed = before != after;
        if before.map(|(id, ..)| id) != after.map(|(id, ..)| id) {
            peer.since = now;
        }
        let bad = match &peer.view.seen {
            Seen::Bad(reason) => Some(reason.clone()),
            Seen::Good(_) | Seen::Absent => None,
        };
        let object = Object::Session(node.clone());
        if let Some(reason) = bad {
            self.tell(Note::BadLease { object: object.clone(), reason });
        }
        self.retries.remove(&object);
        if changed || !was_live {
            self.unsettle_all();
        }
        if *node == self.settings.node && self.synced_at.is_some() {
            self.compare_own();
        }
    }

    /// Takes a newer state of a claim, however it was learnt.
    pub(super) fn see_claim(&mut self, group: Group, version: Version, seen: Seen<Claim>) {
        let now = self.now;
        let Some(view) = self.claims.get_mut(usize::from(group)) else {
            return;
        };
        let before = view.seen.clone();
        if !view.accept(version, seen, now) {
            return;
        }
        let after = view.seen.clone();
        let object = Object::Claim(group);
        if let Seen::Bad(reason) = &after {
            self.tell(Note::BadLease { object: object.clone(), reason: reason.clone() });
        }
        if self.doubts.get(&object).is_some_and(|doubt| version > doubt.version) {
            self.doubts.remove(&object);
        }
        self.retries.remove(&object);
        self.free_since.remove(&group);
        self.unsettle(group);
        if let Some(named) = self.named.get_mut(usize::from(group)) {
            *named = names(after.good());
        }
        self.note_holder(group, &before, &after);
        self.note_received(group);
    }

    /// Says what has happened to a group that others have written.
    fn note_holder(&mut self, group: Group, before: &Seen<Claim>, after: &Seen<Claim>) {
        let holder = |seen: &Seen<Claim>| seen.good().and_then(|claim| claim.holder.clone());
        let (from, to) = (holder(before), holder(after));
        let mine = |id: &Option<_>| id.as_ref().is_some_and(|id| self.is_me(id));
        if after.good().is_some_and(|claim| self.is_me(&claim.written.0)) {
            return;
        }
        match (mine(&from), mine(&to)) {
            (false, true) => self.tell(Note::Received { group, from }),
            (true, false) => {
                let reason = match after {
                    Seen::Absent => "its Lease was deleted".to_owned(),
                    Seen::Bad(reason) => format!("its Lease was changed by hand: {reason}"),
                    Seen::Good(claim) => format!("{} has written its Lease", claim.written.0),
                };
                self.tell(Note::GroupLost { group, reason });
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Notes which VIPs of a group are held as exceptions, and since when.
    pub(super) fn note_received(&mut self, group: Group) {
        let named: Vec<IpAddr> = self.claim(group).map_or_else(Vec::new, |claim| {
            claim.exceptions.iter().filter(|(_, id)| self.is_me(id)).map(|(vip, _)| *vip).collect()
        });
        let claims = self.settings.claims;
        let stays = |vip: &IpAddr| group_of(*vip, claims) != group || named.contains(vip);
        self.received.retain(|vip, _| stays(vip));
        self.unwanted.retain(|vip, _| stays(vip));
        for vip in named {
            self.received.entry(vip).or_insert(self.now);
        }
    }

    fn note_synced(&mut self, listed_at: Duration) {
        self.note_listed(listed_at);
        if self.synced_at.is_some() {
            return;
        }
        self.synced_at = Some(self.now);
        for view in &mut self.claims {
            if matches!(view.seen, Seen::Absent) {
                view.changed_at = self.now; // seen to be absent only now
            }
        }
        self.unsettle_all();
        self.adopt();
    }

    /// Goes on with the predecessor's session. What it did not answer for may be given away by a write that it sent; the
    /// claims are written once more, so that no such write can follow.
    fn adopt(&mut self) {
        let Some(Adopted { incarnation, groups, vips }) = self.adopt.take() else {
            return;
        };
        let ours = self.own_view().seen.good().is_some_and(|session| {
            session.id == self.id(incarnation)
                && session.state == SessionState::Live
                && session.datapath == self.settings.datapath
        });
        if !ours {
            return;
        }
        self.own = Own::adopted(incarnation, self.now);
        self.had = Some(incarnation);
        self.limit = Some(self.now);
        self.tell(Note::SessionAdopted { incarnation });
        for group in self.groups() {
            self.note_received(group);
            let Some(view) = self.claims.get(usize::from(group)) else {
                continue;
            };
            let Some(claim) = view.seen.good() else {
                continue;
            };
            let holds = claim.holder.as_ref().is_some_and(|id| self.is_me(id));
            if holds || claim.exceptions.values().any(|id| self.is_me(id)) {
                let gives = Gives { group: holds && !groups.contains(&group), vips: BTreeSet::new() };
                let doubt = Doubt { version: view.version, gives, only: Some(vips.clone()) };
                self.doubts.insert(Object::Claim(group), doubt);
            }
        }
    }
}

/// The sessions that a claim names, each with its latest incarnation.
fn names(claim: Option<&Claim>) -> BTreeMap<NodeName, Incarnation> {
    let mut named = BTreeMap::new();
    for id in claim.into_iter().flat_map(|c| c.holder.iter().chain(c.exceptions.values())) {
        let incarnation = named.entry(id.node.clone()).or_insert(id.incarnation);
        *incarnation = id.incarnation.max(*incarnation);
    }
    named
}
