//! The scenes in which something breaks or moves: restart, fence, hand-over.

use std::time::Duration;

use anyhow::{Context as _, Result};
use responder_lab::{BootTime, NeighbourWatch, Report};
use serde_json::Value;

use super::{
    scenes::{SOON, bpftool, neighbours, pinned, probe, probe_from},
    world::{FENCE, VIPS, World, owned, standby, start_agent},
};
use crate::show::{Show, millis};

/// Longer than any of this takes; shorter than anybody's patience or a neighbour entry's life.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The agent is killed and replaced while the client asks without pause.
pub(super) fn restart(mut world: World, show: &mut Show) -> Result<World> {
    show.scene("The agent is killed (SIGKILL) and started again, under a flood of questions");
    let node = world.lab.node("a");
    let mut agent = None;
    let mut away = Duration::ZERO;
    let old = world.agent_a;
    let old_pid = old.commands().status()?.pointer("/agent/pid").cloned().unwrap_or(Value::Null);
    let c = world.lab.node("c").ns();
    let reports = probe_from(c, Duration::from_micros(100), |probers| {
        probers.iter().try_for_each(|p| p.wait_answers(2000, SOON))?;
        old.kill()?;
        let killed = BootTime::now();
        probers.iter().try_for_each(|p| p.wait_answers(2000, SOON))?;
        agent = Some(start_agent(node, &owned())?);
        away = BootTime::now().since(killed);
        probers.iter().try_for_each(|p| p.wait_answers(2000, SOON))
    })?;
    world.agent_a = agent.context("the agent was not started again")?;
    show.say(&format!(
        "pid {old_pid} killed; the datapath was alone for {} until a new agent took it over",
        millis(away)
    ));
    let [sent, unanswered] = [
        reports.iter().map(|r| r.sent.len()).sum::<usize>(),
        reports.iter().map(|r| r.unanswered.len()).sum(),
    ];
    show.claim(
        "questions unanswered over SIGKILL and restart",
        format!("{unanswered} of {sent}"),
        unanswered == 0 && reports.iter().all(|r| r.not_sent == 0),
    );
    Ok(world)
}

/// The agent is stopped; its datapath falls silent by itself, and speaks again when the agent does.
pub(super) fn fence(world: &World, show: &mut Show) -> Result<()> {
    show.scene(
        "The agent hangs (SIGSTOP): the kernel stops answering at the deadline, nobody has to tell it",
    );
    let map = pinned(world.lab.node("a").bpffs(), "FENCE")?;
    let map = map.to_str().context("the path of a pinned map is not UTF-8")?;
    let mut deadline = BootTime::default();
    let mut thawed = BootTime::default();
    let reports = probe(world, Duration::from_millis(1), |probers| {
        probers.iter().try_for_each(|p| p.wait_answers(100, SOON))?;
        world.agent_a.freeze()?;
        let stopped = BootTime::now();
        deadline = read_deadline(map)?;
        show.say(&format!(
            "stopped; the deadline in the map FENCE is {} ahead (--fence {}s)",
            millis(deadline.since(stopped)),
            FENCE.as_secs()
        ));
        probers.iter().try_for_each(|p| p.wait_silence(300, FENCE + SOON))?;
        // Before it is done: the agent may be faster than this process's next line.
        thawed = BootTime::now();
        world.agent_a.thaw()?;
        probers.iter().try_for_each(|p| p.wait_answers(100, SOON))
    })?;
    for (report, protocol) in reports.iter().zip(["ARP", "NDP"]) {
        fence_claims(report, protocol, deadline, thawed, show);
    }
    Ok(())
}

