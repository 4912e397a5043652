//! The scenes in which nothing breaks: the cluster without agents, and with them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use responder_lab::{Cluster, Mac, NAMESPACE, Service, resolve, tools, traffic::Conversation, wait_until};

use super::{
    watch::{SOON, Watch},
    world::{LOCAL, LOCAL_NODES, NODES, PORT, World, local, vips, web},
};
use crate::{demo::show::Show, step::step};

/// A Service whose address is the router's.
const GREEDY: &str = "greedy";

/// Starts the cluster.
pub(super) fn cluster(show: &mut Show, keep: bool, no_kube_proxy: bool) -> Result<World> {
    let world = step("etcd, kube-apiserver, three nodes", || World::build(keep, no_kube_proxy))?;
    show.say(&picture(&world.cluster));
    show.scene("Services of type LoadBalancer, and nobody who announces their addresses");
    show.say(&match (&world.no_proxy, world.cluster.proxy_mode()) {
        (None, Some(mode)) => {
            format!("kube-proxy runs on each node and forwards in mode {}", mode.name())
        }
        (why, _) => format!(
            "without kube-proxy, which cannot work on this kernel ({}): each node has all addresses on lo, and \
             answers requests itself",
            why.as_deref().unwrap_or_default()
        ),
    });
    kubectl(&world, show, &["get", "nodes"])?;
    kubectl(&world, show, &["get", "services"])?;
    show.say(&format!(
        "{LOCAL} has externalTrafficPolicy: Local, and its endpoints are on {} only",
        LOCAL_NODES.join(" and ")
    ));
    let client = world.cluster.host("c").ns();
    let reply = tools::arping(client, "eth0", v4(web()[0])?, &[])?;
    show.command("client", &reply.output.command, &reply.output.stdout);
    show.claim("answers to arping without an agent", reply.macs.len().to_string(), reply.macs.is_empty());
    Ok(world)
}

/// Starts the agents.
pub(super) fn agents(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("An agent on each node: announced, balanced, one answer for each address");
    let router = world.cluster.host("r").nics().first().map(|nic| nic.v4).context("no router")?;
    world.start_agents()?;
    let watch = Watch::start(world)?;
    // Kubernetes lets anybody who may write a Service's status ask for any address.
    world.cluster.service(&Service::new(GREEDY).vips(&[router.into()]).on(&NODES))?;
    wait_until(&format!("an Event about {GREEDY}"), SOON, || {
        let events = world.cluster.requests().get("/apis/events.k8s.io/v1/namespaces/default/events").ok()?;
        let about = |event: &&serde_json::Value| event["regarding"]["name"] == GREEDY;
        events["items"].as_array()?.iter().find(about).map(|_| ())
    })?;
    watch.wait_answers(200)?;
    let seen = watch.stop()?;

    kubectl(world, show, &["get", "leases", "-n", NAMESPACE])?;
    kubectl(world, show, &["get", "events", "--field-selector", "involvedObject.kind=Service"])?;
    let status = world.agent("n1")?.command(&["status"])?.ok()?;
    show.command("n1", "responder status", &status.stdout);

    let client = world.cluster.host("c").ns();
    let kernel = vips().map(|vip| resolve(client, vip, SOON)).collect::<Result<BTreeSet<Mac>>>()?;
    let table = client.check(&["ip", "neigh", "show", "dev", "eth0"])?;
    let ours = |line: &&str| vips().any(|vip| line.split(' ').next() == Some(&vip.to_string()));
    let lines: Vec<&str> = table.lines().filter(ours).collect();
    show.command("client", "ip neigh show dev eth0", &lines.join("\n"));

    let one = seen.reports.values().filter(|report| report.by_mac.len() == 1).count();
    show.claim(
        "addresses that exactly one node answers for",
        format!("{one} of {}, asked {} times", seen.reports.len(), seen.asked()),
        one == seen.reports.len(),
    );
    show.claim("claims held by each node", world.balance()?, kernel.len() > 1);
    let by: BTreeSet<String> = local()
        .iter()
        .filter_map(|vip| seen.reports.get(vip))
        .flat_map(|report| report.by_mac.keys().map(|mac| world.node_of(*mac)))
        .collect();
    show.claim(
        &format!("{LOCAL}, whose endpoints are on {}, is announced by", LOCAL_NODES.join(" and ")),
        by.iter().cloned().collect::<Vec<_>>().join(", "),
        by.iter().all(|node| LOCAL_NODES.contains(&node.as_str())),
    );
    let asked = tools::arping(client, "eth0", router, &[])?;
    let answers: BTreeSet<Mac> = asked.macs.iter().copied().collect();
    show.claim(
        &format!("{GREEDY}, which asks for the router's address, is refused"),
        format!("only the router answers for {router}"),
        answers.iter().eq([&world.cluster.host("r").mac()]),
    );
    let servers = vips().map(|vip| world.ask(vip)).collect::<Result<Vec<_>>>()?;
    show.claim(
        "addresses that answer an HTTP request",
        format!("{} of {}", servers.len(), vips().count()),
        servers.len() == vips().count(),
    );
    Ok(())
}

impl World {
    /// One HTTP request to an address from the client; who answered.
    fn ask(&self, vip: IpAddr) -> Result<String> {
        let client = self.cluster.host("c").ns();
        let talk =
            Conversation::start(client, SocketAddr::new(vip, PORT), std::time::Duration::from_millis(1))?;
        talk.wait_answers(1, SOON).with_context(|| format!("asking {vip}"))?;
        let seen = talk.stop();
        seen.by_server().keys().next().map(|name| (*name).to_owned()).context("no answer")
    }
}

/// Runs kubectl as the administrator and shows what it prints.
pub(super) fn kubectl(world: &World, show: &Show, arguments: &[&str]) -> Result<()> {
    let output = world.cluster.kubectl(arguments)?;
    show.command("admin", &format!("kubectl {}", arguments.join(" ")), &output);
    Ok(())
}

/// Shows the Leases of the nodes' sessions.
pub(super) fn show_sessions(world: &World, show: &Show) -> Result<()> {
    kubectl(world, show, &["get", "leases", "-n", NAMESPACE, "-l", "l2-responder.io/kind=session"])
}

fn v4(vip: IpAddr) -> Result<std::net::Ipv4Addr> {
    match vip {
        IpAddr::V4(vip) => Ok(vip),
        IpAddr::V6(vip) => anyhow::bail!("{vip} is not IPv4"),
    }
}

fn picture(cluster: &Cluster) -> String {
    let address =
        |name: &str| cluster.host(name).nics().first().map(|nic| nic.v4.to_string()).unwrap_or_default();
    format!(
        "\n                 etcd, kube-apiserver (10.77.0.1)\n\
         \x20      -----+------------+------------+----------------------- management\n\
         \x20          n1           n2           n3         client      router\n\
         \x20      {:<13}{:<13}{:<12}{:<12} {}\n\
         \x20      ----+------------+------------+------------+-----------+--- Ethernet",
        address("n1"),
        address("n2"),
        address("n3"),
        address("c"),
        address("r"),
    )
}
