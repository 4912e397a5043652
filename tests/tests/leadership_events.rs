//! What an administrator is told of addresses that are not announced.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{net::IpAddr, time::Duration};

use responder_lab::{Cluster, Service, cluster_or_skip, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// Waits for an Event about a Service, and returns what it says.
fn told(cluster: &Cluster, service: &str) -> String {
    wait_until(&format!("an Event about {service}"), SOON, || {
        let events = cluster.requests().get("/apis/events.k8s.io/v1/namespaces/default/events").ok()?;
        let about = |event: &&serde_json::Value| event["regarding"]["name"] == service;
        let event = events["items"].as_array()?.iter().find(about).cloned()?;
        Some(format!("{}: {}", event["reason"].as_str()?, event["note"].as_str()?))
    })
    .unwrap()
}

#[test]
fn refusals_are_told_whenever_they_begin() {
    if !cluster_or_skip("refusals_are_told_whenever_they_begin") {
        return;
    }
    let cluster = Cluster::builder().nodes(1).build().unwrap();
    let router = IpAddr::V4(cluster.host("r").nics()[0].v4);
    let vip = IpAddr::from([192, 0, 2, 200]);
    let greedy = |name: &str| Service::new(name).vips(&[router]).on(&["n1"]);
    // Before there is anybody who could tell …
    cluster.service(&greedy("early")).unwrap();
    cluster.service(&Service::new("empty").vips(&[vip]).local()).unwrap();
    let mut agent = cluster.agent("n1", &["--lease-duration", "1s"]).unwrap();
    agent.wait_ready().unwrap();
    assert!(told(&cluster, "early").contains("default gateway"));
    assert!(told(&cluster, "empty").contains("no ready endpoint"));
    // … and when nothing else changes.
    cluster.service(&greedy("late")).unwrap();
    assert!(told(&cluster, "late").starts_with("NotAnnounced: 192.0.2.102"));
}
