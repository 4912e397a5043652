//! Agents: they start, are told things, do what their machines decide, stop and die.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use responder_leadership::{
    event::{Effect, Event, Holdings, Note},
    id::NodeName,
    lease::{Fitness, Reach},
    machine::{Adopted, Machine},
    settings::Settings,
};

use crate::{
    clock::{Clock, MS, ns},
    fault::Fault,
    host::{Agent, Host, Maps, Watch, Ways},
    setup::{draw_fitness, draw_reach},
    tally,
    world::{Next, Start, World},
};

/// What a machine is woken at one instant at most.
const SPINS: u32 = 50;

impl World {
    /// The cluster at the beginning.
    pub(crate) fn furnish(&mut self) {
        for _ in 0..self.setup.vips.len() {
            let wanted = self.rng.permille(850);
            let eligible = self.setup.draw_eligible(&mut self.rng);
            self.demand.push(wanted.then_some(eligible));
        }
        for node in 0..self.setup.nodes.len() {
            let host = self.add_host(node, self.setup.nodes[node].to_string());
            let delay = *self.rng.pick(&[0, 0, ns(self.setup.longest) / 4, ns(self.setup.longest) * 3]);
            let delay = self.rng.within(0, delay);
            self.after(delay, Next::Start { host, generation: 0, how: Start::Booted });
        }
        self.at(self.setup.faults_end, Next::Phase);
        let pace = self.rng.within(0, 2 * self.setup.pace);
        self.after(pace, Next::Fault);
    }

    /// A host, still without an agent.
    pub(crate) fn add_host(&mut self, node: usize, label: String) -> usize {
        let skewed = self.setup.faults.has(Fault::Skew);
        let ppm = if skewed { *self.rng.pick(&[-20_000, -5_000, 0, 5_000, 20_000]) } else { 0 };
        let wall = if self.setup.faults.has(Fault::Wall) { self.rng.within(0, 20_000) } else { 0 };
        let changeable = self.setup.faults.has(Fault::Local);
        self.hosts.push(Host {
            node,
            label,
            clock: Clock { base: self.rng.within(1, 1_000_000) * MS, since: self.t, ppm },
            wall: 1_763_733_600_000 + wall + self.t / MS,
            times: self.setup.times[node],
            maps: None,
            datapaths: 0,
            agent: None,
            generation: 0,
            paused: false,
            ways: Ways::default(),
            fitness: if changeable { draw_fitness(&mut self.rng) } else { Fitness::Fit },
            reach: if changeable { draw_reach(&mut self.rng) } else { Reach::Any },
            services_at: 0,
            wanted: true,
        });
        self.hosts.len() - 1
    }

    /// Starts an agent.
    pub(crate) fn start(&mut self, host: usize, how: Start) {
        let now = self.hosts[host].clock.local(self.t);
        let seed = self.rng.next();
        let h = &mut self.hosts[host];
        if h.maps.is_none() {
            h.datapaths += 1;
            h.maps = Some(Maps::new(format!("{}-{}", h.label, h.datapaths)));
        }
        let Some(maps) = &h.maps else { return };
        let answered = self.setup.vips.iter().enumerate().filter(|(n, _)| maps.on & 1 << n != 0);
        let adopted = maps.incarnation.map(|incarnation| Adopted {
            incarnation,
            groups: maps.holdings.groups.clone(),
            vips: answered.map(|(_, vip)| *vip).collect(),
        });
        let settings = Settings {
            node: self.setup.nodes[h.node].clone(),
            datapath: maps.datapath.clone(),
            claims: self.setup.claims,
            longest: self.setup.longest,
            times: h.times,
            seed,
            wall: (h.wall + (self.t - h.clock.since) / MS, now),
        };
        h.generation += 1;
        h.paused = false;
        let generation = h.generation;
        let machine = Machine::new(settings, adopted);
        #[cfg(feature = "flaws")]
        let machine = match self.flaw {
            Some(flaw) => machine.with_flaw(flaw),
            None => machine,
        };
        h.agent = Some(Agent {
            machine,
            effects: VecDeque::new(),
            backlog: VecDeque::new(),
            told: BTreeMap::new(),
            watch: Watch::default(),
            wake: None,
            spun: (0, 0),
            stopping: None,
        });
        self.say(Some(host), || format!("agent starts ({how:?}, {:?})", self.hosts[host].maps));
        let mut first = vec![self.local(host), self.expected()];
        if self.rng.permille(200) {
            first.push(Event::Longest(self.setup.longest));
        }
        // Services are known before the first list of Leases is told.
        first.push(self.demand_now());
        for event in first {
            self.offer(host, event, false);
        }
        let delay = self.rng.within(0, 10 * MS);
        self.after(delay, Next::Relist { host, generation, stream: 0 });
    }

    pub(crate) fn local(&self, host: usize) -> Event {
        let host = &self.hosts[host];
        Event::Local { fitness: host.fitness.clone(), reach: host.reach.clone() }
    }

