//! What tests of migrating share: what a neighbour sees, what `responder check --cluster` finds, agents that take over.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

use responder_lab::{
    Cluster, ClusterAgent, ClusterNode, ENDPOINT_PORT, Mac, Observer, Output, paths, resolve,
    traffic::Conversation, wait_until,
};
use serde_json::{Value, json};

/// However busy the machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Between two questions for an address.
pub(crate) const STEP: Duration = Duration::from_millis(10);
/// Questions without an answer that tell that nobody answers.
pub(crate) const SILENCE: usize = 30;
/// A class that no Service has.
pub(crate) const NOBODY: [&str; 2] = ["--load-balancer-class", "example.com/nobody"];

/// Makes a Service, and ready endpoints for it on these nodes.
pub(crate) fn service(cluster: &Cluster, name: &str, annotations: &Value, spec: &Value, nodes: &[&str]) {
    let api = cluster.requests();
    let endpoint = |node: &&str| {
        json!({ "addresses": [cluster.node(node).pod_address()], "nodeName": node,
            "conditions": { "ready": true, "serving": true, "terminating": false } })
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": ENDPOINT_PORT, "protocol": "TCP" }],
        "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
    });
    api.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).unwrap();
    let mut whole = json!({ "ports": [{ "name": "http", "port": 80, "targetPort": ENDPOINT_PORT }] });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let object = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "annotations": annotations }, "spec": whole });
    api.create("/api/v1/namespaces/default/services", &object).unwrap();
}

/// `responder check --cluster` on a node, as the administrator.
pub(crate) fn check(cluster: &Cluster, node: &str, more: &[&str]) -> (Output, Vec<Value>) {
    let admin = cluster.kubeconfig();
    let fixed = ["check", "--cluster", "--json", "--kubeconfig", admin.to_str().unwrap()];
    let output = responder(cluster, node, &[&fixed, more].concat());
    let findings: Vec<Value> =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, findings)
}

/// A command of the agent's program on a node.
pub(crate) fn responder(cluster: &Cluster, node: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(paths::responder().unwrap());
    command.args(arguments).env("NO_COLOR", "1");
    cluster.node(node).spawn(command).unwrap().finish(SOON).unwrap()
}

/// The one finding that says all of this.
pub(crate) fn finding<'a>(findings: &'a [Value], verdict: &str, texts: &[&str]) -> &'a Value {
    let is = |found: &&Value| texts.iter().all(|text| found["text"].as_str().unwrap().contains(text));
    let found = findings.iter().find(is).unwrap_or_else(|| panic!("{texts:?} is not in {findings:#?}"));
    assert_eq!(found["verdict"], verdict, "{found:#}");
    found
}

/// Replaces agents by such with other options, node by node, as a DaemonSet does with `maxSurge: 1`: each new one waits
/// beside the old one, which is then told to end.
pub(crate) fn roll_out(cluster: &Cluster, agents: &mut [ClusterAgent], options: &[&str]) {
    for agent in agents {
        let mut successor = cluster.agent(agent.node().name(), options).unwrap();
        successor.process().wait_line(SOON, |line| line.contains("another agent runs here")).unwrap();
        agent.terminate(SOON).unwrap();
        successor.wait_ready().unwrap();
        *agent = successor;
    }
}

/// Starts agents that know no address, and waits until they hold all claims: the documented step 3.
pub(crate) fn quiet_agents(cluster: &Cluster) -> Vec<ClusterAgent> {
    let start = |node: &ClusterNode| cluster.agent(node.name(), &NOBODY).unwrap();
    let mut agents: Vec<_> = cluster.nodes().map(start).collect();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    wait_until("claims that are held", SOON, || {
        let list =
            cluster.requests().get("/apis/coordination.k8s.io/v1/namespaces/l2-responder/leases").ok()?;
        let is_held = |lease: &&Value| {
            let name = lease["metadata"]["name"].as_str().unwrap();
            name.starts_with("claim-16-")
                && !lease["spec"]["holderIdentity"].as_str().unwrap_or("").is_empty()
        };
        (list["items"].as_array()?.iter().filter(is_held).count() == 16).then_some(())
    })
    .unwrap();
    agents
}

