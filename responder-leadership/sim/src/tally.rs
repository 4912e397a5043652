//! What has happened, counted: a fault that never occurs proves nothing.

use std::{collections::BTreeMap, fmt};

use responder_leadership::{
    event::{Effect, Event, Note, Outcome, Via},
    lease::{Content, Seen},
};

/// How often everything has happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
    maxima: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Notes that something was as much as this.
    pub(crate) fn at_most(&mut self, what: &'static str, n: u64) {
        let max = self.maxima.entry(what).or_default();
        *max = n.max(*max);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (what, n) in &other.counts {
            *self.counts.entry(what).or_default() += n;
        }
        for (what, n) in &other.maxima {
            self.at_most(what, *n);
        }
    }

    /// How often it has happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// What should have happened and has not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        EVERYTHING.iter().copied().filter(|what| self.of(what) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, n) in &self.counts {
            writeln!(f, "{n:>12}  {what}")?;
        }
        for (what, n) in &self.maxima {
            writeln!(f, "{n:>12}  max. {what}")?;
        }
        Ok(())
    }
}

/// What must happen in a good number of schedules.
pub(crate) const EVERYTHING: &[&str] = &[
    "event: session, good",
    "event: session, bad",
    "event: session, absent",
    "event: claim, good",
    "event: claim, bad",
    "event: claim, absent",
    "event: seen by a read",
    "event: synced",
    "event: written, done",
    "event: written, conflict",
    "event: written, refused",
    "event: written, unknown",
    "event: unread",
    "event: demand",
    "event: local",
    "event: expected",
    "event: longest",
    "event: move",
    "event: stop",
    "event: tick",
    "effect: answer",
    "effect: deadline",
    "effect: deadline at most",
    "effect: renewal",
    "effect: create session",
    "effect: write session",
    "effect: create claim",
    "effect: write claim",
    "effect: read",
    "effect: finished",
    "note: session started",
    "note: session adopted",
    "note: session lost",
    "note: watch stale",
    "note: name in use",
    "note: renewal failed",
    "note: revoked",
    "note: took a group of the dead",
    "note: took a free group",
    "note: received a group",
    "note: handed over",
    "note: excepted",
    "note: took an exception back",
    "note: group lost",
    "note: bad Lease",
    "note: write refused",
    "note: move refused",
    "write: landed late",
    "write: of a dead agent",
];

pub(crate) fn event(event: &Event) -> &'static str {
    match event {
        Event::Session { via: Via::Read, .. } | Event::Claim { via: Via::Read, .. } => {
            "event: seen by a read"
        }
        Event::Session { seen, .. } => match seen {
            Seen::Good(_) => "event: session, good",
            Seen::Bad(_) => "event: session, bad",
            Seen::Absent => "event: session, absent",
        },
        Event::Claim { seen, .. } => match seen {
            Seen::Good(_) => "event: claim, good",
            Seen::Bad(_) => "event: claim, bad",
            Seen::Absent => "event: claim, absent",
        },
        Event::Synced { .. } => "event: synced",
        Event::Written { outcome, .. } => match outcome {
            Outcome::Done(_) => "event: written, done",
            Outcome::Conflict => "event: written, conflict",
            Outcome::Refused(_) => "event: written, refused",
            Outcome::Unknown(_) => "event: written, unknown",
        },
        Event::Unread { .. } => "event: unread",
        Event::Demand(_) => "event: demand",
        Event::Local { .. } => "event: local",
        Event::Expected(_) => "event: expected",
        Event::Longest(_) => "event: longest",
        Event::Move { .. } => "event: move",
        Event::Stop => "event: stop",
        Event::Tick => "event: tick",
    }
}

pub(crate) fn effect(effect: &Effect) -> &'static str {
    match effect {
        Effect::Answer(_) => "effect: answer",
        Effect::Deadline(_) => "effect: deadline",
        Effect::DeadlineAtMost(_) => "effect: deadline at most",
        Effect::Write { renewal: true, .. } => "effect: renewal",
        Effect::Write { content: Content::Session(_), base: None, .. } => "effect: create session",
        Effect::Write { content: Content::Session(_), .. } => "effect: write session",
        Effect::Write { content: Content::Claim(_), base: None, .. } => "effect: create claim",
        Effect::Write { content: Content::Claim(_), .. } => "effect: write claim",
        Effect::Read { .. } => "effect: read",
        Effect::Tell(note) => self::note(note),
        Effect::Finished => "effect: finished",
    }
}

fn note(note: &Note) -> &'static str {
    match note {
        Note::SessionStarted { .. } => "note: session started",
        Note::SessionAdopted { .. } => "note: session adopted",
        Note::SessionLost { .. } => "note: session lost",
        Note::WatchStale => "note: watch stale",
        Note::NameInUse { .. } => "note: name in use",
        Note::RenewalFailed { .. } => "note: renewal failed",
        Note::Revoked { .. } => "note: revoked",
        Note::Took { from: Some(_), .. } => "note: took a group of the dead",
        Note::Took { from: None, .. } => "note: took a free group",
        Note::Received { .. } => "note: received a group",
        Note::HandedOver { .. } => "note: handed over",
        Note::Excepted { vips, .. } if vips.values().any(Option::is_none) => "note: took an exception back",
        Note::Excepted { .. } => "note: excepted",
        Note::GroupLost { .. } => "note: group lost",
        Note::BadLease { .. } => "note: bad Lease",
        Note::WriteRefused { .. } => "note: write refused",
        Note::MoveRefused { .. } => "note: move refused",
    }
}
