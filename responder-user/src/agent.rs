//! The agent: facts in, decisions from [`crate::decision`], effects out, in one place and in order.
//!
//! * this file: what the agent holds, and its loop.
//! * `reconcile`: links and plans made true.
//! * `announce`: bursts sent.
//! * `events`: what the kernel reports.
//! * `file`: the static file followed.
//! * `groups`: multicast groups joined, beside the loop.
//! * `report`: what the agent says of itself.
//! * `signals`: what it is told.

mod announce;
mod events;
mod file;
mod groups;
mod reconcile;
mod report;
mod signals;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use responder_common::layout::SlotState;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{events::Events, file::FileWatch, groups::Joiner, reconcile::LinkState, signals::Signals};
pub use self::{reconcile::AllForeign, start::run};
use crate::{
    config::StaticConfig,
    control::{Server, StatusRequest},
    datapath::{
        maps::Maps,
        object::{LoadOptions, Object},
        pins::Pins,
        xdp::{self, WantedAttach, WantedMode},
    },
    decision::{
        burst::{BurstPolicy, Bursts},
        change::Actual,
        fence::FencePolicy,
        plan::{Plan, STATIC_SLOT, VipAt},
    },
    journal::Happening,
    net::{boot, link::NetState, packet::PacketSender, watch::NetError},
};

/// How often the agent looks whether its programs are still attached, which no event tells.
const INSPECTION: Duration = Duration::from_secs(5);

/// What to do with the datapath when the agent is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnExit {
    /// Go on answering until the deadline.
    Keep,
    /// Stop answering at once. The host stays silent about the VIPs (see --suppress).
    Withdraw,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The static file.
    pub file: PathBuf,
    /// The pin directory.
    pub bpffs: PathBuf,
    /// Where the control socket is.
    pub run_dir: PathBuf,
    /// Where XDP is to run.
    pub mode: WantedMode,
    /// How programs are to be attached.
    pub attach: WantedAttach,
    /// Deadline and suppression.
    pub fence: FencePolicy,
    /// Announcements.
    pub burst: BurstPolicy,
    /// What to do at the end.
    pub on_exit: OnExit,
    /// Entries of each VIP map.
    pub capacity: u32,
    /// Log each frame that is looked at.
    pub ebpf_log: bool,
}

/// Everything the agent holds.
struct Agent {
    options: Options,
    pins: Pins,
    object: Object,
    maps: Maps,
    sender: PacketSender,
    groups: Joiner,
    config: StaticConfig,
    net: Arc<NetState>,
    /// What should be.
    plan: Plan,
    /// What the maps hold.
    actual: Actual,
    links: BTreeMap<u32, LinkState>,
    bursts: Bursts<VipAt>,
    /// Last announcement of each VIP.
    announced: BTreeMap<VipAt, Duration>,
    /// VIPs that the map still answers for, against the plan.
    overdue: BTreeSet<VipAt>,
    /// VIPs for which the map had no room, and why.
    failed_vips: BTreeMap<VipAt, String>,
    all_multicast: BTreeMap<u32, String>,
    file_error: Option<String>,
    /// VIPs that an earlier agent had answered here, until they are announced.
    kept: BTreeSet<VipAt>,
    /// When the deadline was last extended.
    beaten: Duration,
    journal: broadcast::Sender<Happening>,
    started: Duration,
    joined: usize,
    burst_frames: u64,
    burst_errors: u64,
}

impl Agent {
    fn new(options: Options, pins: Pins, config: StaticConfig, net: Arc<NetState>) -> Result<Self> {
        let load = LoadOptions { capacity: options.capacity, log: options.ebpf_log };
        let object = Object::load(&pins, load)?;
        if object.capacity != options.capacity {
            tracing::warn!(
                capacity = object.capacity,
                asked = options.capacity,
                "the pinned maps keep their size; `responder detach` before the next start makes new ones"
            );
        }
        let maps = Maps::open(&pins)?;
        Ok(Self {
            sender: PacketSender::new().context("cannot open a packet socket (CAP_NET_RAW)")?,
            groups: Joiner::start()?,
            bursts: Bursts::new(options.burst),
            journal: broadcast::channel(4096).0,
            started: now(),
            pins,
            object,
            maps,
            config,
            net,
            options,
            plan: Plan::default(),
            actual: Actual::default(),
            links: BTreeMap::new(),
            announced: BTreeMap::new(),
            overdue: BTreeSet::new(),
            failed_vips: BTreeMap::new(),
            all_multicast: BTreeMap::new(),
            file_error: None,
            kept: BTreeSet::new(),
            beaten: Duration::ZERO,
            joined: 0,
            burst_frames: 0,
            burst_errors: 0,
        })
    }

