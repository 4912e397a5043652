//! The scene in which a holder is cut off from the API server, and does not know.

use anyhow::Result;
use responder_lab::{Cut, wait_until};

use super::{
    announce::show_sessions,
    moves::{Holder, LEASE, REACTION},
    watch::{SOON, Watch},
    world::World,
};
use crate::demo::show::{Show, millis};

/// A holder cannot reach the API server any more; clients reach it as before.
pub(super) fn cut_off(world: &World, show: &mut Show) -> Result<()> {
    show.scene("A partition: the holder is cut off from the API server, but not from the clients");
    let watch = Watch::start(world)?;
    let holder = Holder::of_web(world, &watch)?;
    world.cluster.cut(Cut::api(holder.name))?;
    watch.wait_moved(&holder.held, holder.mac)?;
    watch.wait_answers(100)?;
    let status = world.cluster.node(holder.name);
    let binary = responder_lab::paths::responder()?;
    let output = status.output(&[&binary.display().to_string(), "status"])?;
    show.command(holder.name, "responder status", &output.stdout);
    world.cluster.heal(&Cut::api(holder.name))?;
    let healed = watch.owners()?;
    wait_until(&format!("a new session of {}", holder.name), SOON, || {
        let sessions = world.leases("session").ok()?;
        let lease = sessions.get(&format!("session-{}", holder.name))?;
        let holder_now = lease["spec"]["holderIdentity"].as_str()?;
        holder_now.contains(holder.name).then_some(())
    })?;
    watch.wait_requests(20)?;
    watch.wait_answers(100)?;
    let back = watch.owners()?;
    let seen = watch.stop()?;
    show_sessions(world, show)?;

    let held = |vip: &std::net::IpAddr| holder.held.contains(vip);
    let gaps = seen.reports.iter().filter(|(vip, _)| held(vip)).filter_map(|(_, report)| {
        let last = report.last_answer_by(holder.mac)?;
        let first = report.answers.iter().filter(|a| a.mac != holder.mac).map(|a| a.at).min()?;
        Some((first > last).then(|| first.since(last)))
    });
    let gaps: Vec<_> = gaps.collect();
    let shortest = gaps.iter().flatten().min().copied().unwrap_or_default();
    show.claim(
        &format!("{} fell silent by itself before another answered", holder.name),
        format!("{} before, or more", millis(shortest)),
        gaps.len() == holder.held.len() && gaps.iter().all(Option::is_some),
    );
    let silence = seen.silence(held);
    show.claim(
        &format!("silence of {}'s {} addresses", holder.name, holder.held.len()),
        format!("{} at the most", millis(silence)),
        silence < LEASE + REACTION,
    );
    seen.claim_single(show);
    let elsewhere = seen.unanswered(|vip| !held(vip));
    show.claim("unanswered questions for the other nodes' addresses", elsewhere.to_string(), elsewhere == 0);
    show.claim(
        "addresses that move when the partition heals",
        back.iter().filter(|(vip, mac)| healed.get(vip) != Some(mac)).count().to_string(),
        back == healed,
    );
    Ok(())
}
