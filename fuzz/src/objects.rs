//! Services, EndpointSlices and Nodes.
//!
//! A line is an event: `S`, `E` or `N` for the kind, `namespace/name`, and the object as JSON or nothing: it is gone. `+`
//! asks for what has changed, `x` in the first line has external IPs announced, too, and `r` only addresses of a range.

use std::{collections::BTreeMap, net::IpAddr, str};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use responder_user::decision::services::{OWN_CLASS, Rules, ServiceKey, Services, SliceKey};

/// So many events at most.
const EVENTS: usize = 40;

/// A cluster with a bit of everything.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let balancer = r#"S a/web {"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"]},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"ip":"2001:db8::1","ipMode":"VIP"},{"hostname":"x"},{"ip":"192.0.2.2","ipMode":"Proxy"}]}}}"#;
    let external = r#"S b/web {"spec":{"type":"ClusterIP","externalIPs":["192.0.2.1","192.0.2.3","nonsense","::ffff:192.0.2.4"]}}"#;
    let classed = format!(
        r#"S a/api {{"spec":{{"type":"LoadBalancer","loadBalancerClass":"{OWN_CLASS}"}},"status":{{"loadBalancer":{{"ingress":[{{"ip":"192.0.2.1"}},{{"ip":"127.0.0.1"}}]}}}}}}"#
    );
    let slice = r#"E a/web-1 {"metadata":{"labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"nodeName":"n1","conditions":{"ready":true}},{"addresses":["10.0.0.2"],"nodeName":"n2","conditions":{"ready":false,"serving":true,"terminating":true}},{"addresses":["10.0.0.3"]}]}"#;
    let server = r#"E default/kubernetes {"metadata":{"labels":{"kubernetes.io/service-name":"kubernetes"}},"addressType":"IPv4","endpoints":[{"addresses":["192.0.2.3"]}]}"#;
    let node = r#"N /n1 {"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"n1"}]}}"#;
    let headless = r#"S a/none {"spec":{"type":"LoadBalancer","clusterIP":"None"},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}"#;
    [
        format!("\n{balancer}\n{slice}\n+\n{classed}\nE a/web-1\n+\nS a/web"),
        format!("x\n{external}\n{balancer}\n+\n{server}\n{node}\nS a/web\nN /n1"),
        format!("xr\n{node}\n{external}\n{classed}\n{headless}\n+\n{slice}"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// In the end only counts what is there, and nothing is announced that no host can have.
///
/// # Panics
///
/// If the order of events matters, or an address is announced and refused for the same Service.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let range = "192.0.2.0/25".parse().expect("a range");
    let ranges = if first.contains('r') { vec![range] } else { Vec::new() };
    let rules = Rules { class: None, external_ips: first.contains('x'), ranges };

    let mut followed = Services::new(rules.clone());
    let mut last: BTreeMap<(char, &str), &str> = BTreeMap::new();
    for line in lines.take(EVENTS) {
        if line == "+" {
            followed.take_changes();
            continue;
        }
        let mut parts = line.splitn(3, ' ');
        let (kind, name, object) = (parts.next(), parts.next(), parts.next());
        let (Some(kind), Some(name)) = (kind.and_then(|kind| kind.chars().next()), name) else {
            continue;
        };
        if tell(&mut followed, kind, name, object) {
            match object {
                Some(object) => last.insert((kind, name), object),
                None => last.remove(&(kind, name)),
            };
        }
    }
    for (ip, demand) in followed.demands() {
        assert!(!demand.services.is_empty(), "{ip} is wanted by nobody");
        assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified(), "{ip} is announced");
        assert_eq!(*ip, ip.to_canonical());
        assert!(rules.ranges.iter().all(|range| range.contains(ip)), "{ip} is in no range");
    }
    for refused in followed.refusals().keys() {
        let demand = refused.address.parse::<IpAddr>().ok().and_then(|ip| followed.demands().get(&ip));
        assert!(demand.is_none_or(|demand| !demand.services.contains(&refused.service)), "{refused:?}");
    }
    let mut fresh = Services::new(rules);
    for ((kind, name), object) in last {
        tell(&mut fresh, kind, name, Some(object));
    }
    assert_eq!((fresh.demands(), fresh.refusals()), (followed.demands(), followed.refusals()));
}

/// Tells an event. False if it is none.
fn tell(services: &mut Services, kind: char, name: &str, object: Option<&str>) -> bool {
    let Some((namespace, name)) = name.split_once('/') else {
        return false;
    };
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    match (kind, object) {
        ('S', None) => services.service(&ServiceKey { namespace, name }, None),
        ('E', None) => services.slice(&SliceKey { namespace, name }, None),
        ('N', None) => services.node(&name, None),
        ('S', Some(object)) => match serde_json::from_str::<Service>(object) {
            Ok(service) => services.service(&ServiceKey { namespace, name }, Some(&service)),
            Err(_) => return false,
        },
        ('E', Some(object)) => match serde_json::from_str::<EndpointSlice>(object) {
            Ok(slice) => services.slice(&SliceKey { namespace, name }, Some(&slice)),
            Err(_) => return false,
        },
        ('N', Some(object)) => match serde_json::from_str::<Node>(object) {
            Ok(node) => services.node(&name, Some(&node)),
            Err(_) => return false,
        },
        _ => return false,
    }
    true
}
