//! The scenes in which addresses move: crash, drain; and one in which they do not: a rolling update.

use std::time::Duration;

use anyhow::Result;
use responder_lab::{NAMESPACE, wait_until};
use responder_tests::daemonset::SETTLED;

use super::{
    watch::{Holder, Watch},
    world::World,
};
use crate::show::{Show, millis};

/// Longer than any planned move takes; shorter than a client's patience.
const AT_ONCE: Duration = Duration::from_secs(1);
/// `RESPONDER_LEASE_DURATION` in what is installed.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long a busy machine may take for what comes after a Lease's end.
pub(super) const REACTION: Duration = Duration::from_secs(3);

/// The power of a node fails.
pub(super) fn crash(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("A node loses power: its Lease runs out, and the others take what it held");
    let watch = Watch::start(world)?;
    let dead = Holder::of_web(world, &watch)?;
    show.say(&format!(
        "{} answers for {} of the addresses, web's among them: power off",
        dead.name,
        dead.held.len()
    ));
    world.site.cluster.crash(&dead.name)?;
    watch.wait_moved(world, &dead.held, dead.mac)?;
    watch.wait_answers(world, 50)?;
    watch.wait_requests(20)?;
    let seen = watch.stop(world)?;
    world.show_sessions(show)?;
    let silence = seen.silence(|vip| dead.held.contains(vip));
    show.claim(
        &format!("longest silence of what {} held", dead.name),
        format!("{} (leases of 3 s)", millis(silence)),
        silence < LEASE + REACTION,
    );
    let elsewhere = seen.unanswered(|vip| !dead.held.contains(vip));
    show.claim("unanswered questions for the others' addresses", elsewhere.to_string(), elsewhere == 0);
    seen.claim_single(show);
    show.say(&format!(
        "requests lost: {}\n\
         (until Kubernetes has noticed, too, that the node is gone, kube-proxy sends some to the web server there)",
        seen.requests().told()
    ));

    show.say(&format!("power on: {} boots, and its kubelet starts the agent and the web servers", dead.name));
    let watch = Watch::start(world)?;
    let before = world.pods_on(&dead.name)?;
    world.site.cluster.boot(&dead.name)?;
    world.site.cluster.wait_node_ready(&dead.name)?;
    world.wait_restarted(&before)?;
    world.site.settle(&[])?;
    watch.wait_answers(world, 200)?;
    let seen = watch.stop(world)?;
    world.kubectl(show, &["get", "pods", "-n", NAMESPACE])?;
    let moved = seen.accounts.keys().filter(|vip| seen.answerers(vip).len() > 1).count();
    show.claim(
        "addresses that move back when the node returns",
        format!("{moved} of {}: a move breaks connections", seen.accounts.len()),
        moved == 0,
    );
    Ok(())
}

/// A node is to give all away.
pub(super) fn drain(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("Planned: a node is drained");
    let watch = Watch::start(world)?;
    let holder = Holder::of_web(world, &watch)?;
    world.responder(show, &["drain", "--node", &holder.name])?;
    watch.wait_moved(world, &holder.held, holder.mac)?;
    wait_until(&format!("claims without {}", holder.name), SETTLED, || {
        let holders = world.holders().ok()?;
        (!holders.contains(&holder.name)).then_some(())
    })?;
    watch.wait_answers(world, 100)?;
    watch.wait_requests(50)?;
    let seen = watch.stop(world)?;
    show.claim(
        &format!("what {} still holds", holder.name),
        format!("nothing; claims: {}", world.balance()?),
        true,
    );
    let silence = seen.silence(|_| true);
    show.claim(&format!("longest silence of what {} held", holder.name), millis(silence), silence < AT_ONCE);
    seen.claim_single(show);
    let requests = seen.requests();
    show.claim("requests lost", requests.told(), requests.lost == 0);
    show.say(
        "an open connection breaks when its address moves, because what keeps track of it (kube-proxy's rules, the\n\
         kernel) is the node's own; the client repeats its request on a new one, as HTTP clients do",
    );
    world.responder(show, &["drain", "--node", &holder.name, "--undo"])
}

/// Every agent is replaced by another.
pub(super) fn rolling_update(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("Planned: a rolling update, in which each agent's successor waits before it ends");
    let before = (world.hands()?, world.site.agents()?);
    let watch = Watch::start(world)?;
    world.kubectl(show, &["rollout", "restart", "daemonset/responder", "-n", NAMESPACE])?;
    world.site.settle(&before.1)?;
    world.kubectl(show, &["rollout", "status", "daemonset/responder", "-n", NAMESPACE])?;
    watch.wait_answers(world, 100)?;
    watch.wait_requests(50)?;
    let seen = watch.stop(world)?;
    world.kubectl(show, &["get", "pods", "-n", NAMESPACE])?;
    let unanswered = seen.unanswered(|_| true);
    show.claim("unanswered questions", format!("{unanswered} of {}", seen.asked()), unanswered == 0);
    let after = world.hands()?;
    let changed = before.0.iter().filter(|(name, hands)| after.get(*name) != Some(hands)).count();
    show.claim(
        "Leases that changed hands",
        format!("{changed} of {}", after.len()),
        changed == 0 && after.len() == before.0.len(),
    );
    seen.claim_single(show);
    let requests = seen.requests();
    show.claim("requests lost", requests.told(), requests.lost == 0 && requests.broken == 0);
    Ok(())
}
