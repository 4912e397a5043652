//! Services that come, change and go: who answers for their addresses, and what their Events say.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{Cluster, Endpoint, Service, cluster_or_skip, http_get, wait_until};
use responder_tests::{
    fleet::{Fleet, SETTLED, vips},
    scenario::play,
};
use serde_json::json;

/// Questions without an answer that tell that nobody answers.
const SILENCE: usize = 40;

#[test]
fn services_are_followed() {
    if !cluster_or_skip("services_are_followed") {
        return;
    }
    let options = ["--lease-duration", "1s", "--ip-ranges", "192.0.2.192/26,2001:db8::/64", "--external-ips"];
    let fleet = Fleet::start(Cluster::builder(), &vips(1), &options).unwrap();
    play(
        fleet,
        &[
            ("metrics of the cluster", metrics),
            ("local follows endpoints", local),
            ("an address comes and goes", address),
            ("class", class),
            ("policy", policy),
            ("shared", shared),
            ("dual stack", dual_stack),
            ("not allowed", refused),
            ("not ready published", not_ready),
            ("external", external),
            ("proxy mode", proxy_mode),
        ],
    );
}

const fn vip(n: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, n))
}

/// Watches these VIPs alone, for a scenario.
fn watching(
    fleet: &mut Fleet,
    watched: &[IpAddr],
    scenario: impl FnOnce(&mut Fleet) -> Result<()>,
) -> Result<()> {
    let before = fleet.vips().to_vec();
    fleet.watch(watched);
    let since = fleet.observer.round();
    let result = scenario(fleet).and_then(|()| {
        let accounts = fleet.accounts(since);
        // Owners may come back here: only two at once are wrong.
        let violations = fleet.violations(&accounts, |_| usize::MAX);
        ensure!(violations.is_empty(), "{}\n{}", violations.join("\n"), accounts[0]);
        Ok(())
    });
    fleet.watch(&before);
    result
}

fn silent(fleet: &Fleet, vip: IpAddr) -> Result<()> {
    fleet.observer.wait_silence(vip, SILENCE, SETTLED).with_context(|| fleet.diagnosis())
}

/// An Event of a Service that says this.
fn event(fleet: &Fleet, service: &str, reason: &str, text: &str) -> Result<()> {
    let path = format!(
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind=Service,involvedObject.name={service}"
    );
    let mut last = String::new();
    wait_until(&format!("an Event {reason} of {service} with {text:?}"), SETTLED, || {
        let events = fleet.cluster.requests().get(&path).ok()?;
        last = format!("{events:#}");
        let found = events["items"].as_array()?.iter().any(|event| {
            let said = event["message"].as_str().unwrap_or_default();
            event["reason"] == reason && said.contains(text)
        });
        found.then_some(())
    })
    .with_context(|| last.clone())
}

/// Waits until the metrics of all nodes have this series with this value, and all nodes are ready.
fn metric(fleet: &Fleet, series: &str, value: f64) -> Result<()> {
    let client = fleet.cluster.host("c").ns();
    for node in fleet.cluster.nodes() {
        let address = (fleet.cluster.host(node.name()).nics()[0].v4, 7490).into();
        let mut last = String::new();
        let found = wait_until(&format!("{series} {value} at {}", node.name()), SETTLED, || {
            let metrics = http_get(client, address, "/metrics").ok()?;
            last.clone_from(&metrics.body);
            (metrics.metric(series) == Some(value)).then_some(())
        });
        found.with_context(|| last.clone())?;
        let ready = http_get(client, address, "/readyz")?;
        ensure!(ready.code == 200, "{} is not ready: {}", node.name(), ready.body);
    }
    Ok(())
}

fn metrics(fleet: &mut Fleet) -> Result<()> {
    metric(fleet, "responder_expected_nodes", 3.0)?;
    metric(fleet, "responder_lease_duration_seconds", 1.0)?;
    // Renewals come back by the watch, those of idle nodes seldom.
    let client = fleet.cluster.host("c").ns();
    for node in fleet.cluster.nodes() {
        let address = (fleet.cluster.host(node.name()).nics()[0].v4, 7490).into();
        wait_until(&format!("a renewal seen by {}", node.name()), SETTLED, || {
            let metrics = http_get(client, address, "/metrics").ok()?;
            let [seen, late] = ["_count", "_bucket{le=\"10.0\"}"]
                .map(|series| metrics.metric(&format!("responder_watch_lag_seconds{series}")));
            seen.filter(|seen| *seen > 0.0 && late == Some(*seen)).map(drop)
        })?;
    }
    Ok(())
}

