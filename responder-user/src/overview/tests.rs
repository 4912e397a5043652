use std::{num::NonZeroU16, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use responder_leadership::{
    group::{group_of, spread},
    id::Incarnation,
    lease::{Claim, Content, Fitness, Reach, Session, SessionState},
};
use serde_json::{Value, json};

use super::*;
use crate::status::Paint;

pub(crate) const CLAIMS: NonZeroU16 = NonZeroU16::new(4).unwrap();
pub(crate) const VIP: &str = "192.0.2.10";

pub(crate) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn id(node: &str) -> SessionId {
    SessionId { node: node.into(), incarnation: Incarnation(7) }
}

pub(crate) fn session(node: &str) -> Session {
    Session {
        id: id(node),
        state: SessionState::Live,
        duration: Duration::from_secs(3),
        renewal: 1,
        datapath: "d".to_owned(),
        fitness: Fitness::Fit,
        reach: Reach::Prefixes(["192.0.2.0/24".parse().unwrap()].into()),
    }
}

/// A Lease written so long ago.
pub(crate) fn lease(named: &Named, content: &Content, age: i64) -> Lease {
    codec::encode(named, content, None, now() - SignedDuration::from_secs(age)).unwrap()
}

pub(crate) fn session_lease(session: Session, age: i64) -> Lease {
    lease(&Named::Session(session.id.node.clone()), &Content::Session(session), age)
}

pub(crate) fn claim_lease(group: Group, holder: Option<&str>, exceptions: &[(&str, &str)]) -> Lease {
    let claim = Claim {
        holder: holder.map(id),
        exceptions: exceptions.iter().map(|(vip, node)| (ip(vip), id(node))).collect(),
        written: (id("n1"), 1),
    };
    lease(&Named::Claim { claims: CLAIMS, group }, &Content::Claim(claim), 60)
}

pub(crate) fn service(name: &str, vip: &str, policy: &str) -> Service {
    let object = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "type": "LoadBalancer", "externalTrafficPolicy": policy },
        "status": { "loadBalancer": { "ingress": [{ "ip": vip }] } },
    });
    serde_json::from_value(object).unwrap()
}

pub(crate) fn slice(name: &str, node: &str) -> EndpointSlice {
    let object = json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.0.1"], "nodeName": node }],
    });
    serde_json::from_value(object).unwrap()
}

