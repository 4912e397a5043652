//! What a node may hold by its links: nothing in the subnet of one on which its program cannot run.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use responder_lab::{Cluster, ClusterAgent, Service, cluster_or_skip, reference_program};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// The addresses of a second subnet, and what a node says of each.
fn states(status: &Value) -> BTreeMap<IpAddr, String> {
    let vips = status["vips"].as_array().into_iter().flatten();
    vips.map(|v| (v["vip"].as_str().unwrap().parse().unwrap(), v["state"].as_str().unwrap().to_owned()))
        .collect()
}

fn wait_all(agent: &ClusterAgent, vips: &[IpAddr], state: &str) -> Value {
    let wanted = vips.iter().map(|vip| (*vip, state.to_owned())).collect::<BTreeMap<_, _>>();
    agent.wait_status(&format!("{wanted:?}"), SOON, |status| states(status) == wanted).unwrap()
}

#[test]
fn no_claim_is_held_where_the_program_cannot_run() {
    if !cluster_or_skip("no_claim_is_held_where_the_program_cannot_run") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).build().unwrap();
    for (name, last) in [("n1", 1), ("n2", 2)] {
        let pair = "link add lan0 type veth peer name lan1\nlink set lan0 up\nlink set lan1 up";
        cluster.host(name).ns().ip(&format!("{pair}\naddr add 198.18.0.{last}/24 dev lan0")).unwrap();
    }
    reference_program(cluster.host("n1").ns(), "lan0", "pass").unwrap();
    // So many that both nodes would get some.
    let vips: Vec<IpAddr> = (10..18).map(|n| IpAddr::from([198, 18, 0, n])).collect();
    cluster.service(&Service::new("web").vips(&vips).on(&["n1", "n2"])).unwrap();
    let options = ["--lease-duration", "1s"];
    let mut one = cluster.agent("n1", &options).unwrap();
    one.wait_ready().unwrap();
    let status =
        one.wait_status("the other program", SOON, |s| !s["agent"]["links"]["lan0"]["error"].is_null());
    assert!(status.unwrap()["agent"]["links"]["eth0"]["error"].is_null(), "its other link is well");
    let mut other = cluster.agent("n2", &options).unwrap();
    other.wait_ready().unwrap();
    wait_all(&other, &vips, "answering");
    wait_all(&one, &vips, "standby");

    // It becomes free, and who has something keeps it; with the other one gone it is taken.
    cluster.host("n1").ns().ip("link set dev lan0 xdp off").unwrap();
    one.wait_status("its own program", SOON, |s| s["agent"]["links"]["lan0"]["error"].is_null()).unwrap();
    wait_all(&one, &vips, "standby");
    other.terminate(SOON).unwrap();
    wait_all(&one, &vips, "answering");
}