    /// Takes over what an earlier agent left, and makes the first plan true.
    fn start(&mut self) -> Result<()> {
        self.actual.vips = self.maps.vips().map(|v| (v.at, v.slot)).collect();
        self.actual.links = self.maps.links().map(|(key, _)| (key.ifindex, None)).collect();
        let ahead = boot::now_ns() < self.maps.fence().deadline_ns;
        if ahead && self.maps.slot(STATIC_SLOT).is_some_and(|(owned, _)| owned) {
            self.kept = self
                .actual
                .vips
                .iter()
                .filter(|(_, slot)| **slot == STATIC_SLOT)
                .map(|(at, _)| *at)
                .collect();
        }
        self.tell(Happening::Configured { vips: self.config.vips.len(), refused: self.config.refused.len() });
        // The maps before the deadline: what an earlier agent owned may have been given away since.
        self.plan_and_write();
        self.maps.set_slot(STATIC_SLOT, SlotState::Owned, boot::now_ns());
        self.beat(now());
        self.leave_other_links();
        self.replan();
        self.refuse_if_all_foreign()?;
        let running = self.net.links.keys().filter_map(|index| xdp::query(*index).ok().flatten());
        self.object.forget_others(&self.pins, &running.map(|x| x.prog_id).collect());
        Ok(())
    }

    async fn run(
        mut self,
        signals: Signals,
        mut file: FileWatch,
        server: Server,
        mut net: watch::Receiver<Arc<NetState>>,
        follower: impl Future<Output = Result<(), NetError>>,
    ) -> Result<()> {
        let Signals { mut end, mut hangup } = signals;
        let mut events = Events::open(&self.pins, &mut self.object, self.options.ebpf_log)?;
        let (requests, mut asked) = mpsc::channel::<StatusRequest>(16);
        let serve = server.serve(requests, self.journal.clone());
        tokio::pin!(serve, follower);
        let mut heartbeat = interval(self.options.fence.interval());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inspection = interval(INSPECTION);
        inspection.set_missed_tick_behavior(MissedTickBehavior::Delay);
        inspection.reset();
        tracing::info!(links = self.links.len(), vips = self.plan.vips.len(), "ready");
        loop {
            self.announce();
            let burst = self.next_announcement();
            tokio::select! {
                biased;
                _ = heartbeat.tick() => self.heartbeat(&mut net),
                () = end.recv() => break,
                changed = net.changed() => {
                    changed.context("the kernel's links are not followed any more")?;
                    if self.take_links(&mut net) {
                        self.inspect()?;
                    } else {
                        self.replan();
                    }
                }
                ended = &mut follower => {
                    ended?;
                    anyhow::bail!("the kernel's links are not followed any more");
                }
                () = file.changed() => self.reread(),
                _ = hangup.recv() => self.reread(),
                ready = events.ready() => {
                    let happenings = events.take(ready?, &self.names());
                    for (at, happening) in happenings {
                        self.conflict(at, happening);
                    }
                }
                Some(report) = self.groups.report() => self.joined_groups(report),
                Some(reply) = asked.recv() => {
                    reply.send(self.report()).ok(); // the client may have gone
                }
                never = &mut serve => never,
                _ = inspection.tick() => self.inspect()?,
                () = sleep_until(burst) => {}
            }
        }
        self.end();
        Ok(())
    }

