mod endpoints;
mod random;
mod refusals;
mod selection;
mod work;

use k8s_openapi::api::{
    core::v1::{
        LoadBalancerIngress, LoadBalancerStatus, NodeAddress, NodeStatus, ServiceSpec, ServiceStatus,
    },
    discovery::v1::{Endpoint, EndpointConditions},
};

use super::*;

fn key(text: &str) -> ServiceKey {
    let (namespace, name) = text.split_once('/').unwrap();
    ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn slice_key(text: &str) -> SliceKey {
    let (namespace, name) = text.split_once('/').unwrap();
    SliceKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn nodes(names: &[&str]) -> Eligible {
    Eligible::Only(names.iter().map(|name| (*name).to_owned()).collect())
}

/// A Service of type LoadBalancer with these addresses in its status.
fn load_balancer(addresses: &[&str]) -> Service {
    let entry =
        |ip: &&str| LoadBalancerIngress { ip: Some((*ip).to_owned()), ..LoadBalancerIngress::default() };
    let ingress = Some(addresses.iter().map(entry).collect());
    Service {
        spec: Some(ServiceSpec { type_: Some("LoadBalancer".to_owned()), ..ServiceSpec::default() }),
        status: Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus { ingress }),
            ..ServiceStatus::default()
        }),
        ..Service::default()
    }
}

/// One with external IPs.
fn external(type_: &str, addresses: &[&str]) -> Service {
    let external_ips = Some(strings(addresses));
    let spec = ServiceSpec { type_: Some(type_.to_owned()), external_ips, ..ServiceSpec::default() };
    Service { spec: Some(spec), ..Service::default() }
}

fn with(mut service: Service, change: impl FnOnce(&mut ServiceSpec)) -> Service {
    change(service.spec.as_mut().unwrap());
    service
}

fn local(service: Service) -> Service {
    with(service, |spec| spec.external_traffic_policy = Some("Local".to_owned()))
}

/// Ready, serving, terminating, as an EndpointSlice has them.
type Conditions = [Option<bool>; 3];
const READY: Conditions = [Some(true), Some(true), Some(false)];
const UNREADY: Conditions = [Some(false), Some(false), Some(false)];
const DRAINING: Conditions = [Some(false), Some(true), Some(true)];
const DYING: Conditions = [Some(false), Some(false), Some(true)];

fn endpoint(node: &str, [ready, serving, terminating]: Conditions) -> Endpoint {
    Endpoint {
        addresses: strings(&["10.244.0.1"]),
        node_name: Some(node.to_owned()),
        conditions: Some(EndpointConditions { ready, serving, terminating }),
        ..Endpoint::default()
    }
}

fn slice(service: &str, address_type: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: address_type.to_owned(),
        endpoints: Some(endpoints),
        ..EndpointSlice::default()
    };
    slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), service.to_owned())].into());
    slice
}

fn node(addresses: &[(&str, &str)]) -> Node {
    let address = |(type_, address): &(&str, &str)| NodeAddress {
        type_: (*type_).to_owned(),
        address: (*address).to_owned(),
    };
    let addresses = Some(addresses.iter().map(address).collect());
    Node { status: Some(NodeStatus { addresses, ..NodeStatus::default() }), ..Node::default() }
}

/// A machine that knows these Services.
fn machine(rules: Rules, services: &[(&str, Service)]) -> Services {
    let mut machine = Services::new(rules);
    for (name, service) in services {
        machine.service(&key(name), Some(service));
    }
    machine
}

fn announced(machine: &Services) -> Vec<String> {
    machine.demands().keys().map(ToString::to_string).collect()
}

/// Refusals as a reader sees them.
fn refused(machine: &Services) -> Vec<String> {
    let refusals = machine.refusals().iter();
    refusals.map(|(refused, reason)| format!("{}: {} {reason}", refused.service, refused.address)).collect()
}

fn with_external_ips() -> Rules {
    Rules { external_ips: true, ..Rules::default() }
}
