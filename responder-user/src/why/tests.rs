use std::net::IpAddr;

use responder_leadership::lease::{Fitness, Reach, Session, SessionState};
use serde_json::{Value, json};

use super::{
    explain::{Answered, Explanation, Step, Verdict, explain},
    facts::{ClusterFacts, Facts, HostState, Look, RulesFrom},
};
use crate::{
    cluster::names::Named,
    decision::services::Rules,
    overview::{
        self,
        tests::{
            CLAIMS, VIP, claim_lease, facts as objects, group, ip, node, service, session, session_lease,
            set, slice,
        },
    },
};

fn of(objects: overview::Facts) -> Facts {
    let view = overview::view(&objects);
    let cluster = ClusterFacts { objects, view, rules: RulesFrom::Default };
    Facts { address: ip(VIP), cluster: Some(cluster), here: None, holder: None }
}

fn changed(change: impl FnOnce(&mut overview::Facts)) -> Explanation {
    let mut objects = objects();
    change(&mut objects);
    explain(&of(objects))
}

fn step<'a>(explanation: &'a Explanation, about: &str) -> &'a Step {
    let found = explanation.steps.iter().find(|step| step.about == about);
    found.unwrap_or_else(|| panic!("no step {about:?}: {explanation:#?}"))
}

/// Nobody answers, because of this step.
fn nobody(explanation: &Explanation, about: &str, why: &str) {
    assert_eq!(explanation.answered, Answered::No, "{explanation:#?}");
    let bad = explanation.steps.iter().find(|step| step.verdict == Verdict::Bad).unwrap();
    assert_eq!(bad.about, about, "{explanation:#?}");
    assert!(bad.text.contains(why), "{why:?} is not in {:?}", bad.text);
    assert!(explanation.sentence.starts_with("192.0.2.10 is not answered. "), "{explanation:#?}");
    assert!(explanation.sentence.contains(why), "{explanation:#?}");
    assert_eq!(explanation.by, None);
}

fn edited(name: &str, edit: impl FnOnce(&mut Value)) -> Explanation {
    let mut object = serde_json::to_value(service(name, VIP, "Cluster")).unwrap();
    edit(&mut object);
    changed(|f| f.services = Some(vec![serde_json::from_value(object).unwrap()]))
}

#[test]
fn answered_from_the_service_to_the_session() {
    let told = changed(|f| f.slices = Some(vec![slice("web", "n3")]));
    assert_eq!((told.answered, told.by.as_deref(), told.since_ms), (Answered::Yes, Some("n1"), Some(60_000)));
    assert_eq!(told.sentence, "192.0.2.10 is answered by n1, for 1m.");
    let about: Vec<_> = told.steps.iter().map(|step| step.about).collect();
    assert_eq!(
        about,
        ["service", "status", "ranges", "policy", "endpoints", "group", "holder", "session", "reach", "map"]
    );
    assert!(step(&told, "service").text.contains("default/web has it: type LoadBalancer, no class"));
    assert!(step(&told, "endpoints").text.contains("1 of 1 endpoints ready: n3 1"));
    let name = Named::Claim { claims: CLAIMS, group: group() }.name();
    assert!(step(&told, "group").text.contains(&format!("of 4: the Lease l2-responder/{name}")));
    assert!(step(&told, "holder").text.starts_with(&format!("n1 holds {name}, for 1m")));
    assert!(step(&told, "session").text.contains("renewed 1s ago, good for 3s"));
    let map = step(&told, "map");
    assert_eq!(map.verdict, Verdict::Note);
    assert!(map.text.contains("could not be looked at") && map.text.contains("as root on n1"));
}

#[test]
fn without_endpoints_a_cluster_address_is_answered() {
    let told = changed(|_| {});
    assert_eq!(told.answered, Answered::Yes);
    assert_eq!(step(&told, "endpoints").verdict, Verdict::Note);
    assert!(step(&told, "endpoints").text.contains("connections are refused"));
}

#[test]
fn no_service_has_it() {
    nobody(&changed(|f| f.services = Some(Vec::new())), "service", "No Service has it, neither in status");
    let told = changed(|f| {
        f.services = Some(Vec::new());
        let mut n2 = serde_json::to_value(node("n2")).unwrap();
        n2["status"] = json!({ "addresses": [{ "type": "InternalIP", "address": VIP }] });
        f.nodes = Some(vec![serde_json::from_value(n2).unwrap()]);
    });
    nobody(&told, "service", "address of node n2");
    let cluster_ip = |object: &mut Value| {
        object["status"] = json!({});
        object["spec"]["clusterIP"] = json!(VIP);
    };
    nobody(&edited("web", cluster_ip), "service", "cluster IP of Service default/web");
    let other_class = |object: &mut Value| object["spec"]["loadBalancerClass"] = json!("example.com/other");
    nobody(&edited("web", other_class), "service", "the class example.com/other");
    let told = changed(|f| f.rules = Rules { class: Some("x/y".to_owned()), ..Rules::default() });
    nobody(
        &told,
        "service",
        "is of no class (spec.loadBalancerClass), and the agents announce only those of the class x/y",
    );
}

