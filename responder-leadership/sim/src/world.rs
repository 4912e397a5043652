//! The simulation itself: what happens next.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    net::IpAddr,
};

use responder_leadership::event::{Eligible, Event};

use crate::{
    api::{Api, List},
    clock::Instant,
    fault::Fault,
    host::Host,
    judge::Judge,
    phase::Phase,
    request::Request,
    rng::Rng,
    setup::{Profile, Setup},
    tally::Tally,
};

/// What a schedule has shown that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// When, in ns since the beginning.
    pub at: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.6} s: {}", self.at as f64 / 1e9, self.what)
    }
}

/// How an agent starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// With the maps that are there, if any.
    Adopting,
    /// On a host that has started anew.
    Booted,
}

/// What is going to happen.
#[derive(Debug)]
pub(crate) enum Next {
    Wake { host: usize, generation: u32 },
    Arrive(usize),
    Respond(usize),
    Expire(usize),
    Send { host: usize, generation: u32, stream: u32, index: usize },
    Again { host: usize, generation: u32, index: usize },
    Relist { host: usize, generation: u32, stream: u32 },
    Listed { host: usize, generation: u32, stream: u32, listed_at: std::time::Duration },
    List { host: usize, generation: u32, stream: u32, listed_at: std::time::Duration, list: Box<List> },
    Offer { host: usize, generation: u32, event: Box<Event> },
    Kill { host: usize, generation: u32 },
    Replace { host: usize },
    Start { host: usize, generation: u32, how: Start },
    Continue { host: usize },
    Heal { host: usize, fault: Fault },
    Fault,
    Phase,
}

/// One schedule, running.
pub(crate) struct World {
    pub(crate) t: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    slots: Vec<Option<Next>>,
    free: Vec<usize>,
    sequence: u64,
    pub(crate) rng: Rng,
    pub(crate) setup: Setup,
    pub(crate) profile: Profile,
    pub(crate) api: Api,
    pub(crate) hosts: Vec<Host>,
    pub(crate) requests: Vec<Request>,
    /// Which nodes each VIP may have; `None`: nobody wants it.
    pub(crate) demand: Vec<Option<Eligible>>,
    /// The VIPs by address and, as bits, by group.
    pub(crate) vips: BTreeMap<IpAddr, u64>,
    pub(crate) members: Vec<u64>,
    /// Whether things still go wrong.
    pub(crate) faults: bool,
    pub(crate) phase: Phase,
    pub(crate) judge: Judge,
    pub(crate) tally: Tally,
    #[cfg(feature = "flaws")]
    pub(crate) flaw: Option<responder_leadership::flaw::Flaw>,
    /// How many claims name the node that was lost.
    pub(crate) concerned: u64,
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, profile: &Profile, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::draw(profile, &mut rng);
        let vips = setup.vips.iter().enumerate().map(|(n, vip)| (*vip, 1 << n)).collect();
        let mut members = vec![0; setup.claims.get().into()];
        for vip in 0..setup.vips.len() {
            members[usize::from(setup.group_of(vip))] |= 1 << vip;
        }
        let mut world = Self {
            t: 0,
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            demand: Vec::new(),
            vips,
            members,
            api: Api::default(),
            hosts: Vec::new(),
            requests: Vec::new(),
            faults: true,
            phase: Phase::Faults,
            judge: Judge::default(),
            tally: Tally::default(),
            #[cfg(feature = "flaws")]
            flaw: None,
            concerned: 0,
            violation: None,
            profile: *profile,
            setup,
            rng,
            trace,
        };
        world.furnish();
        world
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        while self.violation.is_none() && self.phase != Phase::Over {
            let Some(Reverse((t, _, slot))) = self.queue.pop() else {
                return self.violated("nothing happens any more");
            };
            self.t = t;
            self.free.push(slot);
            if let Some(next) = self.slots[slot].take() {
                self.happen(next);
            }
        }
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Wake { host, generation } => self.wake(host, generation),
            Next::Arrive(request) => self.arrive(request),
            Next::Respond(request) => self.respond(request),
            Next::Expire(request) => self.expire(request),
            Next::Send { host, generation, stream, index } => self.deliver(host, generation, stream, index),
            Next::Again { host, generation, index } => self.repeat(host, generation, index),
            Next::Relist { host, generation, stream } => self.relist(host, generation, stream),
            Next::Listed { host, generation, stream, listed_at } => {
                self.listed(host, generation, stream, listed_at);
            }
            Next::List { host, generation, stream, listed_at, list } => {
                self.list(host, generation, stream, listed_at, &list);
            }
            Next::Offer { host, generation, event } => {
                if self.hosts[host].generation == generation {
                    self.offer(host, *event, false);
                }
            }
            Next::Kill { host, generation } => {
                if self.hosts[host].generation == generation
                    && self.hosts[host].agent.is_some()
                    && self.faults
                {
                    self.die(host);
                    self.start_later(host, 0, Start::Adopting);
                }
            }
            Next::Replace { host } => self.replace(host),
            Next::Start { host, generation, how } => {
                if self.hosts[host].generation == generation && self.hosts[host].agent.is_none() {
                    self.start(host, how);
                }
            }
            Next::Continue { host } => self.go_on(host),
            Next::Heal { host, fault } => self.heal(host, fault),
            Next::Fault => self.fault(),
            Next::Phase => self.next_phase(),
        }
    }

    pub(crate) fn at(&mut self, t: Instant, next: Next) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(next);
        self.sequence += 1;
        self.queue.push(Reverse((t.max(self.t), self.sequence, slot)));
    }

    /// In so many ns.
    pub(crate) fn after(&mut self, ns: u64, next: Next) {
        self.at(self.t + ns, next);
    }

    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            let violation = Violation { at: self.t, what: what.into() };
            if self.trace {
                for host in &self.hosts {
                    println!(
                        "{} at the end: {:#?}",
                        host.label,
                        host.agent.as_ref().map(|agent| &agent.machine)
                    );
                }
                println!("VIOLATION {violation}");
            }
            self.violation = Some(violation);
        }
    }

    /// Says what happens, to whom wants to read it.
    pub(crate) fn say(&self, host: Option<usize>, what: impl FnOnce() -> String) {
        if self.trace {
            let label = host.map_or("-", |host| &self.hosts[host].label);
            let (s, us) = (self.t / 1_000_000_000, self.t / 1_000 % 1_000_000);
            println!("{s:3}.{us:06} {label:4} {}", what());
        }
    }
}
