//! Agents in namespaces of a virtual machine, and a real API server outside of it: who fails is followed, and a machine that
//! stood still gives up what it has lost.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use responder_lab::{
    BootTime, Cluster, Cut, Elsewhere, Meanwhile, NeighbourWatch, Paused, elsewhere_or_skip, resolve,
    wait_until,
};
use responder_tests::{
    fleet::{Fleet, vips},
    leases::{LEASES, claim_of, record_of},
};
use serde_json::{Value, json};

/// Long enough for an emulated processor, on which a request may take half a second.
const LEASE: Duration = Duration::from_secs(6);
/// What the agent does not use of its lease.
const MARGIN: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(20);
/// From the agent's hearing of something to the last answer's arrival, on an emulated processor.
const SLACK: Duration = Duration::from_millis(500);

fn fleet(elsewhere: Elsewhere) -> Fleet {
    Fleet::start(Cluster::builder().nodes(2).elsewhere(elsewhere), &vips(2), &["--lease-duration", "6s"])
        .unwrap()
}

/// After a fault of the owner's, the other answers, a neighbour has heard of it, and never do both answer.
fn followed(fleet: &mut Fleet, fault: impl FnOnce(&mut Fleet, &str) -> Result<()>) -> Result<()> {
    let vip = fleet.vips()[0];
    let owner = fleet.owner(vip)?;
    let client = fleet.cluster.host("c").ns().clone();
    ensure!(resolve(&client, vip, SOON)? == fleet.mac(&owner), "the neighbour knows another");
    let (watch, since) = (NeighbourWatch::start(&client)?, fleet.observer.round());
    fault(fleet, &owner)?;
    let next = fleet.wait_other(vip, &owner)?;
    watch.wait_for(vip, fleet.mac(&next), SOON)?;
    fleet.check(since).map(|_| ())
}

#[test]
fn two_agents_fail_over() {
    let Some(elsewhere) = elsewhere_or_skip("two_agents_fail_over") else { return };
    let mut fleet = fleet(elsewhere);
    followed(&mut fleet, |fleet, owner| {
        fleet.bury(owner);
        Ok(())
    })
    .unwrap();
    fleet.recover().unwrap();
    followed(&mut fleet, |fleet, owner| fleet.cluster.cut(Cut::api(owner))).unwrap();
    fleet.recover().unwrap();
    fleet.check_health().unwrap();
}

/// What the machine's clocks and the one outside say of the same time.
struct Standstill {
    /// When it was asked for, by the machine's CLOCK_BOOTTIME.
    asked: BootTime,
    outside: Paused,
    /// By clocks of the machine: the request, the standstill if the clock went on, the answer.
    inside: Vec<(&'static str, Duration)>,
}

const CLOCKS: [(&str, ClockId); 4] = [
    ("CLOCK_BOOTTIME", ClockId::CLOCK_BOOTTIME),
    ("CLOCK_MONOTONIC", ClockId::CLOCK_MONOTONIC),
    ("CLOCK_MONOTONIC_RAW", ClockId::CLOCK_MONOTONIC_RAW),
    ("CLOCK_REALTIME", ClockId::CLOCK_REALTIME),
];

fn clocks() -> Result<Vec<(&'static str, Duration)>> {
    let mut read = Vec::new();
    for (name, clock) in CLOCKS {
        read.push((name, clock_gettime(clock)?.into()));
    }
    // Of the battery's clock only seconds are known. Not every machine has one.
    if let Ok(text) = fs::read_to_string("/sys/class/rtc/rtc0/since_epoch") {
        read.push(("rtc0", Duration::from_secs(text.trim().parse()?)));
    }
    Ok(read)
}

fn stand_still(elsewhere: Elsewhere, length: Duration, meanwhile: &Meanwhile) -> Result<Standstill> {
    let (asked, before) = (BootTime::now(), clocks()?);
    let outside = elsewhere.pause(length, meanwhile)?;
    let inside = clocks()?.iter().zip(before).map(|((name, now), (_, then))| (*name, *now - then)).collect();
    let still = Standstill { asked, outside, inside };
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let inside: Vec<_> = still.inside.iter().map(|(name, time)| format!("{name} {}", ms(*time))).collect();
    println!(
        "measured: outside CLOCK_BOOTTIME {}, CLOCK_REALTIME {}; inside, by {}: {}",
        ms(outside.for_boot),
        ms(outside.for_real),
        source.trim(),
        inside.join(", ")
    );
    Ok(still)
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

impl Standstill {
    /// How much time the machine's CLOCK_BOOTTIME has missed.
    fn missed(&self) -> Duration {
        self.outside.for_boot.saturating_sub(self.inside[0].1)
    }
}

/// How many answers of a node for a VIP there were since a round and between two times, and how long after the first the
/// last one was.
fn answers(
    fleet: &Fleet,
    vip: IpAddr,
    node: &str,
    (round, from, to): (usize, BootTime, BootTime),
) -> (usize, Duration) {
    let account = fleet.observer.account(vip, round);
    let mac = fleet.mac(node);
    let seen = account.seen.iter().filter(|seen| seen.mac == mac && (from..=to).contains(&seen.at));
    let last = seen.clone().map(|seen| seen.at.since(from)).max();
    (seen.count(), last.unwrap_or_default())
}

/// When the agent of a node was told that its session is not its own any more.
fn told(fleet: &Fleet, node: &str, since: BootTime) -> Result<BootTime> {
    let records = fleet.cluster.dir().join("records");
    let mut found = None;
    for entry in fs::read_dir(&records)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{node}-"))) {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines().filter(|line| line.contains("session_lost")) {
            let entry: Value = serde_json::from_str(line)?;
            let at = entry["at"]["secs"].as_u64().zip(entry["at"]["nanos"].as_u64());
            let (secs, nanos) = at.context("an entry without a time")?;
            let at = BootTime(secs * 1_000_000_000 + nanos);
            if at >= since && found.is_none_or(|before| at < before) {
                found = Some(at);
            }
        }
    }
    found.context("the agent was not told")
}

