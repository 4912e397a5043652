//! How a cluster comes up.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use super::{
    Cluster, binaries,
    control::{ADDRESS, Control, PORT, Parts},
    delay::{self, Relay},
    disk,
    kube_proxy::KubeProxies,
    kubelet::Kubelets,
    machine::Machine,
    node::ClusterNode,
    secret,
};
use crate::{cgroup::Cgroup, lab::Lab, ns::NetNs, paths};

/// Their numbers are a part of addresses.
const MOST_NODES: u8 = 200;

/// What a [`Cluster`] is to consist of.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    pub(super) binaries: Option<PathBuf>,
    pub(super) nodes: u8,
    pub(super) controllers: bool,
    pub(super) kube_proxy: bool,
    pub(super) delays: bool,
    pub(super) keepable: bool,
    /// Archives of images, if nodes run pods.
    pub(super) images: Option<Vec<PathBuf>>,
}

impl ClusterBuilder {
    /// The directory of the control plane's programs (default: `$RESPONDER_KUBE_BIN`).
    #[must_use]
    pub fn binaries(mut self, directory: &Path) -> Self {
        self.binaries = Some(directory.to_owned());
        self
    }

    /// Number of nodes, `n1`, `n2`, … (1 to 200; default 3).
    #[must_use]
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    /// Whether a kube-controller-manager runs (default: no): without it nothing deletes namespaces. It does not look
    /// after Nodes, which have no kubelets here.
    #[must_use]
    pub fn controllers(mut self, yes: bool) -> Self {
        self.controllers = yes;
        self
    }

    /// Whether each node runs a kube-proxy (default: no).
    #[must_use]
    pub fn kube_proxy(mut self, yes: bool) -> Self {
        self.kube_proxy = yes;
        self
    }

    /// Whether [`Cluster::delay`] may be called (default: no): agents' connections to the API server then go through
    /// relays in this process.
    #[must_use]
    pub fn delays(mut self, yes: bool) -> Self {
        self.delays = yes;
        self
    }

    /// Whether [`Cluster::keep`] may be called; not together with delays.
    #[must_use]
    pub fn keepable(mut self, yes: bool) -> Self {
        self.keepable = yes;
        self
    }

    /// Makes the nodes real ones, with containerd and a kubelet each, and all controllers and a scheduler in the control
    /// plane (default: no). `images` are archives of the images that pods run, besides [`LAB_IMAGE`](crate::LAB_IMAGE).
    #[must_use]
    pub fn kubelets(mut self, images: &[PathBuf]) -> Self {
        self.images = Some(images.to_vec());
        self
    }

