//! Who answers: link, map, counters, as a host's agent and maps say.

use std::net::IpAddr;

use responder_leadership::{
    group::group_of,
    id::{Group, Object},
};

use super::{
    explain::{Steps, Verdict},
    facts::HostState,
};
use crate::{
    control::{AgentStatus, LinkStatus},
    overview::time,
    status::{FenceStatus, VipState, VipStatus},
};

/// Notes of the agent that are shown.
const NOTES: usize = 3;

/// The host that should answer.
pub(super) fn steps(steps: &mut Steps, name: &str, host: &HostState, address: IpAddr) {
    agent(steps, name, host, address);
    datapath(steps, name, host, address);
}

/// The host that should answer could not be looked at.
pub(super) fn not_seen(steps: &mut Steps, name: &str, reason: Option<&str>) {
    let reason = reason.unwrap_or("it was not asked (--metrics-port 0)");
    let text = format!(
        "Link, map and counters on {name} could not be looked at: {reason}. What is said here is what the Leases say; \
         `responder why` as root on {name} looks at the rest."
    );
    steps.add("map", Verdict::Note, text);
}

/// A host without a cluster.
pub(super) fn standalone(steps: &mut Steps, host: &HostState, address: IpAddr) {
    if let Some(agent) = &host.agent {
        let file =
            agent.file.as_ref().map_or_else(|| "its file".to_owned(), |file| file.display().to_string());
        let known = host.vips.iter().any(|vip| vip.vip == address);
        let refused = agent.refused.iter().find(|(vip, ..)| *vip == address);
        match (known, refused) {
            (true, _) => steps.add("file", Verdict::Ok, format!("{file} names it.")),
            (false, Some((_, _, reason))) => {
                steps.add("file", Verdict::Bad, format!("{file} names it, but it {reason}."));
            }
            (false, None) => {
                let waiting: Vec<_> =
                    agent.waiting.iter().map(|(name, why)| format!("{name}: {why}")).collect();
                let more = if waiting.is_empty() {
                    String::new()
                } else {
                    format!(" Waited for: {}.", waiting.join("; "))
                };
                steps.add(
                    "file",
                    Verdict::Bad,
                    format!("{file} does not name it for any link that is there.{more}"),
                );
            }
        }
        if let Some(error) = &agent.file_error {
            let text = format!("The file as it is now is not in effect, what it said before is: {error}.");
            steps.add("file", Verdict::Note, text);
        }
    }
    agent_lives(steps, "this host", host);
    datapath(steps, "this host", host, address);
}

/// A host that should not answer.
pub(super) fn bystander(steps: &mut Steps, name: &str, host: &HostState, address: IpAddr) {
    let states: Vec<_> = host.vips.iter().filter(|vip| vip.vip == address).collect();
    if let Some(vip) = states.iter().find(|vip| vip.state == VipState::Answering) {
        let text = format!(
            "{name}, where this was asked, answers for it on {} until its deadline, in {} ms: it has not heard yet that \
             it is another's, or the Leases have changed meanwhile.",
            vip.link, host.fence.deadline_left_ms
        );
        steps.add("here", Verdict::Note, text);
    } else if let Some(vip) = states.first() {
        let text = format!("{name}, where this was asked, {} on {}.", word(vip.state), vip.link);
        steps.add("here", Verdict::Ok, text);
    } else {
        steps.add("here", Verdict::Ok, format!("{name}, where this was asked, knows nothing of it."));
    }
}

fn word(state: VipState) -> &'static str {
    match state {
        VipState::Answering => "answers for it",
        VipState::Standby => "knows it as another's and drops questions for it",
        VipState::Expired => "has let its deadline pass and drops questions for it",
        VipState::Abandoned => {
            "passes questions for it to its kernel, because no agent was heard for so long"
        }
        VipState::Detached => "knows it, but its program is not attached",
    }
}

