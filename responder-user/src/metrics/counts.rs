//! What is counted as it happens: everything that is told to `responder watch`.

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use responder_leadership::{
    event::Note,
    id::{Object, Version},
};

use super::{Renewals, families::PREFIX};
use crate::journal::Happening;

/// One label's name and value.
type Label = [(&'static str, &'static str); 1];
/// Counters by the value of one label.
type By = Family<Label, Counter>;

/// What has happened so far.
#[derive(Debug)]
pub struct Counts {
    registry: Registry,
    changes: By,
    attachments: By,
    lapses: Counter,
    silent: Counter<f64, AtomicU64>,
    gained: By,
    given: By,
    exceptions: Counter,
    sessions: By,
    sessions_lost: Counter,
    stale: Counter,
    name_in_use: Counter,
    renewal_failures: Counter,
    revoked: Counter,
    bad_leases: By,
    refused: By,
    moves_refused: Counter,
    renewals: Renewals,
}

/// Registers counters so that each is there, as 0, before it first counts: an increase from nothing is none.
struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn by(&mut self, name: &str, help: &str, label: &'static str, values: &[&'static str]) -> By {
        let family = By::default();
        for value in values {
            drop(family.get_or_create(&[(label, *value)]));
        }
        self.0.register(name, help, family.clone());
        family
    }
}

impl Counts {
    /// Nothing has happened yet. What is about leadership is left out where there is none.
    #[must_use]
    pub fn new(in_cluster: bool) -> Self {
        let (mut registry, mut left_out) = (Registry::with_prefix(PREFIX), Registry::default());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        registry.register_with_unit(
            "start_time",
            "When the agent started, since 1970",
            Unit::Seconds,
            ConstGauge::new(since_1970.as_secs_f64()),
        );
        let mut host = Register(&mut registry);
        let changes = host.by(
            "vip_changes",
            "Addresses and links by what became of them: gained, kept over a restart of the agent, lost",
            "change",
            &["gained", "kept", "lost"],
        );
        let attachments = host.by(
            "attachments",
            "Links that the program was attached to, and that it could not be attached to",
            "result",
            &["attached", "failed"],
        );
        let lapses = host.counter(
            "lapses",
            "How often the deadline had passed before the agent could extend it, while it owned addresses",
        );
        let silent = Counter::default();
        registry.register_with_unit(
            "lapse",
            "Time in which nothing was answered because of that",
            Unit::Seconds,
            silent.clone(),
        );
        let mut cluster = Register(if in_cluster { &mut registry } else { &mut left_out });
        let gained = cluster.by(
            "claims_gained",
            "Claims that this node came to hold: failovers (holder_gone), free ones, and those that were handed over to it",
            "cause",
            &["holder_gone", "free", "handed_over"],
        );
        let given = cluster.by(
            "claims_given_up",
            "Claims that this node held and holds no more: handed over, or lost without its doing (those lost with its \
             session are not counted here)",
            "cause",
            &["handed_over", "lost"],
        );
        let exceptions =
            cluster.counter("exceptions_given", "Single addresses that this node gave to other nodes");
        let sessions = cluster.by(
            "sessions",
            "Sessions that this node began or took over",
            "how",
            &["started", "adopted"],
        );
        let sessions_lost = cluster
            .counter("sessions_lost", "Sessions that this node lost: it stopped answering for everything");
        let stale = cluster.counter(
            "stale_watches",
            "How often renewals did not come back by the watch, and the session was given up",
        );
        let name_in_use =
            cluster.counter("node_name_conflicts", "How often another agent was seen with this node's name");
        let renewal_failures =
            cluster.counter("renewal_failures", "Renewals of this node's session that failed");
        let revoked = cluster.counter(
            "sessions_revoked",
            "Sessions of other nodes that this node ended after they had expired",
        );
        let bad_leases = cluster.by(
            "bad_leases",
            "Leases seen that cannot be understood, and count as nobody's",
            "kind",
            &["session", "claim", "cluster"],
        );
        let refused = cluster.by(
            "refused_writes",
            "Writes of Leases that the API server refused (forbidden, invalid, too many requests)",
            "kind",
            &["session", "claim"],
        );
        let moves_refused = cluster.counter("refused_moves", "Moves asked for that could not be done");
        let renewals = Renewals::default();
        let into = if in_cluster { &mut registry } else { &mut left_out };
        renewals.register(into);
        Self {
            registry,
            changes,
            attachments,
            lapses,
            silent,
            gained,
            given,
            exceptions,
            sessions,
            sessions_lost,
            stale,
            name_in_use,
            renewal_failures,
            revoked,
            bad_leases,
            refused,
            moves_refused,
            renewals,
        }
    }

