use std::collections::BTreeMap;

use proptest::{collection::btree_map, option, prelude::*};
use responder_leadership::{
    id::{Incarnation, Object},
    lease::{Fitness, Reach},
    settings::LONGEST_IDLE,
};

use super::*;

const SIXTEEN: NonZeroU16 = NonZeroU16::new(16).unwrap();

fn now() -> Timestamp {
    Timestamp::from_second(1_763_733_600).unwrap()
}

fn id(text: &str) -> SessionId {
    text.parse().unwrap()
}

fn session() -> Session {
    Session {
        id: id("n1/17"),
        state: SessionState::Live,
        duration: Duration::from_millis(500),
        renewal: 7,
        datapath: "maps 12".to_owned(),
        fitness: Fitness::Unfit("has no usable link".to_owned()),
        reach: Reach::Prefixes(["192.0.2.0/24".parse().unwrap()].into()),
    }
}

fn claim() -> Claim {
    let exceptions = [("192.0.2.10", "n2/18"), ("192.0.2.22", "n3/4"), ("192.0.2.58", "n2/18")];
    Claim {
        holder: Some(id("n1/17")),
        exceptions: exceptions.map(|(vip, holder)| (vip.parse().unwrap(), id(holder))).into(),
        written: (id("n1/17"), 5),
    }
}

fn named_session() -> Named {
    Named::Session("n1".into())
}

fn named_claim() -> Named {
    Named::Claim { claims: SIXTEEN, group: 12 }
}

fn encoded(named: &Named, content: Content, previous: Option<&Lease>) -> Lease {
    encode(named, &content, previous, now()).unwrap()
}

fn session_lease() -> Lease {
    encoded(&named_session(), Content::Session(session()), None)
}

fn claim_lease() -> Lease {
    // Only the addresses of group 12.
    let mut claim = claim();
    claim.exceptions.retain(|vip, _| group_of(*vip, SIXTEEN) == 12);
    encoded(&named_claim(), Content::Claim(claim), None)
}

fn bad(seen: Seen<impl std::fmt::Debug>) -> String {
    match &seen {
        Seen::Bad(reason) => reason.clone(),
        Seen::Absent | Seen::Good(_) => panic!("{seen:?} is not bad"),
    }
}

/// Agents of another version must understand it.
#[test]
fn the_json_stays_as_it_is() {
    let json = |lease: &Lease| annotation(lease, RECORD).unwrap().to_owned();
    assert_eq!(
        json(&session_lease()),
        r#"{"v":1,"session":"n1/17","state":"live","duration":"500ms","renewal":7,"datapath":"maps 12","fitness":{"unfit":"has no usable link"},"reach":{"prefixes":["192.0.2.0/24"]}}"#
    );
    let ended = Session {
        state: SessionState::Ended { by: "n2".into() },
        reach: Reach::Any,
        fitness: Fitness::Fit,
        ..session()
    };
    assert_eq!(
        json(&encoded(&named_session(), Content::Session(ended), None)),
        r#"{"v":1,"session":"n1/17","state":{"ended":{"by":"n2"}},"duration":"500ms","renewal":7,"datapath":"maps 12","fitness":"fit","reach":"any"}"#
    );
    assert_eq!(
        json(&encoded(&named_claim(), Content::Claim(claim()), None)),
        r#"{"v":1,"holder":"n1/17","exceptions":{"n2/18":["192.0.2.10","192.0.2.58"],"n3/4":["192.0.2.22"]},"written":["n1/17",5]}"#
    );
    let free = Claim { holder: None, exceptions: BTreeMap::new(), ..claim() };
    assert_eq!(
        json(&encoded(&named_claim(), Content::Claim(free), None)),
        r#"{"v":1,"holder":null,"written":["n1/17",5]}"#
    );
    let request = Some(Request { id: "r1".to_owned(), group: 3, to: "n2".into() });
    let record = Record { claims: SIXTEEN, longest: Duration::from_secs(3), request };
    assert_eq!(
        json(&encode_record(&record, None, now()).unwrap()),
        r#"{"v":1,"claims":16,"longest":"3s","request":{"id":"r1","group":3,"to":"n2"}}"#
    );
}

