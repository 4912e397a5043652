//! A state of the small cluster.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use responder_leadership::{
    event::{Effect, Eligible, Event, Holdings, Note},
    group::group_of,
    id::{Incarnation, NodeName, Object, Version},
    lease::{Content, Fitness, Reach},
    machine::{Adopted, Machine},
    settings::{Settings, Times},
};

use super::{Action, Bounds};
use crate::api::Api;

pub(super) const LEASE: Duration = Duration::from_secs(1);

/// A state of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cluster {
    pub(super) now: Duration,
    began: Duration,
    first: Option<usize>,
    pub(super) api: Api,
    pub(super) nodes: Vec<Node>,
    /// What happens at once, in this order.
    pub(super) requests: VecDeque<Request>,
    pub(super) responses: VecDeque<(usize, u8, Event)>,
    /// Writes that are executed at some later time.
    pub(super) late: Vec<Request>,
    pub(super) faults: u8,
    pub(super) claims: NonZeroU16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub(super) machine: Option<Machine>,
    /// Which agent: nothing is told that belongs to an earlier one.
    pub(super) generation: u8,
    datapaths: u8,
    incarnation: Option<Incarnation>,
    holdings: Arc<Holdings>,
    pub(super) deadline: Duration,
    /// The next change that the watch tells.
    pub(super) next: usize,
    pub(super) held: bool,
    pub(super) paused: bool,
    /// What has come while it stood still.
    pub(super) inbox: VecDeque<Event>,
    /// Requests that have no response yet, and until when it is waited for.
    pub(super) open: Vec<(u64, Object, Duration)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Request {
    pub(super) node: usize,
    pub(super) generation: u8,
    pub(super) object: Object,
    pub(super) kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    Read { known: Version },
    Write { id: u64, base: Option<Version>, content: Content },
}

pub(super) fn name(node: usize) -> NodeName {
    format!("n{}", node + 1).as_str().into()
}

