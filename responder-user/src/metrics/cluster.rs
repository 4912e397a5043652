//! What the agent says of its part in a cluster.

use std::{collections::BTreeSet, fmt};

use responder_leadership::{lease::Fitness, machine::Overview, settings::Times};

use super::families::Families;
use crate::control::LeadershipStatus;

pub(super) fn encode(families: &mut Families<'_>, leadership: &LeadershipStatus) -> fmt::Result {
    let machine = leadership.machine.as_ref();
    families.gauge(
        "synced",
        "Whether enough of the cluster is known to take part in it.",
        machine.is_some_and(|machine| machine.synced),
    )?;
    families.gauge(
        "wanted_vips",
        "Addresses of Services that somebody should announce; the same on every node.",
        leadership.wanted,
    )?;
    families.gauge(
        "vips_without_eligible_node",
        "Addresses that no node may announce, because none has a ready endpoint (externalTrafficPolicy: Local); the \
         same on every node.",
        leadership.without_node.len(),
    )?;
    if let Some(claims) = leadership.claims {
        families.gauge(
            "claims",
            "Groups that the addresses are spread over; the same on every node.",
            usize::from(claims.get()),
        )?;
    }
    families.gauge(
        "expected_nodes",
        "Nodes that should have an agent: those that are Ready and not excluded from load balancers; the same on every node.",
        leadership.expected_nodes,
    )?;
    if let Some(times) = leadership.times {
        encode_times(families, &times)?;
    }
    match machine {
        Some(machine) => encode_machine(families, machine),
        None => Ok(()),
    }
}

/// What alerts compare with.
fn encode_times(families: &mut Families<'_>, times: &Times) -> fmt::Result {
    families.seconds(
        "lease_duration",
        "How long others leave alone what this node holds after its last sign of life (--lease-duration).",
        times.lease_duration.as_secs_f64(),
    )?;
    families.seconds(
        "renew_interval",
        "Between renewals of this node's session while it holds something (--renew-interval).",
        times.renew_interval.as_secs_f64(),
    )?;
    families.seconds(
        "renewal_timeout",
        "After so long a renewal counts as failed: two thirds of the interval.",
        times.request_timeout().as_secs_f64(),
    )
}

fn encode_machine(families: &mut Families<'_>, machine: &Overview) -> fmt::Result {
    families.gauge("session_held", "Whether this node has a session.", machine.session.is_some())?;
    families.gauge("claims_held", "Claims held by this node.", machine.groups.len())?;
    families.gauge(
        "exceptions_held",
        "Addresses held by this node whose claims others hold.",
        machine.exceptions.len(),
    )?;
    let fitness = match machine.fitness {
        Fitness::Fit => "fit",
        Fitness::LastResort(_) => "last_resort",
        Fitness::Unfit(_) => "unfit",
    };
    families.gauges(
        "node_fitness",
        "Whether this node should hold anything: 1 for what applies.",
        ["fit", "last_resort", "unfit"].map(|which| (vec![("fitness", which)], which == fitness)),
    )?;
    families.gauge("stopping", "Whether everything is being handed over.", machine.stopping)?;
    families.gauge(
        "claims_unsettled",
        "Claims whose holder or exceptions may have to change.",
        machine.unsettled.len(),
    )?;
    families.gauge(
        "leases_in_doubt",
        "Leases with a write of this node that may or may not have happened.",
        machine.doubtful.len(),
    )?;
    let failing: BTreeSet<_> = machine.failing.keys().collect();
    families.gauge("leases_failing", "Leases that this node could not write.", failing.len())
}