#[test]
fn columns_make_sense_to_a_reader() {
    let lease = session_lease();
    let spec = lease.spec.unwrap();
    assert_eq!(lease.metadata.name.as_deref(), Some("session-n1"));
    assert_eq!(lease.metadata.labels.unwrap()[KIND], "session");
    assert_eq!(lease.metadata.annotations.unwrap()[LEASE_DURATION], "500ms");
    assert_eq!(spec.holder_identity.as_deref(), Some("n1"));
    assert_eq!(spec.lease_duration_seconds, Some(1), "rounded up");
    assert_eq!(spec.renew_time, Some(MicroTime(now())));
    let lease = claim_lease();
    assert_eq!(lease.metadata.name.as_deref(), Some("claim-16-12"));
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("n1"));
}

#[test]
fn changes_of_hands_are_counted_and_dated() {
    let mut lease: Option<Lease> = None;
    let mut write = |holder: Option<&str>, second: i64| {
        let claim = Claim { holder: holder.map(id), exceptions: BTreeMap::new(), written: (id("n9/1"), 1) };
        let now = Timestamp::from_second(second).unwrap();
        let new = encode(&named_claim(), &Content::Claim(claim), lease.as_ref(), now).unwrap();
        let spec = new.spec.clone().unwrap();
        lease = Some(new);
        (spec.lease_transitions.unwrap(), spec.acquire_time.map(|time| time.0.as_second()))
    };
    assert_eq!(write(Some("n1/1"), 10), (0, Some(10)));
    assert_eq!(write(Some("n1/1"), 20), (0, Some(10)), "the holder stays");
    assert_eq!(write(Some("n1/2"), 30), (1, Some(30)), "another incarnation is another holder");
    assert_eq!(write(None, 40), (1, None));
    assert_eq!(write(Some("n2/1"), 50), (2, Some(50)));
}

#[test]
fn what_others_added_is_kept() {
    let mut previous = session_lease();
    let text = |text: &str| text.to_owned();
    previous.metadata.labels.get_or_insert_default().insert(text("theirs"), text("1"));
    previous.metadata.annotations.get_or_insert_default().insert(text("theirs/too"), text("2"));
    previous.metadata.finalizers = Some(vec![text("a/b")]);
    previous.metadata.uid = Some(text("u"));
    previous.metadata.managed_fields = Some(Vec::new());
    let new =
        encoded(&named_session(), Content::Session(Session { renewal: 8, ..session() }), Some(&previous));
    assert_eq!(new.metadata.labels, previous.metadata.labels);
    assert_eq!(new.metadata.annotations.as_ref().unwrap()["theirs/too"], "2");
    assert_eq!(new.metadata.finalizers, previous.metadata.finalizers);
    assert_eq!(new.metadata.uid, previous.metadata.uid);
    assert_eq!(new.metadata.managed_fields, None);
    assert_eq!(decode_session(&new, &"n1".into()), Seen::Good(Session { renewal: 8, ..session() }));
}

#[test]
fn a_lease_that_contradicts_itself_is_bad() {
    let edited = |edit: fn(&mut Lease)| {
        let mut lease = session_lease();
        edit(&mut lease);
        bad(decode_session(&lease, &"n1".into()))
    };
    let reason = edited(|lease| lease.spec.as_mut().unwrap().holder_identity = Some("n2".to_owned()));
    assert!(reason.contains("\"n2\"") && reason.contains("\"n1\""), "{reason}");
    let reason = edited(|lease| lease.spec = None);
    assert!(reason.contains("nobody") && reason.contains("\"n1\""), "{reason}");
    let reason = edited(|lease| lease.spec.as_mut().unwrap().lease_duration_seconds = Some(30));
    assert!(reason.contains("leaseDurationSeconds is 30"), "{reason}");
    let set = |key: &'static str, from: &'static str, to: &'static str| {
        let mut lease = session_lease();
        let all = lease.metadata.annotations.as_mut().unwrap();
        let new = all[key].replace(from, to);
        assert_ne!(all[key], new);
        all.insert(key.to_owned(), new);
        bad(decode_session(&lease, &"n1".into()))
    };
    assert!(set(LEASE_DURATION, "500ms", "5s").contains("\"5s\""));
    assert!(set(RECORD, "500ms", "10ms").contains("not within 500ms and 360s"));
    assert!(set(RECORD, "500ms", "1 century").contains("1 century"));
    assert!(set(RECORD, "n1/17", "n2/17").contains("n2/17"));
    assert!(set(RECORD, "\"live\"", "{\"ended\":{\"by\":\"n2\"}}").contains("nobody"));
    assert!(set(RECORD, "\"v\":1", "\"v\":2").contains("version 2"));
    assert!(set(RECORD, "\"v\":1", "\"v\":1,\"more\":0").contains("more"));
    assert!(set(RECORD, "{", "").contains("cannot be read"));
    let reason = edited(|lease| lease.metadata.annotations = None);
    assert!(reason.contains(RECORD) && reason.contains("missing"), "{reason}");
    let reason = edited(|lease| lease.metadata.labels = None);
    assert!(reason.contains(KIND), "{reason}");
}