#[test]
fn the_status_is_without_it() {
    let asked = |object: &mut Value| {
        object["status"] = json!({});
        object["metadata"]["annotations"] =
            json!({ "metallb.io/loadBalancerIPs": "2001:db8::1, 192.0.2.10" });
    };
    nobody(&edited("web", asked), "status", "default/web asks for it");
    let proxy =
        |object: &mut Value| object["status"]["loadBalancer"]["ingress"][0]["ipMode"] = json!("Proxy");
    nobody(&edited("web", proxy), "status", "ipMode Proxy");
    let external = |object: &mut Value| {
        object["status"] = json!({});
        object["spec"]["externalIPs"] = json!([VIP]);
    };
    nobody(&edited("web", external), "status", "without --external-ips");
    let told = changed(|f| {
        let mut object = serde_json::to_value(service("web", VIP, "Cluster")).unwrap();
        external(&mut object);
        f.services = Some(vec![serde_json::from_value(object).unwrap()]);
        f.rules.external_ips = true;
    });
    assert_eq!(told.answered, Answered::Yes, "{told:#?}");
    assert!(step(&told, "status").text.contains("--external-ips"));
}

#[test]
fn it_may_not_be_announced() {
    let told = changed(|f| f.rules.ranges = vec!["198.51.100.0/24".parse().unwrap()]);
    nobody(&told, "ranges", "It is in none of --ip-ranges 198.51.100.0/24");
    let headless = |object: &mut Value| object["spec"]["clusterIP"] = json!("None");
    nobody(&edited("web", headless), "ranges", "headless");
    let told = changed(|f| {
        drop(f.protected.insert(crate::decision::services::Protected::Gateway, [ip(VIP)].into()))
    });
    nobody(&told, "ranges", "address of a default gateway");
    let mut facts = of(objects());
    facts.cluster.as_mut().unwrap().rules = RulesFrom::Agent("n2".into());
    let told = explain(&facts);
    assert!(step(&told, "ranges").text.contains("rules of the agent on n2"), "{told:#?}");
}

#[test]
fn no_node_has_an_endpoint_that_counts() {
    let local = || Some(vec![service("web", VIP, "Local")]);
    nobody(
        &changed(|f| f.services = local()),
        "endpoints",
        "No node has a ready endpoint of default/web (0 of 0",
    );
    let told = changed(|f| {
        (f.services, f.slices) = (local(), Some(vec![slice("web", "n3")]));
    });
    nobody(&told, "session", "its endpoints are on n3");
    assert!(
        step(&told, "candidates").text.contains("n2 has no endpoint that counts; n3 is about to take it")
    );
    let ending = changed(|f| {
        let mut object = serde_json::to_value(slice("web", "n1")).unwrap();
        object["endpoints"][0]["conditions"] =
            json!({ "ready": false, "serving": true, "terminating": true });
        (f.services, f.slices) = (local(), Some(vec![serde_json::from_value(object).unwrap()]));
    });
    assert_eq!(ending.answered, Answered::Yes, "{ending:#?}");
    assert!(step(&ending, "endpoints").text.contains("still serve"));
}

#[test]
fn nobody_holds_it_or_who_does_is_dead() {
    let told = changed(|f| set(f, claim_lease(group(), None, &[])));
    nobody(&told, "holder", "Nobody holds claim-4-");
    assert!(step(&told, "candidates").text.contains("n1 is about to take it"), "{told:#?}");
    let told = changed(|f| set(f, session_lease(session("n1"), 4)));
    nobody(&told, "session", "the session of n1 has expired (its Lease was last written 4s ago)");
    let ended = Session { state: SessionState::Ended { by: "n2".into() }, ..session("n1") };
    nobody(&changed(|f| set(f, session_lease(ended, 1))), "session", "was revoked by n2");
    let told =
        changed(|f| f.leases.as_mut().unwrap().retain(|l| l.metadata.name.as_deref() != Some("cluster")));
    // The claims that are there say how many there are.
    assert_eq!(told.answered, Answered::Yes, "{told:#?}");
    let told = changed(|f| f.leases = Some(Vec::new()));
    nobody(&told, "group", "no agent has started");
}

