//! Three agents, a real API server, and a client that asks for the addresses of Services.

use std::{net::IpAddr, time::Duration};

use responder_lab::{Cluster, ClusterAgent, Mac, Prober, Probing, Service, cluster_or_skip};

const STEP: Duration = Duration::from_millis(5);
const SOON: Duration = Duration::from_secs(20);
const TIMES: [&str; 2] = ["--lease-duration", "1s"];

fn vips(count: u8) -> Vec<IpAddr> {
    (0..count).map(|n| [192, 0, 2, 200 + n].into()).collect()
}

fn cluster() -> Cluster {
    Cluster::builder().nodes(3).build().unwrap()
}

fn agents(cluster: &Cluster) -> Vec<ClusterAgent> {
    let mut agents: Vec<_> =
        ["n1", "n2", "n3"].iter().map(|node| cluster.agent(node, &TIMES).unwrap()).collect();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    agents
}

#[test]
fn a_crash_is_taken_over() {
    if !cluster_or_skip("a_crash_is_taken_over") {
        return;
    }
    let cluster = cluster();
    let vip = vips(1)[0];
    cluster.service(&Service::new("web").vips(&[vip]).on(&["n1"])).unwrap();
    let agents = agents(&cluster);
    let prober = Prober::start(cluster.host("c").ns(), Probing::new(vip, STEP)).unwrap();
    let first = prober.wait_answer(SOON).unwrap();
    let owner = owner(&cluster, first.mac);
    let crashed = cluster.crash(&owner).unwrap();
    let next = loop {
        let answer = prober.wait_answer(SOON).unwrap();
        if answer.mac != first.mac {
            break answer;
        }
    };
    println!("crash to answer: {:?}", next.at.since(crashed));
    for agent in agents {
        println!("{}:\n{}", agent.node().name(), agent.log());
    }
    println!("{}", cluster.kubectl(&["get", "leases", "-n", "l2-responder"]).unwrap());
    let report = prober.stop().unwrap();
    println!("{:?}", report.silences);
}

fn owner(cluster: &Cluster, mac: Mac) -> String {
    ["n1", "n2", "n3"].into_iter().find(|node| cluster.host(node).mac() == mac).unwrap().to_owned()
}
