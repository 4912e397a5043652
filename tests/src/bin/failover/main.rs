//! How long VIPs are silent when a node crashes, and when they are moved; how long the others take when there are many. `cargo xtask bench failover` builds and runs
//! it.

mod many;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use responder_lab::Cluster;
use responder_tests::fleet::{Fleet, SETTLED, vips};

/// Measures silences.
#[derive(Parser)]
struct Arguments {
    /// Crashes for each lease duration; a tenth as many planned moves
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// How long one VIP is silent
    Silence,
    /// How long many VIPs take
    Many,
}

/// Lease durations and what is to be reached.
const LEASES: [(&str, &str); 3] = [("500ms", "0.8 s"), ("1s", "1.5 s"), ("3s", "3.5 s")];

fn main() -> Result<()> {
    let Arguments { rounds, only } = Arguments::parse();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("Kernel {}, load at the beginning {}", kernel.trim(), load.trim());
    if only != Some(Part::Many) {
        silence(rounds)?;
    }
    if only != Some(Part::Silence) {
        many::measure(rounds.div_ceil(20))?;
    }
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("\nload at the end {}", load.trim());
    Ok(())
}

fn silence(rounds: u32) -> Result<()> {
    println!("Silence of a VIP that is asked for every 5 ms, in ms:\n");
    println!("{:<26} {:>5} {:>8} {:>8} {:>8}  to reach", "", "runs", "p50", "p99", "max");
    for (lease, goal) in LEASES {
        let mut fleet = Fleet::start(Cluster::builder(), &vips(1), &["--lease-duration", lease])?;
        let crashes = (0..rounds).map(|_| crash(&mut fleet)).collect::<Result<Vec<_>>>()?;
        show(&format!("crash, lease {lease}"), crashes, goal);
        let moves = (0..rounds.div_ceil(5)).map(|_| planned(&mut fleet)).collect::<Result<Vec<_>>>()?;
        show(&format!("planned, lease {lease}"), moves, "20 ms");
    }
    Ok(())
}

fn show(what: &str, mut silences: Vec<Duration>, goal: &str) {
    silences.sort_unstable();
    let of = |per_cent: usize| {
        let index = (silences.len() * per_cent).div_ceil(100).saturating_sub(1);
        silences.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    let runs = silences.len();
    println!("{what:<26} {runs:>5} {:>8.1} {:>8.1} {:>8.1}  {goal}", of(50), of(99), of(100));
}

/// The owner's node loses power.
fn crash(fleet: &mut Fleet) -> Result<Duration> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.cluster.crash(&owner)?;
    fleet.wait_other(vip, &owner)?;
    let silence = longest(fleet, since)?;
    fleet.bury(&owner);
    fleet.cluster.boot(&owner)?;
    fleet.run(&owner)?;
    fleet.agent(&owner).wait_ready()?;
    fleet.settle()?;
    Ok(silence)
}

/// The owner's agent is told to end.
fn planned(fleet: &mut Fleet) -> Result<Duration> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.agent(&owner).terminate(SETTLED)?;
    fleet.wait_other(vip, &owner)?;
    let silence = longest(fleet, since)?;
    fleet.run(&owner)?;
    fleet.agent(&owner).wait_ready()?;
    fleet.settle()?;
    Ok(silence)
}

fn longest(fleet: &Fleet, since: usize) -> Result<Duration> {
    let accounts = fleet.check(since)?;
    Ok(accounts.iter().map(|account| account.longest_silence().0).max().unwrap_or_default())
}
