//! Leases as sessions, claims and the cluster's record, and back.
//!
//! What counts is one annotation, [`RECORD`]. The Lease's own fields say the same to people who look at it with
//! `kubectl get leases`; where they contradict it, somebody has edited the Lease, and it is nobody's.

mod json;
#[cfg(test)]
mod tests;

use std::{num::NonZeroU16, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use responder_leadership::{
    event::{Event, Via},
    group::group_of,
    id::{Group, NodeName, SessionId, Version},
    lease::{Claim, Content, Seen, Session, SessionState},
    settings::SHORTEST,
};
use serde::{Deserialize, Serialize};

use self::json::{ClaimJson, ClusterJson, SessionJson, from_json, to_json};
use super::names::{APP, APP_NAME, KIND, LEASE_DURATION, Named, RECORD};

/// The longest record, in bytes: Kubernetes takes 256 KiB of annotations, and others may have some, too.
pub const LONGEST_RECORD: usize = 200 << 10;

/// What all agents of a cluster must agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Number of groups.
    pub claims: NonZeroU16,
    /// The longest lease duration of any agent, ever.
    pub longest: Duration,
    /// The move that an administrator wants.
    pub request: Option<Request>,
}

/// A move that an administrator wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Differs from that of every other request.
    pub id: String,
    /// Which group.
    pub group: Group,
    /// Where to.
    pub to: NodeName,
}

/// A Lease that cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// Too many exceptions.
    #[error(
        "the exceptions of claim {group} need {bytes} bytes, and a Lease has room for {LONGEST_RECORD}: use more \
         groups (--claims, now {claims}), so that each has fewer VIPs"
    )]
    TooLarge {
        /// The claim.
        group: Group,
        /// The number of claims.
        claims: NonZeroU16,
        /// The record's size.
        bytes: usize,
    },
    /// Something else is too large, or no JSON.
    #[error("the Lease {name} cannot be written: {reason}")]
    Other {
        /// The Lease's name.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// What a Lease of `node` says.
#[must_use]
pub fn decode_session(lease: &Lease, node: &NodeName) -> Seen<Session> {
    seen(session(lease, node))
}

/// What the Lease of a claim says.
#[must_use]
pub fn decode_claim(lease: &Lease, claims: NonZeroU16, group: Group) -> Seen<Claim> {
    seen(claim(lease, claims, group))
}

/// What the cluster's record says.
#[must_use]
pub fn decode_record(lease: &Lease) -> Seen<Record> {
    seen(record(lease))
}

/// The event for a Lease that was seen; `None` for the record, and for claims of another number of groups.
#[must_use]
pub fn event(lease: &Lease, named: &Named, version: Version, claims: NonZeroU16, via: Via) -> Option<Event> {
    match named {
        Named::Session(node) => {
            Some(Event::Session { node: node.clone(), version, seen: decode_session(lease, node), via })
        }
        Named::Claim { claims: of, group } if *of == claims && *group < claims.get() => {
            Some(Event::Claim { group: *group, version, seen: decode_claim(lease, claims, *group), via })
        }
        Named::Claim { .. } | Named::Cluster => None,
    }
}

/// The event for a Lease that is not there; `None` as for [`event`].
#[must_use]
pub fn absence(named: &Named, version: Version, claims: NonZeroU16, via: Via) -> Option<Event> {
    match named {
        Named::Session(node) => Some(Event::Session { node: node.clone(), version, seen: Seen::Absent, via }),
        Named::Claim { claims: of, group } if *of == claims && *group < claims.get() => {
            Some(Event::Claim { group: *group, version, seen: Seen::Absent, via })
        }
        Named::Claim { .. } | Named::Cluster => None,
    }
}

fn seen<T>(result: Result<T, String>) -> Seen<T> {
    result.map_or_else(Seen::Bad, Seen::Good)
}

fn session(lease: &Lease, node: &NodeName) -> Result<Session, String> {
    let session: Session = from_json::<SessionJson>(lease, "session")?.try_into()?;
    if session.id.node != *node {
        return Err(format!("{RECORD} is of session {}, but the Lease is that of node {node}", session.id));
    }
    let holder = match &session.state {
        SessionState::Live => Some(node),
        SessionState::Ended { .. } => None,
    };
    check_holder(lease, holder)?;
    check_duration(lease, session.duration)?;
    Ok(session)
}

fn claim(lease: &Lease, claims: NonZeroU16, group: Group) -> Result<Claim, String> {
    let claim: Claim = from_json::<ClaimJson>(lease, "claim")?.into();
    check_holder(lease, claim.holder.as_ref().map(|holder| &holder.node))?;
    if let Some(stranger) = claim.exceptions.keys().find(|vip| group_of(**vip, claims) != group) {
        let of = group_of(*stranger, claims);
        return Err(format!("{RECORD} has an exception for {stranger}, which belongs to claim {of}"));
    }
    Ok(claim)
}

fn record(lease: &Lease) -> Result<Record, String> {
    from_json::<ClusterJson>(lease, "cluster")?.try_into()
}

/// Compares the holder that people see with the one of the record.
fn check_holder(lease: &Lease, holder: Option<&NodeName>) -> Result<(), String> {
    let shown = spec(lease).and_then(|spec| spec.holder_identity.as_deref()).filter(|name| !name.is_empty());
    let name = |name: Option<&str>| name.map_or_else(|| "nobody".to_owned(), |name| format!("{name:?}"));
    let holder = holder.map(NodeName::as_str);
    if shown == holder {
        return Ok(());
    }
    Err(format!("spec.holderIdentity is {}, but {RECORD} says {}", name(shown), name(holder)))
}

/// Likewise the duration.
fn check_duration(lease: &Lease, duration: Duration) -> Result<(), String> {
    let exact = annotation(lease, LEASE_DURATION).unwrap_or_default();
    if humantime::parse_duration(exact) != Ok(duration) {
        return Err(format!("{LEASE_DURATION} is {exact:?}, but {RECORD} says {}", text(duration)));
    }
    let shown = spec(lease).and_then(|spec| spec.lease_duration_seconds);
    if shown != Some(whole_seconds(duration)) {
        let shown = shown.map_or_else(|| "missing".to_owned(), |seconds| seconds.to_string());
        return Err(format!("spec.leaseDurationSeconds is {shown}, but {RECORD} says {}", text(duration)));
    }
    Ok(())
}

/// A duration that a session may have.
fn parse_duration(text: &str, longest: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{RECORD} has the duration {text:?}: {error}"))?;
    if (SHORTEST..=longest).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("{RECORD} has the duration {text}, which is not within {SHORTEST:?} and {longest:?}"))
    }
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn spec(lease: &Lease) -> Option<&LeaseSpec> {
    lease.spec.as_ref()
}

fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    Some(lease.metadata.annotations.as_ref()?.get(key)?.as_str())
}

/// The Lease that says `content`. `previous` is what it replaces: what others have added to that is kept.
///
/// # Errors
///
/// If it would be too large.
pub fn encode(
    named: &Named,
    content: &Content,
    previous: Option<&Lease>,
    now: Timestamp,
) -> Result<Lease, EncodeError> {
    let (json, holder, duration) = match content {
        Content::Session(session) => {
            let live = session.state == SessionState::Live;
            (
                to_json(named, &SessionJson::from(session))?,
                live.then_some(&session.id),
                Some(session.duration),
            )
        }
        Content::Claim(claim) => (to_json(named, &ClaimJson::from(claim))?, claim.holder.as_ref(), None),
    };
    let mut lease = blank(named, json, previous);
    if let Some(duration) = duration {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(LEASE_DURATION.to_owned(), text(duration));
    }
    let old = previous.and_then(spec);
    let stays = holder.is_some() && holder == previous.and_then(holder_of).as_ref();
    let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0).max(0);
    let taken = holder.is_some() && !stays && previous.is_some();
    lease.spec = Some(LeaseSpec {
        holder_identity: holder.map(|holder| holder.node.to_string()),
        lease_duration_seconds: duration.map(whole_seconds),
        lease_transitions: Some(transitions.saturating_add(i32::from(taken))),
        renew_time: Some(MicroTime(now)),
        acquire_time: match old.and_then(|spec| spec.acquire_time.clone()) {
            Some(acquired) if stays => Some(acquired),
            Some(_) | None => holder.map(|_| MicroTime(now)),
        },
        ..LeaseSpec::default()
    });
    Ok(lease)
}

/// The Lease that says `record`.
///
/// # Errors
///
/// If it would be too large.
pub fn encode_record(
    record: &Record,
    previous: Option<&Lease>,
    now: Timestamp,
) -> Result<Lease, EncodeError> {
    let json = to_json(&Named::Cluster, &ClusterJson::from(record))?;
    let mut lease = blank(&Named::Cluster, json, previous);
    lease.spec = Some(LeaseSpec { renew_time: Some(MicroTime(now)), ..LeaseSpec::default() });
    Ok(lease)
}

/// The session that holds a session's or a claim's Lease, if that can be understood.
fn holder_of(lease: &Lease) -> Option<SessionId> {
    match Named::parse(lease.metadata.name.as_deref()?)? {
        Named::Session(node) => {
            let session = session(lease, &node).ok()?;
            (session.state == SessionState::Live).then_some(session.id)
        }
        Named::Claim { claims, group } => claim(lease, claims, group).ok()?.holder,
        Named::Cluster => None,
    }
}

/// A Lease with a name, a record, and what others have added to the previous one.
///
/// With the previous one's `uid`, too: an update of a Lease that is not there would otherwise create it.
fn blank(named: &Named, json: String, previous: Option<&Lease>) -> Lease {
    let old = previous.map(|lease| lease.metadata.clone()).unwrap_or_default();
    let mut metadata = ObjectMeta {
        name: Some(named.name()),
        uid: old.uid,
        labels: old.labels,
        annotations: old.annotations,
        owner_references: old.owner_references,
        finalizers: old.finalizers,
        ..ObjectMeta::default()
    };
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(KIND.to_owned(), named.kind().to_owned());
    labels.insert(APP.to_owned(), APP_NAME.to_owned());
    metadata.annotations.get_or_insert_default().insert(RECORD.to_owned(), json);
    Lease { metadata, spec: None }
}
