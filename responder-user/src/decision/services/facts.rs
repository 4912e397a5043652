//! What is read of the objects, and no more: a change of anything else is no change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};

use super::{OWN_CLASS, Rules, ServiceKey};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where a Service has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// In its status, written by whoever hands addresses out.
    LoadBalancer,
    /// Only in its spec, written by its user.
    ExternalIp,
}

/// A Service.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct ServiceFacts {
    /// What it would have announced.
    pub addresses: BTreeMap<IpAddr, Origin>,
    /// What it would, too, but is refused whatever the rest of the cluster says.
    pub unusable: BTreeMap<String, String>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Its cluster IPs.
    pub cluster_ips: BTreeSet<IpAddr>,
}

impl ServiceFacts {
    pub(super) fn read(service: &Service, rules: &Rules) -> Self {
        let mut facts = Self::default();
        let Some(spec) = &service.spec else {
            return facts;
        };
        facts.local = spec.external_traffic_policy.as_deref() == Some("Local");
        let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        facts.cluster_ips = cluster_ips.filter_map(|text| parse(text)).collect();

        let of_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let class = spec.load_balancer_class.as_deref();
        let ours = !of_load_balancer
            || match &rules.class {
                Some(wanted) => class == Some(wanted),
                None => class.is_none_or(|class| class == OWN_CLASS),
            };
        if !ours {
            return facts;
        }
        let mut wanted = Vec::new();
        if rules.external_ips {
            wanted.extend(spec.external_ips.iter().flatten().map(|ip| (ip, Origin::ExternalIp)));
        }
        if of_load_balancer {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
            let vips = ingress.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
            // After the external IPs: what is both is the load balancer's.
            wanted.extend(
                vips.filter_map(|entry| entry.ip.as_ref())
                    .filter(|ip| !ip.is_empty())
                    .map(|ip| (ip, Origin::LoadBalancer)),
            );
        }
        let forwards_nothing = if spec.type_.as_deref() == Some("ExternalName") {
            Some("is an address of a Service of type ExternalName, for which nothing is forwarded")
        } else if spec.cluster_ip.as_deref() == Some("None") {
            Some("is an address of a headless Service, for which nothing is forwarded")
        } else {
            None
        };
        for (text, origin) in wanted {
            match (parse(text), forwards_nothing) {
                (Some(ip), None) => {
                    facts.addresses.insert(ip, origin);
                }
                (Some(ip), Some(reason)) => {
                    facts.unusable.insert(ip.to_string(), reason.to_owned());
                }
                (None, _) => {
                    facts.unusable.insert(text.clone(), "is no IP address".to_owned());
                }
            }
        }
        facts
    }
}

/// An EndpointSlice of IP addresses: nodes by what their endpoints can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SliceFacts {
    /// The family of its addresses.
    pub ipv6: bool,
    /// Nodes with a ready endpoint.
    pub ready: BTreeSet<String>,
    /// Nodes with an endpoint that is not ready, because it is terminating, but still serves.
    pub serving_while_terminating: BTreeSet<String>,
    /// The endpoints' addresses, for the API server's own.
    pub addresses: BTreeSet<IpAddr>,
}

impl SliceFacts {
    /// `None` if it is of no Service, or of names (FQDN), or of a family that is not known.
    pub(super) fn read(namespace: &str, slice: &EndpointSlice) -> Option<(ServiceKey, Self)> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
        let service = ServiceKey { namespace: namespace.to_owned(), name: name.clone() };
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let of_api_server = super::guard::is_api_server(&service);
        let mut facts = Self {
            ipv6,
            ready: BTreeSet::new(),
            serving_while_terminating: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for endpoint in slice.endpoints.iter().flatten() {
            if of_api_server {
                facts.addresses.extend(endpoint.addresses.iter().filter_map(|text| parse(text)));
            }
            // An endpoint that is on no node (outside of the cluster) is local to none.
            let Some(node) = endpoint.node_name.as_ref().filter(|node| !node.is_empty()) else {
                continue;
            };
            // What is not said means ready, serving, not terminating (kube-proxy's endpointslicecache.go).
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(true);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            if ready {
                facts.ready.insert(node.clone());
            } else if serving && terminating {
                facts.serving_while_terminating.insert(node.clone());
            }
        }
        Some((service, facts))
    }
}

/// All addresses of a Node that are IP addresses.
pub(super) fn node_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let addresses = node.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
    addresses.filter_map(|address| parse(&address.address)).collect()
}

/// IPv4-mapped forms are the IPv4 address that they mean.
fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}