fn local(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(210)], |fleet| {
        let service = Service::new("local").vips(&[vip(210)]).local();
        for node in ["n1", "n2", "n3", "n1"] {
            fleet.cluster.service(&service.clone().on(&[node]))?;
            fleet.wait_owner(vip(210), node)?;
        }
        // One that ends counts while nothing else serves.
        fleet.cluster.service(&service.clone().endpoints(&[Endpoint::terminating("n2")]))?;
        fleet.wait_owner(vip(210), "n2")?;
        let endpoints = [Endpoint::terminating("n2"), Endpoint::ready("n3")];
        fleet.cluster.service(&service.clone().endpoints(&endpoints))?;
        fleet.wait_owner(vip(210), "n3")?;
        fleet.cluster.service(&service.clone().endpoints(&[Endpoint::not_ready("n3")]))?;
        silent(fleet, vip(210))?;
        event(fleet, "local", "NotAnnounced", "no ready endpoint")?;
        metric(fleet, "responder_vips_without_eligible_node", 1.0)?;
        fleet.cluster.service(&service.on(&["n2"]))?;
        fleet.wait_owner(vip(210), "n2")?;
        event(fleet, "local", "Announcing", "n2")?;
        metric(fleet, "responder_vips_without_eligible_node", 0.0)?;
        // Its node crashes; another has an endpoint, and takes over.
        fleet.cluster.service(&Service::new("local").vips(&[vip(210)]).local().on(&["n2", "n3"]))?;
        fleet.wait_owner(vip(210), "n2")?;
        fleet.cluster.crash("n2")?;
        fleet.wait_owner(vip(210), "n3")?;
        fleet.bury("n2");
        fleet.cluster.boot("n2")?;
        fleet.run("n2")?;
        fleet.cluster.delete_service("local")?;
        silent(fleet, vip(210))
    })
}

fn address(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(211), vip(212)], |fleet| {
        let service = Service::new("moving").on(&["n1"]);
        fleet.cluster.service(&service.clone().vips(&[vip(211)]))?;
        fleet.owner(vip(211))?;
        fleet.cluster.service(&service.clone().vips(&[vip(212)]))?;
        fleet.owner(vip(212))?;
        silent(fleet, vip(211))?;
        fleet.cluster.service(&service.clone().vips(&[vip(211), vip(212)]))?;
        fleet.owner(vip(211))?;
        fleet.cluster.service(&service)?;
        silent(fleet, vip(211))?;
        silent(fleet, vip(212))?;
        fleet.cluster.delete_service("moving")
    })
}

/// A class cannot be changed while the Service is a LoadBalancer; users delete it and make it anew.
fn class(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(213)], |fleet| {
        let service = Service::new("class").vips(&[vip(213)]).on(&["n1"]);
        for (class, answered) in
            [(Some("example.com/other"), false), (Some("l2-responder.io/responder"), true), (None, true)]
        {
            let service = class.map_or_else(|| service.clone(), |class| service.clone().class(class));
            fleet.cluster.service(&service)?;
            if answered {
                fleet.owner(vip(213))?;
            } else {
                silent(fleet, vip(213))?;
            }
            fleet.cluster.delete_service("class")?;
            silent(fleet, vip(213))?;
        }
        Ok(())
    })
}

fn policy(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(214)], |fleet| {
        let service = Service::new("policy").vips(&[vip(214)]);
        fleet.cluster.service(&service.clone().on(&["n1"]))?;
        let owner = fleet.owner(vip(214))?;
        let other = fleet.names().into_iter().find(|name| *name != owner).unwrap_or_default();
        fleet.cluster.service(&service.clone().local().on(&[&other]))?;
        fleet.wait_owner(vip(214), &other)?;
        // What another holds stays with it.
        fleet.cluster.service(&service.clone().on(&[&owner]))?;
        fleet.settle()?;
        fleet.cluster.service(&service.local().on(&[&owner]))?;
        fleet.wait_owner(vip(214), &owner)?;
        fleet.cluster.delete_service("policy")
    })
}

/// The owner must do for both.
fn shared(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(215)], |fleet| {
        let (one, other) =
            (Service::new("shared-1").vips(&[vip(215)]), Service::new("shared-2").vips(&[vip(215)]));
        fleet.cluster.service(&one.clone().local().on(&["n1", "n2"]))?;
        fleet.cluster.service(&other.clone().local().on(&["n2", "n3"]))?;
        fleet.wait_owner(vip(215), "n2")?;
        fleet.cluster.service(&one.clone().local().on(&["n1"]))?;
        fleet.cluster.service(&other.local().on(&["n3"]))?;
        silent(fleet, vip(215))?;
        fleet.cluster.delete_service("shared-2")?;
        fleet.wait_owner(vip(215), "n1")?;
        fleet.cluster.delete_service("shared-1")
    })
}

