//! `responder check --cluster`: what it finds, with agents, a real API server and strangers on the segment.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use responder_lab::{Cluster, ClusterAgent, Mac, Output, Service, cluster_or_skip, send_all, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const UNFIT: Option<i32> = Some(4);
const OPTIONS: [&str; 2] = ["--lease-duration", "1s"];

const SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200));

fn vip(number: u8) -> IpAddr {
    [192, 0, 2, 200 + number].into()
}

fn cluster(delays: bool) -> (Cluster, Vec<ClusterAgent>) {
    let cluster = Cluster::builder().nodes(2).delays(delays).build().unwrap();
    let mut services: Vec<_> =
        (0..4).map(|n| Service::new(&format!("web{n}")).vips(&[vip(n)]).on(&["n1"])).collect();
    services.push(Service::new("six").vips(&[SIX]).on(&["n1"]));
    cluster.services(&services).unwrap();
    let mut agents: Vec<_> = ["n1", "n2"].map(|node| cluster.agent(node, &OPTIONS).unwrap()).into();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    wait_until("every address answered", SOON, || {
        let output = agents[0].command(&["status", "--cluster", "--json"]).ok()?;
        let status: Value = serde_json::from_str(&output.stdout).ok()?;
        let vips = status["cluster"]["vips"].as_array()?.clone();
        (vips.len() == 5 && vips.iter().all(|vip| !vip["owner"].is_null())).then_some(())
    })
    .unwrap();
    (cluster, agents)
}

/// As the administrator, on the first node.
fn check(cluster: &Cluster, agent: &ClusterAgent, more: &[&str]) -> (Output, Vec<Value>) {
    let admin = cluster.kubeconfig();
    let fixed = ["check", "--cluster", "--json", "--kubeconfig", admin.to_str().unwrap()];
    let listen = if more.contains(&"--listen") { &[][..] } else { &["--listen", "1s"] };
    let output = agent.command(&[&fixed, listen, more].concat()).unwrap();
    let findings: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = findings.as_array().unwrap().clone();
    (output, findings)
}

/// The one finding that says this.
fn finding<'a>(findings: &'a [Value], verdict: &str, text: &str) -> &'a Value {
    let is = |found: &&Value| found["text"].as_str().unwrap().contains(text);
    let found = findings.iter().find(is).unwrap_or_else(|| panic!("{text:?} is not in {findings:#?}"));
    assert_eq!(found["verdict"], verdict, "{found:#}");
    found
}

#[test]
fn a_sound_cluster_has_no_findings_and_each_defect_has_one() {
    if !cluster_or_skip("a_sound_cluster_has_no_findings_and_each_defect_has_one") {
        return;
    }
    let (cluster, agents) = cluster(false);
    let n1 = &agents[0];
    let (output, findings) = check(&cluster, n1, &[]);
    assert_eq!(output.code(), Some(0), "{findings:#?}");
    for wanted in [
        "answers, version v1.",
        "system:serviceaccount:l2-responder:responder may do all 12 things",
        "differ by less than two seconds",
        "reads of a Lease took",
        "no other is known to this cluster",
        "each of 5 is in a prefix of some node",
        "5 addresses probed for by ARP and Neighbor Discovery: no more than one station answers for each",
        "no VRRP (keepalived) was heard within 1s",
        "has no ConfigMap in kube-system",
    ] {
        finding(&findings, "ok", wanted);
    }

    // By the agent's own account, which may not read all that is asked for, and says so.
    let output = n1.command(&["check", "--cluster", "--listen", "0"]).unwrap();
    assert_eq!(output.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("list daemonsets.apps in all namespaces"), "{output:?}");
    assert!(output.stdout.contains("may do all 12 things"), "{output:?}");
    assert!(!output.stdout.contains("VRRP"), "{output:?}");

    for defect in [rights, announcers, outside, duplicates, vrrp] {
        defect(&cluster, n1);
    }
    let (output, findings) = check(&cluster, n1, &["nowhere0"]);
    assert_eq!(output.code(), UNFIT, "{findings:#?}");
    finding(&findings, "bad", "there is no such interface");
}

