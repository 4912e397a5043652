//! From Services, EndpointSlices and Nodes to the addresses that somebody must announce, and who may.
//!
//! # What is announced
//!
//! * Of Services of type LoadBalancer: `status.loadBalancer.ingress[].ip`, unless its `ipMode` is `Proxy`. Entries
//!   that have a hostname alone are ignored. Which Services, by `spec.loadBalancerClass`, say the [`Rules`].
//! * With [`Rules::external_ips`]: `spec.externalIPs` of Services of any type. Those of LoadBalancer Services of
//!   another class are left to whoever serves that class; other types have no class.
//!
//! # What is refused
//!
//! In this order: what no host may announce (loopback, multicast, …); addresses of Nodes, of the API server, of
//! default gateways, and cluster IPs, because a Service must not be able to take them over; what is in none of
//! [`Rules::ranges`]; and external IPs that are the load balancer address of a Service in another namespace,
//! because whoever may write a Service must not be able to bend or to silence somebody else's.
//!
//! # Who may announce
//!
//! * `externalTrafficPolicy: Local`, for external IPs as for load balancer addresses, as kube-proxy has it: nodes
//!   with a ready endpoint of the address's family. An endpoint without the condition is ready, and the controller
//!   marks what `publishNotReadyAddresses` asks for as ready. While no node has a ready one: nodes with an endpoint
//!   that is terminating and still serves. kube-proxy judges by port; here a node counts if it has an endpoint at
//!   all, as for its health check port.
//! * `Cluster`: every node, also while the Service has no endpoints. MetalLB withdraws such an address. Here it
//!   stays, because a Deployment that restarts would otherwise make its clients wait for ARP, and again for a new
//!   owner, where kube-proxy refuses connections at once and takes them as soon as there is an endpoint.
//! * An address that several Services share has one owner, which satisfies all of them: a node with a ready
//!   endpoint of every Local one, or, while there is none, a node with one of each that kube-proxy there uses.
//!
//! # How
//!
//! An event changes the facts of one object; then the addresses that it concerns are judged anew, and no others.

mod facts;
mod guard;
#[cfg(test)]
mod tests;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};

pub use self::types::{
    Changes, Demand, Eligible, OWN_CLASS, Protected, Refused, Rules, ServiceKey, SliceKey,
};
use self::{
    facts::{Origin, ServiceFacts, SliceFacts},
    guard::{Guard, Guards},
};
use crate::config::never_announced;

/// The machine.
#[derive(Debug)]
pub struct Services {
    rules: Rules,
    services: BTreeMap<ServiceKey, ServiceFacts>,
    // Maps with the keys of both, not maps of maps: those would have a node of eleven places for one or two entries each.
    /// By Service, as their label says.
    slices: BTreeMap<(ServiceKey, SliceKey), SliceFacts>,
    slice_of: BTreeMap<SliceKey, ServiceKey>,
    /// The Services that want an address.
    claimants: BTreeMap<(IpAddr, ServiceKey), Origin>,
    guards: Guards,
    demands: BTreeMap<IpAddr, Demand>,
    /// How often a demand has changed.
    revision: u64,
    refusals: BTreeMap<Refused, String>,
    /// What was there before the first change since [`Services::take_changes`].
    earlier_demands: BTreeMap<IpAddr, Option<Demand>>,
    earlier_refusals: BTreeMap<Refused, Option<String>>,
    /// How often an address was judged.
    judged: u64,
}