fn dual_stack(fleet: &mut Fleet) -> Result<()> {
    let v6: IpAddr = "2001:db8::d0a1".parse()?;
    watching(fleet, &[vip(216), v6], |fleet| {
        fleet.cluster.service(&Service::new("dual").vips(&[vip(216), v6]).local().on(&["n3"]))?;
        fleet.wait_owner(vip(216), "n3")?;
        fleet.wait_owner(v6, "n3")?;
        fleet.cluster.service(&Service::new("dual").vips(&[vip(216), v6]).local().on(&["n1"]))?;
        fleet.wait_owner(v6, "n1")?;
        fleet.wait_owner(vip(216), "n1")?;
        fleet.cluster.delete_service("dual")?;
        silent(fleet, v6)
    })
}

/// What is out of range, a node's, the gateway's or the API server's.
fn refused(fleet: &mut Fleet) -> Result<()> {
    let wrong = [vip(20), vip(1), vip(102), [10, 77, 0, 1].into()];
    let fine = vip(217);
    watching(fleet, &[wrong.as_slice(), &[fine]].concat(), |fleet| {
        for (n, wrong) in wrong.iter().enumerate() {
            let name = format!("wrong-{n}");
            fleet.cluster.service(&Service::new(&name).vips(&[*wrong, fine]).on(&["n1"]))?;
            event(fleet, &name, "NotAnnounced", &wrong.to_string())?;
        }
        metric(fleet, "responder_refused_vips{reason=\"gateway\"}", 1.0)?;
        fleet.owner(fine)?;
        println!("{}", fleet.cluster.kubectl(&["get", "events"])?);
        for (n, wrong) in wrong.iter().enumerate() {
            // The node and the router answer for themselves, and nobody else.
            let tenures = fleet.observer.account(*wrong, 0).tenures();
            let macs: Vec<_> = tenures.iter().map(|tenure| tenure.mac).collect();
            let allowed: &[_] = match n {
                1 => &[fleet.mac("n1")],
                2 => &[fleet.mac("r")],
                _ => &[],
            };
            ensure!(macs.iter().all(|mac| allowed.contains(mac)), "{wrong} is answered by {macs:?}");
            fleet.cluster.delete_service(&format!("wrong-{n}"))?;
        }
        Ok(())
    })
}

fn not_ready(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(218)], |fleet| {
        let service = Service::new("early").vips(&[vip(218)]).local().endpoints(&[Endpoint::not_ready("n2")]);
        fleet.cluster.service(&service)?;
        silent(fleet, vip(218))?;
        // As the EndpointSlice controller does it: published, such endpoints are ready.
        let published = Endpoint { ready: true, ..Endpoint::not_ready("n2") };
        let service = service.field("publishNotReadyAddresses", json!(true)).endpoints(&[published]);
        fleet.cluster.service(&service)?;
        fleet.wait_owner(vip(218), "n2")?;
        fleet.cluster.delete_service("early")
    })
}

fn external(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(219)], |fleet| {
        fleet.cluster.service(&Service::new("ext").on(&["n1"]).field("externalIPs", json!([vip(219)])))?;
        fleet.owner(vip(219))?;
        fleet.cluster.delete_service("ext")?;
        silent(fleet, vip(219))
    })
}

/// An address that is not answered on the segment.
fn proxy_mode(fleet: &mut Fleet) -> Result<()> {
    watching(fleet, &[vip(220), vip(221)], |fleet| {
        fleet.cluster.service(&Service::new("proxied").on(&["n1"]))?;
        let path = "/api/v1/namespaces/default/services/proxied/status";
        let status = |mode: &str| {
            let ingress = json!([{ "ip": vip(220), "ipMode": mode }, { "ip": vip(221), "ipMode": "VIP" }]);
            json!({ "status": { "loadBalancer": { "ingress": ingress } } })
        };
        fleet.cluster.requests().merge(path, &status("Proxy"))?;
        // The status has been seen, and during this time nothing may come of it.
        fleet.owner(vip(221))?;
        let answer = fleet.observer.wait_answer(vip(220), Duration::from_millis(500));
        ensure!(answer.is_err(), "{} is answered: {answer:?}", vip(220));
        fleet.cluster.requests().merge(path, &status("VIP"))?;
        fleet.owner(vip(220))?;
        fleet.cluster.delete_service("proxied")
    })
}
