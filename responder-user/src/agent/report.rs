//! What the agent says of itself.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Agent, now, source::Source};
use crate::{
    control::{AgentStatus, LinkStatus, StatusRequest},
    metrics::{self, Address, Serving, Snapshots},
};

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
        let links = self.plan.links.iter().map(|(index, plan)| {
            let state = self.links.get(index);
            let xdp = state.and_then(|s| s.xdp.as_ref().ok());
            let failure = state.and_then(|s| s.xdp.as_ref().err());
            let mut tried = xdp.map_or_else(Vec::new, |x| x.tried.clone());
            tried.extend(failure.into_iter().flat_map(|f| f.tried.clone()));
            tried.extend(state.into_iter().filter_map(|s| s.egress.as_ref().err()).flatten().cloned());
            let status = LinkStatus {
                ifindex: *index,
                mac: plan.mac.to_string(),
                running: plan.running,
                xdp: xdp.map(|x| format!("{} by {}", x.mode, x.via)),
                prog_id: xdp.map(|x| x.prog_id),
                egress: state
                    .and_then(|s| s.egress.as_ref().ok())
                    .map(|via| format!("{via:?}").to_lowercase()),
                error: failure.map(|f| f.reason.clone()),
                tried,
                all_multicast: self.all_multicast.get(index).cloned(),
            };
            (plan.name.clone(), status)
        });
        let (file, file_error) = match &self.source {
            Source::File(file) => (Some(file.path.clone()), file.error.clone()),
            Source::Cluster(_) => (None, None),
        };
        let refused =
            self.plan.refused.iter().map(|((ip, link), reason)| (*ip, link.clone(), reason.clone()));
        let failed =
            self.failed_vips.iter().map(|(at, reason)| (at.ip, self.link_name(at.ifindex), reason.clone()));
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
                    (vip.ip, self.link_name(vip.ifindex), age)
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
}