pub(crate) fn node(name: &str) -> Node {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

/// Three nodes; n1 holds all four claims; one Service.
pub(crate) fn facts() -> Facts {
    let record = Record { claims: CLAIMS, longest: Duration::from_secs(3), request: None };
    let mut leases = vec![codec::encode_record(&record, None, now()).unwrap()];
    leases.extend(["n1", "n2", "n3"].map(|node| session_lease(session(node), 1)));
    leases.extend((0..4).map(|group| claim_lease(group, Some("n1"), &[])));
    Facts {
        namespace: "l2-responder".to_owned(),
        this_node: Some("n1".into()),
        leases: Some(leases),
        services: Some(vec![service("web", VIP, "Cluster")]),
        slices: Some(Vec::new()),
        nodes: Some(["n1", "n2", "n3", "n4"].map(node).into()),
        rules: Rules::default(),
        protected: BTreeMap::new(),
        seen_alive: BTreeSet::new(),
        problems: Vec::new(),
        now: now(),
    }
}

/// Replaces the Lease of the same name.
pub(crate) fn set(facts: &mut Facts, lease: Lease) {
    let leases = facts.leases.as_mut().unwrap();
    leases.retain(|old| old.metadata.name != lease.metadata.name);
    leases.push(lease);
}

fn owner(facts: &Facts) -> (Option<String>, String) {
    let view = view(facts);
    let vip = &view.vips[0];
    (vip.owner.as_ref().map(ToString::to_string), vip.reason.clone())
}

pub(crate) fn group() -> Group {
    group_of(ip(VIP), CLAIMS)
}

#[test]
fn the_holder_of_the_group_answers() {
    let name = Named::Claim { claims: CLAIMS, group: group() }.name();
    assert_eq!(owner(&facts()), (Some("n1".to_owned()), format!("holds {name}")));
    let view = view(&facts());
    assert_eq!(view.problems, Vec::<String>::new());
    let n1 = view.session(&"n1".into()).unwrap();
    assert_eq!((n1.claims, n1.vips, n1.since_ms), (4, 1, Some(1000)));
    assert_eq!(view.session(&"n4".into()).unwrap().life, Life::Absent);
    assert_eq!(view.claims[0].since_ms, Some(60_000));
}

#[test]
fn an_exception_comes_first() {
    let mut facts = facts();
    set(&mut facts, claim_lease(group(), Some("n1"), &[(VIP, "n2")]));
    let (owner, reason) = owner(&facts);
    assert_eq!(owner.as_deref(), Some("n2"));
    assert!(reason.starts_with("exception of claim-4-"), "{reason}");
    assert_eq!(view(&facts).held_by(&"n2".into()), (Vec::new(), vec![ip(VIP)]));
}

#[test]
fn nobody_answers_and_why() {
    let nobody = |facts: &Facts, why: &str| {
        let (owner, reason) = owner(facts);
        assert_eq!(owner, None, "{reason}");
        assert!(reason.contains(why), "{reason:?} lacks {why:?}");
    };
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        facts
    };
    nobody(&with(&|f| set(f, claim_lease(group(), None, &[]))), "nobody holds it; another node is about to");
    nobody(&with(&|f| set(f, session_lease(session("n1"), 4))), "the session of n1 has expired");
    let ended = |by: &str| Session { state: SessionState::Ended { by: by.into() }, ..session("n1") };
    nobody(&with(&|f| set(f, session_lease(ended("n2"), 1))), "the session of n1 was revoked by n2");
    nobody(&with(&|f| set(f, session_lease(ended("n1"), 1))), "the session of n1 has ended");
    let later = Session { id: SessionId { incarnation: Incarnation(8), ..id("n1") }, ..session("n1") };
    nobody(&with(&|f| set(f, session_lease(later.clone(), 1))), "held by an earlier session of n1");
    let earlier = Session { id: SessionId { incarnation: Incarnation(6), ..id("n1") }, ..session("n1") };
    nobody(&with(&|f| set(f, session_lease(earlier.clone(), 1))), "later than the session");
    nobody(
        &with(&|f| f.leases.as_mut().unwrap().retain(|l| l.metadata.name.as_deref() != Some("session-n1"))),
        "the session of n1 is missing",
    );
    nobody(
        &with(&|f| {
            let mut lease = claim_lease(group(), Some("n1"), &[]);
            lease.spec.as_mut().unwrap().holder_identity = Some("n3".to_owned());
            set(f, lease);
        }),
        "its Lease cannot be understood: spec.holderIdentity",
    );
    nobody(
        &with(&|f| f.services = Some(vec![service("web", VIP, "Local")])),
        "no ready endpoint on any node",
    );
    nobody(
        &with(&|f| {
            f.services = Some(vec![service("web", VIP, "Local")]);
            f.slices = Some(vec![slice("web", "n3")]);
        }),
        "but its endpoints are on n3",
    );
    nobody(
        &with(&|f| f.services = Some(vec![service("web", "198.51.100.1", "Cluster")])),
        "no live node has a link",
    );
    let narrow = Session { reach: Reach::Prefixes([].into()), ..session("n1") };
    nobody(&with(&|f| set(f, session_lease(narrow.clone(), 1))), "n1 holds claim-4");
    nobody(&with(&|f| f.leases = None), "the claims are not known");
    nobody(
        &with(&|f| {
            set(f, claim_lease(group(), None, &[]));
            for node in ["n1", "n2", "n3"] {
                set(
                    f,
                    session_lease(Session { fitness: Fitness::Unfit("x".to_owned()), ..session(node) }, 1),
                );
            }
        }),
        "no live node is fit to take it",
    );
}

#[test]
fn a_clock_that_is_ahead_kills_nobody_who_was_seen_alive() {
    let mut facts = facts();
    facts.now += SignedDuration::from_secs(3600);
    assert_eq!(owner(&facts).0, None);
    assert_eq!(late(&facts).len(), 3);
    facts.seen_alive.insert("n1".into());
    assert_eq!(owner(&facts).0.as_deref(), Some("n1"));
}

#[test]
fn refused_addresses_have_their_reason() {
    let mut facts = facts();
    facts.rules.ranges = vec!["198.51.100.0/24".parse().unwrap()];
    let view = view(&facts);
    assert_eq!(view.vips, Vec::new());
    assert!(view.refused[0].reason.contains("--ip-ranges"), "{:?}", view.refused);
}

#[test]
fn a_missing_right_degrades_its_part_alone() {
    let mut facts = facts();
    set(&mut facts, claim_lease(group(), Some("n1"), &[(VIP, "n2")]));
    facts.services = None;
    let without_services = view(&facts);
    assert_eq!(without_services.vips.len(), 1, "exceptions are known by the claims");
    assert_eq!(without_services.vips[0].owner.as_ref().unwrap().as_str(), "n2");
    facts.services = Some(vec![service("web", VIP, "Local")]);
    facts.slices = None;
    assert_eq!(owner(&facts).0.as_deref(), Some("n2"), "endpoints are not known to be missing");
    facts.nodes = None;
    assert_eq!(view(&facts).sessions.len(), 3);
}

