//! Three nodes of a Kubernetes cluster, a client and a router on one Ethernet segment.

mod announce;
mod moves;
mod partition;
mod watch;
mod world;

use std::{env, path::Path};

use anyhow::Result;
use responder_lab::NAMESPACE;

pub(super) use self::world::World;
use super::show::Show;

/// Plays all scenes. What is returned keeps everything running.
pub(super) fn play(show: &mut Show, keep: bool, no_kube_proxy: bool) -> Result<World> {
    let mut world = announce::cluster(show, keep, no_kube_proxy)?;
    let played = scenes(&mut world, show);
    if played.is_err() || !show.holds() {
        world.show_logs(show);
    }
    played.map(|()| world)
}

fn scenes(world: &mut World, show: &mut Show) -> Result<()> {
    announce::agents(world, show)?;
    moves::crash(world, show)?;
    moves::drain(world, show)?;
    moves::rolling_restart(world, show)?;
    partition::cut_off(world, show)
}

/// Leaves it running, and says how to look around.
pub(super) fn keep(world: &World, show: &Show) -> Result<()> {
    let cluster = &world.cluster;
    cluster.keep()?;
    let sudo = if env::var_os("SUDO_USER").is_some() { "sudo " } else { "" };
    let enter = |path: &Path| format!("{sudo}nsenter --net={}", path.display());
    let kubectl = format!(
        "{} {} --kubeconfig {}",
        enter(&cluster.management().path()),
        cluster.kubectl_path().display(),
        cluster.kubeconfig().display()
    );
    let client = enter(&cluster.host("c").ns().path());
    let vip = world::web()[0];
    let responder = responder_lab::paths::responder()?;
    show.say(&format!(
        "\nThe cluster is still running. To look around:\n\n\
         alias k='{kubectl}'\n\
         k get leases -n {NAMESPACE}\n\
         k get services,events\n\
         # ask as the client\n{client} arping -I eth0 -c 3 {vip}\n{client} curl -s http://{vip}/\n\
         # drain a node, and undo it\nk annotate node n1 l2-responder.io/drain=\nk annotate node n1 l2-responder.io/drain-\n\
         # an agent's own view, on its node"
    ));
    for (node, agent) in &world.agents {
        show.say(&format!(
            "{sudo}nsenter --all --target={} {} status     # {node}",
            agent.pid(),
            responder.display()
        ));
    }
    show.say("\nTo remove it all: cargo xtask demo --cleanup");
    Ok(())
}
