//! Web servers, and Services in front of them.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use responder_lab::LAB_IMAGE;
use serde_json::{Value, json};

use super::{ENDPOINT_PORT, Installation};

/// The port of Services.
pub(super) const PORT: u16 = 80;
/// The Services; the last has `externalTrafficPolicy: Local`.
const SERVICES: [&str; 3] = ["web", "shop", "ingress"];
/// The index of the Service with `externalTrafficPolicy: Local` among the pairs of [`vips`].
pub const LOCAL: usize = 2;

/// The VIPs: 192.0.2.201 and 2001:db8::201 of the first Service, ….
#[must_use]
pub fn vips() -> Vec<IpAddr> {
    (0..SERVICES.len()).flat_map(of_service).collect()
}

/// The VIPs of a Service.
pub(super) fn of_service(index: usize) -> [IpAddr; 2] {
    let low = u8::try_from(index).unwrap_or_default() + 1;
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200 + u16::from(low));
    [IpAddr::from([192, 0, 2, 200 + low]), IpAddr::V6(v6)]
}

impl Installation {
    /// Makes the web servers and the Services. The web servers are not waited for.
    pub(super) fn make_workload(&self) -> Result<()> {
        let mut items = vec![servers()];
        items.extend(SERVICES.iter().enumerate().map(|(index, name)| service(name, index == LOCAL)));
        self.cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;
        for (index, name) in SERVICES.iter().enumerate() {
            // As a controller that assigns addresses does.
            let ingress = of_service(index).map(|vip| json!({ "ip": vip }));
            let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
            let path = format!("/api/v1/namespaces/default/services/{name}/status");
            self.cluster.requests().merge(&path, &status)?;
        }
        Ok(())
    }
}

fn servers() -> Value {
    let labels = json!({ "app": "web" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 5,
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

fn service(name: &str, local: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "externalTrafficPolicy": if local { "Local" } else { "Cluster" },
            "selector": { "app": "web" },
            "ports": [{ "port": PORT, "targetPort": ENDPOINT_PORT }],
        },
    })
}