/// A verb is taken away, and given back.
fn rights(cluster: &Cluster, n1: &ClusterAgent) {
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/l2-responder";
    let whole = cluster.requests().get(path).unwrap();
    let mut less = whole.clone();
    less["rules"][0]["verbs"] = json!(["get", "list"]);
    less["rules"].as_array_mut().unwrap().retain(|rule| rule["apiGroups"] != json!(["events.k8s.io"]));
    cluster.requests().replace(path, &less).unwrap();
    let found = wait_until("rights that are missing", SOON, || {
        let (output, findings) = check(cluster, n1, &[]);
        (output.code() == UNFIT).then_some(findings)
    });
    let findings = found.unwrap();
    let missing = finding(&findings, "bad", "responder may not `watch services` in all namespaces");
    assert!(missing["text"].as_str().unwrap().contains("kubectl apply -k deploy/base"), "{missing}");
    finding(&findings, "bad", "may not `watch nodes`");
    finding(&findings, "limited", "may not `create events.events.k8s.io`");
    let rules = json!({ "rules": whole["rules"] });
    cluster.requests().merge(path, &rules).unwrap();
    wait_until("all rights again", SOON, || {
        let (output, _) = check(cluster, n1, &[]);
        (output.code() == Some(0)).then_some(())
    })
    .unwrap();
}

fn daemon_set(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "x", "image": image }] },
            },
        },
    })
}

/// Objects of others, whose programs do not run. `migrating.rs` has MetalLB's own; kube-vip's and Cilium's are nowhere.
fn announcers(cluster: &Cluster, n1: &ClusterAgent) {
    let api = cluster.requests();
    let sets = "/apis/apps/v1/namespaces/default/daemonsets";
    for (name, image) in
        [("speaker", "quay.io/metallb/speaker:v0.16.2"), ("vip", "ghcr.io/kube-vip/kube-vip:v1.2.3")]
    {
        api.create(sets, &daemon_set(name, image)).unwrap();
        let status = json!({ "status": { "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "numberMisscheduled": 0, "numberReady": 2 } });
        api.merge(&format!("{sets}/{name}/status"), &status).unwrap();
    }
    let lease = |name: &str| {
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
            "spec": { "holderIdentity": "n1" } })
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    api.create(leases, &lease("cilium-l2announce-default-web")).unwrap();
    let map = |name: &str, data: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    api.create(maps, &map("cilium-config", json!({ "enable-l2-announcements": "true" }))).unwrap();
    let proxy = json!({ "config.conf": "mode: ipvs\nipvs:\n  strictARP: true\n" });
    api.create(maps, &map("kube-proxy", proxy)).unwrap();

    let (output, findings) = check(cluster, n1, &[]);
    assert_eq!(output.code(), UNFIT, "{findings:#?}");
    // Without its custom resources it announces nothing.
    finding(
        &findings,
        "ok",
        "MetalLB's speaker (DaemonSet default/speaker) runs on 2 nodes, but no L2Advertisement",
    );
    finding(&findings, "bad", "kube-vip (DaemonSet default/vip) runs on 2 nodes; two that answer");
    finding(&findings, "bad", "Cilium's L2 announcements holds 1 Leases");
    finding(&findings, "bad", "enable-l2-announcements");
    finding(&findings, "ok", "strictARP: true, which MetalLB needs and agents do not");

    cluster
        .apply(
            "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: l2advertisements.metallb.io }
spec:
  group: metallb.io
  names: { kind: L2Advertisement, listKind: L2AdvertisementList, plural: l2advertisements, singular: l2advertisement }
  scope: Namespaced
  versions:
    - { name: v1beta1, served: true, storage: true, schema: { openAPIV3Schema: { type: object } } }
",
        )
        .unwrap();
    let path = "/apis/metallb.io/v1beta1/namespaces/default/l2advertisements";
    let one = json!({ "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": { "name": "all" } });
    wait_until("the custom resource", SOON, || api.create(path, &one).ok()).unwrap();
    let (_, findings) = check(cluster, n1, &[]);
    finding(&findings, "bad", "keep its controller for addresses and remove the speaker");

    for name in ["speaker", "vip"] {
        api.delete(&format!("{sets}/{name}")).unwrap();
    }
    api.delete(&format!("{leases}/cilium-l2announce-default-web")).unwrap();
    api.delete(&format!("{maps}/cilium-config")).unwrap();
    api.delete(&format!("{maps}/kube-proxy")).unwrap();
}

fn outside(cluster: &Cluster, n1: &ClusterAgent) {
    cluster.service(&Service::new("far").vips(&["198.51.100.9".parse().unwrap()]).on(&["n1"])).unwrap();
    cluster.service(&Service::new("greedy").vips(&["192.0.2.1".parse().unwrap()]).on(&["n1"])).unwrap();
    let (output, findings) = check(cluster, n1, &[]);
    assert_eq!(output.code(), UNFIT, "{findings:#?}");
    let far = finding(&findings, "bad", "198.51.100.9 (default/far) is in no prefix of any node");
    assert!(far["text"].as_str().unwrap().contains("192.0.2.0/24"), "{far}");
    finding(&findings, "limited", "192.0.2.1 of Service default/greedy is an address of node n1");
    cluster.delete_service("far").unwrap();
    cluster.delete_service("greedy").unwrap();
}

/// A client that has an address of a Service, too: of either family.
fn duplicates(cluster: &Cluster, n1: &ClusterAgent) {
    let client = cluster.host("c");
    for vip in [vip(0), SIX] {
        let prefix = if vip.is_ipv4() { "32" } else { "128 nodad" };
        client.ns().ip(&format!("addr add {vip}/{prefix} dev eth0")).unwrap();
        let (output, findings) = check(cluster, n1, &[]);
        client.ns().ip(&format!("addr del {vip}/{prefix} dev eth0")).unwrap();
        assert_eq!(output.code(), UNFIT, "{findings:#?}");
        let found = finding(&findings, "bad", &format!("{vip} is "));
        assert!(found["text"].as_str().unwrap().contains(&client.mac().to_string()), "{found}");
        finding(&findings, "ok", "4 addresses probed for");
    }
}

/// Says so when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two VRRP routers on the segment, one of which has the address of a Service: frames made here, at known times.
/// `migrating.rs` has keepalived itself.
fn vrrp(cluster: &Cluster, n1: &ClusterAgent) {
    let client = cluster.host("c");
    let advert = |id: u8, addresses: &[[u8; 4]]| {
        let mut payload = vec![0x21, id, 150, addresses.len() as u8, 0, 1, 0, 0];
        payload.extend(addresses.concat());
        payload.extend([0; 8]);
        let mut packet =
            vec![0x45, 0xc0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 255, 112, 0, 0, 192, 0, 2, 101];
        packet.extend([224, 0, 0, 18]);
        // A bridge with br_netfilter drops what has a wrong checksum.
        let sum: u32 =
            packet.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(payload);
        let mut frame = vec![1, 0, 0x5e, 0, 0, 0x12];
        let Mac(source) = client.mac();
        frame.extend(source);
        frame.extend([8, 0]);
        frame.extend(packet);
        frame
    };
    let adverts = [advert(51, &[[192, 0, 2, 201]]), advert(52, &[[192, 0, 2, 77]])];
    let over = AtomicBool::new(false);
    let (output, findings) = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                send_all(client.ns(), "eth0", &adverts).unwrap();
                thread::sleep(Duration::from_millis(100)); // they come for ever, as from a router
            }
        });
        // Also if the check panics: the scope waits for the thread.
        let _over = Over(&over);
        check(cluster, n1, &["--listen", "2s"])
    });
    assert_eq!(output.code(), UNFIT, "{findings:#?}");
    let bad =
        finding(&findings, "bad", "VRRP router 51 at 192.0.2.101 (keepalived, priority 150) has 192.0.2.201");
    assert!(bad["text"].as_str().unwrap().contains("virtual_ipaddress"), "{bad}");
    finding(
        &findings,
        "ok",
        "VRRP router 52 at 192.0.2.101 (keepalived, priority 150) has 192.0.2.77: none is",
    );
}