    /// Where renewals are told.
    #[must_use]
    pub fn renewals(&self) -> Renewals {
        self.renewals.clone()
    }

    /// The watch has shown this node's session at a version.
    pub fn session_seen(&self, version: Version) {
        self.renewals.seen(version);
    }

    /// The cluster's record was seen and cannot be understood.
    pub fn bad_record(&self) {
        by(&self.bad_leases, "kind", "cluster");
    }

    /// Something has happened.
    pub fn count(&self, happening: &Happening) {
        let change = |what| by(&self.changes, "change", what);
        let attachment = |what| by(&self.attachments, "result", what);
        match happening {
            Happening::Gained { .. } => change("gained"),
            Happening::Kept { .. } => change("kept"),
            Happening::Lost { .. } => change("lost"),
            Happening::Attached { .. } => attachment("attached"),
            Happening::NotAttached { .. } => attachment("failed"),
            Happening::Lapsed { silent_ms, resumed: _ } => {
                self.lapses.inc();
                self.silent.inc_by(Duration::from_millis(*silent_ms).as_secs_f64());
            }
            Happening::Leadership { note } => self.count_note(note),
            // The kernel, the sender of bursts and the static file's state are asked instead.
            Happening::Announced { .. }
            | Happening::Conflict { .. }
            | Happening::Configured { .. }
            | Happening::ConfigRejected { .. }
            | Happening::Missed { .. } => {}
        }
    }

    fn count_note(&self, note: &Note) {
        match note {
            Note::SessionStarted { .. } => by(&self.sessions, "how", "started"),
            Note::SessionAdopted { .. } => by(&self.sessions, "how", "adopted"),
            Note::SessionLost { .. } => one(&self.sessions_lost),
            Note::WatchStale => one(&self.stale),
            Note::NameInUse { .. } => one(&self.name_in_use),
            Note::RenewalFailed { .. } => one(&self.renewal_failures),
            Note::Revoked { .. } => one(&self.revoked),
            Note::Took { from, .. } => {
                by(&self.gained, "cause", if from.is_some() { "holder_gone" } else { "free" });
            }
            Note::Received { .. } => by(&self.gained, "cause", "handed_over"),
            Note::HandedOver { .. } => by(&self.given, "cause", "handed_over"),
            Note::GroupLost { .. } => by(&self.given, "cause", "lost"),
            Note::Excepted { vips, .. } => {
                let given = vips.values().filter(|to| to.is_some()).count();
                self.exceptions.inc_by(given as u64);
            }
            Note::BadLease { object, .. } => by(&self.bad_leases, "kind", kind(object)),
            Note::WriteRefused { object, .. } => by(&self.refused, "kind", kind(object)),
            Note::MoveRefused { .. } => one(&self.moves_refused),
        }
    }

    /// Writes all of it, without the end mark.
    pub(super) fn encode(&self, out: &mut String) -> fmt::Result {
        text::encode_registry(out, &self.registry)
    }
}

fn one(counter: &Counter) {
    counter.inc();
}

fn by(family: &By, label: &'static str, value: &'static str) {
    family.get_or_create(&[(label, value)]).inc();
}

const fn kind(object: &Object) -> &'static str {
    match object {
        Object::Session(_) => "session",
        Object::Claim(_) => "claim",
    }
}
