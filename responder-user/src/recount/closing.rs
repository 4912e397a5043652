//! Which claims of another number can be closed, as a pure function of what is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use responder_leadership::{
    id::{NodeName, SessionId},
    lease::{Claim, Seen, Session, SessionState},
    settings::LONGEST,
};

use crate::cluster::{codec, names::Named};

/// How long a session may last of which nothing is known.
pub(super) const UNKNOWN: Duration = LONGEST;

/// What is to be done next.
#[derive(PartialEq, Debug)]
pub(super) enum Step<'a> {
    /// A claim's Lease can be deleted.
    Delete(&'a Lease),
    /// A session is not renewed, and can be revoked.
    Revoke(SessionId),
    /// Somebody may still answer by this claim.
    Wait {
        /// The claim's Lease.
        claim: String,
        /// Who, as the rest of a sentence.
        why: String,
    },
}

/// Closes all claims but those of one number. Times are counted from when the record was changed.
pub(super) struct Closing {
    claims: NonZeroU16,
    longest: Duration,
    /// The version of each session's Lease, and when it was first seen.
    sessions: BTreeMap<NodeName, (String, Duration)>,
}

impl Closing {
    /// `longest` is the longest lease of any agent, as the record says; zero: that is not known.
    pub(super) fn new(claims: NonZeroU16, longest: Duration) -> Self {
        let longest = if longest.is_zero() { UNKNOWN } else { longest };
        Self { claims, longest, sessions: BTreeMap::new() }
    }

    /// What is to be done at `now`, by a list of all Leases that was made then or later. Nothing: all is done.
    pub(super) fn steps<'a>(&mut self, leases: &'a [Lease], now: Duration) -> Vec<Step<'a>> {
        let sessions = self.note(leases, now);
        let mut revoked = BTreeSet::new();
        let mut steps = Vec::new();
        for lease in leases {
            let name = lease.metadata.name.as_deref().unwrap_or_default();
            let Some(Named::Claim { claims, group }) = Named::parse(name).filter(|named| self.is_old(named))
            else {
                continue;
            };
            let wait = |why: String| Step::Wait { claim: name.to_owned(), why };
            let claim = match codec::decode_claim(lease, claims, group) {
                Seen::Good(claim) => claim,
                // By this nobody answers who has seen it, and by then all have seen it or have fallen silent.
                Seen::Bad(_) | Seen::Absent if now >= self.patience() => {
                    steps.push(Step::Delete(lease));
                    continue;
                }
                Seen::Bad(_) | Seen::Absent => {
                    steps.push(wait("cannot be understood, and may be held".to_owned()));
                    continue;
                }
            };
            let alive: Vec<_> = holders(&claim).filter(|id| !is_dead(id, &sessions)).collect();
            for id in &alive {
                if now >= self.expiry(id, &sessions) && revoked.insert((*id).clone()) {
                    steps.push(Step::Revoke((*id).clone()));
                }
            }
            steps.push(match alive.first() {
                Some(id) => wait(format!("is held by {id}")),
                None => Step::Delete(lease),
            });
        }
        steps
    }

    fn is_old(&self, named: &Named) -> bool {
        matches!(named, Named::Claim { claims, .. } if *claims != self.claims)
    }

    /// By then each live session has seen by its watch what the Leases say, or has given itself up.
    fn patience(&self) -> Duration {
        self.longest * 2
    }

    /// Takes note of what is seen of the sessions.
    fn note(&mut self, leases: &[Lease], now: Duration) -> BTreeMap<NodeName, Seen<Session>> {
        let mut sessions = BTreeMap::new();
        for lease in leases {
            let Some(Named::Session(node)) = lease.metadata.name.as_deref().and_then(Named::parse) else {
                continue;
            };
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let known = self.sessions.get(&node).is_some_and(|(known, _)| *known == version);
            if !known {
                self.sessions.insert(node.clone(), (version, now));
            }
            let seen = codec::decode_session(lease, &node);
            sessions.insert(node, seen);
        }
        sessions
    }

    /// When a session that holds something is over if it does not change.
    fn expiry(&self, id: &SessionId, sessions: &BTreeMap<NodeName, Seen<Session>>) -> Duration {
        let since = self.sessions.get(&id.node).map_or(Duration::ZERO, |(_, since)| *since);
        match sessions.get(&id.node) {
            Some(Seen::Good(session)) => since + session.duration.max(self.longest),
            Some(Seen::Bad(_) | Seen::Absent) | None => since + self.patience(),
        }
    }
}

fn holders(claim: &Claim) -> impl Iterator<Item = &SessionId> {
    claim.holder.iter().chain(claim.exceptions.values())
}

