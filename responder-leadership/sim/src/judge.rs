//! What must hold at every instant.

use std::{collections::BTreeMap, net::IpAddr};

use responder_leadership::{
    id::{Group, Object, SessionId},
    lease::{Content, Fitness},
};

use crate::{api::Stored, clock::MS, host::Agent, phase::Phase, world::World};

/// What a claim says about its VIPs.
pub(crate) type Held = BTreeMap<Group, (Option<SessionId>, BTreeMap<IpAddr, SessionId>)>;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Of each host: what it answered for when it was looked at last.
    shown: Vec<u64>,
    /// Of each VIP: which host answered last.
    last: BTreeMap<usize, usize>,
    /// When some VIP last changed hands, was gained or lost.
    pub(crate) changed_at: u64,
    pub(crate) changes: u64,
    /// Successful writes of each host's own session in this phase.
    pub(crate) renewals: BTreeMap<usize, u64>,
    /// Other successful writes in this phase.
    pub(crate) writes: u64,
    /// Refused writes in this phase.
    pub(crate) refused: u64,
    /// All attempts in this phase to write anything but the own session.
    pub(crate) attempts: u64,
    /// What the claims said when this phase began.
    pub(crate) held: Held,
}

impl Judge {
    pub(crate) fn new_phase(&mut self, held: Held) {
        self.changes = 0;
        self.renewals.clear();
        (self.writes, self.refused, self.attempts) = (0, 0, 0);
        self.held = held;
    }
}

impl World {
    /// Looks at a host whose datapath has changed.
    pub(crate) fn judge_datapath(&mut self, host: usize, was_dark: bool) {
        let on = self.hosts[host].answering(self.t);
        for other in 0..self.hosts.len() {
            let both = self.hosts[other].answering(self.t) & on;
            if other != host && both != 0 {
                let vip = both.trailing_zeros() as usize;
                let what = format!(
                    "{} (VIP {vip}, group {}) is answered by {} and by {}",
                    self.setup.vips[vip],
                    self.setup.group_of(vip),
                    self.hosts[host].label,
                    self.hosts[other].label
                );
                return self.violated(what);
            }
        }
        self.judge.shown.resize(self.hosts.len(), 0);
        let before = std::mem::replace(&mut self.judge.shown[host], on);
        if before != on || (was_dark && on != 0) {
            self.judge.changed_at = self.t;
            self.judge.changes += 1;
            let wanted = self.wanted_bits();
            for vip in bits(on & !before & wanted) {
                if self.judge.last.insert(vip, host) != Some(host) {
                    self.tally.count("hand-overs and failovers of VIPs");
                }
            }
            if self.phase == Phase::Quiet || self.phase == Phase::InPlace {
                let why = if was_dark { "its deadline had passed" } else { "what it answers has changed" };
                let label = self.hosts[host].label.clone();
                self.violated(format!("{label}: {why}, and nothing has gone wrong"));
            }
        }
    }

    pub(crate) fn judge_sent(&mut self, host: usize, object: &Object) {
        if *object != Object::Session(self.setup.nodes[self.hosts[host].node].clone()) {
            self.judge.attempts += 1;
        }
    }

    pub(crate) fn judge_refused(&mut self) {
        self.judge.refused += 1;
    }

    pub(crate) fn judge_stored(&mut self, host: usize, object: &Object) {
        if *object == Object::Session(self.setup.nodes[self.hosts[host].node].clone()) {
            *self.judge.renewals.entry(host).or_default() += 1;
        } else {
            self.judge.writes += 1;
            // A successor settles what its predecessor may have been writing.
            if self.phase == Phase::Quiet {
                self.violated(format!(
                    "{} writes {object}, and nothing has gone wrong",
                    self.hosts[host].label
                ));
            }
        }
    }

