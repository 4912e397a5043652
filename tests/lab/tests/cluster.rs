//! The cluster itself, tried with requests in the agents' place.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "cluster/outside.rs"]
mod outside;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use responder_lab::{
    Api, BootTime, Cluster, Cut, Endpoint, Lab, Service, cluster_or_skip, namespaces, tools, tools_or_skip,
    traffic::Conversation, wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const BRIEF: Duration = Duration::from_millis(500);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/l2-responder/leases";

/// For tests that leave it as it was, as far as others see it.
static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::builder().build().unwrap());

fn lease(name: &str) -> Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name } })
}

#[test]
fn nodes_are_computers_of_their_own() {
    let test = "nodes_are_computers_of_their_own";
    if !cluster_or_skip(test) {
        return;
    }
    let (one, two) = (SHARED.node("n1"), SHARED.node("n2"));
    for node in [one, two] {
        assert_eq!(node.check(&["cat", "/proc/sys/kernel/hostname"]).unwrap().trim(), node.name());
        node.check(&["mkdir", "/sys/fs/bpf/mine", "/run/mine"]).unwrap();
        assert_eq!(node.check(&["stat", "-fc", "%T", "/sys/fs/bpf"]).unwrap().trim(), "bpf_fs");
        let links = node.check(&["ls", "/sys/class/net"]).unwrap();
        assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo", "mgmt0"]);
        assert_eq!(node.check(&["sh", "-c", "cat /proc/1/comm"]).unwrap().trim(), "sh");
    }
    for path in ["/run/mine", "/sys/fs/bpf/mine"] {
        assert!(!fs::exists(path).unwrap(), "{path} outside");
        one.check(&["rmdir", path]).unwrap();
        two.check(&["rmdir", path]).unwrap();
    }
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "n1");
    let nodes = SHARED.kubectl(&["get", "nodes", "--no-headers"]).unwrap();
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");
}

#[test]
fn agents_have_the_rights_of_deploy_base() {
    if !cluster_or_skip("agents_have_the_rights_of_deploy_base") {
        return;
    }
    let (_proxy, api) = SHARED.requests_of("n2").unwrap();
    let status = |method: &str, path: &str, body: &Value| {
        api.request(method, path, "application/json", &body.to_string()).unwrap().0
    };
    let mark = SHARED.audit().mark().unwrap();
    assert_eq!(status("POST", LEASES, &lease("rights")), 201);
    let mut found = api.get(&format!("{LEASES}/rights")).unwrap();
    found["spec"]["holderIdentity"] = json!("n2");
    api.replace(&format!("{LEASES}/rights"), &found).unwrap();
    assert!(api.replace(&format!("{LEASES}/rights"), &found).is_err(), "of an earlier version");
    assert_eq!(status("DELETE", &format!("{LEASES}/rights"), &json!({})), 403);
    let elsewhere = LEASES.replace("l2-responder", "default");
    assert_eq!(status("POST", &elsewhere, &lease("rights")), 403);
    assert_eq!(status("GET", &elsewhere, &json!({})), 403);
    for path in ["/api/v1/services", "/api/v1/nodes", "/apis/discovery.k8s.io/v1/endpointslices"] {
        assert_eq!(status("GET", path, &json!({})), 200, "{path}");
    }
    for path in ["/api/v1/secrets", "/api/v1/pods", "/api/v1/namespaces/l2-responder/configmaps"] {
        assert_eq!(status("GET", path, &json!({})), 403, "{path}");
    }
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" },
        "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "l2-responder",
        "reportingInstance": "n2", "action": "Announcing", "reason": "Announcing", "type": "Normal",
        "regarding": { "kind": "Service", "namespace": "default", "name": "web" },
    });
    assert_eq!(status("POST", "/apis/events.k8s.io/v1/namespaces/default/events", &event), 201);

    // The audit log tells whose requests these were, although all agents are one user.
    let audit = SHARED.audit();
    let by_node = |node: &str| {
        let ours = |r: &&responder_lab::Request| r.node.as_deref() == Some(node) && r.is_write();
        let all = audit.since(mark).unwrap();
        all.iter().filter(ours).map(|r| format!("{} {} {}", r.verb, r.resource, r.code)).collect::<Vec<_>>()
    };
    audit.wait_for(mark, SOON, |r| r.resource == "events" && r.verb == "create").unwrap();
    assert_eq!(
        by_node("n2"),
        [
            "create leases 201",
            "update leases 200",
            "update leases 409",
            "delete leases 403",
            "create leases 403",
            "create events 201"
        ]
    );
    assert_eq!(audit.count(mark, |r| r.node.as_deref() == Some("n2") && r.verb == "list").unwrap(), 7);
}