/// What another node does that goes on: it revokes the session, and takes the VIP's claim.
fn successor(fleet: &Fleet, owner: &str, vip: IpAddr) -> Result<Meanwhile> {
    let leases = fleet.leases()?;
    let session = format!("session-{owner}");
    let patch = |lease: &str, holder: Option<&str>, fields: &[(&str, Value)]| {
        let mut record = record_of(&leases[lease]);
        for (field, value) in fields {
            record[*field] = value.clone();
        }
        let annotations = json!({ "l2-responder.io/record": record.to_string() });
        let patch =
            json!({ "metadata": { "annotations": annotations }, "spec": { "holderIdentity": holder } });
        (format!("{LEASES}/{lease}"), patch)
    };
    let ended = json!({ "ended": { "by": "n9" } });
    let claim = claim_of(vip);
    let patches = vec![
        patch(&session, None, &[("state", ended)]),
        patch(&claim, Some("n9"), &[("holder", json!("n9/7")), ("written", json!(["n9/7", 1]))]),
    ];
    // It lives as long as its last sign of life is young.
    let mut lease = leases[&session].clone();
    let mut record = record_of(&lease);
    record["session"] = json!("n9/7");
    record["datapath"] = json!("another");
    lease["metadata"] = json!({
        "name": "session-n9", "labels": lease["metadata"]["labels"], "annotations": lease["metadata"]["annotations"],
    });
    lease["metadata"]["annotations"]["l2-responder.io/record"] = json!(record.to_string());
    lease["spec"]["holderIdentity"] = json!("n9");
    fleet.cluster.requests().create(LEASES, &lease)?;
    Ok(Meanwhile { after: LEASE, patches })
}

/// Whatever its clock does meanwhile: no answer later than when it is told, and none after the deadline by its own clock.
#[test]
fn a_machine_that_stood_still_gives_up() {
    let Some(elsewhere) = elsewhere_or_skip("a_machine_that_stood_still_gives_up") else { return };
    let mut fleet = fleet(elsewhere);
    let vip = fleet.vips()[0];

    let owner = fleet.owner(vip).unwrap();
    let meanwhile = successor(&fleet, &owner, vip).unwrap();
    let round = fleet.observer.round();
    let still = stand_still(elsewhere, LEASE * 2, &meanwhile).unwrap();
    let told = wait_until("the agent is told", SOON, || told(&fleet, &owner, still.asked).ok()).unwrap();
    let (count, last) = answers(&fleet, vip, &owner, (round, still.asked, told + LEASE / 2));
    let told = told.since(still.asked);
    println!("measured: told {}, {count} answers, the last {}", ms(told), ms(last));
    assert!(last <= LEASE - MARGIN, "answered {last:?} after its last renewal");
    assert!(last <= told + SLACK, "told after {told:?}, it answered after {last:?}");
    fleet.settle().unwrap();

    // Nobody tells it.
    let owner = fleet.owner(vip).unwrap();
    let round = fleet.observer.round();
    fleet.cluster.cut(Cut::api(&owner)).unwrap();
    let still = stand_still(elsewhere, LEASE * 2, &Meanwhile::default()).unwrap();
    fleet.wait_other(vip, &owner).unwrap();
    let (count, last) = answers(&fleet, vip, &owner, (round, still.asked, BootTime::now()));
    println!("measured: not told, {count} answers, the last {}; {} missed", ms(last), ms(still.missed()));
    assert!(last <= LEASE - MARGIN, "answered {last:?} after its last renewal");
    fleet.check(round).unwrap();
    fleet.recover().unwrap();
    fleet.check_health().unwrap();
}
