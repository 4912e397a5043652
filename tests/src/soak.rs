//! A cluster for long, with everything that happens to one: Services come and go, floods pass, faults happen. Nothing may
//! be answered wrongly, and nothing may grow.

mod events;
mod growth;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{SeedableRng as _, rngs::StdRng};
use responder_lab::{Account, Cluster};

pub use self::growth::{Growth, Sample};
use crate::{
    campaign::{Campaign, Kind, Outcome},
    fleet::{Fleet, vips},
};

/// The agents' `--lease-duration`.
const LEASE: Duration = Duration::from_secs(1);
/// Watched VIPs.
const VIPS: u8 = 6;
/// The node whose agent lives from the beginning to the end.
const SPARE: &str = "n1";

/// What to do.
#[derive(Clone, Debug)]
pub struct Soak {
    /// How long; a round that has begun is finished.
    pub time: Duration,
    /// Where events come from.
    pub seed: u64,
    /// So many Services of four addresses come and go in each round.
    pub services: u8,
    /// So many frames are in each flood.
    pub flood: u32,
    /// Faults, in turn; all but those that end every agent if there are none.
    pub kinds: Vec<Kind>,
    /// Where to leave what is known of a round that broke a rule.
    pub keep: PathBuf,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Soaked {
    /// Rounds.
    pub rounds: u32,
    /// Addresses that came and went.
    pub addresses: u64,
    /// Frames of floods.
    pub frames: u64,
    /// Gaps by kind of fault, and broken rules.
    pub faults: Outcome,
    /// What the agents used.
    pub growth: Growth,
    /// What has grown. Must be empty.
    pub grown: Vec<String>,
}

impl Soak {
    /// Plays it, and prints each round.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be built, or does not recover.
    pub fn play(&self) -> Result<Soaked> {
        let lease = format!("{}ms", LEASE.as_millis());
        let builder = Cluster::builder().nodes(3).delays(true);
        let mut fleet = Fleet::start(builder, &vips(VIPS), &["--lease-duration", &lease])?;
        fleet.names().iter().try_for_each(|name| fleet.make_room(name))?;
        let mut kinds = self.kinds.clone();
        if kinds.is_empty() {
            kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Rolling).collect();
        }
        let campaign = Campaign {
            runs: 0,
            seed: self.seed,
            only: kinds.clone(),
            lease: LEASE,
            keep: self.keep.clone(),
            spare: Some(SPARE.to_owned()),
        };
        let mut soaked = Soaked::default();
        let begin = Instant::now();
        println!("seed {}: {} s, leases of {lease}", self.seed, self.time.as_secs());
        while begin.elapsed() < self.time {
            let round = soaked.rounds;
            let random = &mut StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(round) << 32));
            let kind = kinds[round as usize % kinds.len()];
            let told = || format!("seed {}, round {round}", self.seed);
            fleet.observer.forget();
            let since = fleet.observer.round();
            soaked.addresses += events::churn(&mut fleet, self.services).with_context(told)?;
            soaked.frames += events::floods(&fleet, self.flood, random).with_context(told)?;
            let accounts = fleet.accounts(since);
            // No fault yet: nothing moves.
            soaked.faults.violations.extend(fleet.violations(&accounts, |_| 0));
            soaked.faults.violations.extend(strangers(&fleet, &accounts));
            let since = fleet.observer.round();
            campaign.run(&mut fleet, round, kind, random, &mut soaked.faults).with_context(told)?;
            soaked.faults.violations.extend(strangers(&fleet, &fleet.accounts(since)));
            // Refused where the network is still there, as everywhere but after a crash.
            fleet.names().iter().for_each(|name| drop(fleet.make_room(name)));
            soaked.growth.sample(&mut fleet, begin.elapsed()).with_context(told)?;
            soaked.rounds += 1;
        }
        soaked.grown = soaked.growth.judge(&mut fleet)?;
        Ok(soaked)
    }
}

/// Answers and announcements of watched VIPs by what is no node.
fn strangers(fleet: &Fleet, accounts: &[Account]) -> Vec<String> {
    let tenures = accounts.iter().flat_map(|of| of.tenures().into_iter().map(|tenure| (of.vip, tenure.mac)));
    let foreign = tenures.filter(|(_, mac)| fleet.node_of(*mac).is_err());
    foreign.map(|(vip, mac)| format!("{mac}, which is no node, answered for {vip}")).collect()
}