    fn expected(&mut self) -> Event {
        let mut nodes: BTreeSet<NodeName> = self.setup.nodes.iter().cloned().collect();
        if self.setup.faults.has(Fault::Expect) {
            nodes.insert("n9".into());
            if self.rng.permille(300) {
                nodes.remove(self.rng.pick(&self.setup.nodes));
            }
        }
        Event::Expected(nodes)
    }

    fn demand_now(&self) -> Event {
        let wanted = self.setup.vips.iter().zip(&self.demand);
        Event::Demand(wanted.filter_map(|(vip, e)| e.clone().map(|e| (*vip, Some(e)))).collect())
    }

    /// Tells an agent something as soon as it can hear it.
    pub(crate) fn offer(&mut self, host: usize, event: Event, by_watch: bool) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.backlog.push_back((event, by_watch));
        self.pump(host);
    }

    /// Does what there is to do for an agent.
    pub(crate) fn pump(&mut self, host: usize) {
        loop {
            let h = &mut self.hosts[host];
            if h.paused || self.violation.is_some() {
                return;
            }
            let Some(agent) = &mut h.agent else { return };
            if let Some(effect) = agent.effects.pop_front() {
                if self.interrupted(host, &effect) {
                    return;
                }
                self.perform(host, effect);
            } else if let Some((event, _)) = agent.backlog.pop_front() {
                let now = h.clock.local(self.t);
                self.tally.count(tally::event(&event));
                if self.trace {
                    self.say(Some(host), || format!("<- {event:?}"));
                }
                let Some(agent) = &mut self.hosts[host].agent else { return };
                agent.effects.extend(agent.machine.handle(now, event));
            } else {
                break;
            }
        }
        self.rearm(host);
    }

    /// Whether an agent is stopped or dies before this effect, or in its middle.
    fn interrupted(&mut self, host: usize, effect: &Effect) -> bool {
        if !self.faults || !self.rng.permille(self.setup.rates.interrupted) {
            return false;
        }
        if matches!(effect, Effect::Tell(_)) {
            return false;
        }
        if let Effect::Answer(holdings) = effect
            && self.rng.permille(500)
        {
            // What is lost was written, what is gained was not.
            let old = self.hosts[host].maps.as_ref().map(|maps| Arc::clone(&maps.holdings));
            let between = remaining(&old.unwrap_or_default(), holdings);
            self.say(Some(host), || format!("interrupted within {effect:?}"));
            self.answer(host, Arc::new(between));
        } else {
            self.say(Some(host), || format!("interrupted before {effect:?}"));
        }
        let long = ns(self.setup.longest);
        if self.rng.permille(600) {
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.effects.push_front(effect.clone());
            }
            let pause = *self.rng.pick(&[long / 10, long, long * 3]);
            let pause = self.rng.within(0, pause);
            self.pause(host, pause);
        } else {
            self.die(host);
            let delay = *self.rng.pick(&[0, long / 4, long * 3]);
            let delay = self.rng.within(0, delay);
            self.start_later(host, delay, Start::Adopting);
        }
        true
    }

    fn perform(&mut self, host: usize, effect: Effect) {
        self.tally.count(tally::effect(&effect));
        if self.trace {
            self.say(Some(host), || format!("   -> {effect:?}"));
        }
        match effect {
            Effect::Answer(holdings) => self.answer(host, holdings),
            Effect::Deadline(deadline) => self.deadline(host, |_| deadline),
            Effect::DeadlineAtMost(deadline) => self.deadline(host, |old| old.min(deadline)),
            Effect::Write { id, object, base, content, renewal: _ } => {
                self.write(host, id, object, base, content);
            }
            Effect::Read { object, known } => self.read(host, object, known),
            Effect::Tell(note) => self.note(host, &note),
            Effect::Finished => self.finished(host),
        }
    }

    fn answer(&mut self, host: usize, holdings: Arc<Holdings>) {
        let on = self.bits(&holdings);
        let Some(maps) = &mut self.hosts[host].maps else { return };
        maps.holdings = holdings;
        maps.on = on;
        self.judge_datapath(host, false);
    }

    /// What a datapath answers for.
    fn bits(&self, holdings: &Holdings) -> u64 {
        let bit = |vip| self.vips.get(vip).copied().unwrap_or_default();
        let mut on = 0;
        for group in &holdings.groups {
            let silent = holdings.silent.get(group).map_or(0, |vips| vips.iter().map(bit).sum());
            on |= self.members.get(usize::from(*group)).copied().unwrap_or_default() & !silent;
        }
        on | holdings.exceptions.iter().map(bit).fold(0, |all, one| all | one)
    }

    fn deadline(&mut self, host: usize, change: impl FnOnce(Duration) -> Duration) {
        let h = &mut self.hosts[host];
        let Some(maps) = &mut h.maps else { return };
        let was_dark = maps.until <= self.t;
        maps.deadline = change(maps.deadline);
        maps.until = h.clock.instant(maps.deadline);
        self.judge_datapath(host, was_dark);
    }

    fn note(&mut self, host: usize, note: &Note) {
        if *note == Note::WatchStale {
            self.break_watch(host);
        }
        if let Note::SessionStarted { incarnation } | Note::SessionAdopted { incarnation } = note
            && let Some(maps) = &mut self.hosts[host].maps
        {
            maps.incarnation = Some(*incarnation);
        }
    }

    fn finished(&mut self, host: usize) {
        let stopping = self.hosts[host].agent.as_ref().and_then(|agent| agent.stopping);
        let Some(since) = stopping else { return self.violated("an agent ends that was not told to") };
        self.tally.at_most("ms from Stop to Finished", (self.t - since) / MS);
        let h = &mut self.hosts[host];
        h.agent = None;
        let on = h.answering(self.t);
        h.maps = None;
        if on != 0 {
            self.violated(format!("{} has finished and still answers", self.hosts[host].label));
        }
        let generation = self.hosts[host].generation;
        if self.faults {
            let delay = self.rng.within(0, ns(self.setup.longest));
            self.after(delay, Next::Start { host, generation, how: Start::Adopting });
        }
    }

    /// Schedules the next tick.
    fn rearm(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(agent) = &mut h.agent else { return };
        let Some(wake) = agent.machine.next_wake() else { return };
        let at = h.clock.instant(wake).max(self.t);
        if agent.wake.is_none_or(|scheduled| scheduled > at || scheduled < self.t) {
            agent.wake = Some(at);
            let generation = h.generation;
            self.at(at, Next::Wake { host, generation });
        }
    }

    pub(crate) fn wake(&mut self, host: usize, generation: u32) {
        let h = &mut self.hosts[host];
        if h.generation != generation {
            return;
        }
        let Some(agent) = &mut h.agent else { return };
        if agent.wake == Some(self.t) {
            agent.wake = None;
        }
        let now = h.clock.local(self.t);
        if h.paused || agent.machine.next_wake().is_none_or(|wake| wake > now) {
            return if h.paused { () } else { self.rearm(host) };
        }
        if agent.spun.0 == self.t {
            agent.spun.1 += 1;
            if agent.spun.1 > SPINS {
                return self
                    .violated(format!("{} wants to be woken again and again", self.hosts[host].label));
            }
        } else {
            agent.spun = (self.t, 1);
        }
        self.offer(host, Event::Tick, false);
    }

    pub(crate) fn pause(&mut self, host: usize, ns: u64) {
        self.say(Some(host), || "stopped (SIGSTOP)".to_owned());
        self.hosts[host].paused = true;
        self.after(ns, Next::Continue { host });
    }

    pub(crate) fn go_on(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        self.say(Some(host), || "continued (SIGCONT)".to_owned());
        self.hosts[host].paused = false;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        // Which source is read first is chance; each stays in order.
        let mut sources = [const { VecDeque::new() }; 3];
        for (event, by_watch) in std::mem::take(&mut agent.backlog) {
            sources[source(&event, by_watch)].push_back((event, by_watch));
        }
        if agent.machine.next_wake().is_some() && self.rng.permille(500) {
            sources[ANSWERS].push_back((Event::Tick, false));
        }
        while sources.iter().any(|source| !source.is_empty()) {
            let next = self.rng.below(sources.len());
            agent.backlog.extend(sources[next].pop_front());
        }
        self.pump(host);
    }

    /// An agent dies; its datapath stays.
    pub(crate) fn die(&mut self, host: usize) {
        self.say(Some(host), || "agent dies".to_owned());
        let h = &mut self.hosts[host];
        h.agent = None;
        h.paused = false;
        h.generation += 1;
    }

    pub(crate) fn start_later(&mut self, host: usize, ns: u64, how: Start) {
        let generation = self.hosts[host].generation;
        self.after(ns, Next::Start { host, generation, how });
    }
}

const WATCH: usize = 0;
const NEWS: usize = 1;
const ANSWERS: usize = 2;

/// Where an agent reads an event.
fn source(event: &Event, by_watch: bool) -> usize {
    match event {
        _ if by_watch => WATCH,
        Event::Demand(_)
        | Event::Local { .. }
        | Event::Expected(_)
        | Event::Longest(_)
        | Event::Move { .. }
        | Event::Stop => NEWS,
        Event::Session { .. }
        | Event::Claim { .. }
        | Event::Synced { .. }
        | Event::Written { .. }
        | Event::Unread { .. }
        | Event::Tick => ANSWERS,
    }
}

/// What is left when what is lost has been taken out, and nothing put in.
fn remaining(old: &Holdings, new: &Holdings) -> Holdings {
    let mut between = Holdings {
        groups: old.groups.intersection(&new.groups).copied().collect(),
        exceptions: old.exceptions.intersection(&new.exceptions).copied().collect(),
        silent: old.silent.clone(),
    };
    for (group, vips) in &new.silent {
        let silent = between.silent.entry(*group).or_default();
        *silent = Arc::new(silent.union(vips).copied().collect());
    }
    between
}
