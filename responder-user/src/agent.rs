//! The agent: facts in, decisions from [`crate::decision`], effects out, in one place and in order.
//!
//! * this file: what the agent holds, and its loop.
//! * `reconcile`: plans made true: the maps. `attach`: the programs, on the links.
//! * `announce`: bursts sent. `causes`: why addresses come and go.
//! * `events`: what the kernel reports.
//! * `source`: where the addresses and the deadline come from: a static file, or a cluster.
//! * `file`: the static file followed.
//! * `cluster`: the leadership protocol played.
//! * `groups`: multicast groups joined, beside the loop.
//! * `report`: what the agent says of itself.
//! * `signals`: what it is told.

mod announce;
mod attach;
mod causes;
mod cluster;
mod events;
mod file;
mod groups;
mod reconcile;
mod report;
mod signals;
mod source;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use responder_common::layout::LinkKey;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

pub use self::{attach::AllForeign, cluster::ClusterOptions, start::run};
use self::{
    attach::Failure,
    events::{Events, Names},
    groups::Joiner,
    signals::Signals,
    source::{Changes, Source},
};
use crate::{
    control::{Server, StatusRequest},
    datapath::{
        egress::EgressVia,
        maps::Maps,
        object::{LoadOptions, Object, Prepared},
        pins::Pins,
        xdp::{self, Attached, Attempt, WantedAttach, WantedMode},
    },
    decision::{
        burst::{BurstPolicy, Bursts},
        change::Actual,
        fence::FencePolicy,
        plan::{LinkPlan, Plan, VipAt},
    },
    journal::Happening,
    metrics::{self, Counts},
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

/// Where the addresses come from.
#[derive(Clone, Debug)]
pub enum From {
    /// A static file.
    File(PathBuf),
    /// The Services of a cluster.
    Cluster(Box<ClusterOptions>),
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the addresses come from.
    pub from: From,
    /// The pin directory.
    pub bpffs: PathBuf,
    /// Where the control socket is.
    pub run_dir: PathBuf,
    /// Where XDP is to run.
    pub mode: WantedMode,
    /// How programs are to be attached.
    pub attach: WantedAttach,
    /// NICs may be told to leave VLAN tags in received frames.
    pub set_vlan_offload: bool,
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
    /// Metrics and health.
    pub metrics: metrics::Options,
}

impl Options {
    fn load(&self) -> LoadOptions {
        LoadOptions { capacity: self.capacity, log: self.ebpf_log }
    }
}

/// Everything the agent holds.
struct Agent {
    options: Options,
    pins: Pins,
    object: Object,
    maps: Maps,
    sender: PacketSender,
    groups: Joiner,
    source: Source,
    net: Arc<NetState>,
    /// What should be.
    plan: Plan,
    /// What the maps hold.
    actual: Actual,
    /// The XDP program, by device.
    ports: BTreeMap<u32, Result<Attached, Failure>>,
    /// The egress program, by interface.
    egress: BTreeMap<u32, Result<EgressVia, Vec<Attempt>>>,
    /// NICs that go on taking VLAN tags off although they were told not to.
    keep_stripping: BTreeSet<u32>,
    bursts: Bursts<VipAt>,
    /// Something is answered whose burst has not begun.
    behind: bool,
    /// Last announcement of each VIP.
    announced: BTreeMap<VipAt, Duration>,
    /// VIPs that the map still answers for, against the plan.
    overdue: BTreeSet<VipAt>,
    /// VIPs for which the map had no room, and why.
    failed_vips: BTreeMap<VipAt, String>,
    all_multicast: BTreeMap<u32, String>,
    /// VIPs that an earlier agent had answered here, until they are announced.
    kept: BTreeSet<VipAt>,
    /// When the deadline was last extended.
    beaten: Duration,
    journal: broadcast::Sender<Happening>,
    /// What is told there, counted.
    counts: Arc<Counts>,
    started: Duration,
    joined: usize,
    burst_frames: u64,
    burst_errors: u64,
}

impl Agent {
    fn new(
        options: Options,
        (pins, prepared): (Pins, Option<Prepared>),
        source: Source,
        net: Arc<NetState>,
    ) -> Result<Self> {
        let object = Object::load(&pins, options.load(), prepared)?;
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
            counts: Arc::new(Counts::new(matches!(source, Source::Cluster(_)))),
            started: now(),
            pins,
            object,
            maps,
            source,
            net,
            options,
            plan: Plan::default(),
            actual: Actual::default(),
            behind: false,
            ports: BTreeMap::new(),
            egress: BTreeMap::new(),
            keep_stripping: BTreeSet::new(),
            announced: BTreeMap::new(),
            overdue: BTreeSet::new(),
            failed_vips: BTreeMap::new(),
            all_multicast: BTreeMap::new(),
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
        self.actual.links = self.maps.links().map(|(key, _)| (key, None)).collect();
        self.actual.owned = self.maps.owned_slots();
        if boot::now_ns() < self.maps.fence().deadline_ns {
            let owned = self.actual.vips.iter().filter(|(_, slot)| self.actual.owned.contains(slot));
            self.kept = owned.map(|(at, _)| *at).collect();
        }
        // The maps before the deadline: what an earlier agent owned may have been given away since.
        self.begin();
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
        mut changes: Changes,
        server: Server,
        mut net: watch::Receiver<Arc<NetState>>,
        follower: impl Future<Output = Result<(), NetError>>,
    ) -> Result<()> {
        let Signals { mut end, mut hangup } = signals;
        let mut events = Events::open(&self.pins, &mut self.object, self.options.ebpf_log)?;
        let (requests, mut asked) = mpsc::channel::<StatusRequest>(16);
        let _serving = self.serve_metrics(requests.clone());
        let serve = server.serve(requests, self.journal.clone());
        tokio::pin!(serve, follower);
        let mut heartbeat = interval(self.options.fence.interval());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inspection = interval(INSPECTION);
        inspection.set_missed_tick_behavior(MissedTickBehavior::Delay);
        inspection.reset();
        tracing::info!(links = self.plan.interfaces.len(), vips = self.plan.vips.len(), "ready");
        loop {
            self.catch_up();
            self.announce();
            let (burst, turn) = (self.next_announcement(), self.next_turn());
            tokio::select! {
                biased;
                _ = heartbeat.tick() => self.heartbeat(&mut net),
                () = end.recv() => if self.ends_now() { break },
                // Before what may come all the time: changes of objects, and bursts of many VIPs.
                () = sleep_until(turn) => self.take_turn(),
                changed = net.changed() => {
                    changed.context("the kernel's links are not followed any more")?;
                    if self.take_links(&mut net) {
                        self.inspect()?;
                    } else {
                        self.replan();
                    }
                    self.tell_machine_of_objects();
                }
                ended = &mut follower => {
                    ended?;
                    anyhow::bail!("the kernel's links are not followed any more");
                }
                change = changes.next() => self.take_change(change)?,
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
                _ = inspection.tick() => {
                    self.inspect()?;
                    self.tell_machine_of_objects();
                }
                () = sleep_until(burst) => {}
            }
            if self.has_ended() {
                break;
            }
        }
        self.end();
        Ok(())
    }

    /// Takes note of the links as they are now. Says whether the kernel has reported other XDP programs on them.
    fn take_links(&mut self, net: &mut watch::Receiver<Arc<NetState>>) -> bool {
        let now = net.borrow_and_update().clone();
        let mut programs_changed = false;
        let mut changed = Vec::new();
        for (index, link) in &now.links {
            let Some(before) = self.net.links.get(index) else {
                continue;
            };
            if before.has_ipv6() != link.has_ipv6() {
                self.groups.forget(*index); // the kernel has dropped them
            }
            programs_changed |= before.xdp != link.xdp;
            if before != link {
                changed.push(*index);
            }
        }
        self.net = now;
        changed.into_iter().for_each(|index| self.try_again(index));
        programs_changed
    }

    fn tell(&self, happening: Happening) {
        happening.log();
        self.counts.count(&happening);
        self.journal.send(happening).ok(); // nobody may be watching
    }

    /// Name of the interface that a place belongs to.
    fn link_name(&self, place: LinkKey) -> String {
        // One that has just gone is still in the maps.
        let gone = || self.actual.links.get(&place).and_then(Option::as_ref);
        let link = self.plan.links.get(&place).or_else(gone);
        link.map_or_else(|| self.device_name(place.ifindex), |link| link.name.clone())
    }

    fn device_name(&self, index: u32) -> String {
        self.net.links.get(&index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    fn names(&self) -> Names {
        let name = |link: &LinkPlan| (link.interface, link.name.clone());
        self.plan.links.iter().map(|(place, link)| (*place, name(link))).collect()
    }

    /// When something is to be announced. After a lapse that is not before the deadline has been extended, after which
    /// the loop comes here again: a burst that is due and may not be sent would leave no turn to anything else.
    fn next_announcement(&self) -> Instant {
        let at = now();
        let far = Duration::from_secs(3600);
        if at.as_nanos() >= self.maps.fence().deadline_ns.into() {
            return Instant::now() + far;
        }
        if self.behind {
            return Instant::now();
        }
        let wait = self.bursts.next_due(at).map_or(far, |due| due.saturating_sub(at));
        // A far deadline must not overflow the clock.
        Instant::now() + wait.min(far)
    }

    /// Interfaces that the program runs for.
    fn attached(&self) -> BTreeSet<u32> {
        let runs = |device| matches!(self.ports.get(&device), Some(Ok(_)));
        self.plan.interfaces.keys().copied().filter(|index| self.plan.is_attached(*index, runs)).collect()
    }
}

/// CLOCK_BOOTTIME.
fn now() -> Duration {
    Duration::from_nanos(boot::now_ns())
}