#[test]
fn latency_is_judged_against_the_lease() {
    if !cluster_or_skip("latency_is_judged_against_the_lease") {
        return;
    }
    let (cluster, agents) = cluster(true);
    // The way of the agent of n2, whose requests and answers take longer; it holds nothing that matters here.
    cluster.delay("n2", Duration::from_millis(150), Duration::from_millis(150)).unwrap();
    let kubeconfig = cluster.node("n2").kubeconfig().to_str().unwrap().to_owned();
    let run = |lease: &str| {
        let arguments = ["check", "--cluster", "--json", "--listen", "0", "--kubeconfig", &kubeconfig];
        let output = agents[1].command(&[&arguments[..], &["--lease-duration", lease]].concat()).unwrap();
        let findings: Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        (output.code(), findings.as_array().unwrap().clone())
    };
    let (code, findings) = run("1s");
    assert_eq!(code, UNFIT, "{findings:#?}");
    let bad = finding(&findings, "bad", "a renewal must be done within 166.7ms");
    assert!(bad["text"].as_str().unwrap().contains("--lease-duration 1.0s, as given"), "{bad}");
    assert!(bad["text"].as_str().unwrap().contains("would have twice the time"), "{bad}");
    finding(&run("60s").1, "ok", "a renewal must be done within 10.0s");
    let (code, findings) = run("100ms");
    assert_eq!(code, UNFIT);
    finding(&findings, "bad", "--lease-duration 100ms is not within");

    // No API server at all.
    cluster.api().freeze().unwrap();
    let (code, findings) = run("1s");
    cluster.api().thaw().unwrap();
    assert_eq!(code, UNFIT, "{findings:#?}");
    finding(&findings, "bad", "does not answer within 5s");
    assert_eq!(findings.len(), 1, "{findings:#?}");
}
