//! Which nodes may answer, as far as Services say: policy, endpoints.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{
    explain::{Steps, Verdict},
    facts::ClusterFacts,
    service::{because, key},
};
use crate::decision::services::{Eligible, ServiceKey, Services};

/// Adds the steps. `None`: no node may.
pub(super) fn steps(
    steps: &mut Steps,
    cluster: &ClusterFacts,
    machine: &Services,
    address: IpAddr,
) -> Option<()> {
    let demand = machine.demands().get(&address)?;
    let services = cluster.objects.services.iter().flatten();
    let is_local = |policy: Option<&str>| policy == Some("Local");
    let local: Vec<_> = services
        .filter(|service| {
            is_local(service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()))
        })
        .map(key)
        .filter(|key| demand.services.contains(key))
        .map(|key| key.to_string())
        .collect();
    let local = local.join(", ");
    if local.is_empty() {
        let text = "externalTrafficPolicy is Cluster: every node may answer, whatever its endpoints.";
        steps.add("policy", Verdict::Ok, text);
    } else {
        let text = format!(
            "externalTrafficPolicy of {local} is Local: only a node with a ready endpoint may answer."
        );
        steps.add("policy", Verdict::Ok, text);
    }
    let Some(slices) = &cluster.objects.slices else {
        let text = format!("EndpointSlices cannot be read{}.", because(&cluster.view, "endpointslices"));
        steps.add("endpoints", Verdict::Unknown, text);
        return Some(());
    };
    let found = Endpoints::of(slices, &demand.services, address.is_ipv6());
    let (verdict, text) = match &demand.nodes {
        Eligible::Only(nodes) if nodes.is_empty() => {
            (Verdict::Bad, format!("No node has a ready endpoint of {local} ({found})."))
        }
        Eligible::Only(nodes) => {
            let list = nodes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            if found.ready == 0 {
                let text = format!(
                    "No endpoint is ready; those on {list} are ending and still serve, which counts."
                );
                (Verdict::Note, text)
            } else {
                (Verdict::Ok, format!("Those that count are on {list} ({found})."))
            }
        }
        Eligible::Any if found.ready == 0 => {
            let text = format!(
                "No endpoint is ready ({found}): the address is answered, but connections are refused."
            );
            (Verdict::Note, text)
        }
        Eligible::Any => (Verdict::Ok, format!("There are some ({found}).")),
    };
    steps.add("endpoints", verdict, text);
    (verdict != Verdict::Bad).then_some(())
}

/// Endpoints of an address's family, counted.
#[derive(Debug, Default)]
struct Endpoints {
    ready: usize,
    all: usize,
    by_node: BTreeMap<String, usize>,
}

impl Endpoints {
    fn of(slices: &[EndpointSlice], services: &[ServiceKey], ipv6: bool) -> Self {
        let mut found = Self::default();
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        for slice in slices.iter().filter(|slice| slice.address_type == family) {
            let labels = slice.metadata.labels.as_ref();
            let name = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).cloned();
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            if !name.is_some_and(|name| services.contains(&ServiceKey { namespace, name })) {
                continue;
            }
            for endpoint in slice.endpoints.iter().flatten() {
                found.all += 1;
                if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true) {
                    found.ready += 1;
                    let node = endpoint.node_name.clone().unwrap_or_else(|| "no node".to_owned());
                    *found.by_node.entry(node).or_default() += 1;
                }
            }
        }
        found
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} endpoints ready", self.ready, self.all)?;
        let list: Vec<_> = self.by_node.iter().map(|(node, count)| format!("{node} {count}")).collect();
        if list.is_empty() { Ok(()) } else { write!(f, ": {}", list.join(", ")) }
    }
}
