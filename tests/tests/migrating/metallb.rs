//! docs/migrating.md, *From MetalLB's layer-2 mode*, with MetalLB's own programs, manifest and objects: there and back.

use std::{
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::support::{Neighbour, SOON, check, detach, finding, quiet_agents, roll_out, service};
use nix::sys::signal::Signal;
use responder_lab::{BootTime, Cluster, ClusterAgent, Process, cluster_or_skip, skip, wait_until};
use serde_json::{Value, json};

const NAMESPACE: &str = "metallb-system";
/// In which speakers usually announce.
const PATIENCE: Duration = Duration::from_secs(10);
/// In which nobody answers.
const BRIEF: Duration = Duration::from_secs(1);
const POOLS: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: { name: common, namespace: metallb-system }
spec: { addresses: [192.0.2.200-192.0.2.209, \"2001:db8::d000-2001:db8::d00f\"] }
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: { name: wanted, namespace: metallb-system }
spec: { addresses: [192.0.2.220/30], autoAssign: false }
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: { name: all, namespace: metallb-system }
";

/// MetalLB's programs, if they are here. Otherwise skips `test`.
fn metallb_or_skip(test: &str) -> Option<PathBuf> {
    let dir = env::var_os("RESPONDER_PEERS").map(PathBuf::from);
    if dir.is_none() {
        skip(test, "needs MetalLB's programs: RESPONDER_PEERS is not set; `cargo xtask peers` builds them");
    }
    dir.filter(|_| cluster_or_skip(test))
}

/// MetalLB in a cluster, its pods being processes of ours: we do the kubelets' part.
struct MetalLb<'a> {
    cluster: &'a Cluster,
    dir: PathBuf,
    manifest: String,
    controller: Process,
    speakers: Vec<Process>,
}

impl<'a> MetalLb<'a> {
    fn install(cluster: &'a Cluster, dir: &Path) -> Self {
        let manifest = fs::read_to_string(dir.join("metallb.yaml")).unwrap();
        // Those call the controller at a Service's address, where no pod is.
        let documents = manifest.split("\n---\n").filter(|d| !d.contains("ValidatingWebhookConfiguration"));
        let manifest = documents.collect::<Vec<_>>().join("\n---\n");
        cluster.apply(&manifest).unwrap();
        let controller = controller(cluster, dir);
        Self { cluster, dir: dir.to_owned(), manifest, controller, speakers: Vec::new() }
    }

    /// The pods of the speakers' DaemonSet.
    fn pods(&self) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=component=speaker");
        self.cluster.requests().get(&path).unwrap()["items"].as_array().unwrap().clone()
    }

    /// Applies the manifest, and runs what the DaemonSet wants to run.
    fn start_speakers(&mut self) {
        self.cluster.apply(&self.manifest).unwrap();
        let nodes = self.cluster.nodes().count();
        let pods = wait_until("a pod for each speaker", SOON, || {
            Some(self.pods()).filter(|pods| pods.len() == nodes)
        });
        for pod in pods.unwrap() {
            let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
            let node =
                pod.pointer(&format!("{affinity}/nodeSelectorTerms/0/matchFields/0/values/0")).unwrap();
            let node = self.cluster.node(node.as_str().unwrap());
            let kubeconfig = kubeconfig(self.cluster, "speaker", node.kubeconfig());
            let mut command = Command::new(self.dir.join("speaker"));
            command.args(["--port=7472", "--log-level=info"]);
            command.env("KUBECONFIG", kubeconfig).env("METALLB_NAMESPACE", NAMESPACE);
            command.env("METALLB_NODE_NAME", node.name()).env("METALLB_HOST", "127.0.0.1");
            command.env("METALLB_POD_NAME", pod["metadata"]["name"].as_str().unwrap());
            self.speakers.push(node.spawn(command).unwrap());
        }
    }

    /// Has the speakers look at all Services again: when all start at once on a busy machine, one may miss a Service until
    /// that changes.
    fn nudge(&self) {
        for (name, _) in SERVICES {
            let now = json!({ "metadata": { "annotations": { "example.com/nudge": BootTime::now().0.to_string() } } });
            self.cluster
                .requests()
                .merge(&format!("/api/v1/namespaces/default/services/{name}"), &now)
                .unwrap();
        }
    }

    /// Who answers, once somebody does for each.
    fn owners(&self, neighbour: &Neighbour<'_>) -> Vec<String> {
        for vip in &neighbour.vips {
            let answered = || neighbour.observer.wait_answer(*vip, PATIENCE).is_ok();
            if !(0..5).any(|_| {
                answered() || {
                    self.nudge();
                    false
                }
            }) {
                let said: Vec<_> =
                    self.speakers.iter().map(|speaker| speaker.stdout() + &speaker.stderr()).collect();
                panic!("no speaker answers for {vip}\n{}", said.join("\n---\n"));
            }
        }
        neighbour.owners()
    }

    /// As documented; the pods go, and with them what runs in them.
    fn stop_speakers(&mut self) {
        self.cluster.kubectl(&["delete", "daemonset", "-n", NAMESPACE, "speaker"]).unwrap();
        wait_until("the speakers' pods to go", SOON, || self.pods().is_empty().then_some(())).unwrap();
        for speaker in &self.speakers {
            speaker.signal(Signal::SIGTERM).unwrap();
        }
        for mut speaker in self.speakers.drain(..) {
            speaker.wait(SOON).unwrap();
        }
    }

    /// The addresses that the controller has given to a Service; waits for `count`.
    fn addresses(&self, name: &str, count: usize) -> Vec<IpAddr> {
        let path = format!("/api/v1/namespaces/default/services/{name}");
        let found = wait_until(&format!("addresses of {name}"), SOON, || {
            let service = self.cluster.requests().get(&path).ok()?;
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array()?.clone();
            let ips = ingress.iter().map(|one| one["ip"].as_str().unwrap().parse().unwrap());
            Some(ips.collect::<Vec<_>>()).filter(|ips| ips.len() == count)
        });
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.controller.last_words()))
    }
}