#[test]
fn every_node_is_drained() {
    let drained = |node| Session { fitness: Fitness::Unfit("is drained".to_owned()), ..session(node) };
    let told = changed(|f| {
        set(f, claim_lease(group(), None, &[]));
        ["n1", "n2", "n3"].into_iter().for_each(|node| set(f, session_lease(drained(node), 1)));
    });
    nobody(&told, "holder", "Nobody holds");
    let others = &step(&told, "candidates").text;
    assert!(others.contains("n1 is drained; n2 is drained; n3 is drained; n4 has no agent"), "{others}");
    // Whoever holds it is silent while nobody is to have it, …
    let told =
        changed(|f| ["n1", "n2", "n3"].into_iter().for_each(|node| set(f, session_lease(drained(node), 1))));
    nobody(&told, "session", "but is drained, and no other node may take it");
    // … and answers until it has handed it over.
    let told = changed(|f| set(f, session_lease(drained("n1"), 1)));
    assert_eq!(told.answered, Answered::Yes);
    assert_eq!(step(&told, "session").verdict, Verdict::Note);
    assert!(step(&told, "session").text.contains("n1 is drained: it hands over as soon as"));
}

#[test]
fn no_prefix_covers_it() {
    let narrow = |node| {
        let reach = Reach::Prefixes(["198.51.100.0/24".parse().unwrap()].into());
        session_lease(Session { reach, ..session(node) }, 1)
    };
    let told = changed(|f| ["n1", "n2", "n3"].into_iter().for_each(|node| set(f, narrow(node))));
    nobody(&told, "session", "No live node has a link whose prefix covers it");
    assert!(step(&told, "candidates").text.contains("n2 announces 198.51.100.0/24, which does not cover it"));
}

#[test]
fn an_exception_is_said_to_be_one() {
    let told = changed(|f| set(f, claim_lease(group(), Some("n1"), &[(VIP, "n2")])));
    assert_eq!(told.by.as_deref(), Some("n2"));
    let text = &step(&told, "holder").text;
    assert!(text.contains("as an exception of claim-4-") && text.contains("held by n1"), "{text}");
}

#[test]
fn what_cannot_be_read_is_not_known() {
    let told = changed(|f| {
        f.services = None;
        f.problems = vec!["the right to `list services in all namespaces` is missing".to_owned()];
    });
    assert_eq!(told.answered, Answered::Unknown, "{told:#?}");
    assert!(told.sentence.contains("`list services"), "{told:#?}");
    let told = changed(|f| {
        f.leases = None;
        f.problems = vec!["the right to `list leases in namespace x` is missing".to_owned()];
    });
    assert_eq!(told.answered, Answered::Unknown, "{told:#?}");
    assert!(told.sentence.contains("list leases"), "{told:#?}");
}

