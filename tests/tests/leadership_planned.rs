//! Three agents, a real API server, and a client that asks for the addresses of Services: what is done in order.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use responder_lab::{Account, Cluster, Cut, cluster_or_skip, wait_until};
use responder_tests::{
    fleet::{Fleet, SETTLED, vips},
    leases::claim_of,
    scenario::play,
};
use serde_json::json;

/// Fewer questions than would remain unanswered until a session expires.
const FEW: usize = 200;
/// How long something is so, and nothing may come of it.
const DURING: Duration = Duration::from_secs(2);

#[test]
fn in_order() {
    if !cluster_or_skip("in_order") {
        return;
    }
    let fleet = Fleet::start(Cluster::builder(), &vips(4), &[]).unwrap();
    play(
        fleet,
        &[
            ("an agent killed and started anew", restart_in_place),
            ("a successor waits", successor),
            ("SIGTERM", terminated),
            ("the label", labelled),
            ("not Ready", not_ready),
            ("no Node is Ready", none_ready),
            ("no network", no_network),
            ("cordon", cordoned),
            ("no carrier", carrier),
            ("link down", link_down),
            ("rolling restart", rolling),
        ],
    );
}

/// Nobody notices what is done to the owner of the first VIP: its session goes on, and every question is answered.
fn unnoticed(fleet: &mut Fleet, what: impl FnOnce(&mut Fleet, &str) -> Result<()>) -> Result<()> {
    let owner = fleet.owner(fleet.vips()[0])?;
    let (before, since) = (fleet.holders()?, fleet.observer.round());
    what(fleet, &owner)?;
    fleet.settle()?;
    all_answered(&fleet.check(since)?)?;
    let after = fleet.holders()?;
    ensure!(after == before, "claims changed hands: {before:?}, then {after:?}");
    Ok(())
}

fn all_answered(accounts: &[Account]) -> Result<()> {
    for account in accounts {
        let missed = account.unanswered();
        ensure!(missed == 0, "{missed} questions were not answered:\n{account}");
    }
    Ok(())
}

fn restart_in_place(fleet: &mut Fleet) -> Result<()> {
    unnoticed(fleet, |fleet, owner| {
        fleet.bury(owner);
        fleet.run(owner)?;
        fleet.agent(owner).wait_ready()?;
        outlast_predecessor();
        Ok(())
    })
}

fn successor(fleet: &mut Fleet) -> Result<()> {
    unnoticed(fleet, |fleet, owner| {
        let mut successor = fleet.agent(owner).successor()?;
        successor.process().wait_line(SETTLED, |line| line.contains("another agent runs here"))?;
        fleet.agent(owner).terminate(SETTLED)?;
        fleet.replace(owner, successor);
        fleet.agent(owner).wait_ready()?;
        outlast_predecessor();
        Ok(())
    })
}

/// During this time nothing may happen, although the deadline that the predecessor left comes.
fn outlast_predecessor() {
    thread::sleep(Duration::from_secs(4));
}

/// Handed over, not left to expire.
fn moved(fleet: &Fleet, since: usize, from: &str) -> Result<()> {
    for account in fleet.check(since)? {
        let (silence, missed) = account.longest_silence();
        if account.tenures().iter().any(|tenure| tenure.mac == fleet.mac(from)) {
            println!("{} left {from}: silence of {silence:?}, {missed} questions", account.vip);
        }
        ensure!(missed < FEW, "{missed} questions in a row were not answered:\n{account}");
    }
    Ok(())
}

fn terminated(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    fleet.agent(&owner).terminate(SETTLED)?;
    let next = fleet.wait_other(vip, &owner)?;
    moved(fleet, since, &owner)?;
    let session = fleet.leases()?.remove(&format!("session-{owner}")).unwrap_or_default();
    ensure!(session["spec"]["holderIdentity"].is_null(), "its session goes on: {session:#}");
    fleet.run(&owner)?;
    fleet.settle()?;
    fleet.check(since)?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    Ok(())
}

