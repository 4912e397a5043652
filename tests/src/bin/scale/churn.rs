//! Services that change all the time.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use responder_lab::{BootTime, Cluster, Service, wait_until};
use responder_tests::{
    crowd::services,
    fleet::{Fleet, SETTLED, vips},
};
use serde_json::Value;

use super::{ms, per_cent, quantile, show};

/// So many are changed in a second, if the API server can.
const RATE: usize = 1_000;
/// By so many clients.
const CLIENTS: usize = 8;
/// For so long.
const WINDOW: Duration = Duration::from_secs(10);
/// As often a further Service gets an address, which is asked for.
const PROBES: usize = 16;

/// Changes all Services over and over, and in the midst of it gives addresses to others: how long do they take?
pub(super) fn measure(fleet: &mut Fleet, all: &[IpAddr], row: &mut Value) -> Result<()> {
    let services = services(all);
    let watched = fleet.vips().to_vec();
    let probes: Vec<IpAddr> = vips(PROBES as u8 + 1).split_off(1);
    fleet.watch(&probes);
    let holders = fleet.holders()?;
    let before = fleet.usages()?;
    let begin = BootTime::now();
    let (changes, lags) = churn(fleet, &services, &probes)?;
    let window = BootTime::now().since(begin);
    let after = fleet.usages()?;
    ensure!(fleet.holders()? == holders, "claims have moved: {}", fleet.diagnosis());
    fleet.watch(&watched);
    fleet.settle()?;
    fleet.sweep(all)?;
    let used = after.iter().map(|(name, usage)| usage.cpu.saturating_sub(before[name].cpu)).max();
    show("changes of Services", changes as f64 / window.as_secs_f64(), "/s", "1,000", row);
    show("an agent then, of one processor", per_cent(used.unwrap_or_default(), window), "%", "", row);
    show("a new address then, to its answer, median", ms(quantile(&lags, 50)), "ms", "", row);
    show("the slowest of them", ms(quantile(&lags, 100)), "ms", "", row);
    Ok(())
}

/// How many changes were made, and how long each probe took from the API server's answer.
fn churn(fleet: &Fleet, services: &[Service], probes: &[IpAddr]) -> Result<(usize, Vec<Duration>)> {
    let (done, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let part = services.len().div_ceil(CLIENTS).max(1);
        let parts: Vec<&[Service]> = services.chunks(part).collect();
        let rate = RATE.div_ceil(parts.len());
        let (done, ended) = (&done, &ended);
        let clients: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || change(&fleet.cluster, part, rate, done, ended)))
            .collect();
        let lags = probes.iter().enumerate().map(|(n, probe)| lag(fleet, n, *probe)).collect();
        ended.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_panic| anyhow!("a thread panicked"))??;
        }
        Ok((done.load(Ordering::Relaxed), lags))
    })
    .and_then(|(done, lags): (usize, Result<Vec<Duration>>)| Ok((done, lags?)))
}

/// Takes the last address from a Service and gives it back the next time.
fn change(
    cluster: &Cluster,
    services: &[Service],
    rate: usize,
    done: &AtomicUsize,
    ended: &AtomicBool,
) -> Result<()> {
    let begin = BootTime::now();
    let turns = [true, false].into_iter().cycle();
    let steps = turns.flat_map(|without| services.iter().map(move |service| (service, without)));
    for (number, (service, without)) in (0_u32..).zip(steps) {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        cluster.set_addresses(service, usize::from(without))?;
        done.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs(1) * number / rate as u32;
        thread::sleep(due.saturating_sub(BootTime::now().since(begin)));
    }
    // As they were.
    services.iter().try_for_each(|service| cluster.set_addresses(service, 0))
}

/// How long a new address takes.
fn lag(fleet: &Fleet, number: usize, probe: IpAddr) -> Result<Duration> {
    thread::sleep(WINDOW / PROBES as u32);
    let service = Service::new(&format!("probe-{number}")).vips(&[probe]).on(&["n1"]);
    fleet.cluster.service(&service)?;
    let begin = BootTime::now();
    let first = wait_until("an answer for the new address", SETTLED, || {
        let firsts = fleet.observer.firsts(BootTime::default(), |seen| seen.round.is_some());
        firsts.get(&probe).copied()
    });
    Ok(first.with_context(|| fleet.diagnosis())?.since(begin))
}
