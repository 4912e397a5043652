//! What all agents of a cluster must agree on: one Lease, `cluster`, written only by compare-and-swap.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, api::PostParams};
use responder_leadership::{
    id::Version,
    lease::{Seen, SessionState},
    settings::LONGEST,
};

use super::{
    client::{Line, text},
    codec::{self, EncodeError, Record, Request},
    leases,
    names::{BadVersion, Named, version},
};

/// A request for the record must be answered by then.
const ANSWER: Duration = Duration::from_secs(10);
/// So often others may come first.
const ATTEMPTS: usize = 20;
/// Between attempts to agree.
const PAUSE: Duration = Duration::from_millis(500);
/// So many Leases are named at most.
const NAMED: usize = 4;

/// What the agents agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The record as it is now.
    pub record: Record,
    /// Its version.
    pub version: Version,
    /// What this agent's `--claims` said, if the record says something else, which is what counts.
    pub flag_differs: Option<NonZeroU16>,
}

/// No agreement.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No answer, or not a good one. It may be tried again.
    #[error("the Leases of namespace {namespace} cannot be {what}: {reason}")]
    Api {
        /// The namespace.
        namespace: String,
        /// "read" or "written".
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The record cannot be understood.
    #[error(
        "the Lease {namespace}/cluster cannot be understood: {reason}; correct it, or delete it (then it is made anew \
         from the claims that there are), and nothing is announced here until then"
    )]
    Bad {
        /// The namespace.
        namespace: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none, and nothing to tell what it should be.
    #[error(
        "there is no Lease {namespace}/cluster: no agent has started in this namespace yet (is --namespace right?); the \
         first one makes it, with the number of claims that it is told by --claims"
    )]
    Missing {
        /// The namespace.
        namespace: String,
    },
    /// There are claims of another count. One that is free could be taken by an agent that has not heard of the record.
    #[error(
        "there are Leases of another number of claims than {claims}, which is the record's: {}; an address could have \
         two owners, so nothing is announced here until they are gone: `responder claims {claims}` closes them",
        names.join(", ")
    )]
    OtherClaims {
        /// What the record says.
        claims: NonZeroU16,
        /// The Leases' names, the first ones.
        names: Vec<String>,
    },
    /// Nobody knows how many claims there are.
    #[error(
        "the Lease {namespace}/cluster is missing, and claims of several counts are not free ({counts:?}): `responder \
         claims N` says which counts, and closes the others"
    )]
    Ambiguous {
        /// The namespace.
        namespace: String,
        /// The counts.
        counts: BTreeSet<NonZeroU16>,
    },
    /// This API server cannot be used.
    #[error(transparent)]
    Version(#[from] BadVersion),
    /// The record cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Others always came first.
    #[error("the Lease {namespace}/cluster changes so fast that this agent cannot write it; try again")]
    Contended {
        /// The namespace.
        namespace: String,
    },
}

/// Reads the record and makes it fit for an agent with this `--claims` and lease duration: makes it where it is
/// missing, and raises `longest`. To be done before the session starts.
///
/// # Errors
///
/// See [`RecordError`]. The agent must not take anything then.
pub async fn agree(
    line: &Arc<Line>,
    namespace: &str,
    claims: NonZeroU16,
    lease_duration: Duration,
) -> Result<Agreed, RecordError> {
    change(line, namespace, |leases, before| {
        let mut record = match before {
            Some(record) => record,
            None => recreated(leases, namespace, claims)?,
        };
        let others = others(leases, record.claims);
        if !others.is_empty() {
            return Err(RecordError::OtherClaims { claims: record.claims, names: others });
        }
        record.longest = record.longest.max(lease_duration);
        Ok(record)
    })
    .await
    .map(|(record, version)| {
        let flag_differs = (record.claims != claims).then_some(claims);
        Agreed { record, version, flag_differs }
    })
}