    /// Extends the deadline. After a lapse it is extended last: addresses may have been given away meanwhile.
    fn heartbeat(&mut self, net: &mut watch::Receiver<Arc<NetState>>) {
        let deadline = Duration::from_nanos(self.maps.fence().deadline_ns);
        // One reading of the clock: stopped behind it, the agent must not extend a deadline that has passed by then.
        let at = now();
        if at < deadline {
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
        let silent_ms = at.saturating_sub(deadline).as_millis().try_into().unwrap_or(u64::MAX);
        self.tell(Happening::Lapsed { silent_ms });
        // Others may have learnt another host.
        for vip in self.actual.announcing.clone().into_keys() {
            self.begin_burst(vip, at);
        }
    }

    /// Takes note of the links as they are now. Says whether the kernel has reported other XDP programs on them.
    fn take_links(&mut self, net: &mut watch::Receiver<Arc<NetState>>) -> bool {
        let now = net.borrow_and_update().clone();
        let mut programs_changed = false;
        for (index, link) in &now.links {
            let Some(before) = self.net.links.get(index) else {
                continue;
            };
            if before.has_ipv6() != link.has_ipv6() {
                self.groups.forget(*index); // the kernel has dropped them
            }
            programs_changed |= before.xdp != link.xdp;
        }
        self.net = now;
        programs_changed
    }

    /// Extends the deadline, unless the maps still answer for what is not owned here any more. Then it passes, and
    /// the whole host falls silent.
    fn beat(&mut self, at: Duration) -> bool {
        if let Some(vip) = self.overdue.first() {
            tracing::error!(
                vip = %vip.ip, count = self.overdue.len(),
                "the deadline is not extended: the map still says that this address is owned"
            );
            return false;
        }
        self.maps.set_fence(self.options.fence.at(at));
        self.beaten = at;
        true
    }

    /// Extends the deadline in the middle of long work, unless it has passed.
    fn beat_if_due(&mut self) {
        let at = now();
        // What is lost is written first, and until then there is nothing to extend.
        let due = self.overdue.is_empty() && at.saturating_sub(self.beaten) >= self.options.fence.interval();
        if due && at.as_nanos() < self.maps.fence().deadline_ns.into() {
            self.beat(at);
        }
    }

    /// Reads the static file again. A bad one changes nothing.
    fn reread(&mut self) {
        match StaticConfig::read(&self.options.file) {
            Ok(config) => {
                let was_bad = self.file_error.take().is_some();
                let changed = config != self.config;
                if changed || was_bad {
                    self.tell(Happening::Configured {
                        vips: config.vips.len(),
                        refused: config.refused.len(),
                    });
                }
                if changed {
                    self.config = config;
                    self.replan();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                self.tell(Happening::ConfigRejected { reason: reason.clone() });
                self.file_error = Some(reason);
            }
        }
    }

    /// Ends as the operator wants, unless a successor waits, which takes over without a gap.
    fn end(&mut self) {
        if self.pins.successor_waits() {
            tracing::info!("ending; the agent that waits takes over");
        } else if self.options.on_exit == OnExit::Keep {
            tracing::info!("ending; the datapath answers until the deadline");
        } else {
            self.maps.set_slot(STATIC_SLOT, SlotState::Standby, boot::now_ns());
            tracing::info!("ending; nothing is answered any more");
        }
    }

    fn tell(&self, happening: Happening) {
        happening.log();
        self.journal.send(happening).ok(); // nobody may be watching
    }

    fn link_name(&self, ifindex: u32) -> String {
        // A link that has just gone is still in the maps.
        let gone = || self.actual.links.get(&ifindex).and_then(Option::as_ref);
        let link = self.plan.links.get(&ifindex).or_else(gone);
        link.map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
    }

    fn names(&self) -> BTreeMap<u32, String> {
        self.plan.links.iter().map(|(index, link)| (*index, link.name.clone())).collect()
    }

    fn next_announcement(&self) -> Instant {
        let at = now();
        let wait = self.bursts.next_due(at).map_or(Duration::from_secs(3600), |due| due.saturating_sub(at));
        // A far deadline must not overflow the clock.
        Instant::now() + wait.min(Duration::from_secs(3600))
    }

    /// Links that the program runs on.
    fn attached(&self) -> BTreeSet<u32> {
        self.links.iter().filter(|(_, state)| state.xdp.is_ok()).map(|(index, _)| *index).collect()
    }
}

/// CLOCK_BOOTTIME.
fn now() -> Duration {
    Duration::from_nanos(boot::now_ns())
}
