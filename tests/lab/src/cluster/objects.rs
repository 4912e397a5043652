//! Services, EndpointSlices and Nodes, as the parts of a cluster make them that are not here.

use std::{net::IpAddr, thread};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use super::{
    Cluster,
    agent::NAMESPACE,
    node::{ClusterNode, management_v6, pod_v4, pod_v6},
    secret,
};

/// The port at which endpoints listen.
pub const ENDPOINT_PORT: u16 = 8080;

/// One endpoint of a [`Service`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The node that it runs on.
    pub node: String,
    /// Takes traffic.
    pub ready: bool,
    /// Would take traffic, ending or not.
    pub serving: bool,
    /// Is ending.
    pub terminating: bool,
}

impl Endpoint {
    /// One that is as it should be.
    #[must_use]
    pub fn ready(node: &str) -> Self {
        Self { node: node.to_owned(), ready: true, serving: true, terminating: false }
    }

    /// One that does not take traffic.
    #[must_use]
    pub fn not_ready(node: &str) -> Self {
        Self { node: node.to_owned(), ready: false, serving: false, terminating: false }
    }

    /// One that is ending and still takes traffic.
    #[must_use]
    pub fn terminating(node: &str) -> Self {
        Self { node: node.to_owned(), ready: false, serving: true, terminating: true }
    }
}

/// A Service of type LoadBalancer in the namespace `default`, port 80, with its status and its EndpointSlices.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    vips: Vec<IpAddr>,
    local: bool,
    class: Option<String>,
    endpoints: Vec<Endpoint>,
    spec: Value,
}