fn agent_lives(steps: &mut Steps, name: &str, host: &HostState) {
    match &host.agent {
        Some(AgentStatus { pid, version, .. }) => {
            steps.add("agent", Verdict::Ok, format!("Version {version} runs on {name} as process {pid}."));
        }
        None => {
            let age = u64::try_from(host.fence.heartbeat_age_ms).unwrap_or_default();
            let text = format!(
                "No agent answers on {name}: killed, stopped or never started. Its datapath goes on to its deadline; the \
                 last sign of life was {} ago.",
                time(age)
            );
            steps.add("agent", Verdict::Note, text);
        }
    }
}

/// What the agent of a cluster's node says, and what it has tried.
fn agent(steps: &mut Steps, name: &str, host: &HostState, address: IpAddr) {
    agent_lives(steps, name, host);
    let Some(leadership) = host.agent.as_ref().and_then(|agent| agent.leadership.as_ref()) else {
        return;
    };
    let Some(machine) = leadership.machine.as_ref().filter(|machine| machine.synced) else {
        steps.add(
            "agent",
            Verdict::Note,
            format!("{name} has not heard enough of the cluster to take part in it."),
        );
        return;
    };
    let group = leadership.claims.map(|claims| group_of(address, claims));
    let concerns = |object: &&Object| match object {
        Object::Session(node) => *node == leadership.node,
        Object::Claim(claim) => Some(*claim) == group,
    };
    let failing: Vec<_> = machine
        .failing
        .iter()
        .filter(|(object, _)| concerns(object))
        .map(|(object, times)| format!("a write to {object} failed {times} times in a row"))
        .chain(
            machine
                .doubtful
                .iter()
                .filter(concerns)
                .map(|object| format!("the outcome of a write to {object} is not known")),
        )
        .collect();
    if !failing.is_empty() {
        steps.add("tried", Verdict::Note, format!("On {name} {}.", failing.join(", and ")));
    }
    let notes: Vec<_> = leadership.notes.iter().filter(|(_, note)| is_about(note, group)).collect();
    for (age, note) in notes.iter().rev().take(NOTES).rev() {
        steps.add("tried", Verdict::Ok, format!("{} ago on {name}: {note}.", time(*age)));
    }
}

/// Whether the agent's note is about this group, or about its session.
fn is_about(note: &str, group: Option<Group>) -> bool {
    let mut words = note.split(|c: char| !c.is_alphanumeric()).peekable();
    while let Some(word) = words.next() {
        if word == "claim" {
            return words.peek().and_then(|number| number.parse().ok()) == group;
        }
    }
    true
}

/// Links, maps and counters.
fn datapath(steps: &mut Steps, name: &str, host: &HostState, address: IpAddr) {
    let vips: Vec<_> = host.vips.iter().filter(|vip| vip.vip == address).collect();
    if vips.is_empty() {
        // Without a cluster, the file's step has said why.
        if steps.obstacle().is_none() {
            let agent = host.agent.as_ref();
            let refused = agent.and_then(|agent| agent.refused.iter().find(|(vip, ..)| *vip == address));
            let why = refused.map(|(_, _, reason)| format!(": it {reason}")).unwrap_or_default();
            steps.add("map", Verdict::Bad, format!("The maps of {name} do not have it{why}."));
        }
        return;
    }
    let status = |vip: &VipStatus| host.agent.as_ref().and_then(|agent| agent.links.get(&vip.link));
    let answering = vips
        .iter()
        .any(|vip| vip.state == VipState::Answering && status(vip).is_none_or(|status| status.running));
    // Where one link answers, what another lacks is no obstacle.
    let bad = if answering { Verdict::Note } else { Verdict::Bad };
    for vip in &vips {
        link(steps, name, vip, (host, status(vip)), bad);
    }
    for vip in &vips {
        let (good, text) = state(name, vip, host.fence);
        steps.add("map", if good { Verdict::Ok } else { bad }, text);
    }
    vips.iter().for_each(|vip| counters(steps, name, vip));
}

