//! Random faults in a cluster, one after the other, while a client asks for its VIPs: never may two answer for one.

mod fault;
mod table;

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use responder_lab::{Account, Cluster};

pub use self::{fault::Kind, table::Table};
use crate::{
    fleet::{Fleet, vips},
    leases::claim_of,
};

/// What to do to a cluster.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How many faults.
    pub runs: u32,
    /// Where they come from.
    pub seed: u64,
    /// Only faults of these kinds; all if there are none.
    pub only: Vec<Kind>,
    /// The agents' `--lease-duration`.
    pub lease: Duration,
    /// Where to leave what is known of a run that broke a rule.
    pub keep: PathBuf,
    /// The node whose agent lives on: what would end it happens to others.
    pub spare: Option<String>,
}

/// How a campaign ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Gaps by kind of fault.
    pub table: Table,
    /// What broke the rules. Must be empty.
    pub violations: Vec<String>,
}

/// Watched VIPs: enough to be spread over all nodes.
const VIPS: u8 = 6;

impl Campaign {
    /// Plays it, and prints each run. It goes on after a violation.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be built, or does not recover.
    pub fn play(&self) -> Result<Outcome> {
        ensure!(self.runs > 0, "0 runs prove nothing");
        let lease = format!("{}ms", self.lease.as_millis());
        let builder = Cluster::builder().nodes(3).delays(true);
        let mut fleet = Fleet::start(builder, &vips(VIPS), &["--lease-duration", &lease])?;
        let mut outcome = Outcome::default();
        let kinds = if self.only.is_empty() { Kind::ALL.to_vec() } else { self.only.clone() };
        println!("seed {}: {} runs, leases of {lease}, VIPs {:?}", self.seed, self.runs, fleet.vips());
        for run in 0..self.runs {
            // Each kind in turn, so that all come; what they do is random, and a run's part of it its own.
            let kind = kinds[run as usize % kinds.len()];
            let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(run) << 32));
            self.run(&mut fleet, run, kind, &mut random, &mut outcome)
                .with_context(|| format!("seed {}, run {run}: {kind}", self.seed))?;
        }
        Ok(outcome)
    }

    /// One fault, and what came of it.
    pub(crate) fn run(
        &self,
        fleet: &mut Fleet,
        run: u32,
        kind: Kind,
        random: &mut StdRng,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let begin = Instant::now();
        let before = transitions(fleet)?;
        let victim = self.victim(fleet, kind, random)?;
        fleet.observer.forget();
        let since = fleet.observer.round();
        let what = kind.inflict(fleet, &victim, self.lease, random)?;
        let settled = fleet.settle().and_then(|()| fleet.check_health());
        let accounts = fleet.accounts(since);
        let after = transitions(fleet)?;
        // A VIP can come back as often as its claim changed hands, less the first time.
        let changes = |account: &Account| {
            let claim = claim_of(account.vip);
            let count =
                |all: &[(String, u64)]| all.iter().find(|(name, _)| *name == claim).map_or(0, |(_, n)| *n);
            count(&after).saturating_sub(count(&before)).saturating_sub(1)
        };
        let violations = fleet.violations(&accounts, |account| {
            // Nothing is left of claims of another number.
            if kind == Kind::Claims { usize::MAX } else { changes(account).try_into().unwrap_or(0) }
        });
        let gaps: Vec<(IpAddr, Duration)> =
            accounts.iter().map(|account| (account.vip, account.longest_silence().0)).collect();
        let longest = gaps.iter().map(|(_, gap)| *gap).max().unwrap_or_default();
        let doubles = accounts.iter().map(|account| account.doubles().len()).sum();
        println!(
            "run {run:3}  {:<10} {victim}  {what:<44} longest silence {:>6} ms, {:.1} s",
            kind.to_string(),
            longest.as_millis(),
            begin.elapsed().as_secs_f64()
        );
        outcome.table.add(kind, gaps.iter().map(|(_, gap)| *gap), doubles);
        // Not a failure: on a busy machine anything can be late.
        let late = kind.is_of_one_node() && longest > self.lease * 2;
        if !violations.is_empty() || settled.is_err() || late {
            let dir = self.keep.join(format!("{}-{run}", self.seed));
            fleet.save(&dir, &accounts)?;
            println!("  kept in {}", dir.display());
            for violation in violations {
                let text = format!("seed {}, run {run}, {kind} of {victim} ({what}): {violation}", self.seed);
                println!("VIOLATION {text}");
                outcome.violations.push(text);
            }
            accounts.iter().for_each(|account| print!("{account}"));
        }
        settled
    }

    /// The owner of a VIP mostly, or any node.
    fn victim(&self, fleet: &Fleet, kind: Kind, random: &mut StdRng) -> Result<String> {
        let spare = self.spare.as_ref().filter(|_| kind.ends_agents());
        if random.random_ratio(3, 4) {
            let owner = fleet.owner(fleet.vips()[random.random_range(0..fleet.vips().len())])?;
            if spare != Some(&owner) {
                return Ok(owner);
            }
        }
        let mut names = fleet.names();
        names.retain(|name| spare != Some(name));
        Ok(names[random.random_range(0..names.len())].clone())
    }
}

/// How often each claim has changed hands.
fn transitions(fleet: &Fleet) -> Result<Vec<(String, u64)>> {
    let leases = fleet.leases()?;
    Ok(leases
        .into_iter()
        .map(|(name, l)| (name, l["spec"]["leaseTransitions"].as_u64().unwrap_or(0)))
        .collect())
}
