//! Whether somebody should answer: service, status, ranges.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::Service;

use super::{
    explain::{Steps, Verdict},
    facts::{ClusterFacts, RulesFrom},
    policy,
};
use crate::{
    decision::services::{OWN_CLASS, Rules, ServiceKey, Services},
    overview::{self, ClusterView},
};

/// Annotations by which users ask for an address (MetalLB's two, kube-vip's, Cilium's two).
const REQUESTS: [&str; 5] = [
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
    "kube-vip.io/loadbalancerIPs",
    "lbipam.cilium.io/ips",
    "io.cilium/lb-ipam-ips",
];

/// Where a Service has the address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Status,
    /// In the status, but `ipMode: Proxy`.
    Proxy,
    ExternalIp,
    /// It is only asked for.
    Asked,
    ClusterIp,
}

/// A Service that names the address, and where.
struct Having<'a> {
    key: ServiceKey,
    service: &'a Service,
    place: Place,
}

/// Adds the steps. `None`: nobody should answer.
pub(super) fn steps(steps: &mut Steps, cluster: &ClusterFacts, address: IpAddr) -> Option<()> {
    let ClusterFacts { objects, view, rules } = cluster;
    let Some(services) = &objects.services else {
        steps.add(
            "service",
            Verdict::Unknown,
            format!("Services cannot be read{}.", because(view, "services")),
        );
        return Some(()); // an exception may be known
    };
    let having = having(services, address);
    let Some(first) = having.first() else {
        steps.add("service", Verdict::Bad, nobody(cluster, address));
        return None;
    };
    let (ours, others): (Vec<_>, Vec<_>) = having
        .iter()
        .filter(|of| of.place != Place::ClusterIp)
        .partition(|of| is_ours(of.service, &objects.rules));
    if ours.is_empty() {
        let text = match others.first() {
            Some(of) => foreign(of, &objects.rules),
            None => format!(
                "It is the cluster IP of Service {}, which kube-proxy serves on every node, and which is never announced.",
                first.key
            ),
        };
        steps.add("service", Verdict::Bad, text);
        return None;
    }
    let names: Vec<_> = ours.iter().map(|of| of.key.to_string()).collect();
    let text = match names.as_slice() {
        [one] => format!("Service {one} has it: {}.", kinds(&ours)),
        many => format!("Services {} share it: {}.", many.join(", "), kinds(&ours)),
    };
    steps.add("service", Verdict::Ok, text);
    let usable = status(steps, &ours, &objects.rules)?;
    let machine = overview::services(objects);
    ranges(steps, &machine, &usable, &Limits { address, rules: &objects.rules, from: rules, view })?;
    policy::steps(steps, cluster, &machine, address)
}

/// Every Service that names the address, and where.
fn having(services: &[Service], address: IpAddr) -> Vec<Having<'_>> {
    let is = |text: &str| text.trim().parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == address);
    let any = |list: Option<&Vec<String>>| list.into_iter().flatten().any(|text| is(text));
    let mut found = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else {
            continue;
        };
        let of_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        let entries = ingress.filter(|entry| of_balancer && entry.ip.as_deref().is_some_and(is));
        let entry = entries
            .map(|entry| if entry.ip_mode.as_deref() == Some("Proxy") { Place::Proxy } else { Place::Status })
            .min();
        let annotations = service.metadata.annotations.iter().flatten();
        let asked = spec.load_balancer_ip.as_deref().is_some_and(is)
            || annotations
                .filter(|(name, _)| REQUESTS.contains(&name.as_str()))
                .any(|(_, value)| value.split(',').any(is));
        let external = any(spec.external_ips.as_ref());
        let internal = any(spec.cluster_ips.as_ref()) || spec.cluster_ip.as_deref().is_some_and(is);
        let place = entry
            .or(external.then_some(Place::ExternalIp))
            .or((asked && of_balancer).then_some(Place::Asked))
            .or(internal.then_some(Place::ClusterIp));
        found.extend(place.map(|place| Having { key: key(service), service, place }));
    }
    found
}