fn controller(cluster: &Cluster, dir: &Path) -> Process {
    let mut command = Command::new(dir.join("controller"));
    command.args(["--webhook-mode=disabled", "--log-level=info"]).env("METALLB_NAMESPACE", NAMESPACE);
    command.env("KUBECONFIG", kubeconfig(cluster, "controller", &cluster.kubeconfig()));
    cluster.management().spawn(command).unwrap()
}

/// A kubeconfig for one of MetalLB's ServiceAccounts, like another one.
fn kubeconfig(cluster: &Cluster, account: &str, like: &Path) -> PathBuf {
    let token = cluster.kubectl(&["create", "token", account, "-n", NAMESPACE]).unwrap();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(like).unwrap()).unwrap();
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let path = like.with_file_name(format!("{account}-{}", like.file_name().unwrap().display()));
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// Services as users of MetalLB have them, with how many addresses each gets.
const SERVICES: [(&str, usize); 6] =
    [("auto", 1), ("wanted", 1), ("shared-1", 1), ("shared-2", 1), ("local", 1), ("dual", 2)];

fn services(cluster: &Cluster) {
    let balancer = |more: Value| {
        let mut spec =
            json!({ "type": "LoadBalancer", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let all = ["n1", "n2", "n3"];
    service(cluster, "auto", &json!({}), &balancer(json!({})), &all);
    let wanted = json!({ "metallb.io/loadBalancerIPs": "192.0.2.221" });
    service(cluster, "wanted", &wanted, &balancer(json!({})), &all);
    let shared = json!({ "metallb.io/loadBalancerIPs": "192.0.2.222", "metallb.io/allow-shared-ip": "key" });
    service(cluster, "shared-1", &shared, &balancer(json!({})), &all);
    let other = json!({ "ports": [{ "name": "http", "port": 81, "targetPort": 8080 }] });
    service(cluster, "shared-2", &shared, &balancer(other), &all);
    service(cluster, "local", &json!({}), &balancer(json!({ "externalTrafficPolicy": "Local" })), &["n2"]);
    let dual = json!({ "ipFamilyPolicy": "RequireDualStack" });
    service(cluster, "dual", &json!({}), &balancer(dual), &all);
}

#[test]
fn from_metallb_and_back() {
    let Some(dir) = metallb_or_skip("from_metallb_and_back") else { return };
    let cluster = Cluster::builder().nodes(3).controllers(true).kube_proxy(true).build().unwrap();
    let cluster = &cluster;
    let _endpoints = ["n1", "n2", "n3"].map(|node| cluster.endpoint(node).unwrap());
    let mut metallb = MetalLb::install(cluster, &dir);
    cluster.apply(POOLS).unwrap();
    services(cluster);
    let given = SERVICES.map(|(name, count)| metallb.addresses(name, count));
    println!("{given:?}");
    let [auto, _, shared, also, local, dual] = given.each_ref().map(|ips| ips[0]);
    assert_eq!((given[1][0], shared, also), ([192, 0, 2, 221].into(), [192, 0, 2, 222].into(), shared));
    metallb.start_speakers();
    let vips = [auto, given[1][0], shared, local, dual];
    let v6 = given[5][1];
    assert!(v6.is_ipv6(), "{given:?}");
    let neighbour = Neighbour::start(cluster, &vips, auto);
    let speakers = metallb.owners(&neighbour);
    println!("speakers answer: {speakers:?}");
    assert_eq!(speakers[3], "n2", "the only node with an endpoint");
    assert_eq!(neighbour.resolved(v6, SOON).as_ref(), Some(&speakers[4]), "both of a Service's addresses");
    neighbour.wait_talk();

    before_there_are_agents(cluster, &neighbour, &speakers, v6);
    let (mut agents, since) = beside(cluster, &neighbour, &speakers);
    metallb.stop_speakers();
    let silent = neighbour.wait_silence();
    assert_eq!(neighbour.resolved(v6, BRIEF), None);
    roll_out(cluster, &mut agents, &[]);
    let owners = neighbour.owners();
    println!("agents answer: {owners:?}");
    assert_eq!(owners[3], "n2");
    assert!(neighbour.resolved(v6, SOON).is_some());
    neighbour.wait_talk();
    neighbour.assert_single(silent, "agents instead of speakers");
    neighbour.report(since, "from MetalLB");
    assert_eq!(SERVICES.map(|(name, count)| metallb.addresses(name, count)), given);
    after(cluster, &mut metallb, &neighbour, &owners);

    // Back.
    let since = neighbour.observer.round();
    cluster.kubectl(&["delete", "daemonset", "-n", "l2-responder", "responder"]).unwrap();
    for agent in &mut agents {
        agent.terminate(SOON).unwrap();
    }
    let silent = neighbour.wait_silence();
    metallb.start_speakers();
    wait_until("speakers that announce", SOON, || {
        let said: String =
            metallb.speakers.iter().map(|speaker| speaker.stdout() + &speaker.stderr()).collect();
        said.contains("serviceAnnounced").then_some(())
    })
    .unwrap();
    // The agents' programs keep questions from the speakers, too.
    neighbour.wait_silence();
    detach(cluster);
    assert_eq!(metallb.owners(&neighbour), speakers, "MetalLB chooses as before");
    assert_eq!(neighbour.resolved(v6, SOON).as_ref(), Some(&speakers[4]));
    neighbour.wait_talk();
    // While they get to know each other, speakers may pass an address on.
    neighbour.assert_never_two(silent, "speakers instead of agents");
    neighbour.report(since, "back to MetalLB");
    assert_eq!(SERVICES.map(|(name, count)| metallb.addresses(name, count)), given);
}

/// `responder check --cluster` while MetalLB announces.
/// The last speaker has `v6`, too.
fn before_there_are_agents(cluster: &Cluster, neighbour: &Neighbour<'_>, speakers: &[String], v6: IpAddr) {
    let (output, findings) = check(cluster, "n1", &["--listen", "0"]);
    assert_eq!(output.code(), Some(4), "{findings:#?}");
    finding(&findings, "bad", &["MetalLB's speaker (DaemonSet metallb-system/speaker) runs on 3 nodes"]);
    // On the segment, as far as another node answers.
    for (vip, speaker) in neighbour.vips.iter().chain([&v6]).zip(speakers.iter().chain(speakers.last())) {
        if speaker != "n1" {
            let mac = cluster.host(speaker).mac().to_string();
            finding(&findings, "bad", &[&format!("no node should answer for {vip} now"), &mac]);
        }
    }
}

/// Agents that know no address: MetalLB goes on.
fn beside(cluster: &Cluster, neighbour: &Neighbour<'_>, speakers: &[String]) -> (Vec<ClusterAgent>, usize) {
    let since = neighbour.observer.round();
    let agents = quiet_agents(cluster);
    assert_eq!(neighbour.owners(), speakers);
    neighbour.assert_single(since, "agents of another class beside speakers");
    neighbour.report(since, "agents of another class beside speakers");
    let (_, findings) = check(cluster, "n1", &["--listen", "0"]);
    finding(&findings, "bad", &["MetalLB's speaker"]);
    (agents, neighbour.observer.round())
}

/// Without speakers: nothing is found any more, the controller goes on giving addresses, and they outlive it.
fn after(cluster: &Cluster, metallb: &mut MetalLb<'_>, neighbour: &Neighbour<'_>, owners: &[String]) {
    let (output, findings) = check(cluster, "n1", &["--listen", "0"]);
    assert_eq!(output.code(), Some(0), "{findings:#?}");
    finding(&findings, "ok", &["no other is known to this cluster"]);
    service(cluster, "new", &json!({}), &json!({ "type": "LoadBalancer" }), &["n1"]);
    let new = metallb.addresses("new", 1)[0];
    neighbour.observer.ask_for(&[&neighbour.vips[..], &[new]].concat());
    neighbour.observer.wait_answer(new, SOON).unwrap();
    metallb.controller.kill().unwrap();
    assert_eq!(neighbour.owners(), owners, "without any controller");
    // Those are the speakers' pods'.
    let statuses = "/apis/metallb.io/v1beta1/servicel2statuses";
    wait_until("no ServiceL2Status", SOON, || {
        let list = cluster.requests().get(statuses).ok()?;
        list["items"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
    metallb.controller = controller(cluster, &metallb.dir);
}