/// [`agree`], until it succeeds. What is in the way is logged when it changes.
pub async fn agree_at_last(
    line: &Arc<Line>,
    namespace: &str,
    claims: NonZeroU16,
    lease_duration: Duration,
) -> Agreed {
    let mut said = String::new();
    loop {
        match agree(line, namespace, claims, lease_duration).await {
            Ok(agreed) => return agreed,
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(%error, "the agents do not agree on the cluster's record; trying again");
                    said = error;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Says how many claims there are from now on. Agents that follow another number give up what they hold.
///
/// # Errors
///
/// See [`RecordError`].
pub async fn set_claims(
    line: &Arc<Line>,
    namespace: &str,
    claims: NonZeroU16,
) -> Result<Record, RecordError> {
    let changed = change(line, namespace, |leases, before| match before {
        // A request is about a group of the old number.
        Some(record) if record.claims != claims => Ok(Record { claims, request: None, ..record }),
        Some(record) => Ok(record),
        // It has been deleted.
        None if leases.iter().any(is_agents) => {
            Ok(Record { claims, longest: longest(leases), request: None })
        }
        None => Err(RecordError::Missing { namespace: namespace.to_owned() }),
    });
    changed.await.map(|(record, _)| record)
}

/// Asks for a move, or takes the request back.
///
/// # Errors
///
/// See [`RecordError`].
pub async fn request(
    line: &Arc<Line>,
    namespace: &str,
    request: Option<Request>,
) -> Result<Record, RecordError> {
    let changed = change(line, namespace, |_, before| match before {
        Some(record) => Ok(Record { request: request.clone(), ..record }),
        None => Err(RecordError::Missing { namespace: namespace.to_owned() }),
    });
    changed.await.map(|(record, _)| record)
}

/// Changes the record by compare-and-swap, if `to` changes it; with what it is then.
async fn change(
    line: &Arc<Line>,
    namespace: &str,
    to: impl Fn(&[Lease], Option<Record>) -> Result<Record, RecordError>,
) -> Result<(Record, Version), RecordError> {
    let failed = |what: &'static str, reason: String| RecordError::Api {
        namespace: namespace.to_owned(),
        what,
        reason,
    };
    for _ in 0..ATTEMPTS {
        let (client, number) = line.client();
        let api = Api::<Lease>::namespaced(client, namespace);
        let unanswered = |error: Option<kube::Error>| {
            line.replace(number);
            failed(
                "written",
                error.map_or_else(|| format!("no answer within {ANSWER:?}"), |error| text(&error)),
            )
        };
        let leases = leases::list(line, namespace).await.map_err(|reason| failed("read", reason))?;
        let name = Named::Cluster.name();
        let old = leases.iter().find(|lease| lease.metadata.name.as_ref() == Some(&name));
        let before = match old.map(codec::decode_record) {
            None | Some(Seen::Absent) => None,
            Some(Seen::Good(record)) => Some(record),
            Some(Seen::Bad(reason)) => {
                return Err(RecordError::Bad { namespace: namespace.to_owned(), reason });
            }
        };
        let record = to(&leases, before.clone())?;
        if let Some(old) = old.filter(|_| before.as_ref() == Some(&record)) {
            return Ok((record, version(&old.metadata)?));
        }
        let mut lease = codec::encode_record(&record, old, Timestamp::now())?;
        lease.metadata.resource_version = old.and_then(|old| old.metadata.resource_version.clone());
        let params = PostParams::default();
        let written = tokio::time::timeout(ANSWER, async {
            if old.is_some() {
                api.replace(&name, &params, &lease).await
            } else {
                api.create(&params, &lease).await
            }
        });
        match written.await {
            Ok(Ok(lease)) => return Ok((record, version(&lease.metadata)?)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {} // somebody else came first
            Ok(Err(error)) => return Err(unanswered(Some(error))),
            // It may have been written: the next call will see.
            Err(_) => return Err(unanswered(None)),
        }
    }
    Err(RecordError::Contended { namespace: namespace.to_owned() })
}

/// The record of a cluster that has lost it, or of a new one.
fn recreated(leases: &[Lease], namespace: &str, claims: NonZeroU16) -> Result<Record, RecordError> {
    let mut counts = BTreeMap::new();
    for lease in leases {
        if let Some(Named::Claim { claims, .. }) = lease.metadata.name.as_deref().and_then(Named::parse) {
            *counts.entry(claims).or_insert(false) |= !is_free(lease);
        }
    }
    let held: BTreeSet<NonZeroU16> =
        counts.iter().filter(|(_, held)| **held).map(|(count, _)| *count).collect();
    let free = counts.into_keys();
    // Several counts, but nothing held: what this agent is told is as good as any.
    let known = if held.is_empty() { free.collect() } else { held.clone() };
    let claims = match (known.len(), known.first()) {
        (1, Some(only)) => *only,
        _ if held.len() > 1 => {
            return Err(RecordError::Ambiguous { namespace: namespace.to_owned(), counts: held });
        }
        _ => claims,
    };
    Ok(Record { claims, longest: longest(leases), request: None })
}

fn is_agents(lease: &Lease) -> bool {
    lease.metadata.name.as_deref().and_then(Named::parse).is_some()
}

/// The longest lease of the sessions that there are.
fn longest(leases: &[Lease]) -> Duration {
    let of = |lease: &Lease| match lease.metadata.name.as_deref().and_then(Named::parse)? {
        Named::Session(node) => match codec::decode_session(lease, &node) {
            // An idle one lasts longer than its lease.
            Seen::Good(session) if session.state == SessionState::Live => Some(session.duration.min(LONGEST)),
            Seen::Good(_) | Seen::Absent => None,
            Seen::Bad(_) => Some(LONGEST),
        },
        Named::Claim { .. } | Named::Cluster => None,
    };
    leases.iter().filter_map(of).max().unwrap_or_default()
}

/// Names of claims of another count.
fn others(leases: &[Lease], count: NonZeroU16) -> Vec<String> {
    let other =
        |name: &&str| matches!(Named::parse(name), Some(Named::Claim { claims, .. }) if claims != count);
    let names = leases.iter().filter_map(|lease| lease.metadata.name.as_deref());
    let mut names: Vec<String> = names.filter(other).map(str::to_owned).collect();
    if names.len() > NAMED {
        let more = names.len() - NAMED;
        names.truncate(NAMED);
        names.push(format!("{more} more"));
    }
    names
}

/// Whether nobody holds anything by this claim. What cannot be understood may be held.
fn is_free(lease: &Lease) -> bool {
    match lease.metadata.name.as_deref().and_then(Named::parse) {
        Some(Named::Claim { claims, group }) => match codec::decode_claim(lease, claims, group) {
            Seen::Good(claim) => claim.holder.is_none() && claim.exceptions.is_empty(),
            Seen::Absent => true,
            Seen::Bad(_) => false,
        },
        Some(Named::Session(_) | Named::Cluster) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use responder_leadership::{
        id::SessionId,
        lease::{Claim, Content, Fitness, Reach, Session},
    };

    use super::*;

    fn count(count: u16) -> NonZeroU16 {
        NonZeroU16::new(count).unwrap()
    }

    fn claim(claims: u16, group: u16, holder: Option<&str>) -> Lease {
        let named = Named::Claim { claims: count(claims), group };
        let holder: Option<SessionId> = holder.map(|holder| holder.parse().unwrap());
        let written = ("n1/1".parse().unwrap(), 1);
        let claim = Claim { holder, exceptions: BTreeMap::new(), written };
        codec::encode(&named, &Content::Claim(claim), None, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn session(seconds: u64) -> Lease {
        let session = Session {
            id: "n1/1".parse().unwrap(),
            state: SessionState::Live,
            duration: Duration::from_secs(seconds),
            renewal: 1,
            datapath: String::new(),
            fitness: Fitness::Fit,
            reach: Reach::Any,
        };
        let named = Named::Session("n1".into());
        codec::encode(&named, &Content::Session(session), None, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn broken(mut lease: Lease) -> Lease {
        lease.spec.as_mut().unwrap().holder_identity = Some("nonsense".to_owned());
        lease
    }

    #[test]
    fn a_lost_record_is_made_from_what_there_is() {
        let recreated = |leases: &[Lease]| recreated(leases, "ns", count(16)).map(|r| (r.claims, r.longest));
        let ok = |claims, seconds| (count(claims), Duration::from_secs(seconds));
        assert_eq!(recreated(&[]).unwrap(), ok(16, 0));
        assert_eq!(recreated(&[claim(8, 1, None), session(7)]).unwrap(), ok(8, 7));
        assert_eq!(recreated(&[broken(session(7))]).unwrap(), ok(16, 60));
        assert_eq!(recreated(&[claim(8, 1, None), claim(4, 1, Some("n1/1"))]).unwrap(), ok(4, 0));
        assert_eq!(recreated(&[claim(8, 1, None), claim(4, 1, None)]).unwrap(), ok(16, 0));
        let error =
            recreated(&[claim(8, 1, Some("n1/1")), broken(claim(4, 1, None))]).unwrap_err().to_string();
        assert!(error.contains("{4, 8}"), "{error}");
    }

    #[test]
    fn claims_of_another_count_are_named() {
        let leases = [
            claim(16, 1, Some("n1/1")),
            claim(8, 1, None),
            claim(8, 2, Some("n1/1")),
            broken(claim(8, 3, None)),
            session(3),
        ];
        assert_eq!(others(&leases, count(16)), ["claim-8-1", "claim-8-2", "claim-8-3"]);
        assert_eq!(others(&leases, count(8)), ["claim-16-01"]);
    }
}