/// The name of a Service.
pub(super) fn key(service: &Service) -> ServiceKey {
    let metadata = &service.metadata;
    ServiceKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// Whether the agents look after a Service. Other types than LoadBalancer have no class.
fn is_ours(service: &Service, rules: &Rules) -> bool {
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    else {
        return true;
    };
    let class = spec.load_balancer_class.as_deref();
    match &rules.class {
        Some(wanted) => class == Some(wanted),
        None => class.is_none_or(|class| class == OWN_CLASS),
    }
}

fn foreign(of: &Having<'_>, rules: &Rules) -> String {
    let class = of.service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    let class = class.map_or_else(|| "no class".to_owned(), |class| format!("the class {class}"));
    let wanted = match &rules.class {
        Some(wanted) => format!("only those of the class {wanted}"),
        None => format!("those without a class and those of {OWN_CLASS}"),
    };
    format!(
        "Service {}, which has it, is of {class} (spec.loadBalancerClass), and the agents announce {wanted} \
         (--load-balancer-class).",
        of.key
    )
}

fn kinds(ours: &[&Having<'_>]) -> String {
    let kind = |of: &&Having<'_>| {
        let spec = of.service.spec.as_ref();
        let kind = spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
        match spec.and_then(|spec| spec.load_balancer_class.as_deref()) {
            Some(class) => format!("type {kind}, class {class}"),
            None => format!("type {kind}, no class"),
        }
    };
    let kinds: BTreeSet<_> = ours.iter().map(kind).collect();
    kinds.into_iter().collect::<Vec<_>>().join("; ")
}

/// Why no Service has it.
fn nobody(cluster: &ClusterFacts, address: IpAddr) -> String {
    let node = cluster.objects.nodes.iter().flatten().find(|node| {
        let addresses = node.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
        addresses
            .filter_map(|entry| entry.address.parse::<IpAddr>().ok())
            .any(|ip| ip.to_canonical() == address)
    });
    match node.and_then(|node| node.metadata.name.as_ref()) {
        Some(node) => format!(
            "No Service has it. It is an address of node {node}, whose kernel answers for it; no agent announces a node's \
             address."
        ),
        None => "No Service has it, neither in status.loadBalancer.ingress nor in spec.externalIPs. If one should have it, \
                 look at what hands out addresses, such as MetalLB's controller (`kubectl describe service` has its \
                 Events)."
            .to_owned(),
    }
}

/// Where the Services have it. `None`: nowhere where it would be announced.
fn status(steps: &mut Steps, ours: &[&Having<'_>], rules: &Rules) -> Option<BTreeSet<ServiceKey>> {
    let of = |place: Place| ours.iter().filter(move |of| of.place == place).map(|of| of.key.clone());
    let mut usable: BTreeSet<_> = of(Place::Status).collect();
    let external: BTreeSet<_> = of(Place::ExternalIp).collect();
    if !usable.is_empty() {
        steps.add("status", Verdict::Ok, "It is in status.loadBalancer.ingress.");
    } else if rules.external_ips && !external.is_empty() {
        let text = "It is in spec.externalIPs, which the agents announce (--external-ips).";
        steps.add("status", Verdict::Ok, text);
    }
    if rules.external_ips {
        usable.extend(external.iter().cloned());
    }
    if !usable.is_empty() {
        return Some(usable);
    }
    let text = if of(Place::Proxy).next().is_some() {
        "Its entry in status.loadBalancer.ingress has ipMode Proxy: whoever wrote that forwards by itself, and nobody \
         announces it here."
            .to_owned()
    } else if !external.is_empty() {
        "It is only in spec.externalIPs, which the agents do not announce without --external-ips.".to_owned()
    } else {
        let ServiceKey { namespace, name } = &ours.first()?.key;
        format!(
            "Service {namespace}/{name} asks for it, but its status.loadBalancer.ingress is without it: what hands out \
             addresses has not given it, or is not there (`kubectl describe service -n {namespace} {name}`)."
        )
    };
    steps.add("status", Verdict::Bad, text);
    None
}

/// What limits announcing.
struct Limits<'a> {
    address: IpAddr,
    rules: &'a Rules,
    from: &'a RulesFrom,
    view: &'a ClusterView,
}

/// Whether it may be announced at all. `None`: it may not.
fn ranges(
    steps: &mut Steps,
    machine: &Services,
    usable: &BTreeSet<ServiceKey>,
    limits: &Limits<'_>,
) -> Option<()> {
    let Limits { address, rules, from, view } = limits;
    let source = match from {
        RulesFrom::Arguments => "as given here".to_owned(),
        RulesFrom::Agent(node) => format!("by the rules of the agent on {node}"),
        RulesFrom::Default => "by the usual rules: no agent could be asked for its own".to_owned(),
    };
    let refused = machine
        .refusals()
        .iter()
        .find(|(refused, _)| refused.address == address.to_string() && usable.contains(&refused.service));
    if !machine.demands().contains_key(address) {
        let reason = refused.map_or("is refused, and it is not known here why", |(_, reason)| reason);
        steps.add("ranges", Verdict::Bad, format!("It {reason} ({source})."));
        return None;
    }
    if let Some((refused, reason)) = refused {
        steps.add("ranges", Verdict::Note, format!("Of Service {} it {reason}.", refused.service));
    }
    let list: Vec<_> = rules.ranges.iter().map(ToString::to_string).collect();
    let within = if list.is_empty() {
        "no --ip-ranges limit that".to_owned()
    } else {
        format!("it is in --ip-ranges {}", list.join(","))
    };
    let guard = if view.problems.iter().any(|problem| problem.contains("list nodes")) {
        "; whether a node has it is not known"
    } else {
        ", and no node, gateway, API server or cluster IP has it"
    };
    let verdict = if **from == RulesFrom::Default { Verdict::Note } else { Verdict::Ok };
    steps.add("ranges", verdict, format!("It may be announced: {within}{guard} ({source})."));
    Some(())
}

/// Why something could not be read.
pub(super) fn because(view: &ClusterView, what: &str) -> String {
    let problem = view.problems.iter().find(|problem| problem.to_lowercase().contains(what));
    problem.map(|problem| format!(": {problem}")).unwrap_or_default()
}
