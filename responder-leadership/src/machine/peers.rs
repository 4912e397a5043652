//! Other nodes' sessions: alive, expired, revoked.

use std::{collections::BTreeMap, time::Duration};

use super::{Gives, Machine, View};
use crate::{
    event::Note,
    flaw::Flaw,
    group::score,
    id::{Incarnation, NodeName, Object, SessionId},
    lease::{Content, Fitness, Reach, Seen, Session, SessionState},
};

impl Machine {
    /// A peer's session, if it was renewed in time as far as can be seen here. For this node: if it is ours.
    pub(super) fn live(&self, node: &NodeName) -> Option<&Session> {
        let peer = self.peers.get(node)?;
        let session = peer.view.seen.good()?;
        if *node == self.settings.node {
            return self.is_me(&session.id).then_some(session);
        }
        let live = session.state == SessionState::Live && self.now < self.expiry(&peer.view, session);
        live.then_some(session)
    }

    /// Has everything looked at again when a peer is not live any more, whether it held something or not: others may
    /// have waited for it.
    pub(super) fn note_lapses(&mut self) {
        let lives: Vec<bool> = self.peers.keys().map(|node| self.live(node).is_some()).collect();
        let mut lapsed = false;
        let mut next = None;
        for (peer, lives) in self.peers.values_mut().zip(lives) {
            lapsed |= peer.lives && !lives;
            peer.lives = lives;
        }
        for (node, peer) in &self.peers {
            if let Some(session) = peer.view.seen.good().filter(|_| peer.lives && *node != self.settings.node)
            {
                let expiry = self.expiry(&peer.view, session);
                next = Some(next.map_or(expiry, |next: Duration| next.min(expiry)));
            }
        }
        if lapsed {
            self.unsettle_all();
        }
        if let Some(next) = next {
            self.wake_at(next);
        }
    }

    fn expiry(&self, view: &View<Session>, session: &Session) -> Duration {
        view.changed_at + session.duration.max(self.settings.times.lease_duration)
    }

    /// Whether a session has certainly ended: it is seen ended, or a later one of its node is seen.
    pub(super) fn dead(&self, id: &SessionId) -> bool {
        let view = self.peers.get(&id.node).map(|peer| &peer.view);
        let Some(session) = view.and_then(|view| view.seen.good()) else {
            return self.has(Flaw::MissingIsDead);
        };
        let ended = session.state != SessionState::Live;
        if self.has(Flaw::TakeWithoutRevoke) && id.node != self.settings.node && self.live(&id.node).is_none()
        {
            return true;
        }
        if self.has(Flaw::OtherIncarnationIsDead) && session.id.incarnation != id.incarnation {
            return true;
        }
        session.id.incarnation > id.incarnation || (session.id.incarnation == id.incarnation && ended)
    }

    /// Revokes expired sessions that hold something, each by the node whose turn it is.
    pub(super) fn revoke_expired(&mut self) {
        let mut named: BTreeMap<NodeName, Incarnation> = BTreeMap::new();
        for (node, incarnation) in self.named.iter().flatten() {
            let latest = named.entry(node.clone()).or_insert(*incarnation);
            *latest = (*incarnation).max(*latest);
        }
        for (node, incarnation) in named {
            let id = SessionId { node, incarnation };
            if self.is_me(&id) || self.dead(&id) {
                continue;
            }
            if id.node == self.settings.node {
                self.outgrow(&id);
            } else {
                self.revoke_if_expired(&id);
            }
        }
    }

    /// A claim names this node in an incarnation that it has not reached: nobody could ever take it.
    fn outgrow(&mut self, id: &SessionId) {
        let since = self.named_since(id);
        let at = since + self.unclear_for();
        if self.now < at {
            self.wake_at(at);
        } else {
            self.lose(format!("a claim names {id}, which this session is not"));
        }
    }

    /// Since when a claim has been seen to name a session.
    fn named_since(&self, id: &SessionId) -> Duration {
        let naming = self
            .named
            .iter()
            .zip(&self.claims)
            .filter(|(named, _)| named.get(&id.node) == Some(&id.incarnation));
        naming.map(|(_, view)| view.changed_at).min().unwrap_or(self.now)
    }

    fn revoke_if_expired(&mut self, id: &SessionId) {
        let view = self.peers.get(&id.node).map(|peer| peer.view.clone());
        let view = view.unwrap_or_else(|| View::unseen(self.synced_at.unwrap_or(self.now)));
        // A session may come and go unseen; a claim that names it was made while it was live.
        let unclear = view.changed_at.max(self.named_since(id)) + self.unclear_for();
        let (expired_at, reason) = match &view.seen {
            Seen::Absent => (unclear, "its Lease is missing"),
            Seen::Bad(_) => (unclear, "its Lease cannot be understood"),
            Seen::Good(session) if session.state != SessionState::Live => {
                (unclear, "its Lease is older than its claims")
            }
            Seen::Good(session) => (self.expiry(&view, session), "it was not renewed"),
        };
        let expired_at = expired_at.max(self.patient_until);
        let turn_at = expired_at + self.settings.times.turn() * self.turns_before(&id.node);
        if self.now < turn_at {
            self.wake_at(turn_at);
            return;
        }
        let object = Object::Session(id.node.clone());
        if !self.may_write(&object) {
            return;
        }
        let seen = view.seen.good();
        let incarnation = seen.map_or(id.incarnation, |session| session.id.incarnation.max(id.incarnation));
        let session = SessionId { node: id.node.clone(), incarnation };
        let renewal = self.next_number();
        let content = Content::Session(Session {
            id: session.clone(),
            state: SessionState::Ended { by: self.settings.node.clone() },
            duration: seen.map_or(self.settings.times.lease_duration, |session| session.duration),
            renewal,
            datapath: seen.map_or_else(String::new, |session| session.datapath.clone()),
            fitness: seen.map_or(Fitness::Fit, |session| session.fitness.clone()),
            reach: seen.map_or(Reach::Any, |session| session.reach.clone()),
        });
        let note = Note::Revoked { session, reason: reason.to_owned() };
        self.write(object, (view.version, view.base()), content, Gives::default(), Some(note));
    }

    /// How many live nodes come before this one to revoke `dead`.
    fn turns_before(&self, dead: &NodeName) -> u32 {
        let key = format!("session {dead}");
        let own = score(&self.settings.node, &key);
        let before = |node: &&NodeName| {
            **node != self.settings.node && self.live(node).is_some() && score(node, &key) > own
        };
        self.peers.keys().filter(before).count().try_into().unwrap_or(u32::MAX)
    }
}
