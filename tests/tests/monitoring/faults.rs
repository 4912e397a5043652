//! Faults, each of which ends with the alerts that have fired.

use std::{collections::BTreeMap, fs, net::IpAddr, process::Command, time::Duration};

use responder_lab::{
    Cluster, ClusterAgent, Cut, Endpoint, Observer, Process, Service, StaticFile, paths, reference_program,
};
use responder_tests::{
    fleet::vips,
    leases::{LEASES, claim_of},
};
use serde_json::json;

use super::{
    configuration::{JOB, POD_JOB},
    prometheus::{Labels, Prometheus},
};

/// The node that has another agent for a while.
const OTHER: &str = "n4";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/l2-responder/roles/responder";

/// A fault, with the alerts that it has made fire.
pub(crate) type Fault = fn(&mut Site, &Prometheus) -> Vec<&'static str>;

/// One after the other.
pub(crate) const ALL: [(&str, Fault); 9] = [
    ("a VIP in no subnet, and one without an endpoint", services),
    ("a Lease that somebody has edited", lease),
    ("an API server that answers late", slow),
    ("an agent killed", killed),
    ("a host with its own static file in that one's place", impostor),
    ("the API server out of reach of all nodes", unreachable),
    ("a Role without a right", role),
    ("two agents killed, and then the others", crashes),
    ("all agents killed", all_killed),
];

/// Between two questions of the client.
const ASKING: Duration = Duration::from_millis(50);

/// The cluster with its agents.
pub(crate) struct Site {
    _client: Observer,
    agents: BTreeMap<String, ClusterAgent>,
    pub(crate) cluster: Cluster,
    vips: Vec<IpAddr>,
}

impl Site {
    /// Agents on all nodes, a Service for each VIP, and what there is of agents' pods for Prometheus to see.
    pub(crate) fn start(cluster: Cluster) -> Self {
        let vips = vips(4);
        let services = vips.iter().enumerate();
        let service =
            |(n, vip): (usize, &IpAddr)| Service::new(&format!("web-{n}")).vips(&[*vip]).on(&["n1"]);
        cluster.services(&services.map(service).collect::<Vec<_>>()).unwrap();
        let client = Observer::start(cluster.host("c").ns(), "eth0", &vips, ASKING).unwrap();
        let mut site = Self { _client: client, agents: BTreeMap::new(), cluster, vips };
        for name in site.names() {
            // During an update, there are two.
            site.pod(&name, "old");
            site.pod(&name, "new");
            site.run(&name);
        }
        site.agents.values_mut().for_each(|agent| agent.wait_ready().unwrap());
        site
    }

    fn names(&self) -> Vec<String> {
        self.cluster.nodes().map(|node| node.name().to_owned()).collect()
    }

    fn run(&mut self, name: &str) {
        self.agents.remove(name);
        self.agents.insert(name.to_owned(), self.cluster.agent(name, &[]).unwrap());
    }

    fn kill(&mut self, name: &str) {
        self.agents.remove(name).unwrap().kill().unwrap();
    }

    /// A pod of the DaemonSet, as far as the API server knows it: its agent is a process here.
    fn pod(&self, node: &str, which: &str) {
        let api = self.cluster.requests();
        let pods = "/api/v1/namespaces/l2-responder/pods";
        let name = format!("l2-responder-{node}-{which}");
        let labels =
            json!({ "app.kubernetes.io/name": "l2-responder", "app.kubernetes.io/component": "agent" });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
            "spec": {
                "nodeName": node, "hostNetwork": true, "containers": [{ "name": "agent", "image": "responder" }],
            },
        });
        api.create(pods, &pod).unwrap();
        let ip = self.cluster.node(node).address();
        let status = json!({ "phase": "Running", "hostIP": ip, "podIP": ip, "podIPs": [{ "ip": ip }] });
        api.merge(&format!("{pods}/{name}/status"), &json!({ "status": status })).unwrap();
    }
}

/// Waits until all addresses have an owner, and all nodes an agent that is scraped.
fn settle(site: &Site, prometheus: &Prometheus) {
    let (addresses, nodes) = (site.vips.len(), site.names().len());
    prometheus.wait(&format!(
        "sum(responder_owned_vips{{job=\"{JOB}\"}}) == {addresses} and sum(responder_agent_up{{job=\"{JOB}\"}}) == {nodes}"
    ));
}

