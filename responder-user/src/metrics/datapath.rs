//! What the kernel's maps say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use responder_common::{
    egress::EgressOutcome,
    outcome::{Action, Outcome},
};

use super::families::Families;
use crate::status::{Status, VipState, VipStatus};

const STATES: [(VipState, &str); 5] = [
    (VipState::Answering, "answering"),
    (VipState::Standby, "standby"),
    (VipState::Expired, "expired"),
    (VipState::Abandoned, "abandoned"),
    (VipState::Detached, "detached"),
];

/// What is done with a frame. "Suppressed" is what the host must not answer.
const fn verdict(action: Action) -> &'static str {
    match action {
        Action::Answer => "answered",
        Action::Drop => "suppressed",
        Action::Pass => "passed",
    }
}

pub(super) fn encode(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let received = |outcome: Outcome| status.received.get(outcome.name()).copied().unwrap_or_default();
    let sent = |outcome: EgressOutcome| status.sent.get(outcome.name()).copied().unwrap_or_default();
    families.counters(
        "received_frames",
        "ARP and Neighbor Discovery frames received, by what was done with them and why (reasons: docs/protocol.md).",
        Outcome::ALL
            .iter()
            .map(|o| (vec![("verdict", verdict(o.action())), ("reason", o.name())], received(*o))),
    )?;
    families.counters(
        "sent_frames",
        "Frames that this host sent in the name of known addresses, by what was done with them and why.",
        EgressOutcome::ALL
            .iter()
            .map(|o| (vec![("verdict", verdict(o.action())), ("reason", o.name())], sent(*o))),
    )?;
    let conflicts = [
        ("arp", received(Outcome::ArpConflict) + received(Outcome::ArpConflictDropped)),
        ("ns", received(Outcome::NsConflict)),
        ("na", received(Outcome::NaConflict)),
    ];
    families.counters(
        "conflicts",
        "Frames by which other stations claimed addresses that are owned here.",
        conflicts.map(|(by, count)| (vec![("by", by)], count)),
    )?;
    families.counters(
        "conflict_events_missed",
        "Conflicts without an event: too many at once (limited), or read too late (lost).",
        [("limited", status.events_limited), ("lost", status.events_lost)]
            .map(|(why, count)| (vec![("why", why)], count)),
    )?;
    // A negative time would be one since the host's start where nothing was ever answered.
    let left = status.fence.deadline_left_ms.max(0);
    families.seconds(
        "deadline_left",
        "Until the datapath stops answering unless the agent extends it; 0 once it has passed. In a cluster a node \
         that holds nothing lets it pass.",
        seconds(left),
    )?;
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for link in &status.links {
        counts.extend(STATES.map(|(_, state)| ((link.name.as_str(), state), 0)));
    }
    for vip in &status.vips {
        let state = STATES.iter().find(|(state, _)| *state == vip.state).map_or("", |(_, name)| name);
        *counts.entry((&vip.link, state)).or_default() += 1;
    }
    families.gauges(
        "vips",
        "Known addresses by link and by what becomes of questions for them.",
        counts.into_iter().map(|((link, state), count)| (vec![("link", link), ("state", state)], count)),
    )?;
    let owned: BTreeSet<_> =
        status.vips.iter().filter(|vip| vip.state == VipState::Answering).map(|vip| vip.vip).collect();
    families.gauge("owned_vips", "Addresses that are answered here, on whatever links.", owned.len())
}

/// The series of single addresses: the first `limit` of them.
pub(super) fn encode_vips(families: &mut Families<'_>, all: &[VipStatus], limit: usize) -> fmt::Result {
    let named: Vec<_> = all.iter().take(limit).map(|vip| (vip.vip.to_string(), vip)).collect();
    let of = |value: fn(&VipStatus) -> u64| {
        named
            .iter()
            .map(move |(ip, vip)| (vec![("vip", ip.as_str()), ("link", vip.link.as_str())], value(vip)))
    };
    families.counters(
        "vip_answered_frames",
        "Questions for an address that were answered.",
        of(|v| v.answered),
    )?;
    families.counters(
        "vip_suppressed_frames",
        "Questions for an address that were dropped because it was not owned here, or not any more.",
        of(|v| v.suppressed),
    )?;
    families.counters("vip_conflicts", "Claims of an address by other stations.", of(|v| v.conflicts))?;
    families.gauges(
        "vip_owned",
        "Whether an address is answered here.",
        named.iter().map(|(ip, vip)| {
            let labels = vec![("vip", ip.as_str()), ("link", vip.link.as_str())];
            (labels, vip.state == VipState::Answering)
        }),
    )?;
    families.gauge(
        "vips_without_series",
        "Addresses beyond --metrics-per-vip, which have no series of their own.",
        all.len() - named.len(),
    )
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are exact for 10^5 years")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