fn link(
    steps: &mut Steps,
    name: &str,
    vip: &VipStatus,
    (host, status): (&HostState, Option<&LinkStatus>),
    bad: Verdict,
) {
    let link = &vip.link;
    let pinned = host.links.iter().find(|pinned| pinned.name == *link);
    let mac = pinned.map_or("an unknown hardware address", |pinned| pinned.mac.as_str());
    let mode = status
        .and_then(|status| status.xdp.clone())
        .or_else(|| pinned.and_then(|pinned| pinned.mode.clone()));
    let tried = |status: &LinkStatus| {
        let list: Vec<_> = status.tried.iter().map(|one| format!("{}: {}", one.what, one.error)).collect();
        if list.is_empty() { String::new() } else { format!(" Tried without success: {}.", list.join("; ")) }
    };
    let tried = status.map(tried).unwrap_or_default();
    let Some(mode) = mode else {
        let why = status.and_then(|status| status.error.clone());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        steps.add("link", bad, format!("No program runs on {link} of {name}{why}.{tried}"));
        return;
    };
    if status.is_some_and(|status| !status.running) {
        steps.add("link", bad, format!("{link} of {name} is down or has no carrier.{tried}"));
        return;
    }
    let verdict = if tried.is_empty() { Verdict::Ok } else { Verdict::Note };
    steps.add(
        "link",
        verdict,
        format!("The program runs on {link} of {name} ({mode}), which answers as {mac}.{tried}"),
    );
}

fn state(name: &str, vip: &VipStatus, fence: FenceStatus) -> (bool, String) {
    let VipStatus { link, slot, slot_age_ms, .. } = vip;
    let at = if vip.vlan == 0 { link.clone() } else { format!("{link}, VLAN {}", vip.vlan) };
    let left = fence.deadline_left_ms;
    let since = u64::try_from(-left).map(time).unwrap_or_default();
    let silent = u64::try_from(-fence.suppress_left_ms).map(time).unwrap_or_default();
    match vip.state {
        VipState::Answering => {
            let ahead = u64::try_from(left).map(time).unwrap_or_default();
            let age = time(*slot_age_ms);
            let text = format!(
                "{name} owns it on {at} (slot {slot}, for {age}), and its deadline is ahead by {ahead}."
            );
            (true, text)
        }
        VipState::Standby => {
            (false, format!("The map of {name} has it on {at} as another's: questions are dropped there."))
        }
        VipState::Expired => {
            let text = format!(
                "{name} owns it on {at}, but its deadline passed {since} ago, and nothing is answered until its agent extends \
                 it: the agent is gone or hangs, or, in a cluster, cannot renew its session."
            );
            (false, text)
        }
        VipState::Abandoned => {
            let text = format!(
                "{name} has heard of no agent for so long that questions for it are passed to the kernel, for {silent} \
                 (--suppress)."
            );
            (false, text)
        }
        VipState::Detached => (
            false,
            format!(
                "The map of {name} has it on {at}, where the program is not attached: the kernel gets the questions."
            ),
        ),
    }
}

fn counters(steps: &mut Steps, name: &str, vip: &VipStatus) {
    let VipStatus { link, answered, suppressed, conflicts, announced_age_ms, .. } = vip;
    let announced = announced_age_ms.map_or_else(
        || "not announced by the agent that runs now".to_owned(),
        |age| format!("last announced {} ago", time(age)),
    );
    let claims = match conflicts {
        0 => String::new(),
        _ => format!(
            " Another station has claimed it {conflicts} times: `responder watch` on {name} and its log say which hardware \
             address has it, too."
        ),
    };
    let text = format!(
        "On {link} of {name}: {answered} questions answered, {suppressed} suppressed; {announced}.{claims}"
    );
    steps.add("counters", if *conflicts == 0 { Verdict::Ok } else { Verdict::Note }, text);
}
