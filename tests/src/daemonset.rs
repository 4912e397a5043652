//! The agent as an operator installs it, in pods of a DaemonSet on real nodes, and a client that asks for the VIPs of
//! Services all the time.

mod keep;
mod play;
mod scenarios;
mod workload;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    Account, Cluster, ENDPOINT_PORT, Mac, NAMESPACE, Observer, Pod, traffic::Conversation, wait_until,
};

pub use self::{
    play::{Played, Row, play},
    scenarios::{SCENARIOS, Scenario},
    workload::{LOCAL, LOCAL_NODES, PORT, SERVICES, vips, vips_of},
};

/// Between two questions for a VIP, unless told otherwise.
const STEP: Duration = Duration::from_millis(5);
/// How long something may need, however busy the machine.
pub const SETTLED: Duration = Duration::from_secs(90);
/// The labels of the agent's pods.
const AGENTS: &str = "app.kubernetes.io/name=l2-responder,app.kubernetes.io/component=agent";

/// A cluster of three real nodes with web servers behind Services, and who watches their VIPs. Everything ends with it.
pub struct Installation {
    /// Asks from the client.
    pub observer: Observer,
    /// The cluster.
    pub cluster: Cluster,
    /// Where the directories are that `kubectl apply -k` takes.
    deploy: PathBuf,
    /// The one of them that is installed.
    variant: &'static str,
}

impl Installation {
    /// Nodes and Services, without the agent: `image` is an archive of its image, `deploy` that directory of the
    /// project, and `variant` what in it is to be installed.
    ///
    /// # Errors
    ///
    /// If something does not come up.
    pub fn prepare(image: &Path, deploy: &Path, variant: &'static str, keep: bool) -> Result<Self> {
        let builder = Cluster::builder().kube_proxy(true).keepable(keep).kubelets(&[image.to_owned()]);
        let cluster = builder.build()?;
        let observer = Observer::start(cluster.host("c").ns(), "eth0", &vips(), STEP)?;
        let installation = Self { observer, cluster, deploy: deploy.to_owned(), variant };
        installation.make_workload()?;
        Ok(installation)
    }

    /// Begins to ask anew, for each VIP once per `step`. Returns what was seen of each since that was done last.
    ///
    /// # Errors
    ///
    /// If an answer may have been missed, or there is no right to open packet sockets.
    pub fn observe(&mut self, step: Duration) -> Result<Vec<Account>> {
        // One after the other: they would take each other's answers for their own.
        let accounts = self.observer.finish()?;
        self.observer = Observer::start(self.cluster.host("c").ns(), "eth0", &vips(), step)?;
        Ok(accounts)
    }

    /// The nodes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.cluster.nodes().map(|node| node.name().to_owned()).collect()
    }

    /// The hardware address of a node on the segment.
    #[must_use]
    pub fn mac(&self, name: &str) -> Mac {
        self.cluster.host(name).mac()
    }

    /// The node that answers for a VIP.
    ///
    /// # Errors
    ///
    /// If none does.
    pub fn owner(&self, vip: IpAddr) -> Result<String> {
        let mac = self.observer.wait_answer(vip, SETTLED).with_context(|| self.diagnosis())?.mac;
        let found = self.names().into_iter().find(|name| self.mac(name) == mac);
        found.with_context(|| format!("{mac} is no node's"))
    }

    /// Waits until another node answers for a VIP, and says which.
    ///
    /// # Errors
    ///
    /// If none does.
    pub fn wait_other(&self, vip: IpAddr, name: &str) -> Result<String> {
        let mac = self.mac(name);
        self.observer.wait_other(vip, mac, SETTLED).with_context(|| self.diagnosis())?;
        self.owner(vip)
    }

    /// The agent's pods.
    ///
    /// # Errors
    ///
    /// If the API server does not answer.
    pub fn agents(&self) -> Result<Vec<Pod>> {
        self.cluster.pods(NAMESPACE, AGENTS)
    }

    /// Waits until just one agent's pod is on each node, and ready, with none of `gone` among them; and all VIPs are
    /// answered.
    ///
    /// # Errors
    ///
    /// If that does not come to be, with what the pods are instead.
    pub fn settle(&self, gone: &[Pod]) -> Result<()> {
        let names = self.names();
        let mut last = Vec::new();
        let settled = wait_until("an agent's pod ready on each node", SETTLED, || {
            last = self.agents().ok()?;
            let mut nodes: Vec<&str> =
                last.iter().filter(|pod| pod.ready).map(|pod| pod.node.as_str()).collect();
            nodes.sort_unstable();
            let all_new = last.iter().all(|pod| gone.iter().all(|old| old.name != pod.name));
            (nodes == names && last.len() == names.len() && all_new).then_some(())
        });
        settled.with_context(|| format!("{last:#?}\n{}", self.diagnosis()))?;
        vips().iter().try_for_each(|vip| self.owner(*vip).map(|_| ()))
    }

    /// Fetches a page from a web server through a VIP, and says who it was.
    ///
    /// # Errors
    ///
    /// If none answers.
    pub fn fetch(&self, vip: IpAddr) -> Result<String> {
        let server = SocketAddr::from((vip, PORT));
        let client = Conversation::start(self.cluster.host("c").ns(), server, Duration::from_millis(10))?;
        let answered = client.wait_answers(1, SETTLED);
        let seen = client.stop();
        answered.with_context(|| self.diagnosis())?;
        Ok(seen.by_server().keys().map(|name| (*name).to_owned()).collect::<Vec<_>>().join(", "))
    }

    /// `kubectl`, as the administrator.
    ///
    /// # Errors
    ///
    /// If it fails, with what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// `kubectl WORDS -k deploy/PART`.
    ///
    /// # Errors
    ///
    /// As [`Installation::kubectl`].
    pub fn kustomized(&self, words: &[&str], part: &str) -> Result<String> {
        let directory = self.deploy.join(part);
        let directory = directory.to_str().context("a path that is not UTF-8")?;
        self.kubectl(&[words, &["-k", directory]].concat())
    }

    /// Waits for a node's condition `Ready`.
    pub(crate) fn wait_condition(&self, node: &str, wanted: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{node}");
        wait_until(&format!("{node}: Ready is {wanted}"), SETTLED, || {
            let object = self.cluster.requests().get(&path).ok()?;
            let mut conditions = object["status"]["conditions"].as_array()?.iter();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == wanted).then_some(())
        })
    }

    /// Pods, Leases, and what agents have logged, for messages.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let ask = |arguments: &[&str]| self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}\n"));
        let mut text = ask(&["get", "pods", "-A", "-o", "wide"]);
        text.push_str(&ask(&["get", "leases", "-n", NAMESPACE]));
        text.push_str(&ask(&["get", "events", "-A", "--field-selector", "type!=Normal"]));
        for pod in self.agents().unwrap_or_default() {
            text.push_str(&format!("--- {} on {}\n", pod.name, pod.node));
            text.push_str(&ask(&["logs", "-n", NAMESPACE, &pod.name, "--tail=40"]));
        }
        text
    }

    /// Fails if an agent has panicked.
    pub(crate) fn check_health(&self) -> Result<()> {
        for pod in self.agents()? {
            let log = self.kubectl(&["logs", "-n", NAMESPACE, &pod.name]).unwrap_or_default();
            ensure!(!log.contains("panicked"), "{} panicked:\n{log}", pod.name);
        }
        Ok(())
    }
}
