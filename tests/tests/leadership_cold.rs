//! The first start of a cluster: agents and nodes come one after the other.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{collections::BTreeMap, time::Duration};

use responder_lab::{Cluster, ClusterAgent, NAMESPACE, Service, cluster_or_skip, wait_until};
use responder_tests::fleet::vips;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Agents wait two to four of these for others, which is longer than the others need here.
const OPTIONS: [&str; 2] = ["--lease-duration", "10s"];

/// The session or claims, by name.
fn leases(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let list = cluster.requests().get(&path).unwrap();
    let is = |lease: &&Value| lease["metadata"]["labels"]["l2-responder.io/kind"] == kind;
    list["items"].as_array().unwrap().iter().filter(is).cloned().collect()
}

/// How many claims each node holds; nobody is "".
fn holders(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for claim in leases(cluster, "claim") {
        *count.entry(claim["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()).or_default() +=
            1;
    }
    count
}

/// The first node to be Ready does not take everything, which the others would have to take from it, breaking connections.
#[test]
fn the_first_node_waits_for_those_that_are_not_ready_yet() {
    if !cluster_or_skip("the_first_node_waits_for_those_that_are_not_ready_yet") {
        return;
    }
    let cluster = Cluster::builder().build().unwrap();
    cluster.services(&[Service::new("web").vips(&vips(4)).on(&["n1", "n2", "n3"])]).unwrap();
    for late in ["n2", "n3"] {
        cluster.set_node_condition(late, "Ready", "False").unwrap();
    }
    let mut agents: Vec<ClusterAgent> = vec![cluster.agent("n1", &OPTIONS).unwrap()];
    agents[0].wait_ready().unwrap();
    wait_until("a session of n1's", SOON, || (leases(&cluster, "session").len() == 1).then_some(())).unwrap();
    assert_eq!(holders(&cluster).get("n1"), None, "{:?}", holders(&cluster));

    for late in ["n2", "n3"] {
        cluster.set_node_condition(late, "Ready", "True").unwrap();
        agents.push(cluster.agent(late, &OPTIONS).unwrap());
    }
    let held = wait_until("all claims held", SOON, || {
        let held = holders(&cluster);
        (held.values().sum::<usize>() == 16 && !held.contains_key("")).then_some(held)
    })
    .unwrap();
    let least = held.values().min();
    let logs: Vec<_> = agents.iter().map(ClusterAgent::log).collect();
    assert!(held.len() == 3 && least >= Some(&3), "{held:?}\n{}", logs.join("\n---\n"));
    for claim in leases(&cluster, "claim") {
        let moves = claim["spec"]["leaseTransitions"].as_u64().unwrap_or_default();
        assert!(moves <= 1, "{claim:#}");
    }
}
