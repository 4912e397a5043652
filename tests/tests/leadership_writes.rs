//! What leadership asks of the API server, by its audit log.

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{Cluster, Request, Service, cluster_or_skip, wait_until};
use responder_tests::{
    fleet::{Fleet, SETTLED, vips},
    scenario::play,
};

/// Renewed every 250 ms.
const OPTIONS: [&str; 4] = ["--lease-duration", "1s", "--idle-renew-interval", "2s"];

/// Services that are made for a cluster with many.
const MANY: u16 = 1000;

#[test]
fn the_api_is_spared() {
    if !cluster_or_skip("the_api_is_spared") {
        return;
    }
    let fleet = Fleet::start(Cluster::builder(), &vips(2), &OPTIONS).unwrap();
    play(
        fleet,
        &[
            ("idle", idle),
            ("failover", failover),
            ("many VIPs", many),
            ("idle with many", idle),
            ("failover with many", failover),
        ],
    );
}

/// An agent's requests; those of the Events are not part of leadership.
fn by_agents(request: &Request) -> bool {
    request.user.ends_with(":responder")
}

fn is_lease(request: &Request) -> bool {
    by_agents(request) && request.resource == "leases"
}

fn is_own_session(request: &Request) -> bool {
    request.node.as_ref().is_some_and(|node| request.name == format!("session-{node}"))
}

/// Waits until what follows a change, such as late bursts, is over.
fn wait_idle(fleet: &Fleet) -> Result<()> {
    let audit = fleet.cluster.audit();
    wait_until("a second in which agents renew and do nothing else", SETTLED, || {
        let mark = audit.mark().ok()?;
        thread::sleep(Duration::from_secs(1)); // the second
        let others =
            audit.count(mark, |r| by_agents(r) && !(is_lease(r) && r.is_write() && is_own_session(r)));
        (others.ok()? == 0).then_some(())
    })
}

/// One write per holder and renew interval, and nothing else.
fn idle(fleet: &mut Fleet) -> Result<()> {
    const TIME: Duration = Duration::from_secs(5);
    const RENEWALS: usize = 20;
    let holders = fleet.holders()?;
    wait_idle(fleet)?;
    let mark = fleet.cluster.audit().mark()?;
    thread::sleep(TIME); // what is asked meanwhile counts
    let requests = fleet.cluster.audit().since(mark)?;
    for name in fleet.names() {
        let of = |r: &&Request| by_agents(r) && r.node.as_deref() == Some(name.as_str());
        let writes = requests.iter().filter(of).filter(|r| r.is_write() && is_lease(r)).count();
        let reads = requests.iter().filter(of).filter(|r| !r.is_write()).count();
        let holds = holders.values().any(|holder| holder.starts_with(&format!("{name}/")));
        println!(
            "{name} ({}): {writes} writes of Leases, {reads} reads in {TIME:?}",
            if holds { "holder" } else { "idle" }
        );
        let most = if holds { RENEWALS + 1 } else { 4 };
        ensure!(writes <= most, "{name}: {writes} writes, at most {most}: {requests:#?}");
        ensure!(reads <= 2, "{name}: {reads} reads: {requests:#?}"); // a watch that ends is begun again
        let leases = requests.iter().filter(of).filter(|r| is_lease(r) && r.is_write());
        let strange = leases.filter(|r| !is_own_session(r)).count();
        ensure!(strange == 0, "{name}: {strange} writes of what is not its session");
    }
    Ok(())
}

/// One revocation, and one write per claim; beside the renewals of those that live.
fn failover(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let owner = fleet.owner(vip)?;
    let holders = fleet.holders()?;
    let concerned = holders.values().filter(|holder| holder.starts_with(&format!("{owner}/"))).count();
    let mark = fleet.cluster.audit().mark()?;
    fleet.cluster.crash(&owner)?;
    fleet.bury(&owner);
    fleet.wait_other(vip, &owner)?;
    fleet.settle()?;
    thread::sleep(Duration::from_millis(500)); // what is written after all is settled counts, too
    let requests = fleet.cluster.audit().since(mark)?;
    fleet.cluster.boot(&owner)?;
    fleet.run(&owner)?;
    let writes: Vec<&Request> =
        requests.iter().filter(|r| is_lease(r) && r.is_write() && !is_own_session(r)).collect();
    let done = writes.iter().filter(|r| r.succeeded()).count();
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for r in requests.iter().filter(|r| by_agents(r)) {
        *by_kind.entry(format!("{} {} {}", r.verb, r.resource, r.code)).or_default() += 1;
    }
    println!(
        "{concerned} claims concerned: {done} writes done, {} refused; all: {by_kind:?}",
        writes.len() - done
    );
    ensure!(done <= 1 + concerned, "{done} writes for {concerned} claims: {writes:#?}");
    ensure!(done > concerned / 2, "the audit log lacks writes: {writes:#?}");
    Ok(())
}

fn many(fleet: &mut Fleet) -> Result<()> {
    let vip = |n: u16| -> IpAddr { [198, 18, (n >> 8) as u8, n as u8].into() };
    let services: Vec<Service> =
        (0..MANY).map(|n| Service::new(&format!("many-{n}")).vips(&[vip(n)]).on(&["n1"])).collect();
    // On the segment, so that they are announced.
    for name in fleet.names() {
        let address = fleet.cluster.host(&name).nics().first().context("no link")?.v4.octets()[3];
        fleet.cluster.host(&name).ns().ip(&format!("addr add 198.18.255.{address}/16 dev eth0"))?;
    }
    fleet.cluster.services(&services)?;
    let mut watched = fleet.vips().to_vec();
    watched.push(vip(MANY - 1));
    fleet.watch(&watched);
    fleet.observer.wait_answer(vip(MANY - 1), SETTLED)?;
    fleet.settle()
}
