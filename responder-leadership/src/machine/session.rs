//! The machine's own session: started, renewed, given up, ended.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Gives, Machine};
use crate::{
    event::{Effect, Note},
    flaw::Flaw,
    id::{Incarnation, Object, SessionId, Version},
    lease::{Content, Fitness, Reach, Seen, Session, SessionState},
};

/// Whether the session is ours.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Own {
    /// No.
    Out,
    /// A new incarnation is being written.
    Starting { incarnation: Incarnation, renewal: u64, sent_at: Duration },
    /// Yes.
    In(Held),
    /// Not any more; that is being written.
    Ending { incarnation: Incarnation },
}

/// A session that is ours.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) incarnation: Incarnation,
    /// When the last renewal was sent that is known to have succeeded.
    pub(super) confirmed: Option<Duration>,
    /// When a successful renewal was sent that the watch should have shown by now.
    unseen: Option<Duration>,
    /// When renewals were sent that the watch has not shown.
    sent: BTreeMap<u64, Duration>,
    renew_at: Duration,
    /// What the last renewal said.
    said: Option<(Duration, Fitness, Reach)>,
    failures: u32,
}

impl Own {
    /// A predecessor's session, to be renewed at once.
    pub(super) const fn adopted(incarnation: Incarnation, now: Duration) -> Self {
        Self::In(Held {
            incarnation,
            confirmed: None,
            unseen: None,
            sent: BTreeMap::new(),
            renew_at: now,
            said: None,
            failures: 0,
        })
    }
}

impl Machine {
    /// Takes note that a renewal has come back by the watch: all that was committed before it was sent was seen, too.
    pub(super) fn note_echo(&mut self, version: Version, seen: &Seen<Session>) {
        if version >= self.own_view().version {
            self.watch_works = true;
        }
        let Some(session) = seen.good() else {
            return;
        };
        match &mut self.own {
            Own::Starting { incarnation, renewal, sent_at }
                if *incarnation == session.id.incarnation && *renewal == session.renewal =>
            {
                self.watched_until = self.watched_until.max(*sent_at);
            }
            Own::In(held) if held.incarnation == session.id.incarnation => {
                let Some(sent_at) = held.sent.get(&session.renewal).copied() else {
                    return;
                };
                held.sent = held.sent.split_off(&(session.renewal + 1));
                // Seen, so it has succeeded.
                held.confirmed = held.confirmed.max(Some(sent_at));
                self.watched_until = self.watched_until.max(sent_at);
                held.unseen = held.confirmed.filter(|at| *at > self.watched_until);
            }
            Own::Out | Own::Starting { .. } | Own::In(_) | Own::Ending { .. } => {}
        }
    }

    /// Takes note that a list is complete: all that was committed before it was asked for was seen. Not before: it may show
    /// this session's last renewal, and then a claim that others have taken long ago.
    pub(super) fn note_listed(&mut self, listed_at: Duration) {
        self.watch_works = true;
        self.watched_until = self.watched_until.max(listed_at);
        if let Own::In(held) = &mut self.own {
            held.unseen = held.unseen.filter(|at| *at > self.watched_until);
        }
    }

    pub(super) fn note_renewed(&mut self, session: &Session, sent_at: Duration) {
        let interval = self.interval(session.duration);
        let at = if self.has(Flaw::DeadlineFromArrival) { self.now } else { sent_at };
        let own = std::mem::replace(&mut self.own, Own::Out);
        self.own = match own {
            Own::Starting { incarnation, renewal, .. } if incarnation == session.id.incarnation => {
                self.had = Some(incarnation);
                self.tell(Note::SessionStarted { incarnation });
                self.unsettle_all();
                let Own::In(mut held) = Own::adopted(incarnation, sent_at + interval) else {
                    return;
                };
                held.sent.insert(renewal, sent_at);
                Own::In(Self::confirm(held, session, at, self.watched_until))
            }
            Own::In(mut held) if held.incarnation == session.id.incarnation => {
                held.renew_at = sent_at + interval;
                held.failures = 0;
                Own::In(Self::confirm(held, session, at, self.watched_until))
            }
            Own::Ending { incarnation } if session.state != SessionState::Live => {
                debug_assert_eq!(incarnation, session.id.incarnation);
                Own::Out
            }
            other @ (Own::Out | Own::Starting { .. } | Own::In(_) | Own::Ending { .. }) => other,
        };
    }

    fn confirm(mut held: Held, session: &Session, at: Duration, watched_until: Duration) -> Held {
        held.confirmed = held.confirmed.max(Some(at));
        if at > watched_until {
            held.unseen = held.unseen.or(Some(at));
        }
        held.said = Some((session.duration, session.fitness.clone(), session.reach.clone()));
        held
    }