#[test]
fn cuts_cut_and_heal() {
    if !cluster_or_skip("cuts_cut_and_heal") {
        return;
    }
    let (_proxy, api) = SHARED.requests_of("n3").unwrap();
    let (api, admin) = (api.timeout(BRIEF), SHARED.requests());
    let works = || api.get(LEASES).is_ok();
    let heals = || wait_until("an answer to n3", SOON, || works().then_some(())).unwrap();
    heals();
    let exists = |name: &str| admin.get(&format!("{LEASES}/{name}")).is_ok();

    // What is sent on an open connection arrives, but no answer comes back.
    SHARED.cut(Cut::responses("n3")).unwrap();
    wait_until("the lease", SOON, || {
        assert!(api.create(LEASES, &lease("unanswered")).is_err());
        exists("unanswered").then_some(())
    })
    .unwrap();
    SHARED.heal(&Cut::responses("n3")).unwrap();
    heals();

    // Requests may still be done when the cut is healed: each has a name of its own.
    for (cut, name) in [(Cut::requests("n3"), "late"), (Cut::api("n3"), "later")] {
        SHARED.cut(cut.clone()).unwrap();
        assert!(api.create(LEASES, &lease(name)).is_err());
        assert!(!exists(name));
        // The rest of the management network is there.
        assert!(tools::ping(SHARED.host("n3").ns(), IpAddr::from([10, 77, 0, 1])).unwrap());
        SHARED.heal(&cut).unwrap();
        heals();
    }

    let ns = SHARED.host("n3").ns();
    let control = IpAddr::from([10, 77, 0, 1]);
    for cut in [Cut::loss("n3", 100), Cut::management("n3")] {
        SHARED.cut(cut.clone()).unwrap();
        assert!(!tools::ping(ns, control).unwrap(), "{cut:?}");
        SHARED.heal(&cut).unwrap();
        wait_until("ping", SOON, || tools::ping(ns, control).unwrap().then_some(())).unwrap();
    }

    let client = SHARED.host("c").ns();
    let address = |name: &str| IpAddr::V4(SHARED.host(name).nics()[0].v4);
    let reached = |name: &str| tools::ping(client, address(name)).unwrap();
    for (cut, seen) in [(Cut::between("n3", "c"), true), (Cut::segment("n3"), false)] {
        SHARED.cut(cut.clone()).unwrap();
        assert!(!reached("n3") && reached("r"), "{cut:?}");
        assert_eq!(tools::ping(SHARED.host("r").ns(), address("n3")).unwrap(), seen, "{cut:?}");
        SHARED.heal(&cut).unwrap();
        wait_until("ping", SOON, || reached("n3").then_some(())).unwrap();
    }
    heals();
}

