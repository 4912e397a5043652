//! The decisions: events and the time in, effects out.
//!
//! * this file: what a machine knows, and the order in which it decides.
//! * `seen`: what it is told.
//! * `attempts`: its writes and reads. `outcomes`: how they end.
//! * `session`: its own session: started, renewed, given up, ended.
//! * `peers`: other nodes' sessions: alive, expired, revoked.
//! * `place`: who may and who should answer.
//! * `claims`: taking and handing over.
//! * `exceptions`: single VIPs given to others and back.
//! * `answer`: what the datapath is told.
//! * `overview`: what people are told.

mod answer;
mod attempts;
mod claims;
mod exceptions;
mod outcomes;
mod overview;
mod peers;
mod place;
mod seen;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::overview::Overview;
use self::{answer::Part, session::Own};
use crate::{
    event::{Effect, Eligible, Event, Holdings, Note},
    flaw::Flaw,
    group::group_of,
    id::{Group, Incarnation, NodeName, Object, SessionId, Version},
    lease::{Claim, Content, Fitness, Reach, Seen, Session},
    settings::Settings,
};

/// How long a VIP that was just received is not passed on: the giver may have known more.
const GRACE_TURNS: u32 = 3;

/// What an agent finds that takes over its predecessor's datapath.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Adopted {
    /// The session that the pinned maps belong to.
    pub incarnation: Incarnation,
    /// Groups that the maps answer for.
    pub groups: BTreeSet<Group>,
    /// VIPs that the maps answer for, in these groups or one by one. Every other may have been given away by a write
    /// that is still under way.
    pub vips: BTreeSet<IpAddr>,
}

/// An object as it was last seen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct View<T> {
    version: Version,
    seen: Seen<T>,
    /// When this version was first seen here.
    changed_at: Duration,
}

impl<T> View<T> {
    const fn unseen(at: Duration) -> Self {
        Self { version: Version(0), seen: Seen::Absent, changed_at: at }
    }

    const fn base(&self) -> Option<Version> {
        match self.seen {
            Seen::Absent => None,
            Seen::Bad(_) | Seen::Good(_) => Some(self.version),
        }
    }
}

/// A node's session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Peer {
    view: View<Session>,
    /// When its incarnation was first seen.
    since: Duration,
    /// Whether it counted as live when this was last looked at.
    lives: bool,
    /// The last incarnation that was begun or renewed since the first list was complete.
    seen_alive: Option<Incarnation>,
}

/// What a write gives away, which must not be answered while the write may still happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
struct Gives {
    group: bool,
    vips: BTreeSet<IpAddr>,
}

impl Gives {
    fn nothing(&self) -> bool {
        !self.group && self.vips.is_empty()
    }
}

/// A write under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Pending {
    id: u64,
    sent_at: Duration,
    /// The version that the view had.
    version: Version,
    content: Content,
    gives: Gives,
    note: Option<Note>,
}

/// A write that may or may not have happened, or may still do so as long as the object has this version.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Doubt {
    version: Version,
    gives: Gives,
    /// Only these VIPs may be answered meanwhile: a predecessor's writes are not known.
    only: Option<BTreeSet<IpAddr>>,
}

/// When to try again what has failed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Retry {
    failures: u32,
    not_before: Duration,
}

/// One node's part of the leadership protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Machine {
    settings: Settings,
    adopt: Option<Adopted>,
    now: Duration,
    random: u64,
    longest: Duration,
    /// When the first list was complete; until then nothing is decided.
    synced_at: Option<Duration>,
    /// Everything that was committed before this has been seen.
    watched_until: Duration,
    /// False from a give-up because of the watch until the watch has shown that it works.
    watch_works: bool,
    /// After a stop of the whole agent: peers' renewals may be waiting to be read.
    patient_until: Duration,
    own: Own,
    /// The last incarnation that this machine itself had.
    had: Option<Incarnation>,
    /// The latest incarnation of this node that was ever seen, another host's of the same name included.
    latest: Incarnation,
    peers: BTreeMap<NodeName, Peer>,
    claims: Vec<View<Claim>>,
    pending: BTreeMap<Object, Pending>,
    doubts: BTreeMap<Object, Doubt>,
    reading: BTreeSet<Object>,
    retries: BTreeMap<Object, Retry>,
    demand: Vec<BTreeMap<IpAddr, Eligible>>,
    /// VIPs held as exceptions, since when.
    received: BTreeMap<IpAddr, Duration>,
    /// VIPs held as exceptions that nobody wants, since when.
    unwanted: BTreeMap<IpAddr, Duration>,
    fitness: Fitness,
    reach: Reach,
    expected: Option<BTreeSet<NodeName>>,
    moves: BTreeMap<Group, NodeName>,
    stopping: Option<Duration>,
    finished: bool,
    /// Groups whose holder or exceptions may have to change.
    unsettled: BTreeSet<Group>,
    free_since: BTreeMap<Group, Duration>,
    /// Who is to take each free group, as of the last look.
    chosen: BTreeMap<Group, NodeName>,
    /// The sessions that each claim names, with their latest incarnations.
    named: Vec<BTreeMap<NodeName, Incarnation>>,
    /// The datapath of someone else who uses this node's name.
    in_use: Option<String>,
    /// Groups of which something else may have to be answered.
    stale: BTreeSet<Group>,
    parts: BTreeMap<Group, Part>,
    answered: Option<Arc<Holdings>>,
    /// Whether `answered` has not been said yet.
    say: bool,
    /// Since when the predecessor's session goes on, until its deadline has been limited.
    limit: Option<Duration>,
    deadline: Option<Duration>,
    number: u64,
    wake: Option<Duration>,
    writes: Vec<Effect>,
    notes: Vec<Note>,
    #[cfg(feature = "flaws")]
    flaw: Option<Flaw>,
}

