//! The scenes in which nothing breaks: the cluster without agents, and with them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use responder_lab::{Cluster, Mac, NAMESPACE, resolve, tools, wait_until};
use responder_tests::daemonset::{LOCAL, LOCAL_NODES, SERVICES, SETTLED, vips};

use super::{
    watch::Watch,
    world::{VARIANT, World, local, web},
};
use crate::show::Show;

/// A Service whose address is the router's.
const GREEDY: &str = "greedy";

/// Starts the cluster.
pub(super) fn cluster(show: &mut Show, image: &Path, deploy: &Path, keep: bool) -> Result<World> {
    let what = "etcd and Kubernetes; three nodes with containerd, kubelet, kube-proxy and web servers";
    let world = show.step(what, || World::build(image, deploy, keep))?;
    show.say(&picture(&world.site.cluster));
    show.scene("Services of type LoadBalancer, and nobody who announces their addresses");
    world.kubectl(show, &["get", "nodes"])?;
    world.kubectl(show, &["get", "pods", "-o", "custom-columns=POD:.metadata.name,NODE:.spec.nodeName"])?;
    world.kubectl(show, &["get", "services"])?;
    show.say(&format!(
        "{} has externalTrafficPolicy: Local, and its web servers are on {} only",
        SERVICES[LOCAL],
        LOCAL_NODES.join(" and ")
    ));
    let client = world.site.cluster.host("c").ns();
    let reply = tools::arping(client, "eth0", v4(web()[0])?, &[])?;
    show.command("client", &reply.output.command, &reply.output.stdout);
    show.claim("answers to arping without an agent", reply.macs.len().to_string(), reply.macs.is_empty());
    Ok(world)
}

/// Installs the agents.
pub(super) fn agents(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("An agent on each node: announced, balanced, one answer for each address");
    let router = world.site.cluster.host("r").nics().first().map(|nic| nic.v4).context("no router")?;
    let applied = world.site.kustomized(&["apply"], VARIANT)?;
    show.command("admin", &format!("kubectl apply -k deploy/{VARIANT}"), &applied);
    world.site.settle(&[])?;
    world.kubectl(show, &["rollout", "status", "daemonset/responder", "-n", NAMESPACE])?;
    let watch = Watch::start(world)?;
    watch.wait_answers(world, 200)?;
    let seen = watch.stop(world)?;

    world.kubectl(show, &["get", "events", "--field-selector", "involvedObject.kind=Service"])?;
    world.show_sessions(show)?;
    world.responder(show, &["status", "--vips"])?;
    world.responder(show, &["why", &web()[0].to_string()])?;
    show.say(&format!("one more Service, {GREEDY}, gets an address that the router has"));
    // Kubernetes lets anybody who may write a Service's status ask for any address.
    world.site.make_service(GREEDY, &[router.into()])?;
    wait_until(&format!("an Event about {GREEDY}"), SETTLED, || {
        let events = "/apis/events.k8s.io/v1/namespaces/default/events";
        let events = world.site.cluster.requests().get(events).ok()?;
        let about = |event: &&serde_json::Value| event["regarding"]["name"] == GREEDY;
        events["items"].as_array()?.iter().find(about).map(|_| ())
    })?;
    world.responder(show, &["why", &router.to_string()])?;

    let client = world.site.cluster.host("c").ns();
    let kernel =
        vips().into_iter().map(|vip| resolve(client, vip, SETTLED)).collect::<Result<BTreeSet<Mac>>>()?;
    let table = client.check(&["ip", "neigh", "show", "dev", "eth0"])?;
    let ours = |line: &&str| vips().iter().any(|vip| line.split(' ').next() == Some(&vip.to_string()));
    let lines: Vec<&str> = table.lines().filter(ours).collect();
    show.command("client", "ip neigh show dev eth0", &lines.join("\n"));

    let one = vips().iter().filter(|vip| seen.answerers(vip).len() == 1).count();
    show.claim(
        "addresses that exactly one node answers for",
        format!("{one} of {}, asked {} times", vips().len(), seen.asked()),
        one == vips().len(),
    );
    seen.claim_single(show);
    show.claim("claims held by each node", world.balance()?, kernel.len() > 1);
    let by: BTreeSet<String> =
        local().iter().flat_map(|vip| seen.answerers(vip)).map(|mac| world.node_of(mac)).collect();
    show.claim(
        &format!("{} (servers on {} only) is announced by", SERVICES[LOCAL], LOCAL_NODES.join(", ")),
        by.iter().cloned().collect::<Vec<_>>().join(", "),
        by.iter().all(|node| LOCAL_NODES.contains(&node.as_str())),
    );
    let asked = tools::arping(client, "eth0", router, &[])?;
    let answers: BTreeSet<Mac> = asked.macs.iter().copied().collect();
    show.claim(
        &format!("{GREEDY}, with the router's address, is refused"),
        format!("only the router answers for {router}"),
        answers.iter().eq([&world.site.mac("r")]),
    );
    let served = vips().into_iter().map(|vip| world.site.fetch(vip)).collect::<Result<Vec<_>>>()?;
    show.claim(
        "addresses that answer an HTTP request",
        format!("{} of {}", served.len(), vips().len()),
        served.len() == vips().len(),
    );
    Ok(())
}

fn v4(vip: IpAddr) -> Result<Ipv4Addr> {
    match vip {
        IpAddr::V4(vip) => Ok(vip),
        IpAddr::V6(vip) => bail!("{vip} is not IPv4"),
    }
}

fn picture(cluster: &Cluster) -> String {
    let address =
        |name: &str| cluster.host(name).nics().first().map(|nic| nic.v4.to_string()).unwrap_or_default();
    format!(
        "\n                 etcd, kube-apiserver, … (10.77.0.1)\n\
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