/// The node that answers for a VIP.
fn owner(prometheus: &Prometheus, vip: IpAddr) -> String {
    let owners = prometheus.wait(&format!("responder_vip_owned{{job=\"{JOB}\", vip=\"{vip}\"}} == 1"));
    owners[0].0["instance"].clone()
}

/// Waits for an alert with these labels, whose texts must be complete.
fn fires(prometheus: &Prometheus, alert: &'static str, with: &[(&str, &str)]) -> &'static str {
    let with = [&[("job", JOB)], with].concat();
    let texts = prometheus.wait_firing(alert, &with);
    for (name, text) in &texts {
        let broken = ["<", "{{", "NaN", "Inf", "  "].iter().any(|sign| text.contains(sign));
        assert!(!broken && !text.is_empty(), "{alert}: {name}: {text:?}");
    }
    println!("        {}", texts["summary"]);
    alert
}

/// Each node is scraped once by each job, under its own name, and no alert fires.
pub(crate) fn all_is_well(prometheus: &Prometheus) {
    for job in [JOB, POD_JOB] {
        prometheus.wait(&format!("count(count_over_time(up{{job=\"{job}\"}}[1m]) > 2) == 4"));
        let found: Vec<Labels> = prometheus
            .query(&format!("up{{job=\"{job}\"}} == 1"))
            .into_iter()
            .map(|(labels, _)| labels)
            .collect();
        let mut names: Vec<&str> = found.iter().map(|labels| &*labels["instance"]).collect();
        names.sort_unstable();
        assert_eq!(names, ["n1", "n2", "n3", "n4"], "{found:?}");
        for labels in &found {
            let names: Vec<&str> = labels.keys().map(String::as_str).collect();
            let wanted: &[&str] = match job {
                // A label of the pod would be another series for each pod.
                POD_JOB => &["__name__", "instance", "job", "namespace", "node"],
                _ => &["__name__", "instance", "job"],
            };
            assert_eq!(names, wanted);
        }
    }
    // The agents were missing until Prometheus had found them.
    prometheus.wait_over(&["ResponderAgentMissing"]);
    let other = "{alertstate=\"firing\", alertname!~\"ResponderAgentMissing|ResponderRenewalsSlow\"}";
    let alerts = prometheus.query(&format!("count_over_time(ALERTS{other}[1m])"));
    assert!(alerts.is_empty(), "{alerts:?}");
}

fn services(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let outside = Service::new("outside").vips(&["198.51.100.1".parse().unwrap()]).on(&["n1"]);
    let nowhere = Service::new("nowhere").vips(&["192.0.2.220".parse().unwrap()]).local();
    let nowhere = nowhere.endpoints(&[Endpoint::not_ready("n1")]);
    site.cluster.services(&[outside, nowhere]).unwrap();
    let fired = vec![
        fires(prometheus, "ResponderVipsRefused", &[("reason", "no_subnet"), ("severity", "info")]),
        fires(prometheus, "ResponderVipWithoutEligibleNode", &[("severity", "warning")]),
    ];
    ["outside", "nowhere"].iter().for_each(|name| site.cluster.delete_service(name).unwrap());
    prometheus.wait_over(&fired);
    fired
}

fn lease(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let path = format!("{LEASES}/{}", claim_of(site.vips[0]));
    let nonsense = json!({ "metadata": { "annotations": { "l2-responder.io/record": "nonsense" } } });
    site.cluster.requests().merge(&path, &nonsense).unwrap();
    let fired = fires(prometheus, "ResponderBadLeases", &[("kind", "claim"), ("severity", "warning")]);
    settle(site, prometheus);
    vec![fired]
}

/// Each renewal takes more than half of the time after which it would have failed, which is 500 ms. On a busy machine, this may be
/// true of others and afterwards, too.
fn slow(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let owner = owner(prometheus, site.vips[0]);
    let late = Duration::from_millis(160);
    site.cluster.delay(&owner, late, late).unwrap();
    let labels = [("instance", owner.as_str()), ("severity", "warning")];
    let fired = fires(prometheus, "ResponderRenewalsSlow", &labels);
    site.cluster.delay(&owner, Duration::ZERO, Duration::ZERO).unwrap();
    vec![fired]
}

fn killed(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    site.kill(OTHER);
    vec![fires(prometheus, "ResponderAgentMissing", &[("severity", "warning")])]
}

/// An address that it answers for, too; a link whose driver does not take the program; one that somebody else's program has;
/// and nodes whose frames do not go out when they defend what they have.
fn impostor(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let vip = site.vips[0];
    let owner = owner(prometheus, vip);
    let (host, node) = (site.cluster.host(OTHER), site.cluster.node(OTHER));
    host.ns()
        .ip("link add bridge0 type bridge\nlink set bridge0 up\nlink add taken0 type veth peer name taken1")
        .unwrap();
    host.ns().ip("link set taken0 up\nlink set taken1 up").unwrap();
    reference_program(host.ns(), "taken0", "pass").unwrap();
    let queue = |words: &str| {
        let words: Vec<_> = ["tc", "qdisc"].into_iter().chain(words.split(' ')).collect();
        site.cluster.host(&owner).ns().check(&words).unwrap();
    };
    queue("add dev eth0 root pfifo limit 0");

    let path = site.cluster.dir().join("impostor.toml");
    fs::write(&path, StaticFile::on(&["eth0", "bridge0", "taken0"]).own(&[vip]).text()).unwrap();
    let mut command = Command::new(paths::responder().unwrap());
    command.arg("run").arg("--static").arg(&path).args(["--metrics-address", ":7490"]);
    let mut agent: Process = node.spawn(command).unwrap();
    let (at_owner, at_other) = (("instance", owner.as_str()), ("instance", OTHER));
    let vip = vip.to_string();
    let fired = vec![
        fires(prometheus, "ResponderVipOwnedTwice", &[("vip", &vip), ("severity", "critical")]),
        fires(prometheus, "ResponderAddressConflict", &[at_owner, ("severity", "warning")]),
        fires(prometheus, "ResponderGenericMode", &[at_other, ("link", "bridge0"), ("severity", "warning")]),
        fires(prometheus, "ResponderNotAttached", &[at_other, ("link", "taken0"), ("severity", "warning")]),
        fires(prometheus, "ResponderBurstsFailing", &[at_owner, ("severity", "warning")]),
    ];
    agent.kill().unwrap();
    queue("del dev eth0 root");
    host.ns().ip("link del bridge0\nlink del taken0").unwrap();
    site.run(OTHER);
    settle(site, prometheus);
    prometheus.wait_over(&[fired.as_slice(), &["ResponderAgentMissing"]].concat());
    fired
}

fn unreachable(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let owner = owner(prometheus, site.vips[0]);
    let cuts: Vec<_> = site.names().iter().map(|name| Cut::api(name)).collect();
    cuts.iter().for_each(|cut| site.cluster.cut(cut.clone()).unwrap());
    let fired = vec![
        fires(prometheus, "ResponderDeadlinePassed", &[("instance", &owner), ("severity", "critical")]),
        fires(prometheus, "ResponderVipWithoutOwner", &[("severity", "critical")]),
    ];
    site.cluster.heal_all().unwrap();
    settle(site, prometheus);
    prometheus.wait_over(&fired);
    fired
}

fn role(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    let api = site.cluster.requests();
    let rules = api.get(ROLE).unwrap()["rules"].clone();
    let mut fewer = rules.clone();
    fewer[0]["verbs"].as_array_mut().unwrap().retain(|verb| verb != "update");
    api.merge(ROLE, &json!({ "rules": fewer })).unwrap();
    let fired = fires(prometheus, "ResponderWritesRefused", &[("kind", "session"), ("severity", "warning")]);
    api.merge(ROLE, &json!({ "rules": rules })).unwrap();
    settle(site, prometheus);
    vec![fired]
}

/// Four sessions end. Afterwards all agents run.
fn crashes(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    for names in [["n1", "n2"], ["n3", "n4"]] {
        names.iter().for_each(|name| site.kill(name));
        let addresses = site.vips.len();
        let others = names.map(|name| format!("instance!=\"{name}\"")).join(", ");
        prometheus.wait(&format!("sum(responder_owned_vips{{job=\"{JOB}\", {others}}}) == {addresses}"));
        names.iter().for_each(|name| site.run(name));
        settle(site, prometheus);
    }
    vec![fires(prometheus, "ResponderFailoversFrequent", &[("severity", "warning")])]
}

/// Whoever knows how much is missing is missing, too.
fn all_killed(site: &mut Site, prometheus: &Prometheus) -> Vec<&'static str> {
    site.names().iter().for_each(|name| site.kill(name));
    let fired = vec![
        fires(prometheus, "ResponderAgentMissing", &[("severity", "warning")]),
        fires(prometheus, "ResponderVipWithoutOwner", &[("severity", "critical")]),
    ];
    site.names().iter().for_each(|name| site.run(name));
    settle(site, prometheus);
    prometheus.wait_over(&fired);
    fired
}
