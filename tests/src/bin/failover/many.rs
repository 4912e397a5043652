//! A node crashes that holds everything: when the last of many VIPs is answered and announced by the others.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{BootTime, Cluster, wait_until};
use responder_tests::{
    crowd::addresses,
    fleet::{Fleet, SETTLED, vips},
    leases::CLAIMS,
};

use super::show;

/// Numbers of VIPs.
const COUNTS: [u16; 3] = [1, 100, 10_000];

/// The lease duration does not matter: times count from the first answer.
const OPTIONS: [&str; 2] = ["--lease-duration", "1s"];

/// By then the last of the first announcements has been sent, at the rate that is the default.
const ANNOUNCED: Duration = Duration::from_secs(120);

/// From the first answer of another node than the one that crashed.
struct Times {
    answered: Duration,
    announced: Duration,
}

pub(super) fn measure(rounds: u32) -> Result<()> {
    println!(
        "\nAfter a crash of the node that holds everything, from the first answer to the last VIP, in ms:\n"
    );
    println!("{:<26} {:>5} {:>8} {:>8} {:>8}  to reach", "", "runs", "p50", "p99", "max");
    let mut fleet = Fleet::start(Cluster::builder(), &vips(1), &OPTIONS)?;
    fleet.names().iter().try_for_each(|name| fleet.make_room(name))?;
    for count in COUNTS {
        let all = addresses(count);
        let took = fleet.fill(&all)?;
        if count > 1000 {
            println!("(the API server took {:.1} s for the Services)", took.as_secs_f64());
        }
        let times = (0..rounds).map(|_| crash(&mut fleet, &all)).collect::<Result<Vec<_>>>()?;
        show(
            &format!("answered, {count} VIPs"),
            times.iter().map(|times| times.answered).collect(),
            "100 ms",
        );
        show(
            &format!("announced, {count} VIPs"),
            times.iter().map(|times| times.announced).collect(),
            "paced",
        );
        println!("{:<26} {}", format!("memory, {count} VIPs"), memory(&mut fleet)?);
    }
    Ok(())
}

/// What the agents have in memory, and the most that they had.
fn memory(fleet: &mut Fleet) -> Result<String> {
    let mut most = [0; 2];
    for name in fleet.names() {
        let pid = fleet.agent(&name).pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for (most, field) in most.iter_mut().zip(["VmRSS:", "VmHWM:"]) {
            let line =
                status.lines().find_map(|line| line.strip_prefix(field)).context("no memory in status")?;
            let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
            *most = kibibytes.max(*most);
        }
    }
    let [now, peak] = most.map(|kibibytes| kibibytes as f64 / 1024.0);
    Ok(format!("{now:.1} MiB of the largest agent; {peak:.1} MiB at the most"))
}

fn crash(fleet: &mut Fleet, all: &[IpAddr]) -> Result<Times> {
    let owner = fleet.owner(fleet.vips().first().copied().context("no VIP")?)?;
    fleet.gather(&owner)?;
    let mac = fleet.mac(&owner);
    fleet.observer.forget();
    let mark = fleet.cluster.audit().mark()?;
    let begin = BootTime::now();
    fleet.cluster.crash(&owner)?;
    let answered = wait_until("all answered by others", SETTLED, || {
        let firsts = fleet.observer.firsts(begin, |seen| seen.round.is_some() && seen.mac != mac);
        fleet.vips().iter().all(|vip| firsts.contains_key(vip)).then_some(firsts)
    });
    let answered = answered.with_context(|| fleet.diagnosis())?;
    let first = answered.values().min().copied().unwrap_or_default();
    let last = answered.values().max().copied().unwrap_or_default();
    let at_once = fleet.sweep(all)?;
    ensure!(at_once == all.len(), "{at_once} of {} were answered after the last of the sample", all.len());
    let announced = wait_until("all announced by others", ANNOUNCED, || {
        let firsts = fleet.observer.firsts(begin, |seen| seen.round.is_none() && seen.mac != mac);
        all.iter().map(|vip| firsts.get(vip).copied()).collect::<Option<Vec<_>>>()
    });
    let announced = announced.with_context(|| fleet.diagnosis())?.into_iter().max().unwrap_or_default();
    let writes = fleet.cluster.audit().count(mark, |r| {
        let own = r.node.as_ref().is_none_or(|node| *node == owner || r.name == format!("session-{node}"));
        r.resource == "leases" && r.is_write() && r.succeeded() && !own
    })?;
    let most = 1 + usize::from(CLAIMS.get());
    ensure!(writes <= most, "{writes} writes of Leases beside the renewals, at most {most}");
    fleet.bury(&owner);
    fleet.cluster.boot(&owner)?;
    fleet.make_room(&owner)?;
    fleet.run(&owner)?;
    fleet.agent(&owner).wait_ready()?;
    fleet.settle()?;
    Ok(Times { answered: last.since(first), announced: announced.since(first) })
}
