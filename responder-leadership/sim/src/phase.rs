//! What a schedule consists of: faults, calm, quiet, an ending.

use std::time::Duration;

use responder_leadership::event::Event;

use crate::{
    clock::{MS, ns},
    fault::Fault,
    host::Ways,
    setup::Ending,
    world::{Next, Start, World},
};

/// Where a schedule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Things go wrong.
    Faults,
    /// Nothing goes wrong any more; what has gone wrong is repaired.
    Calm,
    /// Nothing may change.
    Quiet,
    /// Agents are replaced; nothing may change.
    InPlace,
    /// A node dies or leaves.
    Loss,
    Over,
}

impl World {
    pub(crate) fn next_phase(&mut self) {
        match self.phase {
            Phase::Faults if !self.profile.recovery => self.phase = Phase::Over,
            Phase::Faults => self.calm_down(),
            Phase::Calm => {
                if let Some(unrest) = self.unrest() {
                    return self
                        .violated(format!("{unrest}, {} ms after the last fault", self.recovery() / MS));
                }
                let after =
                    self.judge.changed_at.saturating_sub(self.setup.faults_end) * 100 / self.recovery();
                self.tally.at_most("percent of the bound until the last change after the faults", after);
                self.begin(Phase::Quiet, self.quiet());
            }
            Phase::Quiet => {
                if let Some(unrest) = self.too_many_renewals(self.quiet()).or_else(|| self.unrest()) {
                    return self.violated(unrest);
                }
                self.end();
            }
            Phase::InPlace => {
                if let Some(unrest) = self.unrest() {
                    return self.violated(unrest);
                }
                if self.held() != self.judge.held {
                    return self.violated("an agent was replaced in place, and claims have changed");
                }
                self.phase = Phase::Over;
            }
            Phase::Loss => self.judge_loss(),
            Phase::Over => {}
        }
    }

    fn begin(&mut self, phase: Phase, ns: u64) {
        self.say(None, || format!("phase: {phase:?}"));
        self.phase = phase;
        let held = self.held();
        self.judge.new_phase(held);
        self.after(ns, Next::Phase);
    }

    /// Ends all faults.
    fn calm_down(&mut self) {
        self.faults = false;
        let spared = self.rng.below(self.hosts.len());
        for host in 0..self.hosts.len() {
            let h = &mut self.hosts[host];
            h.ways = Ways::default();
            let twin = host >= self.setup.nodes.len();
            let wanted = if twin { 200 } else { 850 };
            if host != spared && !self.rng.permille(wanted) {
                self.hosts[host].wanted = false;
                self.die(host);
                continue;
            }
            self.heal(host, Fault::CutWatch);
            self.go_on(host);
            if self.hosts[host].agent.is_none() {
                self.hosts[host].generation += 1;
                let delay = self.rng.within(0, ns(self.setup.longest));
                self.start_later(host, delay, Start::Adopting);
            } else if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.stopping.is_some()) {
                self.die(host);
                self.start_later(host, 0, Start::Adopting);
            }
        }
        self.begin(Phase::Calm, self.recovery());
    }

    /// How long it may take after the last fault until everything is as it should be.
    ///
    /// The longest way: a node that held nothing died, and its Lease was deleted, ….
    fn recovery(&self) -> u64 {
        let idle = self.setup.times.iter().map(|times| times.idle_renew_interval).max().unwrap_or_default();
        let turn = Duration::from_millis(200) * 2 * u32::try_from(self.hosts.len()).unwrap_or(8);
        self.setup.lateness + ns(idle + self.setup.longest * 7 + turn) + 500 * MS
    }

    fn quiet(&self) -> u64 {
        ns(self.setup.longest) * 2
    }

    /// How long it may take until a dead node's VIPs are answered by others.
    fn failover(&self) -> u64 {
        if self.hosts.len() > self.setup.nodes.len() {
            return self.recovery(); // a twin first waits for the name
        }
        let turn = Duration::from_millis(200) * 2 * u32::try_from(self.hosts.len()).unwrap_or(8);
        ns(self.setup.longest * 3 + turn) + 500 * MS
    }

    fn end(&mut self) {
        let running: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host].agent.is_some()).collect();
        if running.is_empty() || self.setup.ending == Ending::Nothing {
            self.phase = Phase::Over;
            return;
        }
        let holders: Vec<usize> =
            running.iter().copied().filter(|host| self.hosts[*host].answering(self.t) != 0).collect();
        let host = *self.rng.pick(if holders.is_empty() { &running } else { &holders });
        // To a new agent a session looks alive until it has seen that it is not renewed.
        let complete = self.hosts.len() == running.len() && self.hosts.len() == self.setup.nodes.len();
        let twins = self.hosts.len() > self.setup.nodes.len();
        match self.setup.ending {
            Ending::Replace | Ending::ReplaceAll if !complete => self.phase = Phase::Over,
            Ending::Nothing => {}
            Ending::Crash => {
                self.begin(Phase::Loss, self.failover());
                // A node's twin takes its place, with everything that follows.
                self.concerned = if twins { u64::MAX / 2 } else { self.claims_of(self.hosts[host].node) };
                self.die(host);
                if self.rng.permille(300) {
                    self.reboot(host);
                }
            }
            Ending::Stop => {
                self.begin(Phase::Loss, self.failover());
                self.concerned = u64::MAX / 2;
                self.stop(host);
            }
            Ending::Replace => {
                self.begin(Phase::InPlace, self.quiet());
                self.die(host);
                self.start(host, Start::Adopting);
            }
            Ending::ReplaceAll => {
                self.begin(Phase::InPlace, self.quiet() + ns(self.setup.longest) * running.len() as u64);
                for (n, host) in running.into_iter().enumerate() {
                    self.after(ns(self.setup.longest) * n as u64, Next::Replace { host });
                }
            }
        }
    }

    /// Tells an agent to stop.
    pub(crate) fn stop(&mut self, host: usize) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.stopping.get_or_insert(self.t);
            self.offer(host, Event::Stop, false);
        }
    }

    fn judge_loss(&mut self) {
        if let Some(unrest) = self.unrest() {
            return self.violated(format!("{unrest}, {} ms after a node was lost", self.failover() / MS));
        }
        if let Some(host) = self.hosts.iter().find(|h| h.agent.as_ref().is_some_and(|a| a.stopping.is_some()))
        {
            return self.violated(format!("{} was told to stop and has not finished", host.label));
        }
        let (writes, most) = (self.judge.writes, self.concerned + 1);
        if writes > most {
            return self.violated(format!("{writes} writes for a failover, at most {most} expected"));
        }
        self.tally.at_most("refused writes in a failover or stop", self.judge.refused);
        self.phase = Phase::Over;
    }
}