#[test]
fn the_control_plane_fails_and_comes_back() {
    if !cluster_or_skip("the_control_plane_fails_and_comes_back") {
        return;
    }
    let cluster = Cluster::builder().nodes(1).delays(true).controllers(true).build().unwrap();
    let (_proxy, api) = cluster.requests_of("n1").unwrap();
    let quick = api.clone().timeout(BRIEF);
    api.create(LEASES, &lease("kept")).unwrap();
    let kept = || quick.get(&format!("{LEASES}/kept")).is_ok();
    let returns = || wait_until("the lease", SOON, || kept().then_some(())).unwrap();

    for server in [cluster.api(), cluster.etcd()] {
        server.freeze().unwrap();
        assert!(quick.create(LEASES, &lease("frozen")).is_err());
        server.thaw().unwrap();
        returns();
        server.kill().unwrap();
        assert!(quick.create(LEASES, &lease("dead")).is_err());
        server.start().unwrap();
        cluster.api().wait_ready().unwrap();
        returns();
    }

    // A watch from a revision that nobody remembers.
    let old = api.get(LEASES).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    api.create(LEASES, &lease("later")).unwrap();
    cluster.compact_etcd().unwrap();
    cluster.api().kill().unwrap();
    cluster.api().start().unwrap();
    let path = format!("{LEASES}?watch=true&timeoutSeconds=1&resourceVersion={old}");
    let (_, event) = api.request("GET", &path, "", "").unwrap();
    assert!(event["object"]["code"] == 410 || event["code"] == 410, "{event}");

    // Tokens: one of an account that is gone is refused (had it been used, not for 10 s), a new one is taken up.
    cluster.write_token("n1").unwrap();
    cluster.revoke_tokens().unwrap();
    let status = |api: &Api| api.request("GET", LEASES, "", "").unwrap().0;
    let (_refused, refused) = cluster.requests_of("n1").unwrap();
    assert_eq!(status(&refused), 401);
    cluster.write_token("n1").unwrap();
    let (_proxy, api) = cluster.requests_of("n1").unwrap();
    assert_eq!(status(&api), 200);

    // Delays, one for each way.
    let took = || {
        let start = Instant::now();
        api.get(LEASES).unwrap();
        start.elapsed()
    };
    let delay = Duration::from_millis(300);
    for (requests, responses) in [(delay, Duration::ZERO), (Duration::ZERO, delay), (delay, delay)] {
        cluster.delay("n1", requests, responses).unwrap();
        assert!(took() >= requests + responses);
    }
    cluster.delay("n1", Duration::ZERO, Duration::ZERO).unwrap();
    wait_until("an answer without delay", SOON, || (took() < delay).then_some(())).unwrap();

    // The namespace and all in it.
    cluster.kubectl(&["delete", "namespace", "l2-responder"]).unwrap();
    assert!(api.get(&format!("{LEASES}/kept")).is_err());
}

#[test]
fn a_crash_ends_all_and_a_boot_begins_anew() {
    if !cluster_or_skip("a_crash_ends_all_and_a_boot_begins_anew") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).build().unwrap();
    let node = cluster.node("n1");
    let mut sleep = Command::new("sleep");
    sleep.arg("infinity");
    let mut process = node.spawn(sleep).unwrap();
    node.check(&["mkdir", "/run/mine"]).unwrap();
    let client = cluster.host("c").ns();
    let reached = |name: &str| tools::ping(client, IpAddr::V4(cluster.host(name).nics()[0].v4)).unwrap();
    assert!(reached("n1"));
    let macs = ["eth0", "mgmt0"].map(|name| cluster.host("n1").ns().mac(name).unwrap());
    cluster.crash("n1").unwrap();
    assert!(process.try_wait().unwrap().is_some());
    assert!(!reached("n1") && reached("n2"));
    assert!(node.check(&["true"]).is_err());
    cluster.boot("n1").unwrap();
    wait_until("ping", SOON, || reached("n1").then_some(())).unwrap();
    assert_eq!(["eth0", "mgmt0"].map(|name| cluster.host("n1").ns().mac(name).unwrap()), macs);
    assert_eq!(
        node.check(&["ls", "/run"]).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["lock", "netns"]
    );
    let (_proxy, api) = cluster.requests_of("n1").unwrap();
    api.get(LEASES).unwrap();
    cluster.set_node_condition("n1", "Ready", "False").unwrap();
    cluster.label_node("n2", "node.kubernetes.io/exclude-from-external-load-balancers", Some("")).unwrap();
    let nodes = cluster.kubectl(&["get", "nodes", "--show-labels"]).unwrap();
    assert!(nodes.contains("NotReady") && nodes.contains("exclude-from"), "{nodes}");
    // A handle that outlives what it belongs to.
    let held = node.spawn(Command::new("sleep")).unwrap();
    drop(cluster);
    drop(held);
}

