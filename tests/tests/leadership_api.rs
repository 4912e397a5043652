//! Three agents and an API server to which, and to whose objects, things are done.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{Cluster, Cut, NAMESPACE, cluster_or_skip, wait_until};
use responder_tests::{
    fleet::{Fleet, SETTLED, vips},
    leases::{LEASES, change_claims, claim_of, record_of},
    scenario::play,
};
use serde_json::{Value, json};

const LEASE: Duration = Duration::from_secs(1);
const RECORD: &str = "l2-responder.io/record";

#[test]
fn whatever_is_done_to_the_api() {
    if !cluster_or_skip("whatever_is_done_to_the_api") {
        return;
    }
    // Without controllers nothing deletes namespaces.
    let builder = Cluster::builder().controllers(true);
    let fleet = Fleet::start(builder, &vips(3), &["--lease-duration", "1s"]).unwrap();
    play(
        fleet,
        &[
            ("API server restarted", server),
            ("API server restarted after a gain", server_after_gain),
            ("etcd restarted", etcd),
            ("compacted while the watch is cut", compacted),
            ("token replaced", token_replaced),
            ("tokens revoked", tokens_revoked),
            ("session deleted", session_deleted),
            ("claim deleted", claim_deleted),
            ("record deleted", record_deleted),
            ("session edited into nonsense", session_nonsense),
            ("claim edited into nonsense", claim_nonsense),
            ("claim given to another by hand", claim_given),
            ("another number of claims by hand", count_edited),
            ("another number of claims", count_changed),
            ("another number of claims while a node is dead", count_changed_with_dead),
            ("another number of claims while the API server restarts", count_changed_meanwhile),
            ("namespace deleted", namespace_deleted),
        ],
    );
}