/// Something is said of the owner's Node, another takes over; it is taken back, and nothing happens.
fn said_and_taken_back(
    fleet: &mut Fleet,
    say: impl Fn(&Cluster, &str) -> Result<()>,
    take_back: impl Fn(&Cluster, &str) -> Result<()>,
) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    say(&fleet.cluster, &owner)?;
    let next = fleet.wait_other(vip, &owner)?;
    fleet.settle()?;
    let result = wait_for_move(fleet, &owner).and_then(|()| moved(fleet, since, &owner));
    take_back(&fleet.cluster, &owner)?;
    result?;
    fleet.settle()?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    Ok(())
}

/// Groups move one by one. Those without a VIP may stay while the node has some link.
fn wait_for_move(fleet: &Fleet, from: &str) -> Result<()> {
    let from = format!("{from}/");
    wait_until("no VIP held there", SETTLED, || {
        let holders = fleet.holders().ok()?;
        (!fleet.vips().iter().any(|vip| holders[&claim_of(*vip)].starts_with(&from))).then_some(())
    })
}

fn labelled(fleet: &mut Fleet) -> Result<()> {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    said_and_taken_back(
        fleet,
        |cluster, node| cluster.label_node(node, label, Some("")),
        |cluster, node| cluster.label_node(node, label, None),
    )
}

fn not_ready(fleet: &mut Fleet) -> Result<()> {
    said_and_taken_back(
        fleet,
        |cluster, node| cluster.set_node_condition(node, "Ready", "Unknown"),
        |cluster, node| cluster.set_node_condition(node, "Ready", "True"),
    )
}

fn no_network(fleet: &mut Fleet) -> Result<()> {
    said_and_taken_back(
        fleet,
        |cluster, node| cluster.set_node_condition(node, "NetworkUnavailable", "True"),
        |cluster, node| cluster.set_node_condition(node, "NetworkUnavailable", "False"),
    )
}

/// A doubtful node is better than none.
fn none_ready(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    for name in fleet.names() {
        fleet.cluster.set_node_condition(&name, "Ready", "False")?;
    }
    thread::sleep(DURING);
    let result = fleet.settle().and_then(|()| fleet.check(since));
    for name in fleet.names() {
        fleet.cluster.set_node_condition(&name, "Ready", "True")?;
    }
    for account in result? {
        let (silence, missed) = account.longest_silence();
        ensure!(missed < FEW, "silence of {silence:?}:\n{account}");
    }
    Ok(())
}

fn cordoned(fleet: &mut Fleet) -> Result<()> {
    unnoticed(fleet, |fleet, owner| {
        let path = format!("/api/v1/nodes/{owner}");
        fleet.cluster.requests().merge(&path, &json!({ "spec": { "unschedulable": true } }))?;
        thread::sleep(DURING);
        fleet.cluster.requests().merge(&path, &json!({ "spec": { "unschedulable": null } }))?;
        Ok(())
    })
}

fn carrier(fleet: &mut Fleet) -> Result<()> {
    said_and_taken_back(
        fleet,
        |cluster, node| cluster.cut(Cut::segment(node)),
        |cluster, node| cluster.heal(&Cut::segment(node)),
    )
}

fn link_down(fleet: &mut Fleet) -> Result<()> {
    said_and_taken_back(
        fleet,
        |cluster, node| cluster.host(node).ns().ip("link set eth0 down"),
        |cluster, node| cluster.host(node).ns().ip("link set eth0 up"),
    )
}

/// Each agent ends after its successor has begun to wait: no claim changes hands.
fn rolling(fleet: &mut Fleet) -> Result<()> {
    let (before, since) = (fleet.holders()?, fleet.observer.round());
    for name in fleet.names() {
        let mut successor = fleet.agent(&name).successor()?;
        successor.process().wait_line(SETTLED, |line| line.contains("another agent runs here"))?;
        fleet.agent(&name).terminate(SETTLED)?;
        fleet.replace(&name, successor);
        fleet.agent(&name).wait_ready()?;
    }
    fleet.settle()?;
    all_answered(&fleet.check(since)?)?;
    ensure!(fleet.holders()? == before, "claims changed hands: {before:?}, then {:?}", fleet.holders()?);
    Ok(())
}