fn fence_claims(report: &Report, protocol: &str, deadline: BootTime, thawed: BootTime, show: &mut Show) {
    // A question that is on its way when the deadline passes may go either way.
    let on_its_way = Duration::from_millis(1);
    let sent = |n: &usize| report.sent.get(*n).copied().unwrap_or_default();
    let early = report.unanswered.iter().filter(|n| sent(n) + on_its_way < deadline).count();
    let fenced = |at: BootTime| at > deadline + on_its_way && at < thawed;
    let late = report.answers.iter().filter(|a| fenced(sent(&a.question))).filter(|a| a.at < thawed).count();
    let last = report.answers.iter().map(|a| a.at).filter(|at| *at < thawed).max().unwrap_or_default();
    let distance = if last <= deadline {
        format!("last answer {} before it", millis(deadline.since(last)))
    } else {
        format!("last answer {} after it", millis(last.since(deadline)))
    };
    show.claim(
        &format!("{protocol}: answered until the deadline, not after it"),
        format!("{distance}; {early} unanswered before, {late} answered after"),
        early == 0 && late == 0 && report.silences.len() == 1,
    );
    let back = report.answers.iter().map(|a| a.at).filter(|at| *at >= thawed).min();
    show.claim(
        &format!("{protocol}: answering again after SIGCONT"),
        back.map_or("never".to_owned(), |at| format!("after {}", millis(at.since(thawed)))),
        back.is_some_and(|at| at.since(thawed) < AT_ONCE),
    );
}

/// `deadline_ns` of the one entry of FENCE.
fn read_deadline(map: &str) -> Result<BootTime> {
    let text = bpftool(&["-j", "map", "dump", "pinned", map])?;
    let dump: Value = serde_json::from_str(&text).with_context(|| format!("bpftool printed {text:?}"))?;
    let ns = dump.pointer("/0/formatted/value/fence/deadline_ns").and_then(Value::as_u64);
    ns.map(BootTime).with_context(|| format!("no deadline_ns in {text}"))
}

/// Host a gives the addresses away, host b takes them; the client notices nothing but a new hardware address.
pub(super) fn hand_over(world: &mut World, show: &mut Show) -> Result<()> {
    show.scene("Hand-over: host a's file says standby, then host b's says owned");
    let World { agent_a, agent_b, lab, .. } = world;
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    let watch = NeighbourWatch::start(c.ns())?;
    let mut taken = BootTime::default();
    let (mut given_up, mut changes) = (Vec::new(), Vec::new());
    let reports = probe_from(c.ns(), Duration::from_micros(500), |probers| {
        probers.iter().try_for_each(|p| p.wait_answers(100, SOON))?;
        agent_a.write(&standby())?;
        // The agent says so only once its datapath has stopped answering.
        for vip in VIPS.map(|vip| vip.to_string()) {
            let lost = |line: &str| line.contains("lost") && line.contains(&vip);
            given_up.push(agent_a.process().wait_line(SOON, lost)?);
        }
        taken = BootTime::now();
        agent_b.write(&owned())?;
        for vip in VIPS {
            changes.push(watch.wait_for(vip, b.mac(), SOON)?);
        }
        probers.iter().try_for_each(|p| p.wait_answers(100, SOON))
    })?;
    show.command("host a", "grep lost agent.log", &given_up.join("\n"));
    neighbours(lab, show)?;
    for change in &changes {
        let after = change.at.since(taken);
        show.claim(
            &format!("client's entry for {} changes to host b", change.ip),
            format!("{} after b's file was written", millis(after)),
            after < AT_ONCE,
        );
    }
    let silence = reports.iter().map(Report::longest_silence).max().unwrap_or_default();
    show.claim(
        "silence between the two owners",
        millis(silence),
        silence < AT_ONCE && reports.iter().all(|r| r.silences.len() <= 1),
    );
    let doubles: usize = reports.iter().map(|r| r.doubles.len()).sum();
    let in_order = |r: &Report| r.last_answer_by(a.mac()) < r.first_answer_by(b.mac());
    show.claim(
        "questions answered by both hosts",
        format!("{doubles} of {}", reports.iter().map(|r| r.sent.len()).sum::<usize>()),
        doubles == 0 && reports.iter().all(in_order),
    );
    Ok(())
}
