//! Events on Services.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16, time::Duration};

use responder_leadership::{event::Note, group::group_of, id::Group};

use super::{Cluster, Player, inputs::is_expected};
use crate::{
    agent::{Agent, now},
    cluster::events::{About, Said},
    control::LeadershipStatus,
    decision::services::{Changes, Refused, ServiceKey},
};

/// So many notes are remembered.
const NOTES: usize = 16;

impl Agent {
    /// Says of every VIP that is newly announced here that it is.
    pub(in crate::agent) fn say_announcing(&mut self) {
        if self.cluster().is_none() {
            return;
        }
        let announcing: BTreeSet<IpAddr> = self.actual.announcing.keys().map(|at| at.ip).collect();
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        for vip in announcing.difference(&cluster.voiced) {
            let services = cluster.services.demands().get(vip).map(|demand| &demand.services);
            for service in services.into_iter().flatten() {
                cluster.say(service, Said::Announcing { vip: *vip });
            }
        }
        cluster.voiced = announcing;
    }

    /// Says why addresses are not announced. Every agent sees it; the holder of the address's group says it.
    pub(super) fn say_refusals(&self, changes: &Changes) {
        let Some(cluster) = self.cluster() else {
            return;
        };
        changes.refusals.iter().for_each(|refused| cluster.say_refusal(refused));
        changes.demands.iter().for_each(|vip| cluster.say_without_endpoint(*vip));
    }

    /// The same for all addresses of groups that are newly held here: nobody may have held them when there was
    /// something to say.
    pub(super) fn say_refusals_in(&self, groups: &BTreeSet<Group>) {
        let Some(cluster) = self.cluster().filter(|_| !groups.is_empty()) else {
            return;
        };
        let Some(Player { claims, .. }) = &cluster.player else {
            return;
        };
        let refusals = cluster.services.refusals().keys();
        for refused in refusals.filter(|r| groups.contains(&speaking_group(r.address.parse().ok(), *claims)))
        {
            cluster.say_refusal(refused);
        }
        let vips = cluster.services.demands().keys();
        for vip in vips.filter(|vip| groups.contains(&group_of(**vip, *claims))) {
            cluster.say_without_endpoint(*vip);
        }
    }
}

impl Cluster {
    /// Keeps a note for the status.
    pub(super) fn remember(&mut self, note: &Note) {
        if self.notes.len() == NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back((now(), crate::notes::text(note)));
    }

    /// The status.
    pub(in crate::agent) fn report(&self, at: Duration, gateways: &BTreeSet<IpAddr>) -> LeadershipStatus {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let signed = |at: Duration| i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let options = &self.options;
        let demands = self.services.demands();
        let without_node = demands.iter().filter(|(_, demand)| demand.nodes.is_nobody());
        let refusals = self.services.refusals().iter();
        LeadershipStatus {
            node: options.node.clone(),
            namespace: options.namespace.clone(),
            kubeconfig: options.access.kubeconfig.clone(),
            context: options.access.context.clone(),
            rules: options.rules.clone(),
            gateways: gateways.clone(),
            claims: self.player.as_ref().map(|player| player.claims),
            machine: self.player.as_ref().map(|player| player.machine.overview()),
            deadline_left_ms: self.deadline.map(|deadline| signed(deadline) - signed(at)),
            notes: self
                .notes
                .iter()
                .map(|(told, text)| (ms(at.saturating_sub(*told)), text.clone()))
                .collect(),
            times: Some(options.times),
            expected_nodes: self.nodes.values().filter(|node| is_expected(node)).count(),
            wanted: demands.len(),
            without_node: without_node.map(|(vip, _)| *vip).collect(),
            refused: refusals.map(|(refused, reason)| (refused.clone(), reason.clone())).collect(),
        }
    }

    /// Whether this node is the one to speak about an address: it holds its group; of what is none, group 0.
    fn is_speaker(&self, address: Option<IpAddr>) -> bool {
        let (Some(Player { claims, .. }), Some(holdings)) = (&self.player, &self.holdings) else {
            return false;
        };
        holdings.groups.contains(&speaking_group(address, *claims))
    }

    fn say_refusal(&self, refused: &Refused) {
        if let Some(reason) = self.services.refusals().get(refused)
            && self.is_speaker(refused.address.parse().ok())
        {
            let said = Said::NotAnnounced { address: refused.address.clone(), reason: reason.clone() };
            self.say(&refused.service, said);
        }
    }

    fn say_without_endpoint(&self, vip: IpAddr) {
        if let Some(demand) = self.services.demands().get(&vip)
            && demand.nodes.is_nobody()
            && self.is_speaker(Some(vip))
        {
            for service in &demand.services {
                let reason = "has no ready endpoint on any node (externalTrafficPolicy: Local)".to_owned();
                self.say(service, Said::NotAnnounced { address: vip.to_string(), reason });
            }
        }
    }

    fn say(&self, service: &ServiceKey, said: Said) {
        if let Some(player) = &self.player {
            let uid = self.uids.get(service).cloned();
            let about = About { namespace: service.namespace.clone(), name: service.name.clone(), uid };
            player.publisher.say(about, said);
        }
    }
}

/// Whoever holds this group speaks about an address; about what is none, the holder of group 0.
fn speaking_group(address: Option<IpAddr>, claims: NonZeroU16) -> Group {
    address.map_or(0, |address| group_of(address, claims))
}