/// Whether a session has certainly ended: it is seen ended, or a later one of its node is seen.
fn is_dead(id: &SessionId, sessions: &BTreeMap<NodeName, Seen<Session>>) -> bool {
    sessions.get(&id.node).and_then(Seen::good).is_some_and(|session| {
        let ended = session.state != SessionState::Live;
        session.id.incarnation > id.incarnation || (session.id.incarnation == id.incarnation && ended)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use responder_leadership::lease::{Content, Fitness, Reach};

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn id(text: &str) -> SessionId {
        text.parse().unwrap()
    }

    fn claim(group: u16, holder: Option<&str>, exception: Option<&str>) -> Lease {
        let named = Named::Claim { claims: NonZeroU16::new(1).unwrap(), group };
        let exceptions = exception.map(|holder| ([192, 0, 2, 1].into(), id(holder))).into_iter().collect();
        let claim = Claim { holder: holder.map(id), exceptions, written: (id("n1/1"), 1) };
        codec::encode(&named, &Content::Claim(claim), None, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn session(text: &str, version: &str, state: SessionState) -> Lease {
        let id = id(text);
        let named = Named::Session(id.node.clone());
        let session = Session {
            id,
            state,
            duration: LEASE,
            renewal: 1,
            datapath: String::new(),
            fitness: Fitness::Fit,
            reach: Reach::Any,
        };
        let mut lease =
            codec::encode(&named, &Content::Session(session), None, Timestamp::UNIX_EPOCH).unwrap();
        lease.metadata.resource_version = Some(version.to_owned());
        lease
    }

    fn ended() -> SessionState {
        SessionState::Ended { by: "n9".into() }
    }

    fn closing() -> Closing {
        Closing::new(NonZeroU16::new(16).unwrap(), LEASE)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The steps in short: which claims are deleted, which sessions revoked, which claims waited for.
    fn steps(closing: &mut Closing, leases: &[Lease], at: u64) -> String {
        let short = |step| match step {
            Step::Delete(lease) => format!("delete {}", lease.metadata.name.clone().unwrap()),
            Step::Revoke(id) => format!("revoke {id}"),
            Step::Wait { claim, why } => format!("{claim} {why}"),
        };
        let steps: Vec<_> = closing.steps(leases, seconds(at)).into_iter().map(short).collect();
        steps.join("; ")
    }

    #[test]
    fn what_nobody_holds_is_closed() {
        let of = |leases: &[Lease]| steps(&mut closing(), leases, 0);
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[claim(0, None, None)]), "delete claim-1-0");
        let held = claim(0, Some("n1/5"), None);
        assert_eq!(
            of(&[held.clone(), session("n1/5", "1", SessionState::Live)]),
            "claim-1-0 is held by n1/5"
        );
        assert_eq!(of(&[held.clone(), session("n1/5", "1", ended())]), "delete claim-1-0");
        assert_eq!(of(&[held.clone(), session("n1/6", "1", SessionState::Live)]), "delete claim-1-0");
        // An earlier one tells nothing of this.
        assert_eq!(of(&[held.clone(), session("n1/4", "1", ended())]), "claim-1-0 is held by n1/5");
        assert_eq!(of(&[held]), "claim-1-0 is held by n1/5");
        // An exception is held, too.
        let excepted = claim(0, None, Some("n2/7"));
        let live = session("n2/7", "1", SessionState::Live);
        assert_eq!(of(&[excepted, live]), "claim-1-0 is held by n2/7");
    }

    #[test]
    fn claims_of_the_new_number_stay() {
        let mut closing = Closing::new(NonZeroU16::new(1).unwrap(), LEASE);
        assert_eq!(steps(&mut closing, &[claim(0, None, None), claim(0, Some("n1/5"), None)], 100), "");
    }

    #[test]
    fn a_session_is_revoked_when_it_has_not_changed_for_its_time() {
        let mut closing = closing();
        let held = claim(0, Some("n1/5"), None);
        let leases = |version| [held.clone(), session("n1/5", version, SessionState::Live)];
        let wait = "claim-1-0 is held by n1/5";
        assert_eq!(steps(&mut closing, &leases("1"), 1), wait);
        assert_eq!(steps(&mut closing, &leases("2"), 3), wait);
        assert_eq!(steps(&mut closing, &leases("2"), 5), wait);
        assert_eq!(steps(&mut closing, &leases("2"), 6), format!("revoke n1/5; {wait}"));
    }

    #[test]
    fn what_cannot_be_understood_is_waited_for() {
        let mut broken = claim(0, Some("n1/5"), None);
        broken.spec.as_mut().unwrap().holder_identity = Some("nonsense".to_owned());
        let leases = [broken];
        let mut closing = closing();
        assert_eq!(steps(&mut closing, &leases, 5), "claim-1-0 cannot be understood, and may be held");
        assert_eq!(steps(&mut closing, &leases, 6), "delete claim-1-0");
        let missing = [claim(0, Some("n1/5"), None)];
        assert_eq!(steps(&mut closing, &missing, 6), "revoke n1/5; claim-1-0 is held by n1/5");
    }
}
