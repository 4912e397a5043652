//! The scene in which a holder is cut off from the API server, and does not know.

use anyhow::Result;
use responder_lab::{Cut, NAMESPACE, wait_until};
use responder_tests::daemonset::SETTLED;

use super::{
    moves::{LEASE, REACTION},
    watch::{Holder, Watch},
    world::World,
};
use crate::show::{Show, millis};

/// A holder cannot reach the API server any more; clients reach it as before.
pub(super) fn cut_off(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("A partition: the holder is cut off from the API server, but not from the clients");
    let watch = Watch::start(world)?;
    let holder = Holder::of_web(world, &watch)?;
    let cut = Cut::api(&holder.name);
    let cluster = &world.site.cluster;
    cluster.cut(cut.clone())?;
    watch.wait_moved(world, &holder.held, holder.mac)?;
    watch.wait_answers(world, 100)?;
    // The other way, from the API server to the node, is open.
    let pod = world.agent_on(&holder.name)?;
    world.kubectl(show, &["exec", "-n", NAMESPACE, &pod, "--", "responder", "status", "--local"])?;
    cluster.heal(&cut)?;
    let healed = watch.owners(world)?;
    wait_until(&format!("a new session of {}", holder.name), SETTLED, || {
        let sessions = world.leases("session").ok()?;
        let lease = sessions.get(&format!("session-{}", holder.name))?;
        let holder_now = lease["spec"]["holderIdentity"].as_str()?;
        holder_now.contains(&holder.name).then_some(())
    })?;
    watch.wait_requests(20)?;
    watch.wait_answers(world, 100)?;
    let back = watch.owners(world)?;
    let seen = watch.stop(world)?;
    world.show_sessions(show)?;

    let held = |vip: &std::net::IpAddr| holder.held.contains(vip);
    let pauses = seen.pauses(&holder.held, holder.mac);
    let shortest = pauses.iter().flatten().min().copied().unwrap_or_default();
    show.claim(
        &format!("{} fell silent by itself before another answered", holder.name),
        format!("{} before", millis(shortest)),
        pauses.len() == holder.held.len() && pauses.iter().all(Option::is_some),
    );
    let silence = seen.silence(held);
    show.claim(
        &format!("longest silence of what {} held", holder.name),
        millis(silence),
        silence < LEASE + REACTION,
    );
    seen.claim_single(show);
    let elsewhere = seen.unanswered(|vip| !held(vip));
    show.claim("unanswered questions for the others' addresses", elsewhere.to_string(), elsewhere == 0);
    show.claim(
        "addresses that move when the partition heals",
        back.iter().filter(|(vip, mac)| healed.get(vip) != Some(mac)).count().to_string(),
        back == healed,
    );
    Ok(())
}
