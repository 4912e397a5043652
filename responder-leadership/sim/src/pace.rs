//! When agents do something: woken in time, stopped, continued.

use std::collections::VecDeque;

use responder_leadership::event::Event;

use crate::world::{Next, World};

/// What a machine is woken at one instant at most.
const SPINS: u32 = 50;

impl World {
    /// Schedules the next tick.
    pub(crate) fn rearm(&mut self, host: usize) {
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
            if !h.paused {
                self.rearm(host);
            }
            return;
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