impl Service {
    /// One without VIPs and endpoints, `externalTrafficPolicy: Cluster`, without a class.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            vips: Vec::new(),
            local: false,
            class: None,
            endpoints: Vec::new(),
            spec: json!({}),
        }
    }

    /// With these addresses in `status.loadBalancer.ingress`.
    #[must_use]
    pub fn vips(mut self, vips: &[IpAddr]) -> Self {
        self.vips = vips.to_vec();
        self
    }

    /// With `externalTrafficPolicy: Local`.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// With a `loadBalancerClass`.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        self.class = Some(class.to_owned());
        self
    }

    /// With ready endpoints on these nodes.
    #[must_use]
    pub fn on(self, nodes: &[&str]) -> Self {
        let endpoints: Vec<Endpoint> = nodes.iter().map(|node| Endpoint::ready(node)).collect();
        self.endpoints(&endpoints)
    }

    /// With these endpoints.
    #[must_use]
    pub fn endpoints(mut self, endpoints: &[Endpoint]) -> Self {
        self.endpoints = endpoints.to_vec();
        self
    }

    /// With a further field of its `spec`, such as `externalIPs` or `publishNotReadyAddresses`.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.spec[name] = value;
        self
    }

    fn object(&self) -> Value {
        let mut spec = json!({
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "externalTrafficPolicy": if self.local { "Local" } else { "Cluster" },
            // There are only some thousands of them, and nobody asks for one.
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "name": "http", "port": 80, "targetPort": ENDPOINT_PORT }],
        });
        if let Some(class) = &self.class {
            spec["loadBalancerClass"] = json!(class);
        }
        for (name, value) in self.spec.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name, "namespace": "default" },
            "spec": spec,
        })
    }

    fn slice(&self, cluster: &Cluster, family: &str) -> Value {
        let endpoint = |endpoint: &Endpoint| {
            let number = cluster.node(&endpoint.node).number;
            let address = match family {
                "IPv4" => pod_v4(number).to_string(),
                _ => pod_v6(number).to_string(),
            };
            json!({
                "addresses": [address],
                "nodeName": endpoint.node,
                "conditions": {
                    "ready": endpoint.ready,
                    "serving": endpoint.serving,
                    "terminating": endpoint.terminating,
                },
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", self.name, family.to_lowercase()),
                "namespace": "default",
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": family,
            "ports": [{ "name": "http", "port": ENDPOINT_PORT, "protocol": "TCP" }],
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    }
}

impl Cluster {
    /// Makes a Service what it is here described to be, whether it exists or not: endpoints first, the VIPs last.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn service(&self, service: &Service) -> Result<()> {
        let api = self.requests();
        for family in ["IPv4", "IPv6"] {
            let slice = service.slice(self, family);
            let name = slice["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}");
            api.apply(&path, &slice)?;
        }
        let path = format!("/api/v1/namespaces/default/services/{}", service.name);
        api.apply(&path, &service.object())?;
        self.set_addresses(service, 0)
    }

    /// Gives a Service its VIPs, without so many of the last.
    ///
    /// # Errors
    ///
    /// If there is no such Service, or no answer.
    pub fn set_addresses(&self, service: &Service, without: usize) -> Result<()> {
        let vips = service.vips.iter().take(service.vips.len().saturating_sub(without));
        let ingress: Vec<Value> = vips.map(|vip| json!({ "ip": vip })).collect();
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        let path = format!("/api/v1/namespaces/default/services/{}/status", service.name);
        self.requests().merge(&path, &status)?;
        Ok(())
    }

    /// Like [`Cluster::service`] for many, several at a time.
    ///
    /// # Errors
    ///
    /// The first failure; some others may have been made.
    pub fn services(&self, services: &[Service]) -> Result<()> {
        thread::scope(|scope| {
            let parts: Vec<_> = services
                .chunks(services.len().div_ceil(8).max(1))
                .map(|part| scope.spawn(|| part.iter().try_for_each(|service| self.service(service))))
                .collect();
            parts
                .into_iter()
                .try_for_each(|part| part.join().map_err(|_panic| anyhow!("a thread panicked"))?)
        })
    }

    /// Deletes a Service and its EndpointSlices.
    ///
    /// # Errors
    ///
    /// If there is none, or no answer.
    pub fn delete_service(&self, name: &str) -> Result<()> {
        let api = self.requests();
        api.delete(&format!("/api/v1/namespaces/default/services/{name}"))?;
        for family in ["ipv4", "ipv6"] {
            api.delete(&format!(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}-{family}"
            ))?;
        }
        Ok(())
    }

    /// Makes the Node object of a node, `Ready`, as a kubelet does: management addresses as `InternalIP`, those on the
    /// segment as `ExternalIP`. [`super::ClusterBuilder::build`] has done it for all.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn add_node_object(&self, name: &str) -> Result<()> {
        let node = self.node(name);
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            } },
        });
        let path = format!("/api/v1/nodes/{name}");
        self.requests().apply(&path, &object)?;
        self.requests().merge(&format!("{path}/status"), &json!({ "status": self.node_status(node) }))?;
        Ok(())
    }

    fn node_status(&self, node: &ClusterNode) -> Value {
        let mut addresses = vec![
            json!({ "type": "InternalIP", "address": node.address() }),
            json!({ "type": "InternalIP", "address": management_v6(node.number) }),
            json!({ "type": "Hostname", "address": node.name }),
        ];
        for nic in self.lab.node(&node.name).nics() {
            addresses.push(json!({ "type": "ExternalIP", "address": nic.v4 }));
            addresses.push(json!({ "type": "ExternalIP", "address": nic.v6 }));
        }
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "Lab" });
        json!({
            "addresses": addresses,
            "conditions": [condition("Ready", "True"), condition("NetworkUnavailable", "False")],
        })
    }

    /// Sets a condition (`Ready`, `NetworkUnavailable`) of a Node object to `True`, `False` or `Unknown`.
    ///
    /// # Errors
    ///
    /// If there is no such object, or no answer.
    pub fn set_node_condition(&self, name: &str, kind: &str, status: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{name}");
        let node = self.requests().get(&path)?;
        let mut conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != kind);
        conditions.push(json!({ "type": kind, "status": status, "reason": "Lab" }));
        let patch = json!({ "status": { "conditions": conditions } });
        self.requests().merge(&format!("{path}/status"), &patch)?;
        Ok(())
    }

    /// Sets a label of a Node object, or removes it.
    ///
    /// # Errors
    ///
    /// If there is no such object, or no answer.
    pub fn label_node(&self, name: &str, label: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({ "metadata": { "labels": { label: value } } });
        self.requests().merge(&format!("/api/v1/nodes/{name}"), &patch)?;
        Ok(())
    }

    /// Asks for a new ServiceAccount token for the agent of a node, and writes it where the agent reads it. The one
    /// before goes on being accepted; see [`Cluster::revoke_tokens`].
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn write_token(&self, name: &str) -> Result<()> {
        let node = self.node(name);
        let object = self.requests().get(&format!("/api/v1/nodes/{name}"))?;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            // Bound to the node, so that the audit log can tell agents apart.
            "spec": { "boundObjectRef": {
                "apiVersion": "v1", "kind": "Node", "name": name, "uid": object["metadata"]["uid"],
            } },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/responder/token");
        let answer = self.requests().create(&path, &request)?;
        let token = answer["status"]["token"].as_str().context("an answer without a token")?;
        // In one step, as the kubelet does it.
        let new = node.token.with_extension("new");
        secret::write(&new, token)?;
        std::fs::rename(&new, &node.token).with_context(|| format!("writing {}", node.token.display()))
    }

    /// Makes all tokens invalid that were written before, by replacing the agents' ServiceAccount. Agents fail until
    /// [`Cluster::write_token`]; a token that has been used is accepted for up to 10 s more (the API server's cache).
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn revoke_tokens(&self) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        self.requests().delete(&format!("{path}/responder"))?;
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "responder", "namespace": NAMESPACE } });
        self.requests().create(&path, &account)?;
        Ok(())
    }
}
