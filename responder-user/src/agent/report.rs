//! What the agent says of itself.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::mpsc;

use super::{Agent, now, source::Source};
use crate::{
    control::{AgentStatus, LinkStatus, PortStatus, StatusRequest},
    decision::plan::Interface,
    metrics::{self, Address, Serving, Snapshots},
    net::topology::{Port, Role},
};

/// Roles that matter to who reads the status.
const FORWARDS: &str = "forwards";
const BACKUP: &str = "backup";

impl Agent {
    /// Serves metrics and health until what is returned is dropped. That it cannot does not end the agent.
    pub(super) fn serve_metrics(&self, requests: mpsc::Sender<StatusRequest>) -> Option<Serving> {
        let options = self.options.metrics.clone();
        if options.address == Address::Nowhere {
            return None;
        }
        let snapshots = Snapshots::new(self.pins.clone(), requests);
        let started = metrics::start(options, snapshots, Arc::clone(&self.counts));
        started
            .inspect_err(|error| tracing::error!(%error, "metrics and health are not served: no thread"))
            .ok()
    }

    /// The status for `responder status`.
    pub(super) fn report(&self) -> AgentStatus {
        let at = now();
        let links = self
            .plan
            .interfaces
            .iter()
            .map(|(index, interface)| (interface.name.clone(), self.report_link(*index, interface)));
        let (file, file_error) = match &self.source {
            Source::File(file) => (Some(file.path.clone()), file.error.clone()),
            Source::Cluster(_) => (None, None),
        };
        let refused =
            self.plan.refused.iter().map(|((ip, link), reason)| (*ip, link.clone(), reason.clone()));
        // Of an interface with several ports once.
        let failed: BTreeSet<_> = self
            .failed_vips
            .iter()
            .map(|(at, reason)| (at.ip, self.link_name(at.place()), reason.clone()))
            .collect();
        AgentStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.started.as_millis().try_into().unwrap_or(u64::MAX),
            file,
            bpffs: self.pins.root().to_owned(),
            fence_map: Some(self.maps.fence_id()),
            wanted_mode: Some(self.options.mode),
            file_error,
            links: links.collect(),
            refused: refused.chain(failed).collect(),
            waiting: self.plan.waiting.clone(),
            announced: self
                .announced
                .iter()
                .map(|(vip, sent)| {
                    let age = at.saturating_sub(*sent).as_millis().try_into().unwrap_or(u64::MAX);
                    (vip.ip, self.link_name(vip.place()), age)
                })
                .collect(),
            burst_frames: self.burst_frames,
            burst_errors: self.burst_errors,
            burst_queued: self.bursts.queued(),
            groups: self.joined,
            netlink_overruns: self.net.overruns,
            leadership: match &self.source {
                Source::Cluster(cluster) => Some(cluster.report(at, &self.net.default_gateways)),
                Source::File(_) => None,
            },
        }
    }
    fn report_link(&self, index: u32, interface: &Interface) -> LinkStatus {
        let ports: Vec<_> = interface.ports.iter().map(|port| self.report_port(port)).collect();
        let runs = |port: &&PortStatus| port.xdp.is_some() && port.role != BACKUP;
        // What it is on the ports that answer; of a bridge, on its uplink, where most questions come.
        let uplink = ports.iter().filter(runs).find(|port| port.role == FORWARDS);
        let answers = self.plan.is_attached(index, |port| matches!(self.ports.get(&port), Some(Ok(_))));
        let first = uplink.or_else(|| ports.iter().find(runs)).filter(|_| answers);
        let several = ports.len() > 1;
        let errors = ports.iter().filter_map(|port| {
            let error = port.error.clone()?;
            Some(if several { format!("{}: {error}", port.name) } else { error })
        });
        let errors: Vec<_> = match &interface.obstacle {
            Some(reason) => vec![reason.clone()],
            None => errors.collect(),
        };
        let states = || interface.ports.iter().filter_map(|port| self.ports.get(&port.ifindex));
        let mut tried: Vec<_> = states()
            .flat_map(|state| match state {
                Ok(attached) => attached.tried.clone(),
                Err(failure) => failure.tried.clone(),
            })
            .collect();
        let egress = self.egress.get(&index);
        tried.extend(egress.into_iter().filter_map(|egress| egress.as_ref().err()).flatten().cloned());
        LinkStatus {
            ifindex: index,
            mac: interface.mac.to_string(),
            running: interface.running,
            xdp: first.and_then(|port| port.xdp.clone()),
            prog_id: first.and_then(|port| port.prog_id),
            egress: egress
                .and_then(|egress| egress.as_ref().ok())
                .map(|via| format!("{via:?}").to_lowercase()),
            error: (!errors.is_empty()).then(|| errors.join("; ")),
            tried,
            all_multicast: self.all_multicast.get(&index).cloned(),
            ports,
            notes: interface.notes.clone(),
        }
    }

    fn report_port(&self, port: &Port) -> PortStatus {
        let state = self.ports.get(&port.ifindex);
        let attached = state.and_then(|state| state.as_ref().ok());
        PortStatus {
            ifindex: port.ifindex,
            name: self.device_name(port.ifindex),
            vlan: port.vlan,
            role: match port.role {
                Role::Answers => "answers",
                Role::Forwards => FORWARDS,
                Role::Backup => BACKUP,
            }
            .to_owned(),
            xdp: attached.map(|attached| format!("{} by {}", attached.mode, attached.via)),
            prog_id: attached.map(|attached| attached.prog_id),
            error: state.and_then(|state| state.as_ref().err()).map(|failure| failure.reason.clone()),
        }
    }
}
