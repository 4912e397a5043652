//! What leadership asks of the API server, by its audit log.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Result, ensure};
use responder_lab::{Cluster, Request, cluster_or_skip, wait_until};
use responder_tests::{
    crowd::addresses,
    fleet::{Fleet, SETTLED, vips},
    leases::LEASES,
    scenario::play,
};

/// Renewed every 250 ms.
const OPTIONS: [&str; 4] = ["--lease-duration", "1s", "--idle-renew-interval", "2s"];

/// VIPs of a cluster with many. (`cargo xtask bench failover` has ten thousand, which take the API server minutes.)
const MANY: u32 = 1000;

/// An agent lists so many Services, EndpointSlices or Nodes at a time.
const PAGE: usize = 500;

#[test]
fn the_api_is_spared() {
    if !cluster_or_skip("the_api_is_spared") {
        return;
    }
    let fleet = Fleet::start(Cluster::builder(), &vips(2), &OPTIONS).unwrap();
    play(
        fleet,
        &[
            ("start", start),
            ("idle", idle),
            ("failover", failover),
            ("many VIPs", many),
            ("start with many", start),
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

/// What an agent asks for until it follows everything: each watch begins with a list, by pages, and the Leases are listed
/// once more to agree on the number of claims.
fn start(fleet: &mut Fleet) -> Result<()> {
    const NODE: &str = "n3";
    let kinds = [
        ("leases", LEASES, 1),
        ("services", "/api/v1/services", 0),
        ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", 0),
        ("nodes", "/api/v1/nodes", 0),
    ];
    fleet.agent(NODE).terminate(SETTLED)?;
    let audit = fleet.cluster.audit();
    let mark = audit.mark()?;
    fleet.run(NODE)?;
    fleet.agent(NODE).wait_ready()?;
    let of = |r: &Request| by_agents(r) && r.node.as_deref() == Some(NODE);
    for (resource, ..) in kinds {
        audit.wait_for(mark, SETTLED, |r| of(r) && r.verb == "watch" && r.resource == resource)?;
    }
    fleet.settle()?;
    let requests = audit.since(mark)?;
    for (resource, path, more) in kinds {
        let objects = fleet.cluster.requests().get(path)?["items"].as_array().map_or(0, Vec::len);
        let pages = objects.div_ceil(PAGE).max(1);
        let count = |verb: &str| {
            requests.iter().filter(|r| of(r) && r.verb == verb && r.resource == resource).count()
        };
        let (lists, watches) = (count("list"), count("watch"));
        println!("{NODE} from its start: {objects} {resource}: {lists} lists, {watches} watches");
        // On a busy machine a watch may begin anew.
        let most = pages * watches + more;
        ensure!(lists <= most, "{NODE}: {lists} lists of {resource}, at most {most}: {requests:#?}");
        ensure!(watches <= 2, "{NODE}: {watches} watches of {resource}: {requests:#?}");
    }
    Ok(())
}

/// One write per holder and renew interval, and nothing else.
fn idle(fleet: &mut Fleet) -> Result<()> {
    const TIME: Duration = Duration::from_secs(5);
    const RENEWALS: usize = 20;
    let holders = fleet.holders()?;
    wait_idle(fleet)?;
    let watched = Watched::now(fleet)?;
    let mark = fleet.cluster.audit().mark()?;
    thread::sleep(TIME); // what is asked meanwhile counts
    let requests = fleet.cluster.audit().since(mark)?;
    watched.compare(fleet, requests.iter().filter(|r| is_lease(r) && r.is_write()).count())?;
    for name in fleet.names() {
        let of = |r: &&Request| by_agents(r) && r.node.as_deref() == Some(name.as_str());
        let writes = requests.iter().filter(of).filter(|r| r.is_write() && is_lease(r)).count();
        // A connection is tried with /version, which reads no object.
        let reads = requests.iter().filter(of).filter(|r| !r.is_write() && !r.resource.is_empty()).count();
        let watches = requests.iter().filter(of).filter(|r| r.verb == "watch").count();
        let holds = holders.values().any(|holder| holder.starts_with(&format!("{name}/")));
        println!(
            "{name} ({}): {writes} writes of Leases, {reads} reads in {TIME:?}",
            if holds { "holder" } else { "idle" }
        );
        let most = if holds { RENEWALS + 1 } else { 4 };
        ensure!(writes <= most, "{name}: {writes} writes, at most {most}: {requests:#?}");
        ensure!(reads == watches && reads <= 2, "{name}: {reads} reads: {requests:#?}"); // one that ends is begun again
        let leases = requests.iter().filter(of).filter(|r| is_lease(r) && r.is_write());
        let strange = leases.filter(|r| !is_own_session(r)).count();
        ensure!(strange == 0, "{name}: {strange} writes of what is not its session");
    }
    Ok(())
}

/// What the API server has sent to those that watch Leases.
struct Watched {
    events: f64,
    bytes: f64,
}

impl Watched {
    fn now(fleet: &Fleet) -> Result<Self> {
        let api = fleet.cluster.requests();
        let of = |name: &str| api.metric(name, "resource=\"leases\"");
        Ok(Self {
            events: of("apiserver_watch_events_total")?,
            bytes: of("apiserver_watch_events_sizes_sum")?,
        })
    }

    /// Each agent sees each write, and nobody sees more.
    fn compare(&self, fleet: &Fleet, writes: usize) -> Result<()> {
        let now = Self::now(fleet)?;
        let agents = fleet.names().len();
        let (events, bytes) = (now.events - self.events, now.bytes - self.bytes);
        println!(
            "{writes} writes of Leases: {events} events to {agents} watches, {:.0} bytes each",
            bytes / events.max(1.0)
        );
        // Some were written before the first count and noted after it, or the other way round.
        let (few, most) = (writes.saturating_sub(agents) * agents, (writes + agents) * agents);
        ensure!((few as f64..=most as f64).contains(&events), "{events} events for {writes} writes");
        Ok(())
    }
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
    fleet.names().iter().try_for_each(|name| fleet.make_room(name))?;
    let took = fleet.fill(&addresses(MANY))?;
    println!("{MANY} VIPs; the API server took {took:?} for the Services");
    Ok(())
}