#[test]
fn claims_that_contradict_themselves_are_bad() {
    let of = |json: &str| {
        let mut lease = claim_lease();
        lease.metadata.annotations.as_mut().unwrap().insert(RECORD.to_owned(), json.to_owned());
        bad(decode_claim(&lease, SIXTEEN, 12))
    };
    assert!(of(r#"{"v":1,"holder":"n2/1","written":["n1/1",1]}"#).contains("\"n2\""));
    assert!(of(r#"{"v":1,"holder":null,"written":["n1/1",1]}"#).contains("nobody"));
    let twice = r#"{"v":1,"holder":"n1/1","exceptions":{"n2/1":["192.0.2.10"],"n3/1":["192.0.2.10"]},"written":["n1/1",1]}"#;
    assert!(of(twice).contains("192.0.2.10 is in it twice"));
    let twice = r#"{"v":1,"holder":"n1/1","exceptions":{"n2/1":["192.0.2.10"],"n2/1":["192.0.2.10"]},"written":["n1/1",1]}"#;
    assert!(of(twice).contains("twice"));
    let stranger = r#"{"v":1,"holder":"n1/1","exceptions":{"n2/1":["192.0.2.11"]},"written":["n1/1",1]}"#;
    assert!(of(stranger).contains("belongs to claim 13"));
    // The columns of a session are not those of a claim.
    assert!(bad(decode_claim(&session_lease(), SIXTEEN, 12)).contains(KIND));
}

#[test]
fn a_record_that_is_too_large_names_the_way_out() {
    let vips =
        (0..=u16::MAX).map(|n| (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]), id("n1/1"))).take(20_000);
    let claim = Claim { holder: None, exceptions: vips.collect(), written: (id("n1/1"), 1) };
    let error = encode(&named_claim(), &Content::Claim(claim), None, now()).unwrap_err().to_string();
    assert!(error.contains("claim 12") && error.contains("--claims"), "{error}");
    let session = Session { datapath: "x".repeat(300_000), ..session() };
    let error = encode(&named_session(), &Content::Session(session), None, now()).unwrap_err().to_string();
    assert!(error.contains("session-n1"), "{error}");
}

#[test]
fn events_are_of_this_count_only() {
    let event = |named: &Named| absence(named, Version(1), SIXTEEN, Via::Watch);
    assert!(event(&named_claim()).is_some() && event(&named_session()).is_some());
    assert_eq!(event(&Named::Claim { claims: NonZeroU16::MIN, group: 0 }), None);
    assert_eq!(event(&Named::Cluster), None);
}

use std::net::IpAddr;

fn sessions() -> impl Strategy<Value = SessionId> {
    ("[a-z0-9.-]{1,12}", 0..1_u64 << 62)
        .prop_map(|(node, n)| SessionId { node: node.as_str().into(), incarnation: Incarnation(n) })
}

fn durations() -> impl Strategy<Value = Duration> {
    (500_000_000_u64..=60_000_000_000).prop_map(Duration::from_nanos)
}

/// Those of sessions, idle ones among them.
fn session_durations() -> impl Strategy<Value = Duration> {
    prop_oneof![durations(), Just(LONGEST_IDLE)]
}

prop_compose! {
    fn any_session()(
        id in sessions(),
        ended in option::of("[a-z]{0,5}"),
        duration in session_durations(),
        renewal: u64,
        datapath: String,
        fitness in prop_oneof![
            Just(Fitness::Fit),
            any::<String>().prop_map(Fitness::LastResort),
            any::<String>().prop_map(Fitness::Unfit),
        ],
        reach in option::of(proptest::collection::btree_set((any::<IpAddr>(), 0..=32_u8), 0..4)),
    ) -> Session {
        let state = ended.map_or(SessionState::Live, |by| SessionState::Ended { by: by.as_str().into() });
        let net = |(ip, bits): (IpAddr, u8)| ipnet::IpNet::new(ip, bits).unwrap();
        let reach = reach.map_or(Reach::Any, |nets| Reach::Prefixes(nets.into_iter().map(net).collect()));
        Session { id, state, duration, renewal, datapath, fitness, reach }
    }
}

prop_compose! {
    fn any_claim()(
        holder in option::of(sessions()),
        exceptions in btree_map(any::<IpAddr>(), sessions(), 0..20),
        written in (sessions(), any::<u64>()),
    ) -> Claim {
        Claim { holder, exceptions, written }
    }
}

fn nonsense() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"\{"v":(1|2|-1|1e9),"(holder|session|claims|longest)":("n1/1"|null|0|16|\[\]|\{\})[,}]{1,2}"#,
        (any::<prop::sample::Index>(), any::<char>(), any::<bool>()).prop_map(|(at, with, claim)| {
            let lease = if claim { claim_lease() } else { session_lease() };
            let mut chars: Vec<char> = annotation(&lease, RECORD).unwrap().chars().collect();
            let at = at.index(chars.len());
            chars[at] = with;
            chars.into_iter().collect()
        }),
    ]
}

