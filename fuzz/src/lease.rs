//! Leases that others may have edited.
//!
//! Line by line, what of a Lease is read: its name, the label of its kind, the holder (empty: none), the annotation of its
//! duration (empty: none), the duration in seconds (no number: none); the rest is the record.

use std::{collections::BTreeMap, str};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use responder_leadership::{
    lease::{Content, Seen},
    settings::{LONGEST, LONGEST_IDLE, SHORTEST},
};
use responder_user::cluster::{
    codec::{LONGEST_RECORD, decode_claim, decode_record, decode_session, encode, encode_record},
    names::{KIND, LEASE_DURATION, Named, RECORD, check_node},
};

const SESSION: &str = "session-n1\nsession\nn1\n500ms\n1\n";
const CLAIM: &str = "claim-16-12\nclaim\nn1\n\n\n";

/// Each kind of Lease, in each state, and some that contradict themselves.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let live = r#"{"v":1,"session":"n1/17","state":"live","duration":"500ms","renewal":7,"datapath":"maps 12","fitness":{"unfit":"has no usable link"},"reach":{"prefixes":["192.0.2.0/24"]}}"#;
    let ended = r#"{"v":1,"session":"n1/17","state":{"ended":{"by":"n2"}},"duration":"500ms","renewal":7,"datapath":"","fitness":"fit","reach":"any"}"#;
    let claim = r#"{"v":1,"holder":"n1/17","exceptions":{"n2/18":["192.0.2.10","192.0.2.58"],"n3/4":["192.0.2.22"]},"written":["n1/17",5]}"#;
    let free = r#"{"v":1,"holder":null,"written":["n1/17",5]}"#;
    let record = r#"{"v":1,"claims":16,"longest":"3s","request":{"id":"r1","group":3,"to":"n2"}}"#;
    [
        format!("{SESSION}{live}"),
        format!("session-n1\nsession\n\n500ms\n1\n{ended}"),
        format!("{CLAIM}{claim}"),
        format!("claim-16-12\nclaim\n\n\n\n{free}"),
        format!("cluster\ncluster\n\n\n\n{record}"),
        format!("claim-1-0\nclaim\nn1\n\n\n{claim}"),
        format!("session-n1\nsession\nn2\n6m\n360\n{live}"),
        format!("{SESSION}{}", live.replace("\"v\":1", "\"v\":2")),
        format!("{SESSION}{}", live.replace("500ms", "1year 2months 3days 4h 5min 6s 7ms 8us 9ns")),
        format!("{SESSION}{}", live.replace("192.0.2.0/24", "2001:db8::/129")),
        format!("{CLAIM}{}", claim.replace("n2/18", "n1/18446744073709551616")),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// A Lease is understood, and written again says the same; or there is a reason why not.
///
/// # Panics
///
/// If not.
pub fn run(bytes: &[u8]) {
    let Some((named, lease)) = str::from_utf8(bytes).ok().and_then(read) else {
        return;
    };
    assert_eq!(Some(&named), Named::parse(&named.name()).as_ref());
    let now = Timestamp::UNIX_EPOCH;
    match &named {
        Named::Session(node) => {
            check_node(node).ok();
            if let Some(session) = good(decode_session(&lease, node)) {
                assert!((SHORTEST..=LONGEST_IDLE).contains(&session.duration), "{:?}", session.duration);
                assert_eq!(session.id.node, *node);
                let new = encode(&named, &Content::Session(session.clone()), Some(&lease), now);
                let new = new.expect("no longer than it was by much");
                assert_eq!(decode_session(&new, node), Seen::Good(session));
            }
        }
        Named::Claim { claims, group } => {
            if let Some(claim) = good(decode_claim(&lease, *claims, *group)) {
                let new = encode(&named, &Content::Claim(claim.clone()), Some(&lease), now);
                let new = new.expect("no longer than it was by much");
                assert_eq!(decode_claim(&new, *claims, *group), Seen::Good(claim));
            }
        }
        Named::Cluster => {
            if let Some(record) = good(decode_record(&lease)) {
                assert!((SHORTEST..=LONGEST).contains(&record.longest), "{:?}", record.longest);
                let new = encode_record(&record, Some(&lease), now).expect("no longer than it was by much");
                assert_eq!(decode_record(&new), Seen::Good(record));
            }
        }
    }
}

fn read(text: &str) -> Option<(Named, Lease)> {
    let mut parts = text.splitn(6, '\n');
    let mut next = || parts.next().map(str::to_owned);
    let (name, kind, holder, duration, seconds, record) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    let named = Named::parse(&name)?;
    if record.len() > LONGEST_RECORD / 2 {
        return None;
    }
    let mut annotations = BTreeMap::from([(RECORD.to_owned(), record)]);
    if !duration.is_empty() {
        annotations.insert(LEASE_DURATION.to_owned(), duration);
    }
    let metadata = ObjectMeta {
        name: Some(name),
        labels: Some(BTreeMap::from([(KIND.to_owned(), kind)])),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    let spec = LeaseSpec {
        holder_identity: (!holder.is_empty()).then_some(holder),
        lease_duration_seconds: seconds.parse().ok(),
        ..LeaseSpec::default()
    };
    Some((named, Lease { metadata, spec: Some(spec) }))
}

fn good<T>(seen: Seen<T>) -> Option<T> {
    match seen {
        Seen::Good(good) => Some(good),
        Seen::Bad(reason) => {
            assert!(!reason.is_empty());
            None
        }
        Seen::Absent => panic!("it is there"),
    }
}
