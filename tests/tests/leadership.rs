//! Three agents, a real API server, and a client that asks for the addresses of Services: what happens without warning.

use std::{process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use responder_lab::{Cluster, Cut, cluster_or_skip};
use responder_tests::{
    fleet::{Fleet, SETTLED, vips},
    scenario::play,
};

const LEASE: Duration = Duration::from_secs(1);

#[test]
fn without_warning() {
    if !cluster_or_skip("without_warning") {
        return;
    }
    let fleet = Fleet::start(Cluster::builder(), &vips(4), &["--lease-duration", "1s"]).unwrap();
    play(
        fleet,
        &[
            ("the beginning", beginning),
            ("a crash", crash),
            ("an agent stopped for longer than its lease", stopped),
            ("an agent killed for longer than its lease", killed),
            ("requests lost", requests_lost),
            ("responses lost", responses_lost),
            ("nothing passes to the API server", api_cut),
            ("two agents with one name", one_name),
        ],
    );
}

/// Who takes what nobody had says nothing of a lapse: nothing was answered before.
fn beginning(fleet: &mut Fleet) -> Result<()> {
    for name in fleet.names() {
        let log = fleet.log(&name);
        ensure!(!log.contains("the deadline had passed"), "{name} says that it had answered:\n{log}");
    }
    Ok(())
}

/// Another node takes over, and keeps what it has when the crashed one comes back.
fn crash(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    let crashed = fleet.cluster.crash(&owner)?;
    let answer = fleet.observer.wait_other(vip, fleet.mac(&owner), SETTLED)?;
    println!("crash to answer: {:?}", answer.at.since(crashed));
    let next = fleet.node_of(answer.mac)?;
    fleet.cluster.boot(&owner)?;
    fleet.run(&owner)?;
    fleet.settle()?;
    fleet.check(since)?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    Ok(())
}

/// Its datapath is silent before another answers, and it does not answer when it goes on.
fn stopped(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    fleet.agent(&owner).freeze()?;
    let next = fleet.wait_other(vip, &owner)?;
    thread::sleep(LEASE / 2); // part of the fault: others have long had it
    fleet.agent(&owner).thaw()?;
    fleet.settle()?;
    fleet.check(since)?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    ensure!(fleet.log(&owner).contains("revoked"), "{owner} does not say what became of its session");
    Ok(())
}

fn killed(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    fleet.bury(&owner);
    let next = fleet.wait_other(vip, &owner)?;
    fleet.run(&owner)?;
    fleet.agent(&owner).wait_ready()?;
    fleet.settle()?;
    fleet.check(since)?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    Ok(())
}

fn requests_lost(fleet: &mut Fleet) -> Result<()> {
    cut(fleet, Cut::requests)
}

fn responses_lost(fleet: &mut Fleet) -> Result<()> {
    cut(fleet, Cut::responses)
}

fn api_cut(fleet: &mut Fleet) -> Result<()> {
    cut(fleet, Cut::api)
}

fn cut(fleet: &mut Fleet, what: fn(&str) -> Cut) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    let cut = what(&owner);
    fleet.cluster.cut(cut.clone())?;
    let next = fleet.wait_other(vip, &owner)?;
    thread::sleep(LEASE / 2); // part of the fault: others have long had it
    fleet.cluster.heal(&cut)?;
    fleet.settle()?;
    fleet.check(since)?;
    ensure!(fleet.owner(vip)? == next, "{vip} did not stay with {next}");
    Ok(())
}

/// A second machine calls itself like the owner: the one that was there first keeps what it has.
fn one_name(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    let other = fleet.names().into_iter().find(|name| *name != owner).unwrap_or_default();
    fleet.agent(&other).terminate(SETTLED)?;
    fleet.bury(&other);
    // `ClusterAgent` would name it rightly.
    let node = fleet.cluster.node(&other);
    let mut command = Command::new(responder_lab::paths::responder()?);
    command.arg("run").arg("--kubeconfig").arg(node.kubeconfig());
    command.args(["--node-name", &owner, "--lease-duration", "1s"]).env("NO_COLOR", "1");
    let mut impostor = node.spawn(command)?;
    let said = impostor.wait_line(SETTLED, |line| line.contains("uses this node's name"));
    thread::sleep(LEASE * 3); // in which it might take something
    let result = said.and_then(|_| fleet.check(since));
    println!("the impostor says:\n{}", impostor.last_words());
    impostor.kill()?;
    result?;
    ensure!(fleet.owner(vip)? == owner, "{vip} did not stay with {owner}");
    Ok(())
}
