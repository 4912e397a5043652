//! Where the addresses and the deadline come from: a static file, or a cluster.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use responder_common::layout::{Fence, Owner, SINGLE_SLOT, SlotState};
use tokio::{sync::watch, time::Instant};

use super::{
    Agent, OnExit,
    cluster::{Cluster, Input, Inputs},
    file::FileWatch,
    now,
};
use crate::{
    config::StaticConfig,
    journal::Happening,
    net::{boot, link::NetState},
};

/// Where the addresses and the deadline come from.
pub(super) enum Source {
    /// A static file: what is in it is owned as long as this agent lives.
    File(StaticSource),
    /// The Services of a cluster: the Leases say who owns what, and until when.
    Cluster(Box<Cluster>),
}

/// A static file.
pub(super) struct StaticSource {
    pub(super) path: PathBuf,
    pub(super) config: StaticConfig,
    /// Why the file as it is now is not in effect.
    pub(super) error: Option<String>,
}

/// What tells that something has changed there.
pub(super) enum Changes {
    File(FileWatch),
    Cluster(Inputs),
}

/// What has changed.
pub(super) enum Change {
    File,
    Cluster(Vec<Input>),
}

impl Changes {
    pub(super) async fn next(&mut self) -> Change {
        match self {
            Self::File(file) => {
                file.changed().await;
                Change::File
            }
            Self::Cluster(inputs) => Change::Cluster(inputs.next().await),
        }
    }
}

impl Agent {
    /// Makes the first plan true.
    pub(super) fn begin(&mut self) {
        match &self.source {
            Source::File(StaticSource { config, .. }) => {
                self.tell(Happening::Configured { vips: config.vips.len(), refused: config.refused.len() });
                // What is answered from here on is no session's.
                let owner = self.maps.owner();
                self.maps.set_owner(Owner { incarnation: 0, ..owner });
                self.plan_and_write();
                self.beat(now());
            }
            Source::Cluster(_) => self.begin_cluster(),
        }
    }

    pub(super) fn take_change(&mut self, change: Change) -> Result<()> {
        match change {
            Change::File => self.reread(),
            Change::Cluster(inputs) => self.take_inputs(inputs)?,
        }
        Ok(())
    }

    /// Extends the deadline of a static file, and the suppression. After a lapse it is extended last: addresses may
    /// have been given away meanwhile.
    pub(super) fn heartbeat(&mut self, net: &mut watch::Receiver<Arc<NetState>>) {
        let deadline = Duration::from_nanos(self.maps.fence().deadline_ns);
        // One reading of the clock: stopped behind it, the agent must not extend a deadline that has passed by then.
        let at = now();
        let is_cluster = matches!(self.source, Source::Cluster(_));
        if at < deadline || is_cluster {
            if !self.overdue.is_empty() {
                self.replan(); // tries again to write it
            }
            self.beat(at);
            return;
        }
        self.take_links(net);
        self.reread();
        self.replan();
        let at = now();
        if !self.beat(at) {
            return;
        }
        self.tell_lapse(at.saturating_sub(deadline));
    }

    /// Says that nothing was answered for a while, and announces everything anew: others may have learnt another host.
    pub(super) fn tell_lapse(&mut self, silent: Duration) {
        self.tell(Happening::Lapsed { silent_ms: millis(silent), resumed: true });
        let at = now();
        for vip in self.actual.announcing.clone().into_keys() {
            self.begin_burst(vip, at);
        }
    }

    /// Says that nothing was answered for a while, and that what was held then is lost.
    pub(super) fn tell_lost_in_lapse(&mut self, silent: Duration) {
        self.tell(Happening::Lapsed { silent_ms: millis(silent), resumed: false });
    }

    /// Extends the deadline, unless the maps still answer for what is not owned here any more. Then it passes, and
    /// the whole host falls silent.
    pub(super) fn beat(&mut self, at: Duration) -> bool {
        let mut fence = self.options.fence.at(at);
        if let Some(vip) = self.overdue.first() {
            tracing::error!(
                vip = %vip.ip, count = self.overdue.len(),
                "the deadline is not extended: the map still says that this address is owned"
            );
            if matches!(self.source, Source::Cluster(_)) {
                // Others are told next that it is free.
                self.maps.set_fence(Fence { deadline_ns: 0, ..fence });
            }
            return false;
        }
        match &self.source {
            Source::File(_) => {}
            Source::Cluster(cluster) => match cluster.deadline() {
                Some(deadline) => fence.deadline_ns = deadline.as_nanos().try_into().unwrap_or(u64::MAX),
                // The predecessor's still holds.
                None => fence.deadline_ns = self.maps.fence().deadline_ns,
            },
        }
        self.maps.set_fence(fence);
        self.beaten = at;
        true
    }

    /// Extends the deadline in the middle of long work, unless it has passed.
    pub(super) fn beat_if_due(&mut self) {
        let at = now();
        // What is lost is written first, and until then there is nothing to extend.
        let due = self.overdue.is_empty() && at.saturating_sub(self.beaten) >= self.options.fence.interval();
        if due && at.as_nanos() < self.maps.fence().deadline_ns.into() {
            self.beat(at);
        }
    }

    /// Reads the static file again. A bad one changes nothing.
    pub(super) fn reread(&mut self) {
        let Source::File(file) = &mut self.source else {
            return;
        };
        match StaticConfig::read(&file.path) {
            Ok(config) => {
                let was_bad = file.error.take().is_some();
                let changed = config != file.config;
                let configured =
                    Happening::Configured { vips: config.vips.len(), refused: config.refused.len() };
                file.config = config;
                if changed || was_bad {
                    self.tell(configured);
                }
                if changed {
                    self.replan();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                file.error = Some(reason.clone());
                self.tell(Happening::ConfigRejected { reason });
            }
        }
    }

    /// Told to end: whether that can be done at once, or something is to be handed over before.
    pub(super) fn ends_now(&mut self) -> bool {
        match &self.source {
            Source::File(_) => true,
            // A successor goes on with the session.
            Source::Cluster(_) => self.pins.successor_waits() || self.begin_stop(),
        }
    }

    /// When the source wants a turn.
    pub(super) fn next_turn(&self) -> Instant {
        let far = Duration::from_secs(3600);
        let wait = match &self.source {
            Source::File(_) => far,
            Source::Cluster(cluster) => cluster.next_turn().map_or(far, |at| at.saturating_sub(now())),
        };
        Instant::now() + wait.min(far)
    }

    /// Ends as the operator wants, unless a successor waits, which takes over without a gap.
    pub(super) fn end(&mut self) {
        if self.pins.successor_waits() {
            tracing::info!("ending; the agent that waits takes over");
            return;
        }
        if matches!(self.source, Source::File(_)) {
            if self.options.on_exit == OnExit::Keep {
                tracing::info!("ending; the datapath answers until the deadline");
                return;
            }
            self.maps.set_slot(SINGLE_SLOT, SlotState::Standby, boot::now_ns());
        } else {
            self.silence();
        }
        tracing::info!("ending; nothing is answered any more");
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