    fn wanted_bits(&self) -> u64 {
        let wanted = self.demand.iter().enumerate().filter(|(_, e)| e.is_some());
        wanted.fold(0, |all, (vip, _)| all | 1 << vip)
    }

    /// What the claims say.
    pub(crate) fn held(&self) -> Held {
        let claims = self.api.objects().filter_map(|(object, stored)| match (object, stored) {
            (Object::Claim(group), Stored::Good(Content::Claim(claim))) => {
                Some((*group, (claim.holder.clone(), claim.exceptions.clone())))
            }
            (Object::Claim(_) | Object::Session(_), Stored::Good(_) | Stored::Bad(_)) => None,
        });
        claims.collect()
    }

    /// Whether a host could answer for a VIP, and whether it would rather not.
    fn able(&self, host: usize, vip: usize) -> Option<bool> {
        let h = &self.hosts[host];
        let eligible = self.demand[vip].as_ref()?;
        // Of two that have the same name only one can have the session.
        let twins =
            self.hosts.iter().filter(|other| other.node == h.node && other.agent.is_some()).count() > 1;
        let counts =
            |agent: &Agent| agent.stopping.is_none() && (!twins || agent.machine.session().is_some());
        let running = h.agent.as_ref().is_some_and(counts);
        if !running || !eligible.includes(&self.setup.nodes[h.node]) || !h.reach.covers(&self.setup.vips[vip])
        {
            return None;
        }
        match h.fitness {
            Fitness::Fit => Some(true),
            Fitness::LastResort(_) => Some(false),
            Fitness::Unfit(_) => None,
        }
    }

    /// Who answers for a VIP.
    fn answerer(&self, vip: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|host| self.hosts[*host].answering(self.t) & 1 << vip != 0)
    }

    /// Why the cluster is not as it should be when nothing has gone wrong for long.
    pub(crate) fn unrest(&self) -> Option<String> {
        for vip in 0..self.setup.vips.len() {
            if self.demand[vip].is_none() {
                continue;
            }
            let name = format!("{} (VIP {vip}, group {})", self.setup.vips[vip], self.setup.group_of(vip));
            let able = || (0..self.hosts.len()).filter_map(|host| Some((host, self.able(host, vip)?)));
            let fit = able().any(|(_, fit)| fit);
            match self.answerer(vip) {
                Some(host) => {
                    let label = &self.hosts[host].label;
                    match self.able(host, vip) {
                        None => return Some(format!("{name} is answered by {label}, which may not")),
                        Some(false) if fit => {
                            return Some(format!(
                                "{name} is answered by {label}, the last resort, though a fit node could"
                            ));
                        }
                        Some(_) => {}
                    }
                }
                None => {
                    if let Some((host, _)) = able().next() {
                        let label = &self.hosts[host].label;
                        return Some(format!("{name} is answered by nobody, though {label} could"));
                    }
                }
            }
        }
        None
    }

    /// How many claims name a node.
    pub(crate) fn claims_of(&self, node: usize) -> u64 {
        let node = &self.setup.nodes[node];
        let names = |(holder, exceptions): &(Option<SessionId>, BTreeMap<IpAddr, SessionId>)| {
            holder.iter().chain(exceptions.values()).any(|id| id.node == *node)
        };
        self.held().values().filter(|claim| names(claim)).count() as u64
    }

    /// More renewals than there should be in `ns` of a phase in which nothing goes wrong.
    pub(crate) fn too_many_renewals(&self, ns: u64) -> Option<String> {
        for (host, n) in &self.judge.renewals {
            let h = &self.hosts[*host];
            let holds = self.claims_of(h.node) > 0;
            let interval = if holds { h.times.renew_interval } else { h.times.idle_renew_interval };
            let most = ns / (crate::clock::ns(interval) * 97 / 100) + 2;
            if *n > most {
                return Some(format!(
                    "{} has renewed {n} times in {} ms, more than {most}",
                    h.label,
                    ns / MS
                ));
            }
        }
        None
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}