    /// Builds it. When this returns, the API server answers and the nodes are `Ready`. Without kubelets, `deploy/base` is
    /// applied, and the tokens of the nodes' agents are written.
    ///
    /// # Errors
    ///
    /// If the caller is not root, or something is missing or does not come up; the message says what.
    pub fn build(self) -> Result<Cluster> {
        ensure!((1..=MOST_NODES).contains(&self.nodes), "1 to {MOST_NODES} nodes, not {}", self.nodes);
        ensure!(!(self.keepable && self.delays), "relays end with this process: delays cannot be kept");
        ensure!(!self.delays || self.nodes <= delay::MOST, "at most {} nodes with delays", delay::MOST);
        let bin = binaries::directory(self.binaries.clone(), self.images.is_some())?;
        let names: Vec<String> = (1..=self.nodes).map(|number| format!("n{number}")).collect();
        let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
        let lab = Lab::builder().hosts(&hosts).clients(&["c", "r"]).keepable(self.keepable).build()?;
        let management = NetNs::create(format!("{}-mgmt", lab.name()), lab.dir(), self.keepable)?;
        management.ip(&format!(
            "link add br0 address 02:00:00:00:4d:00 type bridge stp_state 0 forward_delay 0\n\
             addr add {ADDRESS}/24 dev br0\n\
             link set br0 up"
        ))?;
        let kubelets: &[String] = if self.images.is_some() { &names } else { &[] };
        let parts = Parts { controllers: self.controllers, kubelets };
        let control = Control::spawn(management, &lab.dir().join("control"), bin, parts)?;
        for node in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            lab.node("r").ns().set_sysctl(node, "1")?;
        }
        let nodes = (1..=self.nodes)
            .zip(&names)
            .map(|(number, name)| self.node(&lab, &control, number, name))
            .collect::<Result<Vec<_>>>()?;
        let relays = if self.delays { relays(&control, self.nodes)? } else { Vec::new() };
        let kubelets = match &self.images {
            Some(images) => Some(Kubelets::new(lab.dir(), &control.bin, images)?),
            None => None,
        };
        let mut cluster = Cluster {
            proxies: None,
            kubelets,
            nodes,
            relays,
            cuts: Mutex::new(BTreeSet::new()),
            control,
            builder: self,
            lab,
        };
        for node in &cluster.nodes {
            cluster.connect(node)?;
            node.machine.boot()?;
        }
        cluster.control.wait_ready()?;
        match &cluster.kubelets {
            Some(kubelets) => all(&cluster.nodes, |node| kubelets.start(node))?,
            None => {
                cluster.deploy(&paths::workspace().join("deploy/base"))?;
                for node in &cluster.nodes {
                    cluster.add_node_object(node.name())?;
                    cluster.write_token(node.name())?;
                }
            }
        }
        if cluster.builder.kube_proxy {
            let proxies = KubeProxies::new(&cluster)?;
            cluster.nodes.iter().try_for_each(|node| proxies.start(node))?;
            cluster.nodes.iter().try_for_each(|node| proxies.wait_ready(&cluster, node))?;
            cluster.proxies = Some(proxies);
        }
        if let Some(kubelets) = &cluster.kubelets {
            cluster.nodes.iter().try_for_each(|node| kubelets.wait_ready(&cluster, node))?;
        }
        Ok(cluster)
    }

    fn node(&self, lab: &Lab, control: &Control, number: u8, name: &str) -> Result<Arc<ClusterNode>> {
        let ns = lab.node(name).ns();
        // As whatever runs pods sets them.
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            ns.set_sysctl(key, "1")?;
        }
        let token = lab.node(name).dir().join("token");
        let port = if self.delays { delay::FIRST_PORT + u16::from(number) - 1 } else { PORT };
        let (mut disk, mut cgroup) = (None, None);
        if self.images.is_some() {
            secret::write(&token, control.kubelet_token(name))?;
            disk = Some(disk::create(lab.node(name).dir())?);
            cgroup = Some(Cgroup::create(format!("{}-{name}", lab.name()))?);
        }
        let user = json!({ "tokenFile": token });
        let kubeconfig = control.kubeconfig(&format!("{name}.kubeconfig"), port, &user)?;
        let machine = Machine::new(name, ns.clone(), disk.clone());
        Ok(Arc::new(ClusterNode { name: name.to_owned(), number, machine, kubeconfig, token, disk, cgroup }))
    }
}

/// Does something for all nodes at once.
fn all(nodes: &[Arc<ClusterNode>], work: impl Fn(&ClusterNode) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let parts: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
        parts.into_iter().try_for_each(|part| part.join().map_err(|_panic| anyhow!("a thread panicked"))?)
    })
}

fn relays(control: &Control, nodes: u8) -> Result<Vec<Relay>> {
    let address: Ipv4Addr = ADDRESS.parse()?;
    let server = SocketAddr::from((address, PORT));
    let ports = (0..nodes).map(|index| delay::FIRST_PORT + u16::from(index));
    ports.map(|port| Relay::start(&control.ns, SocketAddr::from((address, port)), server)).collect()
}

impl Cluster {
    /// Applies a directory with a `kustomization.yaml`, as a user does.
    ///
    /// # Errors
    ///
    /// If `kubectl` does not like it.
    pub fn deploy(&self, directory: &Path) -> Result<()> {
        let directory = directory.to_str().context("a path that is not UTF-8")?;
        self.kubectl(&["apply", "-k", directory]).map(|_| ())
    }
}
