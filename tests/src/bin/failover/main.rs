//! How long VIPs are silent when a node crashes, when its agent stands still, and when they are moved, and whether two
//! answer then, beside keepalived and ucarp; how long the others take when there are many. `cargo xtask bench failover`
//! builds and runs it.

mod many;
mod peers;

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use responder_lab::{Account, Cluster};
use responder_tests::fleet::{Fleet, SETTLED, STEP, vips};

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
    /// How long it is silent with keepalived and ucarp
    Peers,
    /// How long many VIPs take
    Many,
}

/// How long what stands still goes on doing so after another has taken over.
const FROZEN: Duration = Duration::from_secs(2);

/// Lease durations and what is to be reached.
const LEASES: [(&str, &str); 3] = [("500ms", "0.8 s"), ("1s", "1.5 s"), ("3s", "3.5 s")];

fn main() -> Result<()> {
    let Arguments { rounds, only } = Arguments::parse();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("Kernel {}, load at the beginning {}", kernel.trim(), load.trim());
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted(Part::Silence) || wanted(Part::Peers) {
        println!(
            "Silence of a VIP that is asked for every {} ms, in ms; in how many of the runs two answered, and how many \
             questions:\n",
            STEP.as_millis()
        );
        println!(
            "{:<38} {:>5} {:>8} {:>8} {:>8} {:>6} {:>9}  to reach",
            "", "runs", "p50", "p99", "max", "two in", "questions"
        );
    }
    if wanted(Part::Silence) {
        silence(rounds)?;
    }
    if wanted(Part::Peers) {
        peers::measure(rounds)?;
    }
    if wanted(Part::Many) {
        many::measure(rounds.div_ceil(20))?;
    }
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("\nload at the end {}", load.trim());
    Ok(())
}

/// What a client saw of a fault.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// The longest time without an answer.
    silence: Duration,
    /// Questions that two answered.
    doubles: usize,
}

impl Fault {
    fn of(accounts: &[Account]) -> Self {
        Self {
            silence: accounts.iter().map(|account| account.longest_silence().0).max().unwrap_or_default(),
            doubles: accounts.iter().map(|account| account.doubles().len()).sum(),
        }
    }
}

fn silence(rounds: u32) -> Result<()> {
    for (lease, goal) in LEASES {
        let mut fleet = Fleet::start(Cluster::builder(), &vips(1), &["--lease-duration", lease])?;
        let crashes = (0..rounds).map(|_| crash(&mut fleet)).collect::<Result<Vec<_>>>()?;
        show(&format!("crash, lease {lease}"), &crashes, goal);
        let frozen = (0..rounds.div_ceil(5)).map(|_| frozen(&mut fleet)).collect::<Result<Vec<_>>>()?;
        show(&format!("frozen, lease {lease}"), &frozen, goal);
        let moves = (0..rounds.div_ceil(5)).map(|_| planned(&mut fleet)).collect::<Result<Vec<_>>>()?;
        show(&format!("planned, lease {lease}"), &moves, "20 ms");
    }
    Ok(())
}

/// In milliseconds: the value below which this part of all is, in per cent.
fn quantile(silences: &[Duration], per_cent: usize) -> f64 {
    let mut silences = silences.to_vec();
    silences.sort_unstable();
    let index = (silences.len() * per_cent).div_ceil(100).saturating_sub(1);
    silences.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
}

fn show(what: &str, faults: &[Fault], goal: &str) {
    let silences: Vec<Duration> = faults.iter().map(|fault| fault.silence).collect();
    let [p50, p99, max] = [50, 99, 100].map(|part| quantile(&silences, part));
    let (runs, two) = (faults.len(), faults.iter().filter(|fault| fault.doubles > 0).count());
    let doubles: usize = faults.iter().map(|fault| fault.doubles).sum();
    println!("{what:<38} {runs:>5} {p50:>8.1} {p99:>8.1} {max:>8.1} {two:>6} {doubles:>9}  {goal}");
}

/// The owner's node loses power.
fn crash(fleet: &mut Fleet) -> Result<Fault> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.cluster.crash(&owner)?;
    fleet.wait_other(vip, &owner)?;
    let fault = Fault::of(&fleet.check(since)?);
    fleet.bury(&owner);
    fleet.cluster.boot(&owner)?;
    again(fleet, &owner)?;
    Ok(fault)
}

/// The owner's agent stands still, as one that waits for memory or storage.
fn frozen(fleet: &mut Fleet) -> Result<Fault> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.agent(&owner).freeze()?;
    fleet.wait_other(vip, &owner)?;
    thread::sleep(FROZEN);
    let fault = Fault::of(&fleet.accounts(since));
    fleet.agent(&owner).kill()?;
    again(fleet, &owner)?;
    Ok(fault)
}

/// The owner's agent is told to end.
fn planned(fleet: &mut Fleet) -> Result<Fault> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.agent(&owner).terminate(SETTLED)?;
    fleet.wait_other(vip, &owner)?;
    let fault = Fault::of(&fleet.check(since)?);
    again(fleet, &owner)?;
    Ok(fault)
}

/// An agent on the node again, and everything in order.
fn again(fleet: &mut Fleet, node: &str) -> Result<()> {
    fleet.run(node)?;
    fleet.agent(node).wait_ready()?;
    fleet.settle()
}