impl Services {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_of: BTreeMap::new(),
            claimants: BTreeMap::new(),
            guards: Guards::default(),
            demands: BTreeMap::new(),
            revision: 0,
            refusals: BTreeMap::new(),
            earlier_demands: BTreeMap::new(),
            earlier_refusals: BTreeMap::new(),
            judged: 0,
        }
    }

    /// A Service is there or has changed; `None`: it is gone.
    pub fn service(&mut self, key: &ServiceKey, object: Option<&Service>) {
        let new = object.map(|service| ServiceFacts::read(service, &self.rules)).unwrap_or_default();
        let old = match object {
            Some(_) => self.services.insert(key.clone(), new.clone()),
            None => self.services.remove(key),
        };
        let old = old.unwrap_or_default();
        self.guard(Guard::ClusterIp(key.clone()), new.cluster_ips);
        for text in old.unusable.keys().filter(|text| !new.unusable.contains_key(*text)) {
            self.set_refusal(Refused { service: key.clone(), address: text.clone() }, None);
        }
        for ip in old.addresses.keys().filter(|ip| !new.addresses.contains_key(*ip)) {
            self.claimants.remove(&(*ip, key.clone()));
            self.set_refusal(Refused { service: key.clone(), address: ip.to_string() }, None);
            self.judge(*ip);
        }
        for (ip, origin) in &new.addresses {
            if old.addresses.get(ip) != Some(origin) || old.local != new.local {
                self.claimants.insert((*ip, key.clone()), *origin);
                self.judge(*ip);
            }
        }
        for (text, reason) in new.unusable {
            self.set_refusal(Refused { service: key.clone(), address: text }, Some(reason));
        }
    }

    /// An EndpointSlice is there or has changed; `None`: it is gone.
    pub fn slice(&mut self, key: &SliceKey, object: Option<&EndpointSlice>) {
        let new = object.and_then(|slice| SliceFacts::read(&key.namespace, slice));
        let of_api_server = match &new {
            Some((service, facts)) if guard::is_api_server(service) => facts.addresses.clone(),
            Some(_) | None => BTreeSet::new(),
        };
        self.guard(Guard::ApiServerSlice(key.clone()), of_api_server);
        let old_service = match &new {
            Some((service, _)) => self.slice_of.insert(key.clone(), service.clone()),
            None => self.slice_of.remove(key),
        };
        let mut concerned = BTreeSet::new();
        let mut old = None;
        if let Some(service) = old_service {
            old = self.slices.remove(&(service.clone(), key.clone()));
            concerned.insert(service);
        }
        if let Some((service, facts)) = new {
            let same = concerned.contains(&service) && old.as_ref() == Some(&facts);
            self.slices.insert((service.clone(), key.clone()), facts);
            if same {
                return;
            }
            concerned.insert(service);
        }
        for service in concerned {
            // Where the policy is Cluster, endpoints do not matter.
            let facts = self.services.get(&service).filter(|facts| facts.local);
            let addresses: Vec<_> = facts.iter().flat_map(|facts| facts.addresses.keys().copied()).collect();
            for ip in addresses {
                self.judge(ip);
            }
        }
    }

    /// A Node is there or has changed; `None`: it is gone. All its addresses that are IP addresses are protected,
    /// whatever their type.
    pub fn node(&mut self, name: &str, object: Option<&Node>) {
        self.guard(Guard::Node(name.to_owned()), object.map(facts::node_addresses).unwrap_or_default());
    }

    /// Never announce these. For [`Protected::ApiServer`] instead of what was given before; gateways add up.
    pub fn protect(&mut self, what: Protected, addresses: BTreeSet<IpAddr>) {
        let guard = Guard::Given(what);
        let mut addresses: BTreeSet<_> = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
        match what {
            Protected::ApiServer => {}
            Protected::Gateway => addresses.extend(self.guards.of(&guard)),
        }
        self.guard(guard, addresses);
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let demands = std::mem::take(&mut self.earlier_demands);
        let refusals = std::mem::take(&mut self.earlier_refusals);
        Changes {
            demands: demands
                .into_iter()
                .filter(|(ip, earlier)| self.demands.get(ip) != earlier.as_ref())
                .map(|(ip, _)| ip)
                .collect(),
            refusals: refusals
                .into_iter()
                .filter(|(refused, earlier)| self.refusals.get(refused) != earlier.as_ref())
                .map(|(refused, _)| refused)
                .collect(),
        }
    }

    /// What somebody must announce.
    #[must_use]
    pub fn demands(&self) -> &BTreeMap<IpAddr, Demand> {
        &self.demands
    }

    /// Another number whenever [`Services::demands`] has changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What is not announced, with the reason: a sentence whose subject is the address.
    #[must_use]
    pub fn refusals(&self) -> &BTreeMap<Refused, String> {
        &self.refusals
    }

    fn guard(&mut self, guard: Guard, addresses: BTreeSet<IpAddr>) {
        for ip in self.guards.set(guard, addresses) {
            if self.claimants_of(ip).next().is_some() {
                self.judge(ip);
            }
        }
    }

    /// Decides about one address.
    fn judge(&mut self, ip: IpAddr) {
        self.judged += 1;
        let mut services = Vec::new();
        let mut verdicts = Vec::new();
        let claimants: Vec<_> = self.claimants_of(ip).collect();
        let obstacle = claimants.first().and_then(|_| self.obstacle(ip));
        for (service, origin) in &claimants {
            let reason = obstacle.clone().or_else(|| foreign(service, *origin, &claimants));
            if reason.is_none() {
                services.push((*service).clone());
            }
            verdicts.push((Refused { service: (*service).clone(), address: ip.to_string() }, reason));
        }
        for (refused, reason) in verdicts {
            self.set_refusal(refused, reason);
        }
        let demand = (!services.is_empty())
            .then(|| Demand { nodes: self.eligible(ip, &services), services: services.into() });
        self.set_demand(ip, demand);
    }

    /// The Services that want `ip`, by name.
    fn claimants_of(&self, ip: IpAddr) -> impl Iterator<Item = (&ServiceKey, Origin)> {
        let all = self.claimants.range((ip, ServiceKey::FIRST)..);
        all.take_while(move |((of, _), _)| *of == ip).map(|((_, service), origin)| (service, *origin))
    }

    /// The EndpointSlices of a Service.
    fn slices_of(&self, service: &ServiceKey) -> impl Iterator<Item = &SliceFacts> {
        let all = self.slices.range((service.clone(), SliceKey::FIRST)..);
        all.take_while(move |((of, _), _)| of == service).map(|(_, facts)| facts)
    }

    /// Why nobody may announce `ip`, whatever Service it is of.
    fn obstacle(&self, ip: IpAddr) -> Option<String> {
        never_announced(ip).or_else(|| self.guards.reason(ip)).or_else(|| {
            let ranges = &self.rules.ranges;
            (!ranges.is_empty() && !ranges.iter().any(|range| range.contains(&ip))).then(|| {
                let list: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                format!("is in none of --ip-ranges {}", list.join(","))
            })
        })
    }

    fn eligible(&self, ip: IpAddr, services: &[ServiceKey]) -> Eligible {
        let mut ready: Option<BTreeSet<&str>> = None;
        let mut usable: Option<BTreeSet<&str>> = None;
        let narrow = |all: &mut Option<BTreeSet<_>>, by: BTreeSet<_>| {
            *all = Some(match all.take() {
                Some(all) => &all & &by,
                None => by,
            });
        };
        for service in services.iter().filter(|s| self.services.get(s).is_some_and(|facts| facts.local)) {
            let (mut on_ready, mut on_usable) = (BTreeSet::new(), BTreeSet::new());
            for slice in self.slices_of(service) {
                if slice.ipv6 == ip.is_ipv6() {
                    on_ready.extend(slice.ready.iter().map(String::as_str));
                    on_usable.extend(slice.serving_while_terminating.iter().map(String::as_str));
                }
            }
            on_usable.extend(&on_ready);
            narrow(&mut ready, on_ready);
            narrow(&mut usable, on_usable);
        }
        let own = |nodes: BTreeSet<&str>| Eligible::Only(nodes.into_iter().map(str::to_owned).collect());
        match (ready, usable) {
            (Some(ready), _) if !ready.is_empty() => own(ready),
            (_, Some(usable)) => own(usable),
            (_, None) => Eligible::Any,
        }
    }

    fn set_demand(&mut self, ip: IpAddr, new: Option<Demand>) {
        let old = match new.clone() {
            Some(demand) => self.demands.insert(ip, demand),
            None => self.demands.remove(&ip),
        };
        if old != new {
            self.revision += 1;
            self.earlier_demands.entry(ip).or_insert(old);
        }
    }

    fn set_refusal(&mut self, refused: Refused, new: Option<String>) {
        let old = match new.clone() {
            Some(reason) => self.refusals.insert(refused.clone(), reason),
            None => self.refusals.remove(&refused),
        };
        if old != new {
            self.earlier_refusals.entry(refused).or_insert(old);
        }
    }
}

/// Why an external IP is not its Service's: it is the load balancer address of another, elsewhere.
fn foreign(service: &ServiceKey, origin: Origin, all: &[(&ServiceKey, Origin)]) -> Option<String> {
    if origin != Origin::ExternalIp {
        return None;
    }
    let mut owners = all.iter().filter(|(_, origin)| *origin == Origin::LoadBalancer).map(|(key, _)| *key);
    let first = owners.next()?;
    let own = first.namespace == service.namespace || owners.any(|key| key.namespace == service.namespace);
    (!own).then(|| {
        format!(
            "is the load balancer address of Service {first}; only Services of its namespace may share it"
        )
    })
}
