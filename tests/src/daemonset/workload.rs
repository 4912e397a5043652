//! Web servers, and Services in front of them.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use responder_lab::LAB_IMAGE;
use serde_json::{Value, json};

use super::{ENDPOINT_PORT, Installation};

/// The port of Services.
pub const PORT: u16 = 80;
/// The Services; the last has `externalTrafficPolicy: Local`.
pub const SERVICES: [&str; 5] = ["web", "shop", "mail", "git", "ingress"];
/// The index of the Service with `externalTrafficPolicy: Local` among [`SERVICES`], and among the pairs of [`vips`].
pub const LOCAL: usize = 4;
/// Where that Service's web servers are; the others' are on every node.
pub const LOCAL_NODES: [&str; 2] = ["n2", "n3"];

/// The VIPs: 192.0.2.201 and 2001:db8::201 of the first Service, ….
#[must_use]
pub fn vips() -> Vec<IpAddr> {
    (0..SERVICES.len()).flat_map(vips_of).collect()
}

/// The VIPs of a Service, by its index.
#[must_use]
pub fn vips_of(index: usize) -> [IpAddr; 2] {
    let low = u8::try_from(index).unwrap_or_default() + 1;
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200 + u16::from(low));
    [IpAddr::from([192, 0, 2, 200 + low]), IpAddr::V6(v6)]
}

impl Installation {
    /// Makes the web servers and the Services. The web servers are not waited for.
    pub(super) fn make_workload(&self) -> Result<()> {
        let mut items = vec![servers("web", &["n1", "n2", "n3"]), servers(SERVICES[LOCAL], &LOCAL_NODES)];
        items.extend(SERVICES.iter().enumerate().map(|(index, name)| match index == LOCAL {
            true => service(name, name, "Local"),
            false => service(name, "web", "Cluster"),
        }));
        self.cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;
        SERVICES.iter().enumerate().try_for_each(|(index, name)| self.give_addresses(name, &vips_of(index)))
    }

    /// Makes one more Service in front of the web servers that are everywhere.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn make_service(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        self.cluster.apply(&service(name, "web", "Cluster").to_string())?;
        self.give_addresses(name, addresses)
    }

    /// As a controller that assigns addresses does.
    fn give_addresses(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let ingress: Vec<Value> = addresses.iter().map(|vip| json!({ "ip": vip })).collect();
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        let path = format!("/api/v1/namespaces/default/services/{name}/status");
        self.cluster.requests().merge(&path, &status).map(|_| ())
    }
}

/// A web server on each of these nodes.
fn servers(name: &str, nodes: &[&str]) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": nodes.len(),
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{ "matchExpressions": [
                            { "key": "kubernetes.io/hostname", "operator": "In", "values": nodes },
                        ] }],
                    } } },
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": labels },
                    }],
                    "containers": [{
                        "name": "web",
                        "image": LAB_IMAGE,
                        "imagePullPolicy": "Never",
                        "args": ["serve", "$(NODE)", ENDPOINT_PORT.to_string()],
                        "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
                        "ports": [{ "containerPort": ENDPOINT_PORT }],
                        "readinessProbe": { "tcpSocket": { "port": ENDPOINT_PORT }, "periodSeconds": 1 },
                    }],
                },
            },
        },
    })
}

/// A Service in front of the web servers of this name.
fn service(name: &str, servers: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "externalTrafficPolicy": policy,
            "selector": { "app": servers },
            "ports": [{ "port": PORT, "targetPort": ENDPOINT_PORT }],
        },
    })
}