/// Ends agents, all of them, and starts others, as `kubectl delete pods` does it.
pub(crate) fn restart(cluster: &Cluster, agents: &mut Vec<ClusterAgent>, options: &[&str]) {
    for agent in agents.iter_mut() {
        agent.terminate(SOON).unwrap();
    }
    *agents = agents.iter().map(|agent| cluster.agent(agent.node().name(), options).unwrap()).collect();
}

/// `responder detach` on all nodes, as the DaemonSet `responder-uninstall` does it.
pub(crate) fn detach(cluster: &Cluster) {
    for node in cluster.nodes() {
        let output = responder(cluster, node.name(), &["detach"]);
        assert_eq!(output.code(), Some(0), "{output:?}");
    }
}

/// What a neighbour sees: it asks for all addresses all the time, and talks to one of them.
pub(crate) struct Neighbour<'a> {
    cluster: &'a Cluster,
    pub(crate) observer: Observer,
    pub(crate) vips: Vec<IpAddr>,
    talk: Conversation,
}

impl<'a> Neighbour<'a> {
    pub(crate) fn start(cluster: &'a Cluster, vips: &[IpAddr], talks_to: IpAddr) -> Self {
        let client = cluster.host("c").ns();
        let observer = Observer::start(client, "eth0", vips, STEP).unwrap();
        let talk = Conversation::start(client, SocketAddr::from((talks_to, 80)), STEP).unwrap();
        Self { cluster, observer, vips: vips.to_vec(), talk }
    }

    pub(crate) fn node_of(&self, mac: Mac) -> String {
        let found = self.cluster.nodes().find(|node| self.cluster.host(node.name()).mac() == mac);
        found.unwrap_or_else(|| panic!("{mac} is no node's")).name().to_owned()
    }

    /// Who answers for each address from now on.
    pub(crate) fn owners(&self) -> Vec<String> {
        let owner = |vip: &IpAddr| self.node_of(self.observer.wait_answer(*vip, SOON).unwrap().mac);
        self.vips.iter().map(owner).collect()
    }

    /// Whom the client's kernel would send frames for an address to, which it asks for now. Others than agents answer
    /// through their node's kernel, which must be able to find who asks.
    pub(crate) fn resolved(&self, vip: IpAddr, deadline: Duration) -> Option<String> {
        let mac = resolve(self.cluster.host("c").ns(), vip, deadline).ok()?;
        Some(self.node_of(mac))
    }

    /// Waits until nobody answers for any of them. Returns the round from which that is so.
    pub(crate) fn wait_silence(&self) -> usize {
        for vip in &self.vips {
            self.observer.wait_silence(*vip, SILENCE, SOON).unwrap();
        }
        self.observer.round()
    }

    /// Since a round, never two stations answered one question.
    pub(crate) fn assert_never_two(&self, since: usize, what: &str) {
        for vip in &self.vips {
            let account = self.observer.account(*vip, since);
            assert_eq!(account.doubles(), [], "{what}: {account}");
        }
    }

    /// Since a round, each address was one station's, answered and announced.
    pub(crate) fn assert_single(&self, since: usize, what: &str) {
        self.assert_never_two(since, what);
        for vip in &self.vips {
            let account = self.observer.account(*vip, since);
            let macs: BTreeSet<Mac> = account.seen.iter().map(|seen| seen.mac).collect();
            assert_eq!(macs.len(), 1, "{what}: {account}");
        }
    }

    /// Says how long addresses were not answered from a round on, and how long the client was without an answer.
    pub(crate) fn report(&self, since: usize, what: &str) {
        let silences = self.vips.iter().map(|vip| self.observer.account(*vip, since).longest_silence().0);
        let longest = silences.max().unwrap_or_default();
        let begin = self.observer.account(self.vips[0], since).rounds.first().copied().unwrap_or_default();
        let mut seen = self.talk.so_far();
        seen.exchanges.retain(|exchange| exchange.answer.as_ref().is_some_and(|(at, _)| *at >= begin));
        println!(
            "{what}: no answer by ARP for {:.1} s at most; a client that talks: {:.1} s without an answer, {} \
             connections so far",
            longest.as_secs_f64(),
            seen.longest_gap().as_secs_f64(),
            seen.connections
        );
    }

    /// Waits until the client that talks is answered again.
    pub(crate) fn wait_talk(&self) {
        self.talk.wait_answers(5, SOON).unwrap();
    }
}
