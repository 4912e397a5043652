//! Why addresses are refused, as values of a label: few, and the same whatever the address.

/// Words of a reason, and its label.
const REASONS: [(&str, &str); 19] = [
    ("is an address of node ", "node_address"),
    ("the address of a default gateway", "gateway"),
    ("is an address of the API server", "api_server"),
    ("is the cluster IP of ", "cluster_ip"),
    ("is in none of --ip-ranges ", "out_of_ranges"),
    ("is the load balancer address of ", "other_service"),
    ("nothing is forwarded", "not_forwarded"),
    ("is no IP address", "not_unicast"),
    ("is the unspecified address", "not_unicast"),
    ("is a loopback address", "not_unicast"),
    ("is a multicast address", "not_unicast"),
    ("is the limited broadcast address", "not_unicast"),
    ("is an IPv4 link-local address", "not_unicast"),
    ("is in 0.0.0.0/8", "not_unicast"),
    ("is an IPv4-mapped address", "not_unicast"),
    (" itself, so the kernel answers for it", "own_address"),
    ("is the network or broadcast address of ", "broadcast"),
    ("is in no subnet of this node's links", "no_subnet"),
    ("the map is full", "map_full"),
];
const DUPLICATE: &str = "duplicate";
const OTHER: &str = "other";

/// The label of a reason.
pub(super) fn of(reason: &str) -> &'static str {
    let found = REASONS.iter().find(|(words, _)| reason.contains(words));
    found.map_or(if reason.starts_with("is in line ") { DUPLICATE } else { OTHER }, |(_, label)| label)
}

/// All labels; some come more than once.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    REASONS.iter().map(|(_, label)| *label).chain([DUPLICATE, OTHER])
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use k8s_openapi::api::core::v1::{
        LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus,
    };

    use super::*;
    use crate::{
        config::never_announced,
        decision::services::{Protected, Rules, ServiceKey, Services},
    };

    #[test]
    fn reasons_have_labels() {
        for never in [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
            "0.1.2.3",
            "::ffff:1.2.3.4",
        ] {
            let reason = never_announced(never.parse().unwrap()).unwrap();
            assert_eq!(of(&reason), "not_unicast", "{reason}");
        }
        assert_eq!(of("is in line 1 already (line 2)"), DUPLICATE);
        assert_eq!(of("cannot be explained"), OTHER);
    }

    #[test]
    fn reasons_of_services_have_labels() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rules = Rules { ranges: vec!["192.0.2.0/24".parse().unwrap()], ..Rules::default() };
        let mut services = Services::new(rules);
        services.protect(Protected::Gateway, [ip("192.0.2.1")].into());
        services.protect(Protected::ApiServer, [ip("192.0.2.2")].into());
        let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1", "nonsense"];
        let ingress = addresses
            .map(|ip| LoadBalancerIngress { ip: Some(ip.to_owned()), ..LoadBalancerIngress::default() });
        let status = LoadBalancerStatus { ingress: Some(ingress.to_vec()) };
        let service = Service {
            spec: Some(ServiceSpec {
                type_: Some("LoadBalancer".to_owned()),
                cluster_ip: Some("192.0.2.3".to_owned()),
                cluster_ips: Some(vec!["192.0.2.3".to_owned()]),
                ..ServiceSpec::default()
            }),
            status: Some(ServiceStatus { load_balancer: Some(status), ..ServiceStatus::default() }),
            ..Service::default()
        };
        let key = ServiceKey { namespace: "default".to_owned(), name: "web".to_owned() };
        services.service(&key, Some(&service));
        let labels: Vec<_> = services.refusals().values().map(|reason| of(reason)).collect();
        assert_eq!(labels, ["gateway", "api_server", "cluster_ip", "out_of_ranges", "not_unicast"]);
    }
}