#[test]
fn claims_belong_where_agents_would_take_them() {
    let best = |among: &[&str]| {
        let candidates = among.iter().map(|name| (NodeName::from(*name), 0)).collect();
        spread(0..CLAIMS.get(), CLAIMS, candidates, |_, _| true)
    };
    let mut facts = facts();
    for claim in view(&facts).claims {
        assert_eq!(claim.preferred.as_ref(), best(&["n1", "n2", "n3"]).get(&claim.group));
        let elsewhere = claim.preferred.as_ref().filter(|node| node.as_str() != "n1");
        assert_eq!(claim.misplaced(), elsewhere);
    }
    set(&mut facts, session_lease(Session { fitness: Fitness::Unfit("x".to_owned()), ..session("n2") }, 1));
    for claim in view(&facts).claims {
        assert_eq!(claim.preferred.as_ref(), best(&["n1", "n3"]).get(&claim.group));
    }
    // Where none of its addresses could be answered it would be given back.
    facts.services = Some(vec![service("web", VIP, "Local")]);
    facts.slices = Some(vec![slice("web", "n3")]);
    let claim = &view(&facts).claims[usize::from(group())];
    assert_eq!(claim.preferred.as_ref().unwrap().as_str(), "n3");
}

#[test]
fn without_a_record_that_is_said() {
    let mut facts = facts();
    facts.leases.as_mut().unwrap().retain(|lease| lease.metadata.name.as_deref() != Some("cluster"));
    let seen = view(&facts);
    assert_eq!(seen.claim_count, Some(CLAIMS), "as the claims say");
    assert!(seen.problems[0].contains("l2-responder/cluster is missing"), "{:?}", seen.problems);
    facts.leases = Some(Vec::new());
    assert_eq!(view(&facts).claim_count, None);
}

fn rendered(facts: &Facts, shown: &Shown) -> String {
    let mut out = Vec::new();
    text(&mut out, &view(facts), shown, Paint::none()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn ten_thousand_addresses_fit_on_a_screen() {
    let mut facts = facts();
    let vip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
    let services = (1..=10_000).map(|n| service(&format!("s{n}"), &vip(n), "Cluster"));
    facts.services = Some(services.collect());
    for node in ["n1", "n2", "n3"] {
        set(&mut facts, session_lease(Session { reach: Reach::Any, ..session(node) }, 1));
    }
    let short = rendered(&facts, &Shown::Silent);
    assert!(short.lines().count() < 30, "{short}");
    assert!(short.contains("10000 addresses: 10000 answered (--vips shows each)"), "{short}");
    assert!(short.contains("this node is n1"), "{short}");
    assert!(rendered(&facts, &Shown::All).lines().count() > 10_000);
    for word in ["10.0.0.7", "default/s7", "10.0.0.7/32"] {
        let found = rendered(&facts, &Shown::Matching(word.to_owned()));
        assert_eq!(found.lines().filter(|line| line.contains("default/")).count(), 1, "{word}: {found}");
    }
    let none = rendered(&facts, &Shown::Matching("nobody".to_owned()));
    assert!(none.contains("none matches \"nobody\""), "{none}");
    // All of them silent: twenty are enough.
    for node in ["n1", "n2", "n3"] {
        set(&mut facts, session_lease(session(node), 1));
    }
    let silent = rendered(&facts, &Shown::Silent);
    assert!(silent.lines().count() < 50 && silent.contains("… and 9980 more"), "{silent}");
}

#[test]
fn a_reader_finds_what_matters() {
    let mut facts = facts();
    let drained = Session { fitness: Fitness::Unfit("is drained".to_owned()), ..session("n3") };
    set(&mut facts, session_lease(drained, 1));
    set(&mut facts, session_lease(session("n2"), 30));
    set(&mut facts, claim_lease(group(), Some("n2"), &[]));
    facts.problems = vec!["the right to `list nodes` is missing".to_owned()];
    let text = rendered(&facts, &Shown::Silent);
    for wanted in [
        "n1 *",
        "expired",
        "unfit: is drained",
        "no agent",
        "nobody",
        "the session of n2 has expired",
        "list nodes",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn the_json_names_life_and_reason() {
    let json: Value = serde_json::to_value(view(&facts())).unwrap();
    assert_eq!(json["sessions"][0]["life"], "live");
    assert_eq!(json["sessions"][3]["life"], "absent");
    assert_eq!(json["vips"][0]["owner"], "n1");
    assert_eq!(json["claims"][0]["holder"], "n1/7");
}