fn server(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    fleet.cluster.api().kill()?;
    // All fall silent: nobody may know what the others were told.
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    fleet.cluster.api().start()?;
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

/// What is still to be announced must not keep agents from beginning anew.
fn server_after_gain(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    fleet.agent(&owner).terminate(SETTLED)?;
    fleet.bury(&owner);
    fleet.wait_other(vip, &owner)?;
    fleet.cluster.api().kill()?;
    fleet.observer.wait_silence(vip, 20, SETTLED)?;
    // The second burst is due meanwhile.
    thread::sleep(LEASE * 2);
    fleet.cluster.api().start()?;
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

fn etcd(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    fleet.cluster.etcd().kill()?;
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    fleet.cluster.etcd().start()?;
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

/// A watch that goes on from a version that is not known any more (410 Gone) must list anew.
fn compacted(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    let names = fleet.names();
    for name in &names {
        fleet.cluster.cut(Cut::api(name))?;
    }
    fleet.observer.wait_silence(vip, 20, SETTLED)?;
    for n in 0..20 {
        let path = "/api/v1/namespaces/default/services/web-0";
        fleet.cluster.requests().merge(path, &json!({ "metadata": { "labels": { "n": n.to_string() } } }))?;
    }
    fleet.cluster.api().kill()?;
    fleet.cluster.compact_etcd()?;
    fleet.cluster.api().start()?;
    fleet.cluster.heal_all()?;
    fleet.settle()?;
    // That they hear of what happens now.
    let vip = [192, 0, 2, 220].into();
    let service = responder_lab::Service::new("after").vips(&[vip]).on(&["n1"]);
    let before = fleet.vips().to_vec();
    fleet.watch(&[before.as_slice(), &[vip]].concat());
    fleet.cluster.service(&service)?;
    fleet.settle().with_context(|| format!("a Service made after that ({owner} had {vip})"))?;
    fleet.check(since)?;
    fleet.cluster.delete_service("after")?;
    fleet.observer.wait_silence(vip, 20, SETTLED)?;
    fleet.watch(&before);
    Ok(())
}

/// The kubelet replaces the token long before it ends; nobody notices.
fn token_replaced(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    for name in fleet.names() {
        fleet.cluster.write_token(&name)?;
    }
    // During this time nothing may happen.
    thread::sleep(LEASE * 2);
    for account in fleet.check(since)? {
        ensure!(account.unanswered() == 0, "{} questions unanswered:\n{account}", account.unanswered());
    }
    Ok(())
}

/// The old ones do not work any more: new ones are read.
fn tokens_revoked(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    fleet.cluster.revoke_tokens()?;
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    for name in fleet.names() {
        fleet.cluster.write_token(&name)?;
    }
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

/// Its agent stops answering, and starts anew; nobody takes a missing session for dead without revoking it.
fn session_deleted(fleet: &mut Fleet) -> Result<()> {
    let (owner, since) = (fleet.owner(fleet.vips()[0])?, fleet.observer.round());
    fleet.cluster.requests().delete(&format!("{LEASES}/session-{owner}"))?;
    said(fleet, &owner, "deleted")?;
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

fn claim_deleted(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    let claim = claim_of(fleet.vips()[0]);
    fleet.cluster.requests().delete(&format!("{LEASES}/{claim}"))?;
    wait_until("the claim made anew", SETTLED, || fleet.leases().ok()?.contains_key(&claim).then_some(()))?;
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}

/// What it said goes on.
fn record_deleted(fleet: &mut Fleet) -> Result<()> {
    let (owner, since) = (fleet.owner(fleet.vips()[0])?, fleet.observer.round());
    fleet.cluster.requests().delete(&format!("{LEASES}/cluster"))?;
    said(fleet, &owner, "record was deleted")?;
    thread::sleep(LEASE);
    for account in fleet.check(since)? {
        ensure!(account.unanswered() == 0, "{} questions unanswered:\n{account}", account.unanswered());
    }
    wait_until("the record made anew", SETTLED, || fleet.leases().ok()?.contains_key("cluster").then_some(()))
}

/// Waits until the agent of a node has said something since it was last asked.
fn said(fleet: &Fleet, name: &str, text: &str) -> Result<()> {
    let what = format!("{name} says {text:?}");
    wait_until(&what, SETTLED, || fleet.log(name).contains(text).then_some(()))
}

type Edit = (&'static str, fn(&Value) -> Value);

const SESSION: [Edit; 8] = [
    ("no JSON", |_| annotation("{ this is no JSON")),
    ("an empty record", |_| annotation("")),
    ("no record", |_| json!({ "metadata": { "annotations": { RECORD: null } } })),
    ("a negative incarnation", |lease| change(lease, "session", json!("n1/-5"))),
    ("a huge number", |lease| change(lease, "renewal", json!(1e300))),
    ("an earlier incarnation", |lease| {
        let session = record_of(lease)["session"].as_str().unwrap_or_default().to_owned();
        change(lease, "session", json!(format!("{}/17", session.split('/').next().unwrap_or_default())))
    }),
    ("another holder", |_| json!({ "spec": { "holderIdentity": "somebody" } })),
    ("another label", |_| json!({ "metadata": { "labels": { "l2-responder.io/kind": "claim" } } })),
];

const CLAIM: [Edit; 8] = [
    ("no JSON", |_| annotation("nonsense")),
    ("no record", |_| json!({ "metadata": { "annotations": { RECORD: null } } })),
    ("a holder without an incarnation", |lease| change(lease, "holder", json!("n1"))),
    ("another version", |lease| change(lease, "v", json!(2))),
    ("a field more", |lease| change(lease, "more", json!([-1]))),
    ("a stranger's address", |lease| change(lease, "exceptions", json!({ "n1/5": ["203.0.113.77"] }))),
    ("another holder in the spec", |_| json!({ "spec": { "holderIdentity": "n2x" } })),
    ("another label", |_| json!({ "metadata": { "labels": { "l2-responder.io/kind": "session" } } })),
];

fn annotation(text: &str) -> Value {
    json!({ "metadata": { "annotations": { RECORD: text } } })
}

fn change(lease: &Value, field: &str, value: Value) -> Value {
    let mut record = record_of(lease);
    record[field] = value;
    annotation(&record.to_string())
}

fn session_nonsense(fleet: &mut Fleet) -> Result<()> {
    for edit in SESSION {
        let owner = fleet.owner(fleet.vips()[0])?;
        nonsense(fleet, &format!("session-{owner}"), edit)?;
    }
    Ok(())
}

fn claim_nonsense(fleet: &mut Fleet) -> Result<()> {
    let claim = claim_of(fleet.vips()[0]);
    CLAIM.into_iter().try_for_each(|edit| nonsense(fleet, &claim, edit))
}

/// Nobody answers wrongly, and it is made good.
fn nonsense(fleet: &mut Fleet, name: &str, (what, edit): Edit) -> Result<()> {
    let since = fleet.observer.round();
    let lease = fleet.leases()?.remove(name).with_context(|| format!("no {name}"))?;
    let path = format!("{LEASES}/{name}");
    let edited = fleet.cluster.requests().merge(&path, &edit(&lease));
    let edited = edited.with_context(|| format!("{name}: {what}"))?;
    let version = edited["metadata"]["resourceVersion"].clone();
    wait_until("another version", SETTLED, || {
        (fleet.leases().ok()?.get(name)?["metadata"]["resourceVersion"] != version).then_some(())
    })
    .and_then(|()| fleet.settle())
    .and_then(|()| fleet.check(since))
    .and_then(|_| fleet.check_health())
    .with_context(|| format!("{name}: {what}"))
}

/// `kubectl edit`, done well: the holder is another session that lives. It is what the Lease says that counts.
fn claim_given(fleet: &mut Fleet) -> Result<()> {
    let vip = fleet.vips()[0];
    let (owner, since) = (fleet.owner(vip)?, fleet.observer.round());
    let leases = fleet.leases()?;
    let other = fleet.names().into_iter().find(|name| *name != owner).context("one node only")?;
    let session = record_of(&leases[&format!("session-{other}")])["session"].clone();
    let claim = claim_of(vip);
    let mut patch = change(&leases[&claim], "holder", session);
    patch["spec"] = json!({ "holderIdentity": other });
    fleet.cluster.requests().merge(&format!("{LEASES}/{claim}"), &patch)?;
    let end = wait_until("one owner", SETTLED, || fleet.settle().ok());
    let accounts = fleet.accounts(since);
    println!("a claim given by hand: {}", accounts[0]);
    end
}

/// Agents give up what they hold, and announce nothing until the claims of before are gone or the number is back.
fn count_edited(fleet: &mut Fleet) -> Result<()> {
    let (owner, since) = (fleet.owner(fleet.vips()[0])?, fleet.observer.round());
    let path = format!("{LEASES}/cluster");
    let before = fleet.cluster.requests().get(&path)?;
    let back = json!({ "metadata": { "annotations": before["metadata"]["annotations"] } });
    fleet.cluster.requests().merge(&path, &annotation("nonsense"))?;
    said(fleet, &owner, "cannot be understood")?;
    fleet.cluster.requests().merge(&path, &back)?;
    fleet.settle()?;
    for account in fleet.check(since)? {
        ensure!(account.unanswered() == 0, "{} questions unanswered:\n{account}", account.unanswered());
    }
    fleet.cluster.requests().merge(&path, &change(&before, "claims", json!(5)))?;
    said(fleet, &owner, "record says 5 claims now")?;
    said(fleet, &owner, "`responder claims 5` closes them")?;
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    fleet.cluster.requests().merge(&path, &back)?;
    fleet.settle()?;
    no_doubles(fleet, since)
}

/// The command closes every claim of the old number; then those of the new are taken.
fn count_changed(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    for count in [5, 16] {
        let said = claims(fleet, count)?;
        ensure!(said.contains(" of another number closed"), "{said}");
        fleet.settle()?;
    }
    let said = claims(fleet, 16)?;
    ensure!(said.contains("no other was there"), "{said}");
    no_doubles(fleet, since)
}

/// What a dead node held is closed when its session has expired.
fn count_changed_with_dead(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    let dead = leave_to_a_dead_node(fleet)?;
    let said = claims(fleet, 7)?;
    ensure!(said.contains(&format!("session {dead}/")) && said.contains("was revoked"), "{said}");
    fleet.cluster.heal_all()?;
    fleet.settle()?;
    claims(fleet, 16)?;
    fleet.settle()?;
    no_doubles(fleet, since)
}

/// The command waits for a session's end when the API server fails, and goes on where it was.
fn count_changed_meanwhile(fleet: &mut Fleet) -> Result<()> {
    let since = fleet.observer.round();
    let dead = leave_to_a_dead_node(fleet)?;
    let command = change_claims(&fleet.cluster, 9)?;
    wait_until("the new number in the record", SETTLED, || {
        (record_of(fleet.leases().ok()?.get("cluster")?)["claims"] == 9).then_some(())
    })?;
    fleet.cluster.api().kill()?;
    fleet.cluster.api().start()?;
    let said = command.finish(SETTLED)?.ok()?.stdout;
    ensure!(said.contains(&format!("session {dead}/")) && said.contains("was revoked"), "{said}");
    ensure!(said.contains("the cluster has 9 claims"), "{said}");
    fleet.cluster.heal_all()?;
    fleet.settle()?;
    claims(fleet, 16)?;
    fleet.settle()?;
    no_doubles(fleet, since)
}

/// A node dies while the others cannot take what it held: they do nothing but by the API.
fn leave_to_a_dead_node(fleet: &mut Fleet) -> Result<String> {
    let dead = fleet.owner(fleet.vips()[0])?;
    let names = fleet.names();
    for name in names.iter().filter(|name| **name != dead) {
        fleet.cluster.cut(Cut::api(name))?;
    }
    fleet.bury(&dead);
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    Ok(dead)
}

/// Changes the number of claims; what the command said.
fn claims(fleet: &Fleet, number: u16) -> Result<String> {
    Ok(change_claims(&fleet.cluster, number)?.finish(SETTLED)?.ok()?.stdout)
}

/// Addresses go from agent to agent while all give up what they hold; at no time have they two owners.
fn no_doubles(fleet: &Fleet, since: usize) -> Result<()> {
    let violations = fleet.violations(&fleet.accounts(since), |_| usize::MAX);
    ensure!(violations.is_empty(), "{}\n{}", violations.join("\n"), fleet.diagnosis());
    Ok(())
}

/// All Leases go, and the Role. Made again, the agents begin anew.
fn namespace_deleted(fleet: &mut Fleet) -> Result<()> {
    // After each restart of the API server its watches wait longer, up to a minute in the end.
    let controllers = fleet.cluster.controllers().context("no controllers")?;
    controllers.kill()?;
    controllers.start()?;
    let since = fleet.observer.round();
    fleet.cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
    fleet.observer.wait_silence(fleet.vips()[0], 20, SETTLED)?;
    fleet.cluster.deploy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base")))?;
    for name in fleet.names() {
        fleet.cluster.write_token(&name)?;
    }
    fleet.settle()?;
    fleet.check(since)?;
    Ok(())
}