#[test]
fn kube_proxy_forwards() {
    let test = "kube_proxy_forwards";
    if !cluster_or_skip(test) || !tools_or_skip(test, &["iptables", "conntrack"]) {
        return;
    }
    let cluster = Cluster::builder().nodes(2).kube_proxy(true).build().unwrap();
    println!("kube-proxy: {}", cluster.proxy_mode().unwrap().name());
    let _endpoints = ["n1", "n2"].map(|node| cluster.endpoint(node).unwrap());
    let vips = [IpAddr::from([192, 0, 2, 200]), "2001:db8::200".parse().unwrap()];
    let client = cluster.host("c").ns();
    let service = Service::new("web").vips(&vips);
    for vip in vips {
        // In the place of an answer.
        let mac = cluster.host("n1").mac();
        client.ip(&format!("neigh replace {vip} lladdr {mac} dev eth0 nud permanent")).unwrap();
        let server = SocketAddr::new(vip, 80);
        for (service, node) in [
            (service.clone().on(&["n2"]), "n2"),
            (service.clone().on(&["n1", "n2"]).local(), "n1"),
            (service.clone().endpoints(&[Endpoint::not_ready("n1"), Endpoint::ready("n2")]), "n2"),
        ] {
            cluster.service(&service).unwrap();
            wait_until(&format!("{node} behind {vip}"), SOON, || {
                let talk = Conversation::start(client, server, Duration::from_millis(1)).unwrap();
                talk.wait_answers(2, BRIEF).ok()?;
                let seen = talk.stop();
                (seen.by_server().keys().collect::<Vec<_>>() == [&node]).then_some(())
            })
            .unwrap();
        }
    }
    let talk = Conversation::start(client, SocketAddr::new(vips[0], 80), Duration::from_millis(5)).unwrap();
    talk.wait_answers(20, SOON).unwrap();
    cluster.cut(Cut::segment("n1")).unwrap();
    wait_until("a request that waits for its answer", SOON, || {
        let last = talk.so_far().exchanges.pop()?;
        (last.answer.is_none() && BootTime::now().since(last.sent) >= BRIEF).then_some(())
    })
    .unwrap();
    cluster.heal(&Cut::segment("n1")).unwrap();
    talk.wait_answers(5, SOON).unwrap();
    let seen = talk.stop();
    // TCP has waited.
    assert_eq!((seen.lost(), seen.connections, seen.errors.len()), (0, 1, 0), "{:?}", seen.errors);
    assert!(seen.longest_gap() >= BRIEF);
}

/// Processes whose command line has `text` in it.
fn processes(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|l| l.contains(text)).collect()
}

#[test]
fn nothing_is_left_of_a_killed_cluster() {
    if !cluster_or_skip("nothing_is_left_of_a_killed_cluster") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).clients(&[]).build().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_responder-lab"));
        command.arg("cluster");
        let mut child = lab.node("a").ns().spawn(command).unwrap();
        let ready = child.wait_line(2 * SOON, |l| l.starts_with("ready ")).unwrap();
        let words: Vec<&str> = ready.split([' ', ';']).collect();
        let (name, pid) = (words[1], words[2]);
        assert!(processes(&format!("{name}/")).len() >= 3);
        child.signal(signal).unwrap();
        child.wait(SOON).unwrap();
        wait_until("the end of all processes", SOON, || {
            (processes(&format!("{name}/")).is_empty() && !fs::exists(format!("/proc/{pid}")).unwrap())
                .then_some(())
        })
        .unwrap();
        if signal == Signal::SIGKILL {
            responder_lab::cleanup_stale();
        }
        let left: Vec<_> = namespaces().unwrap().into_iter().filter(|ns| ns.starts_with(name)).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!std::env::temp_dir().join(name).exists());
    }
}
