//! Who should answer: group, holder, session; and if nobody does, why no other node.

use std::net::IpAddr;

use responder_leadership::{group::group_of, id::SessionId, lease::Fitness};

use super::{
    explain::{Owner, Steps, Verdict},
    facts::ClusterFacts,
    service::because,
};
use crate::{
    decision::services::Eligible,
    overview::{self, ClaimView, ClusterView, Life, SessionView, VipView, time},
};

/// Adds the steps. `None`: nobody should answer, or that is not known.
pub(super) fn steps(steps: &mut Steps, cluster: &ClusterFacts, address: IpAddr) -> Option<Owner> {
    let view = &cluster.view;
    let claim = group(steps, cluster, address)?;
    let Some((id, since_ms)) = holder(steps, claim, address) else {
        others(steps, cluster, address, None);
        return None;
    };
    let mut lives = session(steps, view, id);
    if lives {
        lives = able(steps, cluster, id, address);
    }
    if !lives {
        others(steps, cluster, address, Some(id));
        return None;
    }
    // Without the Services it is not known whether anybody should answer, unless the claim itself names the address.
    let wanted = cluster.objects.services.is_some() || claim.exceptions.contains_key(&address);
    wanted.then(|| Owner { name: id.node.to_string(), since_ms })
}

fn group<'a>(steps: &mut Steps, cluster: &'a ClusterFacts, address: IpAddr) -> Option<&'a ClaimView> {
    let view = &cluster.view;
    let Some(count) = view.claim_count else {
        // Without its record no agent announces anything.
        let (verdict, text) = match view.problems.iter().find(|problem| problem.contains("/cluster")) {
            Some(problem) if cluster.objects.leases.is_some() => {
                // An empty namespace is more likely the wrong one.
                let verdict = if view.sessions.is_empty() { Verdict::Unknown } else { Verdict::Bad };
                (verdict, format!("The number of groups is not known: {problem}."))
            }
            Some(_) | None => {
                (Verdict::Unknown, format!("The Leases cannot be read{}.", because(view, "leases")))
            }
        };
        steps.add("group", verdict, text);
        return None;
    };
    let group = group_of(address, count);
    let claim = view.claims.get(usize::from(group))?;
    let text = format!("It is in group {group} of {count}: the Lease {}/{}.", view.namespace, claim.name);
    steps.add("group", Verdict::Ok, text);
    Some(claim)
}

/// Who holds it, and since when, in ms.
fn holder<'a>(
    steps: &mut Steps,
    claim: &'a ClaimView,
    address: IpAddr,
) -> Option<(&'a SessionId, Option<u64>)> {
    let name = &claim.name;
    if let Some(id) = claim.exceptions.get(&address) {
        let beside = claim.holder.as_ref().map_or_else(
            || "the rest of the group is held by nobody".to_owned(),
            |holder| format!("the rest of the group is held by {}", holder.node),
        );
        let text = format!("{} holds it by itself, as an exception of {name}; {beside}.", id.node);
        steps.add("holder", Verdict::Ok, text);
        return Some((id, None));
    }
    match &claim.holder {
        Some(id) => {
            let since = claim.since_ms.map(|ms| format!(", for {}", time(ms))).unwrap_or_default();
            let elsewhere = claim.misplaced().map_or_else(String::new, |node| {
                format!(" {node} comes first for it, and gets it by `responder rebalance` alone.")
            });
            let text = format!("{} holds {name}{since}.{elsewhere}", id.node);
            steps.add("holder", Verdict::Ok, text);
            Some((id, claim.since_ms))
        }
        None => {
            let why = claim.problem.as_deref().unwrap_or("nobody holds it");
            let why = if why == "nobody holds it" { String::new() } else { format!(": {why}") };
            steps.add("holder", Verdict::Bad, format!("Nobody holds {name}{why}."));
            None
        }
    }
}