    pub(super) fn note_own_conflict(&mut self) {
        let now = self.now;
        match &mut self.own {
            Own::Starting { .. } => self.own = Own::Out,
            Own::In(held) => held.renew_at = now,
            Own::Out | Own::Ending { .. } => {}
        }
    }

    pub(super) fn note_own_failure(&mut self, reason: String) {
        let now = self.now;
        let mut failures = 1;
        match &mut self.own {
            Own::Starting { .. } => self.own = Own::Out,
            Own::In(held) => {
                held.failures = held.failures.saturating_add(1);
                held.renew_at = now; // as soon as the retry may
                failures = held.failures;
            }
            Own::Out | Own::Ending { .. } => {}
        }
        self.tell(Note::RenewalFailed { reason, failures });
    }

    /// Compares what is known of the session with what its Lease says.
    pub(super) fn compare_own(&mut self) {
        let view = self.own_view();
        let ours = |incarnation: Incarnation| {
            view.seen.good().is_some_and(|session| {
                session.id == self.id(incarnation)
                    && session.state == SessionState::Live
                    && session.datapath == self.settings.datapath
            })
        };
        match &self.own {
            Own::In(held) if !ours(held.incarnation) => {
                let reason = match &view.seen {
                    Seen::Absent => "its Lease was deleted".to_owned(),
                    Seen::Bad(reason) => format!("its Lease was changed by hand: {reason}"),
                    Seen::Good(Session { state: SessionState::Ended { by }, .. }) => {
                        format!("{by} has revoked it")
                    }
                    Seen::Good(other) => format!("{} has taken its place", other.id),
                };
                self.lose(reason);
            }
            Own::Starting { .. } if !self.pending.contains_key(&self.own_object()) => self.own = Own::Out,
            Own::Ending { incarnation } if !ours(*incarnation) => self.own = Own::Out,
            Own::Out | Own::Starting { .. } | Own::In(_) | Own::Ending { .. } => {}
        }
    }

    pub(super) fn lose(&mut self, reason: String) {
        self.own = Own::Out;
        self.tell(Note::SessionLost { reason });
        self.forget_holdings();
    }

    fn forget_holdings(&mut self) {
        self.doubts.clear();
        self.received.clear();
        self.unwanted.clear();
        self.unsettle_all();
    }

    /// Ends the session where its renewals do not come back: what others write is not seen here, either.
    pub(super) fn give_up_if_the_watch_is_stale(&mut self) {
        let times = self.settings.times;
        let Own::In(held) = &self.own else {
            return;
        };
        let (Some(unseen), incarnation) = (held.unseen, held.incarnation) else {
            return;
        };
        let at = unseen + times.watch_limit() - times.margin() * 2;
        if self.now < at {
            self.wake_at(at);
            return;
        }
        self.watch_works = false;
        self.own = Own::Ending { incarnation };
        self.tell(Note::WatchStale);
        self.forget_holdings();
    }

    pub(super) fn advance_session(&mut self) {
        let object = self.own_object();
        match &self.own {
            Own::Out if self.stopping.is_some() => {
                self.finished = true;
                self.writes.push(Effect::Finished);
            }
            Own::Out => self.start(),
            Own::In(held) => {
                let incarnation = held.incarnation;
                if let Some(since) = self.stopping
                    && self.may_end(since)
                {
                    self.own = Own::Ending { incarnation };
                    self.forget_holdings();
                    self.end();
                } else {
                    self.renew();
                }
            }
            Own::Ending { .. } => self.end(),
            Own::Starting { .. } => debug_assert!(self.pending.contains_key(&object)),
        }
    }

    /// Whether all that can be handed over is.
    fn may_end(&mut self, since: Duration) -> bool {
        let late = since + self.settings.times.watch_limit();
        if self.now >= late {
            return true;
        }
        self.wake_at(late);
        let claims = self.pending.keys().any(|object| matches!(object, Object::Claim(_)));
        !claims && self.unsettled.is_empty() && self.reading.is_empty()
    }

    fn end(&mut self) {
        let Own::Ending { incarnation } = self.own else {
            return;
        };
        let object = self.own_object();
        if !self.may_write(&object) {
            return;
        }
        let state = SessionState::Ended { by: self.settings.node.clone() };
        self.write_own(incarnation, state, self.settings.times.lease_duration);
    }

