//! Many VIPs in a cluster of three nodes.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{BootTime, Cluster};
use responder_tests::{
    crowd::{addresses, services},
    fleet::{Fleet, SETTLED, vips},
};
use serde_json::{Value, json};

use super::{churn, mebibytes, ms, per_cent, quantile, show};

/// After the last change everything has been announced by then, at the rate that is the default.
const CALM: Duration = Duration::from_secs(15);

pub(super) fn measure(counts: &[u32], rounds: u32, window: Duration) -> Result<Value> {
    let mut found = json!({});
    for &count in counts {
        found[count.to_string()] = one(count, rounds, window)?;
    }
    Ok(found)
}

fn one(count: u32, rounds: u32, window: Duration) -> Result<Value> {
    let mut fleet = Fleet::start(Cluster::builder(), &vips(1), &[])?;
    fleet.names().iter().try_for_each(|name| fleet.make_room(name))?;
    let all = addresses(count);
    let number = services(&all).len();
    println!("\n{count} VIPs of {number} Services, three agents:");
    let mut row = json!({});
    fleet.fill(&all)?;
    wait_announced(&fleet, &all)?;

    idle(&mut fleet, window, &mut row)?;
    show("from a start to the last answer", ms(start(&mut fleet, &all)?), "ms", "", &mut row);
    let takes = (0..rounds).map(|_| Ok(fleet.take_over(&all, None)?.answered)).collect::<Result<Vec<_>>>()?;
    show("a node crashes: first to last answer", ms(quantile(&takes, 50)), "ms", "", &mut row);
    churn::measure(&mut fleet, &all, &mut row)?;
    let [now, peak] = fleet.memory()?;
    show("memory of the largest agent, after all that", mebibytes(now), "MiB", "", &mut row);
    show("the most that it had", mebibytes(peak), "MiB", "", &mut row);
    fleet.check_health()?;
    Ok(row)
}

/// Everything has been announced once; what follows is quiet.
fn wait_announced(fleet: &Fleet, all: &[IpAddr]) -> Result<()> {
    let rate = 1000;
    let limit = CALM + Duration::from_secs(all.len() as u64 * 8 / rate);
    let idle = |name: &str| -> Result<bool> {
        let queue = fleet.metrics(name)?.metric("responder_burst_queue_length");
        Ok(queue.context("no metric of the queue")? == 0.0)
    };
    responder_lab::wait_until("an end of the announcements", limit, || {
        fleet.names().iter().all(|name| idle(name).unwrap_or(false)).then_some(())
    })
}

/// What the agents use when nothing changes.
fn idle(fleet: &mut Fleet, window: Duration, row: &mut Value) -> Result<()> {
    // The client is silent, too.
    let watched = fleet.vips().to_vec();
    fleet.watch(&[]);
    let mark = fleet.cluster.audit().mark()?;
    let before = fleet.usages()?;
    let begin = BootTime::now();
    thread::sleep(window);
    let after = fleet.usages()?;
    let window = BootTime::now().since(begin);
    fleet.watch(&watched);
    let used = after.iter().map(|(name, usage)| usage.cpu.saturating_sub(before[name].cpu)).max();
    let requests = fleet.cluster.audit().count(mark, |r| r.node.is_some())?;
    let [now, peak] = fleet.memory()?;
    show("memory of the largest agent", mebibytes(now), "MiB", "<= 40 at 10,000 VIPs", row);
    show("the most that it had", mebibytes(peak), "MiB", "", row);
    show(
        "idle, of one processor",
        per_cent(used.unwrap_or_default(), window),
        "%",
        "<= 0.5 at 10,000 VIPs",
        row,
    );
    let per_minute = requests as f64 / window.as_secs_f64() * 60.0 / fleet.names().len() as f64;
    show("requests of an agent to the API server", per_minute, "/min", "", row);
    Ok(())
}

/// From the start of the only agent to its last first answer.
fn start(fleet: &mut Fleet, all: &[IpAddr]) -> Result<Duration> {
    let names = fleet.names();
    for name in &names {
        fleet.agent(name).terminate(SETTLED)?;
    }
    fleet.observer.forget();
    let (first, others) = names.split_first().context("no nodes")?;
    let begin = BootTime::now();
    fleet.run(first)?;
    fleet.agent(first).wait_ready()?;
    let answered = responder_lab::wait_until("an answer of the sample", SETTLED, || {
        let firsts = fleet.observer.firsts(begin, |seen| seen.round.is_some());
        let all: Option<Vec<_>> = fleet.vips().iter().map(|vip| firsts.get(vip).copied()).collect();
        all?.into_iter().max()
    });
    let last = answered.with_context(|| fleet.diagnosis())?;
    let at_once = fleet.sweep(all)?;
    ensure!(at_once == all.len(), "{at_once} of {} were answered after the last of the sample", all.len());
    for name in others {
        fleet.run(name)?;
        fleet.agent(name).wait_ready()?;
    }
    fleet.settle()?;
    Ok(last.since(begin))
}