prop_compose! {
    fn any_lease()(
        name in option::of(prop_oneof!["session-n1", "claim-16-12", "cluster", ".*"]),
        kind in option::of(prop_oneof!["session", "claim", "cluster", ".*"]),
        record in option::of(nonsense()),
        duration in option::of(prop_oneof!["500ms", "[0-9]{1,30}(ns|s|years|)", ".*"]),
        holder in option::of(prop_oneof!["n1", ".*"]),
        seconds: Option<i32>,
        transitions: Option<i32>,
        spec: bool,
    ) -> Lease {
        let annotations = [(RECORD, record), (LEASE_DURATION, duration)];
        let some = |(key, value): (&str, Option<String>)| Some((key.to_owned(), value?));
        Lease {
            metadata: ObjectMeta {
                name,
                labels: kind.map(|kind| [(KIND.to_owned(), kind)].into()),
                annotations: Some(annotations.into_iter().filter_map(some).collect()),
                ..ObjectMeta::default()
            },
            spec: spec.then(|| LeaseSpec {
                holder_identity: holder,
                lease_duration_seconds: seconds,
                lease_transitions: transitions,
                ..LeaseSpec::default()
            }),
        }
    }
}

proptest! {
    #[test]
    fn sessions_are_read_as_they_are_written(session in any_session(), previous in option::of(any_lease())) {
        let named = Named::Session(session.id.node.clone());
        let lease = encode(&named, &Content::Session(session.clone()), previous.as_ref(), now()).unwrap();
        prop_assert_eq!(decode_session(&lease, &session.id.node), Seen::Good(session));
    }

    #[test]
    fn claims_are_read_as_they_are_written(claim in any_claim(), previous in option::of(any_lease())) {
        // One group: all addresses are in it.
        let named = Named::of(&Object::Claim(0), NonZeroU16::MIN);
        let lease = encode(&named, &Content::Claim(claim.clone()), previous.as_ref(), now()).unwrap();
        prop_assert_eq!(decode_claim(&lease, NonZeroU16::MIN, 0), Seen::Good(claim));
    }

    #[test]
    fn records_are_read_as_they_are_written(
        claims: NonZeroU16, longest in durations(), request in option::of((".*", any::<u16>(), ".*")),
        previous in option::of(any_lease()),
    ) {
        let request = request.map(|(id, group, to)| Request { id, group: group % claims, to: to.as_str().into() });
        let record = Record { claims, longest, request };
        let lease = encode_record(&record, previous.as_ref(), now()).unwrap();
        prop_assert_eq!(decode_record(&lease), Seen::Good(record));
    }

    #[test]
    fn nothing_panics_and_what_is_good_is_read_again(lease in any_lease()) {
        if let Seen::Good(session) = decode_session(&lease, &"n1".into()) {
            prop_assert_eq!(session.id.node.as_str(), "n1");
            prop_assert!((SHORTEST..=LONGEST_IDLE).contains(&session.duration));
        }
        if let Seen::Good(claim) = decode_claim(&lease, SIXTEEN, 12) {
            let shown = spec(&lease).and_then(|spec| spec.holder_identity.clone()).filter(|name| !name.is_empty());
            prop_assert_eq!(shown, claim.holder.map(|holder| holder.node.to_string()));
        }
        let _record = decode_record(&lease);
        let _holder = holder_of(&lease);
        encoded(&named_session(), Content::Session(session()), Some(&lease));
    }
}