    /// Begins a new incarnation when that is safe.
    fn start(&mut self) {
        let object = self.own_object();
        if !self.watch_works || !self.may_write(&object) {
            return;
        }
        let view = self.own_view();
        let named = self.named_incarnation();
        let known = self.had.is_some_and(|had| named.is_none_or(|named| named <= had));
        let unclear = view.changed_at + self.unclear_for();
        let allowed_at = match &view.seen {
            // Nothing is known that might still answer in this node's name.
            Seen::Absent if named.is_none() || known => self.now,
            Seen::Bad(_) if self.had.is_some() && known => self.now,
            Seen::Absent | Seen::Bad(_) => unclear,
            Seen::Good(session) if session.state != SessionState::Live => self.now,
            // The maps are ours, and nothing is on in them.
            Seen::Good(session) if session.datapath == self.settings.datapath => self.now,
            Seen::Good(_) if self.has(Flaw::StartOverOthers) => self.now,
            Seen::Good(session) => {
                if self.synced_at.is_some_and(|synced| view.changed_at > synced) {
                    let datapath = session.datapath.clone();
                    self.tell_once_in_use(datapath);
                }
                view.changed_at + session.duration.max(self.settings.times.lease_duration)
            }
        };
        if self.now < allowed_at {
            self.wake_at(allowed_at);
            return;
        }
        // A later one that others have seen would make this one dead for them, also when its Lease is deleted.
        let last = [named, self.had].into_iter().flatten().fold(self.latest, Incarnation::max);
        let incarnation = Incarnation(self.wall_ms().max(last.0.saturating_add(1)));
        let idle = self.idle_duration();
        let renewal = self.write_own(incarnation, SessionState::Live, idle);
        self.own = Own::Starting { incarnation, renewal, sent_at: self.now };
    }

    fn tell_once_in_use(&mut self, datapath: String) {
        if self.in_use.as_ref() != Some(&datapath) {
            self.in_use = Some(datapath.clone());
            self.tell(Note::NameInUse { datapath });
        }
    }

    /// The latest incarnation of this node that a claim names.
    pub(super) fn named_incarnation(&self) -> Option<Incarnation> {
        self.named.iter().filter_map(|named| named.get(&self.settings.node)).max().copied()
    }

    /// Renews the session when it is time, or when it has something new to say.
    fn renew(&mut self) {
        let wanted = if self.is_active() { self.settings.times.lease_duration } else { self.idle_duration() };
        let says = (wanted, self.fitness.clone(), self.reach.clone());
        let last = self.deadline_base();
        let Own::In(held) = &self.own else {
            return;
        };
        let (incarnation, renew_at) = (held.incarnation, held.renew_at);
        // An idle session's duration need not be shortened before its time, but a holder's must.
        let news = held
            .said
            .as_ref()
            .is_none_or(|said| *said != says && !(said.1 == says.1 && said.2 == says.2 && wanted > said.0));
        let due =
            if news { last.map_or(self.now, |at| at + self.settings.times.turn() / 4) } else { renew_at };
        let due = due.min(renew_at);
        let object = self.own_object();
        if self.now < due {
            self.wake_at(due);
        } else if self.may_write(&object) {
            let renewal = self.write_own(incarnation, SessionState::Live, wanted);
            let now = self.now;
            if let Own::In(held) = &mut self.own {
                held.sent.insert(renewal, now);
                while held.sent.len() > 64 {
                    held.sent.pop_first();
                }
            }
        }
    }

    /// When the last successful renewal was sent.
    const fn deadline_base(&self) -> Option<Duration> {
        match &self.own {
            Own::In(held) => held.confirmed,
            Own::Out | Own::Starting { .. } | Own::Ending { .. } => None,
        }
    }

    fn write_own(&mut self, incarnation: Incarnation, state: SessionState, duration: Duration) -> u64 {
        let view = self.own_view();
        let renewal = self.next_number();
        let content = Content::Session(Session {
            id: SessionId { node: self.settings.node.clone(), incarnation },
            state,
            duration,
            renewal,
            datapath: self.settings.datapath.clone(),
            fitness: self.fitness.clone(),
            reach: self.reach.clone(),
        });
        self.write(self.own_object(), (view.version, view.base()), content, Gives::default(), None);
        renewal
    }

    /// Whether something is held or being taken, so that others must see soon if this node dies.
    fn is_active(&self) -> bool {
        let taking = self.pending.keys().any(|object| matches!(object, Object::Claim(_)));
        let held = self.named_incarnation().is_some_and(|named| self.is_me(&self.id(named)));
        taking || held
    }

    fn idle_duration(&self) -> Duration {
        self.settings.times.idle_renew_interval + self.settings.times.lease_duration
    }

    fn interval(&self, duration: Duration) -> Duration {
        let times = self.settings.times;
        if duration > times.lease_duration { times.idle_renew_interval } else { times.renew_interval }
    }
}
