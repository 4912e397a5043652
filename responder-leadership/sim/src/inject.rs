//! Sudden faults: what goes wrong, and how it is repaired.

use responder_leadership::{event::Event, id::Object};

use crate::{
    api::Stored,
    clock::{Clock, MS, ns},
    fault::Fault,
    setup::{draw_fitness, draw_reach},
    world::{Next, Start, World},
};

impl World {
    /// Something goes wrong, and later something else.
    pub(crate) fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let pace = self.rng.within(1, 2 * self.setup.pace);
        self.after(pace, Next::Fault);
        if self.setup.sudden.is_empty() {
            return;
        }
        let fault = *self.rng.pick(&self.setup.sudden);
        let host = self.rng.below(self.hosts.len());
        let long = ns(self.setup.longest);
        let most = *self.rng.pick(&[long / 5, long, long * 2, long * 5]);
        let span = self.rng.within(1, most);
        self.tally.count(name(fault));
        self.say(Some(host), || format!("FAULT {fault:?}, if for a while, for {} ms", span / MS));
        match fault {
            Fault::Pause if !self.hosts[host].paused => self.pause(host, span),
            Fault::Kill => self.kill(host, span),
            Fault::Replace => self.replace(host),
            Fault::Reboot => {
                self.die(host);
                self.reboot(host);
                self.start_later(host, span, Start::Booted);
            }
            Fault::Restart => {
                self.stop(host);
                // As an orchestrator does it that has waited long enough.
                let generation = self.hosts[host].generation;
                self.after(span + long * 3, Next::Kill { host, generation });
            }
            Fault::Cut | Fault::CutOut | Fault::CutBack | Fault::CutWatch => {
                let ways = &mut self.hosts[host].ways;
                ways.requests |= matches!(fault, Fault::Cut | Fault::CutOut);
                ways.responses |= matches!(fault, Fault::Cut | Fault::CutBack);
                ways.watch |= matches!(fault, Fault::Cut | Fault::CutBack | Fault::CutWatch);
                self.after(span, Next::Heal { host, fault });
            }
            Fault::BreakWatch => self.break_watch(host),
            Fault::SlowApi => {
                let slow = *self.rng.pick(&[long / 10, long / 5, long * 2]);
                self.hosts[host].ways.slow = self.rng.within(0, slow);
                self.after(span, Next::Heal { host, fault });
            }
            Fault::SlowWatch => {
                self.hosts[host].ways.lag = self.rng.within(0, long * 2);
                self.after(span, Next::Heal { host, fault });
            }
            Fault::Twin => self.twin(host, span),
            Fault::EditClaim
            | Fault::EditSession
            | Fault::DeleteClaim
            | Fault::DeleteSession
            | Fault::DeleteAll
            | Fault::Touch => self.meddle(fault),
            Fault::Demand => self.change_demand(),
            Fault::Local => {
                self.hosts[host].fitness = draw_fitness(&mut self.rng);
                if self.rng.permille(500) {
                    self.hosts[host].reach = draw_reach(&mut self.rng);
                }
                let event = self.local(host);
                self.offer(host, event, false);
            }
            Fault::Move => {
                let group = self.rng.below(self.setup.claims.get().into());
                let group = u16::try_from(group).unwrap_or_default();
                let to = self.rng.pick(&self.setup.nodes).clone();
                for host in 0..self.hosts.len() {
                    self.offer(host, Event::Move { group, to: to.clone() }, false);
                }
            }
            Fault::Pause
            | Fault::Interrupt
            | Fault::LoseRequests
            | Fault::LoseResponses
            | Fault::Late
            | Fault::Refuse
            | Fault::Fail
            | Fault::Repeat
            | Fault::Skew
            | Fault::MixedLeases
            | Fault::Expect
            | Fault::Wall => {}
        }
    }

    pub(crate) fn heal(&mut self, host: usize, fault: Fault) {
        self.say(Some(host), || format!("{fault:?} is over"));
        let ways = &mut self.hosts[host].ways;
        match fault {
            Fault::SlowApi => ways.slow = 0,
            Fault::SlowWatch => ways.lag = 0,
            Fault::CutOut => ways.requests = false,
            _ => {
                ways.requests &= fault == Fault::CutWatch || fault == Fault::CutBack;
                ways.responses &= fault == Fault::CutWatch;
                ways.watch = false;
            }
        }
        if self.hosts[host].ways.watch {
            return;
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.watch.stalled.is_empty() {
            return;
        }
        // Either the connection has survived, or not.
        if self.rng.permille(500) {
            return self.break_watch(host);
        }
        let stalled = std::mem::take(&mut agent.watch.stalled);
        let stream = agent.watch.stream;
        let generation = self.hosts[host].generation;
        for index in stalled {
            self.deliver(host, generation, stream, index);
        }
    }

    fn kill(&mut self, host: usize, span: u64) {
        self.die(host);
        let delay = if self.rng.permille(300) { 0 } else { span };
        self.start_later(host, delay, Start::Adopting);
    }

    /// The successor has waited for its predecessor's end.
    pub(crate) fn replace(&mut self, host: usize) {
        if self.hosts[host].agent.is_some() {
            self.die(host);
            self.start(host, Start::Adopting);
        }
    }

    /// The maps are gone, and the boot clock begins again.
    pub(crate) fn reboot(&mut self, host: usize) {
        self.say(Some(host), || "host starts anew".to_owned());
        let h = &mut self.hosts[host];
        h.wall += (self.t - h.clock.since) / MS;
        h.clock = Clock { base: 1000 * MS, since: self.t, ppm: h.clock.ppm };
        h.maps = None;
    }

    /// Another host has the same node name, until one of the two is switched off.
    fn twin(&mut self, host: usize, span: u64) {
        let node = self.hosts[host].node;
        let same = |other: &usize| self.hosts[*other].node == node;
        let twins: Vec<usize> = (0..self.hosts.len()).filter(same).collect();
        if let [_, _, ..] = twins[..] {
            let off = *self.rng.pick(&twins);
            self.die(off);
            self.reboot(off);
            self.start_later(off, span, Start::Booted);
        } else {
            let twin = self.add_host(node, format!("{}'", self.hosts[host].label));
            self.start(twin, Start::Booted);
        }
    }

    /// Somebody has found `kubectl edit`.
    fn meddle(&mut self, fault: Fault) {
        let of_kind = |object: &Object| match object {
            Object::Claim(_) => !matches!(fault, Fault::EditSession | Fault::DeleteSession),
            Object::Session(_) => !matches!(fault, Fault::EditClaim | Fault::DeleteClaim),
        };
        let objects: Vec<Object> = self.api.objects().map(|(o, _)| o.clone()).filter(of_kind).collect();
        if objects.is_empty() {
            return;
        }
        let object = self.rng.pick(&objects).clone();
        self.say(None, || format!("{fault:?}: {object}"));
        match fault {
            Fault::EditClaim | Fault::EditSession => {
                self.api.put(object, Stored::Bad("edited by hand"));
            }
            Fault::DeleteClaim | Fault::DeleteSession => self.api.delete(&object),
            Fault::DeleteAll => objects.iter().for_each(|object| self.api.delete(object)),
            _ => self.api.touch(&object),
        }
        self.spread();
    }

    /// A Service changes; every node learns of it in its own time.
    fn change_demand(&mut self) {
        let vip = self.rng.below(self.demand.len());
        let wanted = self.rng.permille(800);
        let eligible = self.setup.draw_eligible(&mut self.rng);
        self.demand[vip] = wanted.then_some(eligible);
        let slow = *self.rng.pick(&[5 * MS, 50 * MS, ns(self.setup.longest)]);
        for host in 0..self.hosts.len() {
            let h = &self.hosts[host];
            let generation = h.generation;
            let delay = self.rng.within(0, slow);
            let at = (self.t + delay).max(h.services_at);
            self.hosts[host].services_at = at;
            let event = Event::Demand(vec![(self.setup.vips[vip], self.demand[vip].clone())]);
            self.at(at, Next::Offer { host, generation, event: Box::new(event) });
        }
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Pause => "fault: pause",
        Fault::Kill => "fault: kill",
        Fault::Replace => "fault: replaced in place",
        Fault::Reboot => "fault: reboot",
        Fault::Restart => "fault: restart",
        Fault::Cut => "fault: cut off",
        Fault::CutOut => "fault: requests cut off",
        Fault::CutBack => "fault: responses cut off",
        Fault::CutWatch => "fault: watch cut off",
        Fault::BreakWatch => "fault: watch ends",
        Fault::SlowApi => "fault: slow API",
        Fault::SlowWatch => "fault: slow watch",
        Fault::Twin => "fault: node name twice",
        Fault::EditClaim => "fault: claim edited",
        Fault::EditSession => "fault: session edited",
        Fault::DeleteClaim => "fault: claim deleted",
        Fault::DeleteSession => "fault: session deleted",
        Fault::DeleteAll => "fault: all Leases deleted",
        Fault::Touch => "fault: Lease touched",
        Fault::Demand => "fault: Services change",
        Fault::Local => "fault: node changes",
        Fault::Move => "fault: move wanted",
        Fault::Interrupt
        | Fault::LoseRequests
        | Fault::LoseResponses
        | Fault::Late
        | Fault::Refuse
        | Fault::Fail
        | Fault::Repeat
        | Fault::Skew
        | Fault::MixedLeases
        | Fault::Expect
        | Fault::Wall => "fault: of a message or schedule",
    }
}
