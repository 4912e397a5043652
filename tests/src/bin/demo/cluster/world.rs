//! The demo's cluster, and what the API server knows of its Leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use anyhow::{Context as _, Result};
use responder_lab::{Mac, NAMESPACE, Pod, wait_until};
use responder_tests::daemonset::{Installation, LOCAL, SETTLED, vips_of};
use serde_json::Value;

use crate::show::Show;

/// What of `deploy` is installed.
pub(super) const VARIANT: &str = "base";

/// Everything that runs. Gone when dropped.
pub(crate) struct World {
    pub(super) site: Installation,
}

/// The addresses of the Service `web`.
pub(super) fn web() -> [IpAddr; 2] {
    vips_of(0)
}

/// The addresses of the Service with `externalTrafficPolicy: Local`.
pub(super) fn local() -> [IpAddr; 2] {
    vips_of(LOCAL)
}

impl World {
    /// The cluster with web servers and Services, without agents.
    pub(super) fn build(image: &Path, deploy: &Path, keep: bool) -> Result<Self> {
        let site = Installation::prepare(image, deploy, VARIANT, keep)?;
        let world = Self { site };
        world.wait_servers()?;
        Ok(world)
    }

    /// Waits until all web servers are there.
    pub(super) fn wait_servers(&self) -> Result<()> {
        let wait = ["wait", "deployment", "--all", "--for=condition=Available", "--timeout=60s"];
        self.site.kubectl(&wait).map(|_| ())
    }

    /// The agent and the web servers on a node.
    pub(super) fn pods_on(&self, node: &str) -> Result<Vec<Pod>> {
        let mut pods = self.site.cluster.pods("default", "")?;
        pods.append(&mut self.site.agents()?);
        pods.retain(|pod| pod.node == node);
        Ok(pods)
    }

    /// The name of the agent's pod on a node.
    pub(super) fn agent_on(&self, node: &str) -> Result<String> {
        let pod = self.site.agents()?.into_iter().find(|pod| pod.node == node);
        Ok(pod.with_context(|| format!("no agent on {node}"))?.name)
    }

    /// Waits until each of these pods, whose node has been switched off and on, has been started again and is ready: at
    /// first, the API server has them as they were.
    pub(super) fn wait_restarted(&self, before: &[Pod]) -> Result<()> {
        for old in before {
            wait_until(&format!("{} started again", old.name), SETTLED, || {
                let mut now = self.pods_on(&old.node).ok()?.into_iter();
                now.find(|pod| pod.name == old.name && pod.restarts > old.restarts && pod.ready)
            })?;
        }
        Ok(())
    }

    /// The node with this hardware address; the address itself if it is nobody's.
    pub(super) fn node_of(&self, mac: Mac) -> String {
        let node = self.site.names().into_iter().find(|node| self.site.mac(node) == mac);
        node.unwrap_or_else(|| mac.to_string())
    }

    /// Runs kubectl as the administrator and shows what it prints.
    pub(super) fn kubectl(&self, show: &Show, arguments: &[&str]) -> Result<()> {
        let output = self.site.kubectl(arguments)?;
        show.command("admin", &format!("kubectl {}", arguments.join(" ")), &output);
        Ok(())
    }

    /// Runs its plugin and shows what that prints, whatever its exit code is.
    pub(super) fn responder(&self, show: &Show, arguments: &[&str]) -> Result<()> {
        let output = self.site.responder(arguments)?;
        let text = output.stdout + &output.stderr;
        show.command("admin", &format!("kubectl responder {}", arguments.join(" ")), &text);
        Ok(())
    }

    /// Shows the Leases of the nodes' sessions.
    pub(super) fn show_sessions(&self, show: &Show) -> Result<()> {
        self.kubectl(show, &["get", "leases", "-n", NAMESPACE, "-l", "l2-responder.io/kind=session"])
    }

    /// The agents' Leases of a kind: `session` or `claim`.
    pub(super) fn leases(&self, kind: &str) -> Result<BTreeMap<String, Value>> {
        let selector = format!("labelSelector=l2-responder.io%2Fkind%3D{kind}");
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases?{selector}");
        let list = self.site.cluster.requests().get(&path)?;
        let items = list["items"].as_array().context("the API server sent no list")?;
        let name = |lease: &Value| lease["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(items.iter().map(|lease| (name(lease), lease.clone())).collect())
    }

    /// Which nodes hold something: groups, or single addresses of others' groups.
    pub(super) fn holders(&self) -> Result<BTreeSet<String>> {
        let mut holders = BTreeSet::new();
        for (name, lease) in self.leases("claim")? {
            let record = lease["metadata"]["annotations"]["l2-responder.io/record"].as_str();
            let record: Value =
                serde_json::from_str(record.with_context(|| format!("{name} has no record"))?)?;
            let named = format!("{} {}", record["holder"], record["exceptions"]);
            holders.extend(self.site.names().into_iter().filter(|node| named.contains(&format!("\"{node}"))));
        }
        Ok(holders)
    }

    /// In whose hands each session and claim is, since when, and how often that has changed.
    pub(super) fn hands(&self) -> Result<BTreeMap<String, [Value; 3]>> {
        let mut leases = self.leases("session")?;
        leases.append(&mut self.leases("claim")?);
        let hands = |lease: &Value| {
            ["holderIdentity", "acquireTime", "leaseTransitions"].map(|field| lease["spec"][field].clone())
        };
        Ok(leases.iter().map(|(name, lease)| (name.clone(), hands(lease))).collect())
    }

    /// How many claims each node holds, as a sentence.
    pub(super) fn balance(&self) -> Result<String> {
        let mut count = BTreeMap::<String, usize>::new();
        for lease in self.leases("claim")?.values() {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            *count.entry(if holder.is_empty() { "nobody" } else { holder }.to_owned()).or_default() += 1;
        }
        let parts: Vec<String> = count.iter().map(|(holder, count)| format!("{holder} {count}")).collect();
        Ok(parts.join(", "))
    }
}