impl Cluster {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let node = Node {
            machine: None,
            generation: 0,
            datapaths: 0,
            incarnation: None,
            holdings: Arc::default(),
            deadline: Duration::ZERO,
            next: 0,
            held: false,
            paused: false,
            inbox: VecDeque::new(),
            open: Vec::new(),
        };
        let mut cluster = Self {
            now: LEASE * 100,
            began: LEASE * 100,
            first: None,
            api: Api::default(),
            nodes: vec![node; bounds.nodes],
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            late: Vec::new(),
            faults: 0,
            claims: NonZeroU16::new(bounds.claims).unwrap_or(NonZeroU16::MIN),
        };
        for node in 0..bounds.nodes {
            cluster.start(bounds, node);
        }
        if !bounds.cold {
            while cluster.since_begin() < LEASE * 6 {
                cluster.act(bounds, Action::Go);
            }
            cluster.began = cluster.now;
            cluster.api.forget();
            cluster.nodes.iter_mut().for_each(|node| node.next = 0);
        }
        cluster.first = cluster.answerer(0);
        cluster
    }

    pub(super) fn since_begin(&self) -> Duration {
        self.now - self.began
    }

    /// The VIPs. The last one may only be had by the last node.
    #[expect(clippy::unused_self, reason = "there could be others")]
    pub(super) fn vips(&self) -> std::ops::Range<usize> {
        0..3
    }

    fn vip(vip: usize) -> IpAddr {
        IpAddr::from([192, 0, 2, [1, 2, 3][vip]])
    }

    fn demand(&self) -> Event {
        let last = BTreeSet::from([name(self.nodes.len() - 1)]);
        let only = |vip| if vip == 2 { Eligible::Only(Arc::new(last.clone())) } else { Eligible::Any };
        Event::Demand(self.vips().map(|vip| (Self::vip(vip), Some(only(vip)))).collect())
    }

    /// Whether a node answers for a VIP.
    fn answers(&self, node: &Node, vip: usize) -> bool {
        let vip = Self::vip(vip);
        let group = group_of(vip, self.claims);
        let silent = node.holdings.silent.get(&group).is_some_and(|silent| silent.contains(&vip));
        self.now < node.deadline
            && (node.holdings.exceptions.contains(&vip) || (node.holdings.groups.contains(&group) && !silent))
    }

    pub(super) fn answerer(&self, vip: usize) -> Option<usize> {
        self.nodes.iter().position(|node| self.answers(node, vip))
    }

    pub(super) fn first_answerer(&self) -> Option<usize> {
        self.first
    }

    pub(super) fn answered_once(&self) -> bool {
        self.vips().all(|vip| self.nodes.iter().filter(|node| self.answers(node, vip)).count() <= 1)
    }

    /// Starts an agent, and tells it what is there.
    pub(super) fn start(&mut self, bounds: &Bounds, node: usize) {
        let (now, claims) = (self.now, self.claims);
        let answered: BTreeSet<IpAddr> = {
            let lit = Node { deadline: Duration::MAX, ..self.nodes[node].clone() };
            self.vips().filter(|vip| self.answers(&lit, *vip)).map(Self::vip).collect()
        };
        let n = &mut self.nodes[node];
        n.datapaths = n.datapaths.max(1);
        let settings = Settings {
            node: name(node),
            datapath: format!("{node}-{}", n.datapaths),
            claims,
            longest: LEASE,
            times: Times::of(LEASE),
            seed: 1 + node as u64,
            wall: (1_763_733_600_000, Duration::ZERO),
        };
        let groups = n.holdings.groups.clone();
        let adopted = n.incarnation.map(|incarnation| Adopted { incarnation, groups, vips: answered });
        let machine = Machine::new(settings, adopted);
        #[cfg(feature = "flaws")]
        let machine = match bounds.flaw {
            Some(flaw) => machine.with_flaw(flaw),
            None => machine,
        };
        n.machine = Some(machine);
        n.generation += 1;
        self.tell(node, Event::Local { fitness: Fitness::Fit, reach: Reach::Any });
        self.tell(node, Event::Expected((0..bounds.nodes).map(name).collect()));
        self.tell(node, self.demand());
        let list = self.api.list();
        self.nodes[node].next = self.api.after(list.version);
        for (object, version, stored) in &list.objects {
            let via = responder_leadership::event::Via::List;
            self.tell(node, crate::api::told(object, *version, Some(stored), via));
        }
        self.tell(node, Event::Synced { listed_at: now });
    }

    /// An agent dies; what was on its way to it is lost, what was on its way from it is not.
    pub(super) fn kill(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.machine = None;
        n.held = false;
        n.paused = false;
        n.inbox.clear();
        n.open.clear();
    }

    pub(super) fn reboot(&mut self, node: usize) {
        self.kill(node);
        let n = &mut self.nodes[node];
        n.datapaths += 1;
        n.incarnation = None;
        n.holdings = Arc::default();
        n.deadline = Duration::ZERO;
    }

    /// Tells a node's machine something, and does what it wants.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.paused {
            return n.inbox.push_back(event);
        }
        let Some(machine) = &mut n.machine else { return };
        for effect in machine.handle(now, event) {
            self.perform(node, effect);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let timeout = self.now + Times::of(LEASE).request_timeout();
        let n = &mut self.nodes[node];
        let generation = n.generation;
        match effect {
            Effect::Answer(holdings) => n.holdings = holdings,
            Effect::Deadline(deadline) => n.deadline = deadline,
            Effect::DeadlineAtMost(deadline) => n.deadline = n.deadline.min(deadline),
            Effect::Write { id, object, base, content, renewal: _ } => {
                n.open.push((id, object.clone(), timeout));
                let kind = Kind::Write { id, base, content };
                self.requests.push_back(Request { node, generation, object, kind });
            }
            Effect::Read { object, known } => {
                n.open.push((0, object.clone(), timeout));
                self.requests.push_back(Request { node, generation, object, kind: Kind::Read { known } });
            }
            Effect::Tell(Note::SessionStarted { incarnation } | Note::SessionAdopted { incarnation }) => {
                n.incarnation = Some(incarnation);
            }
            Effect::Tell(_) => {}
            Effect::Finished => n.machine = None,
        }
    }
}
