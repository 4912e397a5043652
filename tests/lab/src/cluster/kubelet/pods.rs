//! Pods, as the API server and the kernel know them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    cgroup,
    cluster::{Cluster, NAMESPACE},
};

/// A pod, as it was when it was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node that it was given to; empty before.
    pub node: String,
    /// Whether it is `Ready`, and not about to end.
    pub ready: bool,
    /// How often its first container has been started again.
    pub restarts: u64,
    /// The id of its first container, if it has run.
    pub container: Option<String>,
}

impl Pod {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let container = &object["status"]["containerStatuses"][0];
        let is_ready = conditions.clone().any(|c| c["type"] == "Ready" && c["status"] == "True");
        Self {
            name: text(&object["metadata"]["name"]),
            node: text(&object["spec"]["nodeName"]),
            ready: is_ready && object["metadata"]["deletionTimestamp"].is_null(),
            restarts: container["restartCount"].as_u64().unwrap_or(0),
            container: container["containerID"]
                .as_str()
                .map(|id| id.trim_start_matches("containerd://").to_owned()),
        }
    }
}

impl Cluster {
    /// The pods of a namespace with these labels (`app=web`), in the order of their names.
    ///
    /// # Errors
    ///
    /// If the API server does not answer.
    pub fn pods(&self, namespace: &str, labels: &str) -> Result<Vec<Pod>> {
        let labels = labels.replace('=', "%3D").replace('/', "%2F");
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={labels}");
        let list = self.requests().get(&path)?;
        let items = list["items"].as_array().context("the API server sent no list")?;
        let mut pods: Vec<Pod> = items.iter().map(Pod::of).collect();
        pods.sort_unstable();
        Ok(pods)
    }

    /// The agent's pod on a node that is `Ready`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn agent_pod(&self, node: &str) -> Result<Pod> {
        let pods = self.pods(NAMESPACE, "app.kubernetes.io/component=agent")?;
        let pod = pods.into_iter().find(|pod| pod.node == node && pod.ready);
        pod.with_context(|| format!("no agent's pod is ready on {node}"))
    }

    /// The processes of a pod's first container, by their ids outside of its node.
    ///
    /// # Errors
    ///
    /// If it has not run, or control groups cannot be read.
    pub fn processes(&self, pod: &Pod) -> Result<Vec<i32>> {
        let container = pod.container.as_deref().context("no container")?;
        cgroup::processes(&self.cgroup_name(pod)?, container)
    }

    /// The directory of the control group in which the memory of a pod's first container is limited.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn memory_group(&self, pod: &Pod) -> Result<PathBuf> {
        let container = pod.container.as_deref().context("no container")?;
        let found = cgroup::find(&self.cgroup_name(pod)?, container)?;
        found.with_context(|| format!("no control group of {}", pod.name))
    }

    fn cgroup_name(&self, pod: &Pod) -> Result<String> {
        let group = self.node(&pod.node).cgroup.as_ref().context("a node without a control group")?;
        Ok(group.path().trim_start_matches('/').to_owned())
    }
}
