//! containerd and a kubelet on each node.

mod config;
mod image;
mod pods;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use self::config::{Runtime, SOCKET};
use super::{
    Cluster,
    node::{ClusterNode, management_v6},
    server::get_local,
};
use crate::{
    cgroup::Cgroup,
    cleanup::PREFIX,
    process::{Output, Process},
    time::wait_until,
};

pub use self::{image::LAB as LAB_IMAGE, pods::Pod};

/// How long the parts of a node may take to be ready, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// The bridge of a node's pods.
pub(super) const BRIDGE: &str = "cni0";
/// Where the kubelet says that it is in order.
const HEALTH_PORT: u16 = 10248;

/// Those of all nodes.
#[derive(Debug)]
pub(super) struct Kubelets {
    runtime: Runtime,
    bin: PathBuf,
    images: Vec<PathBuf>,
    running: Mutex<BTreeMap<String, Running>>,
}

/// Those of a node.
#[derive(Debug)]
struct Running {
    kubelet: Option<Process>,
    containerd: Process,
}

impl Kubelets {
    /// With the programs of `bin`; `images` are archives of what pods run. Files go into `dir`.
    pub(super) fn new(dir: &Path, bin: &Path, images: &[PathBuf]) -> Result<Self> {
        let dir = dir.join("images");
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut all = vec![image::lab(&dir)?];
        all.extend_from_slice(images);
        Ok(Self {
            runtime: Runtime::find(&dir)?,
            bin: bin.to_owned(),
            images: all,
            running: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts those of a node that is on; what ran before it crashed is forgotten.
    pub(super) fn start(&self, node: &ClusterNode) -> Result<()> {
        let dir = self.write(node)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(dir.join("containerd.toml"));
        let containerd = node.spawn(command)?;
        let socket = node.root()?.join(SOCKET.trim_start_matches('/'));
        wait_until("containerd's socket", READY_DEADLINE, || UnixStream::connect(&socket).ok())
            .with_context(|| containerd.last_words())?;
        for image in &self.images {
            let mut command = Command::new("ctr");
            command.args(["--namespace", "k8s.io", "images", "import", "--snapshotter"]);
            command.arg(self.runtime.snapshotter()).arg(image);
            let done = node.spawn(command)?.finish(READY_DEADLINE).and_then(Output::ok);
            done.with_context(|| containerd.last_words())?;
        }
        let kubelet = self.spawn(node, &dir)?;
        self.lock().insert(node.name.clone(), Running { kubelet: Some(kubelet), containerd });
        Ok(())
    }

    /// Writes what they are told. Returns where.
    fn write(&self, node: &ClusterNode) -> Result<PathBuf> {
        let cgroup = node.cgroup.as_ref().context("a node without a control group")?.path();
        let dir = node.disk.clone().context("a node without a disk")?;
        let cni = dir.join("cni");
        fs::create_dir_all(&cni)?;
        // JSON is YAML.
        let files = [
            (cni.join("10-pods.conflist"), config::network(node.number).to_string()),
            (dir.join("containerd.toml"), self.runtime.containerd(&cni)),
            (dir.join("kubelet.yaml"), config::kubelet(&cgroup).to_string()),
        ];
        for (path, text) in files {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(dir)
    }

    fn spawn(&self, node: &ClusterNode, dir: &Path) -> Result<Process> {
        let mut command = Command::new(self.bin.join("kubelet"));
        command.arg("--config").arg(dir.join("kubelet.yaml")).arg("--kubeconfig").arg(node.kubeconfig());
        command.args(["--hostname-override", node.name(), "--v=2"]);
        command.args(["--node-ip", &format!("{},{}", node.address(), management_v6(node.number))]);
        node.spawn(command)
    }

    /// Waits until a node takes pods.
    pub(super) fn wait_ready(&self, cluster: &Cluster, node: &ClusterNode) -> Result<()> {
        let (ns, path) = (cluster.lab.node(&node.name).ns(), format!("/api/v1/nodes/{}", node.name));
        let ready = wait_until(&format!("node {} ready", node.name), READY_DEADLINE, || {
            // The object may tell of the time before a crash.
            let well = get_local(ns, HEALTH_PORT, "/healthz").is_ok_and(|answer| answer.status == 200);
            let object = well.then(|| cluster.requests().get(&path).ok()).flatten()?;
            let mut conditions = object["status"]["conditions"].as_array()?.iter();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        });
        ready.with_context(|| self.last_words(&node.name))
    }

    fn last_words(&self, name: &str) -> String {
        let running = self.lock();
        let kubelet = running.get(name).and_then(|running| running.kubelet.as_ref());
        kubelet.map_or_else(|| format!("no kubelet runs on {name}"), Process::last_words)
    }
}

/// The trial's control group has one name for each process.
static TRIAL: Mutex<()> = Mutex::new(());

/// Looks whether this machine can have nodes with kubelets.
///
/// # Errors
///
/// With what is missing.
pub(super) fn check() -> Result<()> {
    config::plugins()?;
    // Tests of one program ask at the same time.
    let _one = TRIAL.lock().unwrap_or_else(PoisonError::into_inner);
    Cgroup::create(format!("{PREFIX}{}-0-trial", process::id())).map(|_| ())
}

impl Cluster {
    fn kubelets(&self) -> Result<&Kubelets> {
        self.kubelets.as_ref().context("a cluster with pods must be built with `kubelets`")
    }

    /// Stops the kubelet of a node; its pods and containerd go on.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not end.
    pub fn stop_kubelet(&self, name: &str) -> Result<()> {
        let mut running = self.kubelets()?.lock();
        let kubelet = running.get_mut(name).and_then(|running| running.kubelet.take());
        let mut kubelet = kubelet.with_context(|| format!("no kubelet runs on {name}"))?;
        kubelet.signal(Signal::SIGTERM)?;
        kubelet.wait(READY_DEADLINE).map(|_| ())
    }

    /// Starts the kubelet of a node again. It is not waited for: see [`Cluster::wait_node_ready`].
    ///
    /// # Errors
    ///
    /// If the node is off.
    pub fn start_kubelet(&self, name: &str) -> Result<()> {
        let (kubelets, node) = (self.kubelets()?, self.node(name));
        let kubelet = kubelets.spawn(node, node.disk.as_deref().context("a node without a disk")?)?;
        let mut running = kubelets.lock();
        running.get_mut(name).with_context(|| format!("no containerd runs on {name}"))?.kubelet =
            Some(kubelet);
        Ok(())
    }

    /// Waits until a node with a kubelet takes pods, and its kube-proxy, if there is one, forwards.
    ///
    /// # Errors
    ///
    /// If it does not in time, with what its kubelet or kube-proxy wrote.
    pub fn wait_node_ready(&self, name: &str) -> Result<()> {
        self.kubelets()?.wait_ready(self, self.node(name))?;
        self.proxies.as_ref().map_or(Ok(()), |proxies| proxies.wait_ready(self, self.node(name)))
    }

    /// The end of what the kubelet and containerd of a node wrote.
    #[must_use]
    pub fn node_logs(&self, name: &str) -> String {
        let Ok(kubelets) = self.kubelets() else { return String::new() };
        let running = kubelets.lock();
        let containerd = running.get(name).map(|running| running.containerd.last_words());
        drop(running);
        format!("{}\n{}", kubelets.last_words(name), containerd.unwrap_or_default())
    }
}