/// A host whose map has the address in a state.
fn host(state: &str, change: impl FnOnce(&mut Value)) -> HostState {
    let mut object = json!({
        "agent": null,
        "fence": { "deadline_left_ms": 2000, "suppress_left_ms": 3_600_000, "heartbeat_age_ms": 300 },
        "links": [{ "ifindex": 2, "name": "eth0", "mac": "02:00:00:00:00:01", "mode": "native", "prog_id": 7,
            "tcx": true }],
        "vips": [{ "vip": VIP, "link": "eth0", "vlan": 0, "state": state, "slot": 5, "slot_age_ms": 60_000,
            "answered": 12, "suppressed": 3, "conflicts": 0, "announced_age_ms": null }],
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn seen(state: &str, change: impl FnOnce(&mut Value)) -> Explanation {
    let mut facts = of(objects());
    facts.holder = Some(Look { node: "n1".into(), state: Ok(host(state, change)) });
    explain(&facts)
}

#[test]
fn the_holders_maps_have_the_last_word() {
    let told = seen("answering", |_| {});
    assert_eq!(told.answered, Answered::Yes, "{told:#?}");
    assert!(
        step(&told, "link").text.contains("native") && step(&told, "link").text.contains("02:00:00:00:00:01")
    );
    assert!(
        step(&told, "map")
            .text
            .contains("n1 owns it on eth0 (slot 5, for 1m), and its deadline is ahead by 2s")
    );
    assert!(step(&told, "counters").text.contains("12 questions answered, 3 suppressed"));
    assert!(step(&told, "agent").text.contains("No agent answers on n1"));

    nobody(&seen("standby", |_| {}), "map", "as another's");
    nobody(
        &seen("expired", |h| h["fence"]["deadline_left_ms"] = json!(-5000)),
        "map",
        "deadline passed 5s ago",
    );
    nobody(
        &seen("abandoned", |h| h["fence"]["suppress_left_ms"] = json!(-1000)),
        "map",
        "passed to the kernel",
    );
    nobody(&seen("detached", |h| h["links"][0]["mode"] = Value::Null), "link", "No program runs on eth0");
    nobody(&seen("answering", |h| h["vips"] = json!([])), "map", "The maps of n1 do not have it");
    let two = |h: &mut Value| {
        let mut other = h["vips"][0].clone();
        (other["link"], other["state"]) = (json!("eth1"), json!("detached"));
        h["vips"].as_array_mut().unwrap().push(other);
    };
    assert_eq!(seen("answering", two).answered, Answered::Yes, "one link is enough");
    let told = seen("answering", |h| h["vips"][0]["conflicts"] = json!(4));
    assert_eq!(step(&told, "counters").verdict, Verdict::Note);
    assert!(step(&told, "counters").text.contains("claimed it 4 times"));
}

/// What an agent says.
fn agent(change: impl FnOnce(&mut Value)) -> Value {
    let link = json!({ "ifindex": 2, "mac": "02:00:00:00:00:01", "running": true, "xdp": "native by link", "prog_id": 7,
        "egress": "tcx", "error": null, "tried": [], "all_multicast": null });
    let mut agent = serde_json::to_value(crate::control::AgentStatus::default()).unwrap();
    agent["links"] = json!({ "eth0": link });
    change(&mut agent);
    agent
}

#[test]
fn what_was_tried_is_told() {
    let refused = |h: &mut Value| {
        h["links"][0]["mode"] = Value::Null;
        h["agent"] = agent(|a| {
            a["links"]["eth0"]["xdp"] = Value::Null;
            a["links"]["eth0"]["error"] = json!("the kernel refuses");
            a["links"]["eth0"]["tried"] = json!([{ "what": "native by link", "error": "MTU too large" }]);
        });
    };
    let told = seen("detached", refused);
    nobody(&told, "link", "the kernel refuses");
    assert!(
        step(&told, "link").text.contains("Tried without success: native by link: MTU too large"),
        "{told:#?}"
    );
    let down = |h: &mut Value| h["agent"] = agent(|a| a["links"]["eth0"]["running"] = json!(false));
    nobody(&seen("answering", down), "link", "is down or has no carrier");
}

#[test]
fn a_host_without_a_cluster() {
    let told = |state: &str, change: &dyn Fn(&mut Value)| {
        let here = host(state, |h| {
            h["agent"] = agent(|a| a["file"] = json!("/etc/vips.toml"));
            change(h);
        });
        explain(&Facts { address: ip(VIP), cluster: None, here: Some(here), holder: None })
    };
    let good = told("answering", &|_| {});
    assert_eq!((good.answered, good.by.as_deref()), (Answered::Yes, Some("this host")), "{good:#?}");
    assert!(step(&good, "file").text.contains("/etc/vips.toml names it"));
    nobody(&told("answering", &|h| h["vips"] = json!([])), "file", "/etc/vips.toml does not name it");
    let refused = |h: &mut Value| {
        h["vips"] = json!([]);
        h["agent"]["refused"] = json!([[VIP, "", "is multicast"]]);
    };
    nobody(&told("answering", &refused), "file", "names it, but it is multicast");
    let bad = told("answering", &|h| h["agent"]["file_error"] = json!("line 3"));
    assert!(bad.steps.iter().any(|s| s.verdict == Verdict::Note && s.text.contains("line 3")), "{bad:#?}");
    nobody(&told("standby", &|_| {}), "map", "as another's");
    let gone = |h: &mut Value| {
        h["agent"] = Value::Null;
        h["fence"] =
            json!({ "deadline_left_ms": -9000, "suppress_left_ms": 1000, "heartbeat_age_ms": 19_000 });
    };
    let told = told("expired", &gone);
    nobody(&told, "map", "deadline passed 9s ago");
    assert!(step(&told, "agent").text.contains("last sign of life was 19s ago"));
}

#[test]
fn a_bystander_says_what_it_does() {
    let mut facts = of(objects());
    facts.cluster.as_mut().unwrap().view.this_node = Some("n2".into());
    facts.here = Some(host("standby", |_| {}));
    let told = explain(&facts);
    assert_eq!(told.by.as_deref(), Some("n1"));
    assert!(
        step(&told, "here").text.contains("n2, where this was asked, knows it as another's"),
        "{told:#?}"
    );
}

#[test]
fn ipv6_is_the_same() {
    let six: IpAddr = "2001:db8::10".parse().unwrap();
    let mut objects = objects();
    objects.services = Some(vec![service("six", "2001:db8::10", "Cluster")]);
    for node in ["n1", "n2", "n3"] {
        let reach = Reach::Prefixes(["2001:db8::/64".parse().unwrap()].into());
        set(&mut objects, session_lease(Session { reach, ..session(node) }, 1));
    }
    let facts = Facts { address: six, ..of(objects) };
    let told = explain(&facts);
    assert_eq!(told.answered, Answered::Yes, "{told:#?}");
    assert!(told.sentence.starts_with("2001:db8::10 is answered by n1"));
}