impl Machine {
    /// A machine that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings, adopted: Option<Adopted>) -> Self {
        let claims = usize::from(settings.claims.get());
        Self {
            adopt: adopted,
            now: Duration::ZERO,
            random: settings.seed | 1,
            longest: settings.longest.max(settings.times.lease_duration),
            synced_at: None,
            watched_until: Duration::ZERO,
            watch_works: true,
            patient_until: Duration::ZERO,
            own: Own::Out,
            had: None,
            latest: Incarnation::default(),
            peers: BTreeMap::new(),
            claims: vec![View::unseen(Duration::ZERO); claims],
            pending: BTreeMap::new(),
            doubts: BTreeMap::new(),
            reading: BTreeSet::new(),
            retries: BTreeMap::new(),
            demand: vec![BTreeMap::new(); claims],
            received: BTreeMap::new(),
            unwanted: BTreeMap::new(),
            fitness: Fitness::Fit,
            reach: Reach::Any,
            expected: None,
            moves: BTreeMap::new(),
            stopping: None,
            finished: false,
            unsettled: BTreeSet::new(),
            free_since: BTreeMap::new(),
            chosen: BTreeMap::new(),
            named: vec![BTreeMap::new(); claims],
            in_use: None,
            stale: BTreeSet::new(),
            parts: BTreeMap::new(),
            answered: None,
            say: false,
            limit: None,
            deadline: None,
            number: 0,
            wake: None,
            writes: Vec::new(),
            notes: Vec::new(),
            #[cfg(feature = "flaws")]
            flaw: None,
            settings,
        }
    }

    /// Plants a fault.
    #[cfg(feature = "flaws")]
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }

    #[cfg(feature = "flaws")]
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    #[cfg(not(feature = "flaws"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    const fn has(&self, _: Flaw) -> bool {
        false
    }

    /// Settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`Event::Tick`] must be told at the latest, if nothing else is.
    #[must_use]
    pub const fn next_wake(&self) -> Option<Duration> {
        self.wake
    }

    /// The session that is ours now.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match &self.own {
            Own::In(held) => Some(self.id(held.incarnation)),
            Own::Out | Own::Starting { .. } | Own::Ending { .. } => None,
        }
    }

    /// Takes note of an event at `now` (CLOCK_BOOTTIME) and decides.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let times = self.settings.times;
        if self.wake.is_some_and(|wake| now > wake + times.lease_duration / 4) {
            self.patient_until = now + times.turn();
        }
        self.now = self.now.max(now);
        self.take_note(event);
        self.decide();
        self.effects()
    }

    fn decide(&mut self) {
        self.wake = None;
        if self.synced_at.is_none() || self.finished {
            return;
        }
        self.note_lapses();
        self.give_up_if_the_watch_is_stale();
        if matches!(self.own, Own::In(_)) {
            self.revoke_expired();
            self.advance_claims();
        }
        self.advance_session();
        self.note_answer();
    }

    /// What is answered comes first, then how long, then what others are told.
    fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let writes = std::mem::take(&mut self.writes);
        if self.has(Flaw::GiveBeforeSilence) {
            effects.extend(writes);
            self.say_answer(&mut effects);
        } else {
            self.say_answer(&mut effects);
            effects.extend(writes);
        }
        effects.extend(std::mem::take(&mut self.notes).into_iter().map(Effect::Tell));
        effects
    }

    fn id(&self, incarnation: Incarnation) -> SessionId {
        SessionId { node: self.settings.node.clone(), incarnation }
    }

    fn own_object(&self) -> Object {
        Object::Session(self.settings.node.clone())
    }

    fn own_view(&self) -> View<Session> {
        let peer = self.peers.get(&self.settings.node);
        peer.map_or_else(|| View::unseen(self.synced_at.unwrap_or_default()), |peer| peer.view.clone())
    }

    /// Whether `id` is this machine's session as it is now.
    fn is_me(&self, id: &SessionId) -> bool {
        id.node == self.settings.node
            && matches!(&self.own, Own::In(held) if held.incarnation == id.incarnation)
    }

    fn groups(&self) -> std::ops::Range<Group> {
        0..self.settings.claims.get()
    }

    fn group_of(&self, vip: &IpAddr) -> Group {
        group_of(*vip, self.settings.claims)
    }

    fn claim(&self, group: Group) -> Option<&Claim> {
        self.claims.get(usize::from(group)).and_then(|view| view.seen.good())
    }

    fn wake_at(&mut self, at: Duration) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn tell(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// How long something must be unclear before it counts as nobody's: by then every live session has seen it by its
    /// watch, or has given itself up.
    fn unclear_for(&self) -> Duration {
        if self.has(Flaw::TakeUnclearAtOnce) { Duration::ZERO } else { self.longest * 2 }
    }

    fn wall_ms(&self) -> u64 {
        let (ms, boot) = self.settings.wall;
        ms.saturating_add(self.now.saturating_sub(boot).as_millis().try_into().unwrap_or(u64::MAX))
    }
}
