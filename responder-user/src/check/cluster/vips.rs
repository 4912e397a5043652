//! Addresses that no node can or may announce.

use super::super::{
    Finding,
    Verdict::{Bad, Limited, Ok as Fine},
};
use crate::overview::{ClusterView, Life, VipView};

/// Findings of one kind; the rest is counted.
const SHOWN: usize = 10;

pub(super) fn check(view: &ClusterView) -> Vec<Finding> {
    let mut findings = Vec::new();
    let live: Vec<_> = view.sessions.iter().filter(|session| session.life == Life::Live).collect();
    let reaches: Vec<_> = live.iter().filter_map(|session| session.reach.as_ref()).collect();
    if live.is_empty() {
        let text = format!(
            "no agent lives in namespace {}: what nodes can announce is not known; start agents, or name their --namespace",
            view.namespace
        );
        findings.push(Finding::new("addresses", Limited, text));
    } else {
        let outside = |vip: &&VipView| !reaches.iter().any(|reach| reach.covers(&vip.vip));
        let uncovered: Vec<_> = view.vips.iter().filter(outside).collect();
        let list: Vec<_> = live
            .iter()
            .filter_map(|session| Some(format!("{} {}", session.node, session.reach.as_ref()?)))
            .collect();
        for vip in uncovered.iter().take(SHOWN) {
            let text = format!(
                "{} is in no prefix of any node ({}): nobody announces it. Hand out addresses of a node's prefix, give \
                 nodes an address of its network, or run agents with --any-subnet",
                name(vip),
                list.join("; ")
            );
            findings.push(Finding::new("addresses", Bad, text));
        }
        findings.extend(rest(uncovered.len(), "more are in no prefix of any node"));
        if uncovered.is_empty() {
            let text = format!("each of {} is in a prefix of some node", view.vips.len());
            findings.push(Finding::new("addresses", Fine, text));
        }
        let silent: Vec<_> = view.vips.iter().filter(|vip| vip.owner.is_none() && !outside(vip)).collect();
        for vip in silent.iter().take(SHOWN) {
            let text =
                format!("{} is answered by nobody: {} (`responder why {}`)", name(vip), vip.reason, vip.vip);
            findings.push(Finding::new("addresses", Limited, text));
        }
        findings.extend(rest(silent.len(), "more are answered by nobody (`responder status --vips=nobody`)"));
    }
    for refused in view.refused.iter().take(SHOWN) {
        let (service, address, reason) = (&refused.service, &refused.address, &refused.reason);
        let text = format!("{address} of Service {service} {reason}: no agent announces it");
        findings.push(Finding::new("addresses", Limited, text));
    }
    findings.extend(rest(view.refused.len(), "more are refused (`responder status --json`)"));
    findings
}

fn name(vip: &VipView) -> String {
    let services: Vec<_> = vip.services.iter().map(ToString::to_string).collect();
    format!("{} ({})", vip.vip, services.join(", "))
}

fn rest(all: usize, text: &str) -> Option<Finding> {
    (all > SHOWN).then(|| Finding::new("addresses", Limited, format!("… and {} {text}", all - SHOWN)))
}
