//! What a seed stands for: the cluster, and what goes wrong in it.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16, sync::Arc, time::Duration};

use responder_leadership::{
    event::Eligible,
    id::{Group, NodeName},
    lease::{Fitness, Reach},
    settings::Times,
};

use crate::{
    clock::{Instant, MS, ns},
    fault::{Fault, Faults},
    rng::Rng,
};

/// Which schedules are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Faults that all schedules have.
    pub always: Faults,
    /// Faults that some schedules have.
    pub sometimes: Faults,
    /// The largest number of nodes.
    pub nodes: usize,
    /// The largest number of VIPs.
    pub vips: usize,
    /// Whether to go on after the faults, to see that it recovers.
    pub recovery: bool,
}

impl Profile {
    /// Everything.
    pub const ALL: Self =
        Self { always: Faults::NONE, sometimes: Faults::ALL, nodes: 7, vips: 64, recovery: true };
}

/// What happens at the end, to a cluster at rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Nothing,
    /// A node dies.
    Crash,
    /// A node is told to stop.
    Stop,
    /// An agent is replaced by a successor that waited.
    Replace,
    /// All agents are restarted, one after the other, by successors that waited.
    ReplaceAll,
}

/// So many of a thousand messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) lost_requests: u64,
    pub(crate) lost_responses: u64,
    pub(crate) late: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) repeated: u64,
    pub(crate) interrupted: u64,
}

/// A schedule's cluster and faults.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) nodes: Vec<NodeName>,
    pub(crate) times: Vec<Times>,
    pub(crate) longest: Duration,
    pub(crate) claims: NonZeroU16,
    pub(crate) vips: Vec<IpAddr>,
    pub(crate) faults: Faults,
    pub(crate) sudden: Vec<Fault>,
    pub(crate) rates: Rates,
    /// One way of a request, in ns.
    pub(crate) latency: (u64, u64),
    /// From a change to its delivery, in ns.
    pub(crate) lag: (u64, u64),
    /// Mean time between sudden faults, in ns.
    pub(crate) pace: u64,
    /// The instant at which faults end.
    pub(crate) faults_end: Instant,
    /// How long after its sending a late write may be executed, in ns.
    pub(crate) lateness: u64,
    pub(crate) ending: Ending,
}

impl Setup {
    pub(crate) fn draw(profile: &Profile, rng: &mut Rng) -> Self {
        let nodes = *rng.pick(&[2, 2, 2, 3, 3, 3, 3, 4, 5, 6, 7]);
        let nodes: Vec<NodeName> =
            (1..=nodes.min(profile.nodes)).map(|n| format!("n{n}").as_str().into()).collect();
        let claims = *rng.pick(&[1_u16, 1, 1, 2, 2, 3, 4, 8, 16]);
        let vips = match rng.below(8) {
            0..4 => rng.within(1, 4),
            4..7 => rng.within(1, 16),
            _ => rng.within(1, 64),
        };
        let vips = (1..=vips.min(profile.vips as u64)).map(vip).collect();

        let density = *rng.pick(&[100, 250, 500, 800]);
        let mut bits = 0;
        for bit in 0..64 {
            bits |= u64::from(rng.permille(density)) << bit;
        }
        let faults = Faults::from_bits(bits).only(profile.sometimes).and(profile.always);
        let mut rate = |fault: Fault, of: &[u64]| if faults.has(fault) { *rng.pick(of) } else { 0 };
        let often = [10, 50, 200, 500];
        let rates = Rates {
            lost_requests: rate(Fault::LoseRequests, &often),
            lost_responses: rate(Fault::LoseResponses, &often),
            late: rate(Fault::Late, &often),
            refused: rate(Fault::Refuse, &often),
            failed: rate(Fault::Fail, &often),
            repeated: rate(Fault::Repeat, &often),
            interrupted: rate(Fault::Interrupt, &[5, 20, 100, 300]),
        };

        let base = Duration::from_millis(*rng.pick(&[500, 500, 600, 1000, 2000, 3000]));
        let times: Vec<Times> = nodes.iter().map(|_| draw_times(base, faults, rng)).collect();
        let longest = times.iter().map(|times| times.lease_duration).max().unwrap_or(base);
        let longest = longest.mul_f64(*rng.pick(&[1.0, 1.0, 1.0, 1.5]));
        let long = ns(longest);
        let latency = *rng.pick(&[(MS / 2, 2 * MS), (MS, 8 * MS), (MS, 20 * MS)]);
        let lag = *rng.pick(&[(MS / 5, 2 * MS), (MS, 10 * MS), (MS, 60 * MS)]);
        Self {
            sudden: faults.kinds().filter(|fault| fault.is_sudden()).collect(),
            pace: long * *rng.pick(&[3, 8, 20]) / 10,
            faults_end: long * rng.within(3, 9),
            lateness: long * rng.within(1, 4),
            ending: *rng.pick(&[
                Ending::Nothing,
                Ending::Crash,
                Ending::Crash,
                Ending::Stop,
                Ending::Replace,
                Ending::ReplaceAll,
            ]),
            claims: NonZeroU16::new(claims).unwrap_or(NonZeroU16::MIN),
            nodes,
            times,
            longest,
            vips,
            faults,
            rates,
            latency,
            lag,
        }
    }

    pub(crate) fn group_of(&self, vip: usize) -> Group {
        responder_leadership::group::group_of(self.vips[vip], self.claims)
    }

    /// Which nodes a VIP may have.
    pub(crate) fn draw_eligible(&self, rng: &mut Rng) -> Eligible {
        if rng.permille(500) {
            return Eligible::Any;
        }
        let share = *rng.pick(&[0, 300, 500, 800]);
        let nodes: BTreeSet<NodeName> = self.nodes.iter().filter(|_| rng.permille(share)).cloned().collect();
        Eligible::Only(Arc::new(nodes))
    }
}

fn draw_times(base: Duration, faults: Faults, rng: &mut Rng) -> Times {
    let mixed = if faults.has(Fault::MixedLeases) { *rng.pick(&[10, 10, 15, 20, 30]) } else { 10 };
    let lease = base * mixed / 10;
    let mut times = Times::of(lease);
    times.renew_interval = lease / *rng.pick(&[4, 4, 4, 5, 8]);
    times.idle_renew_interval = *rng.pick(&[lease * 2, lease * 2, times.renew_interval, lease * 3]);
    times.check().unwrap_or(Times::of(lease))
}

fn vip(n: u64) -> IpAddr {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    match n % 3 {
        2 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]),
        _ => IpAddr::from([192, 0, 2, n.to_be_bytes()[1]]),
    }
}

pub(crate) fn draw_fitness(rng: &mut Rng) -> Fitness {
    match rng.below(6) {
        0..3 => Fitness::Fit,
        3 => Fitness::LastResort("drained".to_owned()),
        _ => Fitness::Unfit("no link".to_owned()),
    }
}

pub(crate) fn draw_reach(rng: &mut Rng) -> Reach {
    let prefixes: &[&str] = match rng.below(6) {
        0..3 => return Reach::Any,
        3 => &["192.0.2.0/24"],
        4 => &["2001:db8::/64", "192.0.2.0/28"],
        _ => &[],
    };
    Reach::Prefixes(prefixes.iter().filter_map(|prefix| prefix.parse().ok()).collect())
}
