//! The scenes in which addresses move: crash, drain; and one in which they do not: a rolling restart.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use responder_lab::{BootTime, Mac, wait_until};

use super::{
    announce::{kubectl, show_sessions},
    watch::{SOON, Watch},
    world::{NODES, World, web},
};
use crate::demo::show::{Show, millis};

/// Longer than any planned move takes; shorter than a client's patience.
const AT_ONCE: Duration = Duration::from_millis(500);
/// The agents' --lease-duration.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long a busy machine may take for what comes after a Lease's end.
pub(super) const REACTION: Duration = Duration::from_secs(3);

/// A node and what it answers for.
pub(super) struct Holder {
    pub(super) name: &'static str,
    pub(super) mac: Mac,
    pub(super) held: BTreeSet<IpAddr>,
}

impl Holder {
    /// The one that answers for `web`.
    pub(super) fn of_web(world: &World, watch: &Watch) -> Result<Self> {
        let owners = watch.owners()?;
        let mac = *owners.get(&web()[0]).context("nobody answers for web")?;
        let name = NODES.into_iter().find(|node| world.cluster.host(node).mac() == mac);
        let held = owners.iter().filter(|(_, owner)| **owner == mac).map(|(vip, _)| *vip).collect();
        Ok(Self { name: name.with_context(|| format!("{mac} is no node"))?, mac, held })
    }
}

/// The power of a node fails.
pub(super) fn crash(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("A node loses power: its Lease runs out, and the others take what it held");
    let watch = Watch::start(world)?;
    let dead = Holder::of_web(world, &watch)?;
    show.say(&format!(
        "{} answers for {} of the addresses, web's among them; power off",
        dead.name,
        dead.held.len()
    ));
    world.cluster.crash(dead.name)?;
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != dead.name).collect();
    world.services(&others)?;
    watch.wait_moved(&dead.held, dead.mac)?;
    watch.wait_answers(50)?;
    watch.wait_requests(20)?;
    let seen = watch.stop()?;
    show_sessions(world, show)?;
    let silence = seen.silence(|vip| dead.held.contains(vip));
    show.claim(
        &format!("silence of {}'s {} addresses", dead.name, dead.held.len()),
        format!("{} (--lease-duration 3s)", millis(silence)),
        silence < LEASE + REACTION,
    );
    let elsewhere = seen.unanswered(|vip| !dead.held.contains(vip));
    show.claim("unanswered questions for the other nodes' addresses", elsewhere.to_string(), elsewhere == 0);
    seen.claim_single(show);
    show.say(&format!(
        "the clients' requests lost: {} (a crash breaks what was open)",
        seen.requests().told()
    ));

    show.say(&format!("{} boots again, with a new agent", dead.name));
    let watch = Watch::start(world)?;
    world.cluster.boot(dead.name)?;
    world.start_endpoint(dead.name)?;
    let agent = world.agent(dead.name)?;
    agent.restart()?;
    agent.wait_ready()?;
    world.wait_kube_proxy(dead.name)?;
    world.services(&NODES)?;
    watch.wait_answers(200)?;
    let seen = watch.stop()?;
    let moved = seen.reports.values().filter(|report| report.by_mac.len() > 1).count();
    show.claim(
        "addresses that move back when the node returns",
        format!("{moved} of {}: a move breaks connections", seen.reports.len()),
        moved == 0,
    );
    Ok(())
}

/// A node is drained by its annotation.
pub(super) fn drain(world: &World, show: &mut Show) -> Result<()> {
    show.scene("Planned: a node is drained");
    let watch = Watch::start(world)?;
    let holder = Holder::of_web(world, &watch)?;
    kubectl(world, show, &["annotate", "node", holder.name, "l2-responder.io/drain="])?;
    watch.wait_moved(&holder.held, holder.mac)?;
    wait_until(&format!("claims without {}", holder.name), SOON, || {
        let holders = world.holders().ok()?;
        (!holders.contains(holder.name)).then_some(())
    })?;
    watch.wait_answers(100)?;
    watch.wait_requests(50)?;
    let seen = watch.stop()?;
    show.claim(
        &format!("what {} still holds", holder.name),
        format!("nothing; claims: {}", world.balance()?),
        true,
    );
    let silence = seen.silence(|_| true);
    show.claim(
        &format!("silence of {}'s {} addresses", holder.name, holder.held.len()),
        format!("{} at the most", millis(silence)),
        silence < AT_ONCE,
    );
    seen.claim_single(show);
    let requests = seen.requests();
    show.claim("requests lost", requests.told(), requests.lost == 0);
    show.say(
        "an open connection breaks when its address moves, because what keeps track of it (kube-proxy's rules, the \
         kernel) is the node's own; the client repeats its request on a new one, as HTTP clients do",
    );
    kubectl(world, show, &["annotate", "node", holder.name, "l2-responder.io/drain-"])
}

/// Every agent is replaced, as by `kubectl rollout restart` of a DaemonSet with `maxSurge`.
pub(super) fn rolling_restart(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("Planned: a rolling restart of all agents, each one's successor waiting before it ends");
    let before = world.hands()?;
    let watch = Watch::start(world)?;
    for node in NODES {
        let old = world.agent(node)?;
        let mut new = old.successor()?;
        new.process().wait_line(SOON, |line| line.contains("waiting for its end"))?;
        let start = BootTime::now();
        old.terminate(SOON)?;
        new.wait_ready()?;
        show.say(&format!(
            "{node}: pid {} followed by pid {} within {}",
            old.pid(),
            new.pid(),
            millis(BootTime::now().since(start))
        ));
        *old = new;
        watch.wait_answers(100)?;
    }
    watch.wait_requests(50)?;
    let seen = watch.stop()?;
    let unanswered = seen.unanswered(|_| true);
    show.claim("unanswered questions", format!("{unanswered} of {}", seen.asked()), unanswered == 0);
    let after = world.hands()?;
    let changed = before.iter().filter(|(name, hands)| after.get(*name) != Some(hands)).count();
    show.claim(
        "Leases that changed hands",
        format!("{changed} of {}", after.len()),
        changed == 0 && after.len() == before.len(),
    );
    seen.claim_single(show);
    let requests = seen.requests();
    show.claim("requests lost", requests.told(), requests.lost == 0 && requests.broken == 0);
    Ok(())
}
