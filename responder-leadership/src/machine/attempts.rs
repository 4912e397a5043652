//! Writes and reads, and when to try again.

use std::time::Duration;

use super::{Gives, Machine, Pending, Retry};
use crate::{
    event::{Effect, Note},
    id::{Object, Version},
    lease::Content,
};

impl Machine {
    /// Up to a quarter of `span`.
    fn jitter(&mut self, span: Duration) -> Duration {
        // xorshift64 (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = u32::try_from(self.random % 1024).unwrap_or_default();
        span / 4 * part / 1024
    }

    /// Notes a failed attempt; the next comes after a growing time.
    pub(super) fn back_off(&mut self, object: Object) {
        let span = self.settings.times.renew_interval;
        let failures = self.retries.get(&object).map_or(0, |retry| retry.failures).saturating_add(1);
        let wait = span / 4 * 2_u32.pow(failures.min(3) - 1);
        let not_before = self.now + wait + self.jitter(wait);
        self.retries.insert(object, Retry { failures, not_before });
    }

    /// Whether something may be written to `object` now; otherwise it is looked at again in time.
    pub(super) fn may_write(&mut self, object: &Object) -> bool {
        if self.pending.contains_key(object) || self.reading.contains(object) {
            return false;
        }
        match self.retries.get(object) {
            Some(retry) if self.now < retry.not_before => {
                self.wake_at(retry.not_before);
                false
            }
            Some(_) | None => true,
        }
    }

    /// A number that no earlier write had, none of the agents before this one either: it keeps up with the boot
    /// clock, in µs.
    ///
    /// A successor that counted anew would take its predecessor's renewals for its own, and could write what is
    /// stored already, which renews nothing.
    pub(super) fn next_number(&mut self) -> u64 {
        let clock = self.now.as_micros().try_into().unwrap_or(u64::MAX);
        self.number = clock.max(self.number + 1);
        self.number
    }

    pub(super) fn write(
        &mut self,
        object: Object,
        view: (Version, Option<Version>),
        content: Content,
        gives: Gives,
        note: Option<Note>,
    ) {
        let id = self.next_number();
        let (version, base) = view;
        let renewal = object == self.own_object();
        if let Object::Claim(group) = object {
            self.stale.insert(group);
        }
        let pending = Pending { id, sent_at: self.now, version, content: content.clone(), gives, note };
        self.pending.insert(object.clone(), pending);
        self.writes.push(Effect::Write { id, object, base, content, renewal });
    }

    pub(super) fn read(&mut self, object: Object) {
        let known = match &object {
            Object::Session(node) => self.peers.get(node).map(|peer| peer.view.version),
            Object::Claim(group) => self.claims.get(usize::from(*group)).map(|view| view.version),
        };
        if self.reading.insert(object.clone()) {
            self.writes.push(Effect::Read { object, known: known.unwrap_or_default() });
        }
    }
}