/// Whether the holder's session lives.
fn session(steps: &mut Steps, view: &ClusterView, id: &SessionId) -> bool {
    let node = &id.node;
    let seen = view.session(node);
    let age = seen.and_then(|session| session.renewed_ms).map(time);
    if let Some(why) = view.why_not(id) {
        let age = age.map(|age| format!(" (its Lease was last written {age} ago)")).unwrap_or_default();
        let text = format!("Its holder does not count: {why}{age}.");
        steps.add("session", Verdict::Bad, text);
        return false;
    }
    let age = age.map(|age| format!(", renewed {age} ago")).unwrap_or_default();
    let lease = seen.and_then(|session| session.lease_ms).map(time);
    let lease = lease.map(|lease| format!(", good for {lease} each time")).unwrap_or_default();
    let (verdict, fitness) = match seen.and_then(|session| session.fitness.as_ref()) {
        Some(Fitness::LastResort(reason)) => {
            (Verdict::Note, format!(" {node} {reason}: it hands over as soon as a fit node can take it."))
        }
        Some(Fitness::Unfit(reason)) => {
            (Verdict::Note, format!(" {node} {reason}: it hands over as soon as another node can take it."))
        }
        Some(Fitness::Fit) | None => (Verdict::Ok, String::new()),
    };
    steps.add("session", verdict, format!("The session of {node} lives{age}{lease}.{fitness}"));
    true
}

/// Whether the holder may answer for this address.
fn able(steps: &mut Steps, cluster: &ClusterFacts, id: &SessionId, address: IpAddr) -> bool {
    let vip = cluster.view.vips.iter().find(|vip| vip.vip == address);
    if let Some(VipView { owner: None, reason, .. }) = vip {
        steps.add("session", Verdict::Bad, format!("{}.", sentence(reason)));
        return false;
    }
    let reach = cluster.view.session(&id.node).and_then(|session| session.reach.as_ref());
    if let Some(reach) = reach {
        let text = format!("{} announces {reach}, which covers it.", id.node);
        steps.add("reach", Verdict::Ok, text);
    }
    true
}

/// What each other node lacks.
fn others(steps: &mut Steps, cluster: &ClusterFacts, address: IpAddr, holder: Option<&SessionId>) {
    let eligible = cluster.objects.services.is_some().then(|| {
        let machine = overview::services(&cluster.objects);
        machine.demands().get(&address).map(|demand| demand.nodes.clone())
    });
    let eligible = eligible.flatten().filter(|_| cluster.objects.slices.is_some());
    let sessions = &cluster.view.sessions;
    // A later session of the holder's node is another.
    let is_holder = |session: &SessionView, id: &SessionId| {
        id.node == session.node && session.incarnation == Some(id.incarnation)
    };
    let nodes = sessions.iter().filter(|session| holder.is_none_or(|id| !is_holder(session, id)));
    let list: Vec<_> = nodes
        .map(|session| format!("{} {}", session.node, lacks(session, address, eligible.as_ref())))
        .collect();
    let text = if list.is_empty() {
        "There is no other node with an agent.".to_owned()
    } else {
        format!("Others: {}.", list.join("; "))
    };
    steps.add("candidates", Verdict::Note, text);
}

fn lacks(session: &SessionView, address: IpAddr, eligible: Option<&Eligible>) -> String {
    let ago = |ms: Option<u64>| ms.map(|ms| format!(" {} ago", time(ms))).unwrap_or_default();
    match &session.life {
        Life::Absent => return "has no agent".to_owned(),
        Life::Expired => return format!("has a session that was last renewed{}", ago(session.renewed_ms)),
        Life::Ended(by) if *by == session.node => {
            return format!("has an agent that ended{}", ago(session.since_ms));
        }
        Life::Ended(by) => return format!("had its session revoked by {by}{}", ago(session.since_ms)),
        Life::Unreadable(_) => return "has a session that cannot be understood".to_owned(),
        Life::Live => {}
    }
    if let Some(Fitness::Unfit(reason)) = &session.fitness {
        return reason.clone();
    }
    if eligible.is_some_and(|nodes| !nodes.allows(session.node.as_str())) {
        return "has no endpoint that counts".to_owned();
    }
    match &session.reach {
        Some(reach) if reach.covers(&address) => match &session.fitness {
            Some(Fitness::LastResort(reason)) => format!("{reason}, and takes it only if nobody else does"),
            Some(Fitness::Fit | Fitness::Unfit(_)) | None => {
                "is about to take it, if nothing has changed".to_owned()
            }
        },
        Some(reach) => format!("announces {reach}, which does not cover it"),
        None => "does not say what it announces".to_owned(),
    }
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}
