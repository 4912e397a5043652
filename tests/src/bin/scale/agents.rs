//! Many agents at one API server.

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{BootTime, Cluster};
use responder_tests::{fleet::Fleet, usage::Usage};
use serde_json::{Value, json};

use super::{mebibytes, ms, per_cent, quantile, show};

/// Addresses, a few in most groups, beyond those of 200 nodes.
const VIPS: std::ops::RangeInclusive<u8> = 220..=251;

pub(super) fn measure(counts: &[u8], rounds: u32, window: Duration) -> Result<Value> {
    let mut found = json!({});
    for &count in counts {
        found[count.to_string()] = one(count, rounds, window)?;
    }
    Ok(found)
}

fn one(count: u8, rounds: u32, window: Duration) -> Result<Value> {
    println!("\n{count} agents, leases as they are by default:");
    let vips: Vec<IpAddr> = VIPS.map(|last| [192, 0, 2, last].into()).collect();
    let begin = BootTime::now();
    let mut fleet = Fleet::start(Cluster::builder().nodes(count), &vips, &[])?;
    let mut row = json!({});
    show("until all had started", BootTime::now().since(begin).as_secs_f64(), "s", "", &mut row);
    steady(&mut fleet, window, &mut row)?;
    let silences = (0..rounds).map(|_| crash(&mut fleet)).collect::<Result<Vec<_>>>()?;
    show("a node crashes: silence of its VIPs, median", ms(quantile(&silences, 50)), "ms", "3,500", &mut row);
    show("the longest", ms(quantile(&silences, 100)), "ms", "", &mut row);
    fleet.check_health()?;
    Ok(row)
}

/// What is used when nothing happens but renewals.
fn steady(fleet: &mut Fleet, window: Duration, row: &mut Value) -> Result<()> {
    let watched = fleet.vips().to_vec();
    fleet.watch(&[]);
    let holders = fleet.holders()?;
    let (before, begin) = (State::of(fleet)?, BootTime::now());
    thread::sleep(window);
    let (after, window) = (State::of(fleet)?, BootTime::now().since(begin));
    ensure!(fleet.holders()? == holders, "claims have moved: {}", fleet.diagnosis());
    fleet.watch(&watched);

    let rate = |now: f64, then: f64| (now - then) / window.as_secs_f64();
    let cpu = |now: Usage, then: Usage| per_cent(now.cpu.saturating_sub(then.cpu), window);
    show("API server, of one processor", cpu(after.api, before.api), "%", "", row);
    show("etcd, of one processor", cpu(after.etcd, before.etcd), "%", "", row);
    let agents: f64 = after.agents.iter().map(|(name, usage)| cpu(*usage, before.agents[name])).sum();
    show("an agent, of one processor", agents / after.agents.len() as f64, "%", "", row);
    let memory = after.agents.values().map(|usage| usage.resident).max().unwrap_or_default();
    show("memory of the largest agent", mebibytes(memory), "MiB", "", row);
    show("writes of Leases", rate(after.writes, before.writes), "/s", "", row);
    show("Leases by watches, sent", rate(after.events, before.events), "/s", "", row);
    show("of", rate(after.bytes, before.bytes) / 1e3, "kB/s", "", row);
    let renewals = after.renewals.since(&before.renewals);
    show("renewals in under", ms(renewals.quantile(0.5)), "ms", "half of them", row);
    show("renewals in under (99 of 100)", ms(renewals.quantile(0.99)), "ms", "500", row);
    let lost = after.lost - before.lost;
    show("failed renewals", lost, "", "0", row);
    Ok(())
}

/// What has been counted until now.
struct State {
    api: Usage,
    etcd: Usage,
    agents: BTreeMap<String, Usage>,
    /// Requests that changed a Lease.
    writes: f64,
    /// Leases that the API server has sent to watches.
    events: f64,
    bytes: f64,
    renewals: Histogram,
    /// Renewals that failed.
    lost: f64,
}

impl State {
    fn of(fleet: &mut Fleet) -> Result<Self> {
        let agents = fleet.usages()?;
        let (mut renewals, mut lost) = (Histogram::default(), 0.0);
        for name in fleet.names() {
            let metrics = fleet.metrics(&name)?;
            renewals.add(&metrics.body)?;
            lost += metrics.metric("responder_renewal_failures_total").context("no failures in /metrics")?;
        }
        let api = fleet.cluster.requests();
        let sum = |name: &str, labels: &str| api.metric(name, labels);
        let leases = "resource=\"leases\"";
        Ok(Self {
            api: Usage::of(fleet.cluster.api().pid()?)?,
            etcd: Usage::of(fleet.cluster.etcd().pid()?)?,
            agents,
            writes: sum(
                "apiserver_request_total",
                "resource=\"leases\",scope=\"resource\",subresource=\"\",verb=\"PUT\"",
            )? + sum(
                "apiserver_request_total",
                "resource=\"leases\",scope=\"resource\",subresource=\"\",verb=\"PATCH\"",
            )?,
            events: sum("apiserver_watch_events_sizes_count", leases)?,
            bytes: sum("apiserver_watch_events_sizes_sum", leases)?,
            renewals,
            lost,
        })
    }
}

/// Renewals that were done, by what they took at most, in seconds.
#[derive(Default)]
struct Histogram(BTreeMap<u64, f64>);

impl Histogram {
    /// Adds what an agent has counted. Bounds are kept in microseconds.
    fn add(&mut self, metrics: &str) -> Result<()> {
        for line in metrics.lines() {
            let Some(rest) = line.strip_prefix("responder_renewal_duration_seconds_bucket{") else {
                continue;
            };
            let (labels, value) = rest.split_once("} ").with_context(|| format!("no value: {line}"))?;
            if !labels.contains("outcome=\"done\"") {
                continue;
            }
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let bound = bound.with_context(|| format!("no bound: {line}"))?;
            let micros = if bound == "+Inf" { u64::MAX } else { (bound.parse::<f64>()? * 1e6) as u64 };
            *self.0.entry(micros).or_default() += value.parse::<f64>()?;
        }
        Ok(())
    }

    /// What was counted after `before`.
    fn since(&self, before: &Self) -> Self {
        let earlier = |bound: &u64| before.0.get(bound).copied().unwrap_or_default();
        Self(self.0.iter().map(|(bound, count)| (*bound, count - earlier(bound))).collect())
    }

    /// The least bound that so many are below.
    fn quantile(&self, part: f64) -> Duration {
        let all = self.0.values().last().copied().unwrap_or_default();
        let bound = self.0.iter().find(|(_, count)| **count >= all * part).map(|(bound, _)| *bound);
        Duration::from_micros(bound.unwrap_or(u64::MAX))
    }
}

/// The node loses power that has the first VIP: how long are VIPs silent?
fn crash(fleet: &mut Fleet) -> Result<Duration> {
    let vip = fleet.vips().first().copied().context("no VIP")?;
    let owner = fleet.owner(vip)?;
    fleet.observer.forget();
    let since = fleet.observer.round();
    fleet.cluster.crash(&owner)?;
    fleet.wait_other(vip, &owner)?;
    let accounts = fleet.check(since)?;
    let silence = accounts.iter().map(|account| account.longest_silence().0).max().unwrap_or_default();
    fleet.bury(&owner);
    fleet.cluster.boot(&owner)?;
    fleet.run(&owner)?;
    fleet.agent(&owner).wait_ready()?;
    fleet.settle()?;
    Ok(silence)
}
