//! The stream of changes that each agent follows.

use std::{sync::Arc, time::Duration};

use responder_leadership::{
    event::{Event, Via},
    id::{Object, Version},
};

use crate::{
    api::{List, Stored, told},
    clock::MS,
    world::{Next, World},
};

impl World {
    /// Sends what is new to all who follow.
    pub(crate) fn spread(&mut self) {
        for host in 0..self.hosts.len() {
            self.send_changes(host);
        }
    }

    fn send_changes(&mut self, host: usize) {
        let end = self.api.log().len();
        loop {
            let h = &mut self.hosts[host];
            let (generation, more) = (h.generation, h.ways.lag);
            let Some(agent) = &mut h.agent else { return };
            if !agent.watch.follows || agent.watch.next >= end {
                return;
            }
            let delay = self.rng.within(self.setup.lag.0, self.setup.lag.1) + self.rng.within(0, more);
            let at = (self.t + delay).max(agent.watch.last);
            agent.watch.last = at;
            let (stream, index) = (agent.watch.stream, agent.watch.next);
            agent.watch.next += 1;
            self.at(at, Next::Send { host, generation, stream, index });
        }
    }

    /// A change arrives.
    pub(crate) fn deliver(&mut self, host: usize, generation: u32, stream: u32, index: usize) {
        let h = &mut self.hosts[host];
        let Some(agent) = &mut h.agent else { return };
        if h.generation != generation || agent.watch.stream != stream {
            return;
        }
        if h.ways.watch {
            agent.watch.stalled.push_back(index);
            return;
        }
        self.tell_change(host, index);
        if self.faults && self.rng.permille(self.setup.rates.repeated) {
            let index = self.rng.within(index.saturating_sub(20) as u64, index as u64);
            let delay = *self.rng.pick(&[0, 10 * MS, 1000 * MS]);
            let delay = self.rng.within(0, delay);
            #[expect(clippy::cast_possible_truncation, reason = "a position in a list")]
            self.after(delay, Next::Again { host, generation, index: index as usize });
        }
    }

    fn tell_change(&mut self, host: usize, index: usize) {
        let change = self.api.log()[index].clone();
        self.tell_object(host, &change.object, change.version, change.now.as_deref(), Via::Watch);
    }

    fn tell_object(
        &mut self,
        host: usize,
        object: &Object,
        version: Version,
        stored: Option<&Stored>,
        via: Via,
    ) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let known = agent.told.entry(object.clone()).or_default();
        *known = version.max(*known);
        self.offer(host, told(object, version, stored, via), true);
    }

    /// An old change is told again.
    pub(crate) fn repeat(&mut self, host: usize, generation: u32, index: usize) {
        if self.hosts[host].generation == generation {
            self.tally.count("watch: old change told again");
            self.tell_change(host, index);
        }
    }

    /// The watch ends; the agent will list.
    pub(crate) fn break_watch(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let generation = h.generation;
        let Some(agent) = &mut h.agent else { return };
        agent.watch.follows = false;
        agent.watch.stalled.clear();
        agent.watch.stream += 1;
        let stream = agent.watch.stream;
        self.say(Some(host), || "watch ends".to_owned());
        self.list_soon(host, generation, stream);
    }

    fn list_soon(&mut self, host: usize, generation: u32, stream: u32) {
        let delay = self.rng.within(5 * MS, 100 * MS);
        self.after(delay, Next::Relist { host, generation, stream });
    }

    fn is_current(&self, host: usize, generation: u32, stream: u32) -> bool {
        let h = &self.hosts[host];
        h.generation == generation && h.agent.as_ref().is_some_and(|agent| agent.watch.stream == stream)
    }

    /// The agent asks for a list.
    pub(crate) fn relist(&mut self, host: usize, generation: u32, stream: u32) {
        if !self.is_current(host, generation, stream) {
            return;
        }
        if self.hosts[host].paused {
            return self.list_soon(host, generation, stream);
        }
        let listed_at = self.hosts[host].clock.local(self.t);
        let delay = self.rng.within(self.setup.latency.0, self.setup.latency.1);
        let delay = delay + self.rng.within(0, self.hosts[host].ways.slow);
        self.after(delay, Next::Listed { host, generation, stream, listed_at });
    }

    /// The server makes the list.
    pub(crate) fn listed(&mut self, host: usize, generation: u32, stream: u32, listed_at: Duration) {
        if !self.is_current(host, generation, stream) {
            return;
        }
        let ways = self.hosts[host].ways;
        if ways.requests || ways.watch {
            return self.list_soon(host, generation, stream);
        }
        let list = Box::new(self.api.list());
        let delay = self.rng.within(self.setup.latency.0, self.setup.latency.1);
        let delay = delay + self.rng.within(0, ways.slow.max(ways.lag));
        self.after(delay, Next::List { host, generation, stream, listed_at, list });
    }

    /// The list arrives.
    pub(crate) fn list(
        &mut self,
        host: usize,
        generation: u32,
        stream: u32,
        listed_at: Duration,
        list: &List,
    ) {
        if !self.is_current(host, generation, stream) {
            return;
        }
        if self.hosts[host].ways.responses || self.hosts[host].ways.watch {
            return self.list_soon(host, generation, stream);
        }
        self.say(Some(host), || format!("list at {:?}", list.version));
        let next = self.api.after(list.version);
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.watch.follows = true;
            agent.watch.next = next;
            agent.watch.last = self.t;
        }
        let there = |object: &Object| list.objects.binary_search_by(|(o, _, _)| o.cmp(object)).is_ok();
        let Some(agent) = &self.hosts[host].agent else { return };
        let gone: Vec<(Object, Version)> = agent
            .told
            .iter()
            .filter(|(object, version)| **version <= list.version && !there(object))
            .map(|(object, version)| (object.clone(), *version))
            .collect();
        for (object, version, stored) in &list.objects {
            let stored = Arc::clone(stored);
            self.tell_object(host, object, *version, Some(&stored), Via::List);
        }
        for (object, version) in gone {
            self.tell_object(host, &object, version, None, Via::List);
        }
        self.offer(host, Event::Synced { listed_at }, true);
        // The agent may have died of what it was told.
        if self.is_current(host, generation, stream) {
            self.send_changes(host);
        }
    }
}
