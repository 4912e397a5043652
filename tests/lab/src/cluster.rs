//! A Kubernetes cluster: a real etcd and API server, and nodes around a switch as far as an agent sees them.
//!
//! ```no_run
//! use std::time::Duration;
//! use responder_lab::{Cluster, Cut, Service};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::builder().nodes(3).build()?; // n1, n2, n3; client c and router r on the segment
//! cluster.service(&Service::new("web").vips(&["192.0.2.200".parse()?]).on(&["n1", "n2"]))?;
//! let mark = cluster.audit().mark()?;
//! let mut agent = cluster.agent("n1", &["--lease-duration", "1s"])?;
//! agent.wait_ready()?;
//! println!("{}", cluster.kubectl(&["get", "leases", "-A"])?);
//!
//! cluster.cut(Cut::responses("n1"))?; // what n1 asks for is done, but n1 does not hear of it
//! cluster.heal(&Cut::responses("n1"))?;
//! cluster.api().freeze()?;
//! cluster.api().thaw()?;
//! cluster.crash("n1")?; // no process of n1 is left, its links are down
//! cluster.boot("n1")?;
//! agent.restart()?;
//! let writes = cluster.audit().count(mark, |r| r.node.as_deref() == Some("n1") && r.is_write())?;
//! # Ok(())
//! # }
//! ```
//!
//! With [`ClusterBuilder::kubelets`] the nodes are real ones, with containerd, kubelet and pods.
//!
//! The segment is that of [`Lab`]: nodes have `eth0` at 192.0.2.1, .2, …, the client .101, the router, which is the
//! nodes' default gateway, .102. In the management network the API server is 10.77.0.1, nodes have `mgmt0` at
//! 10.77.0.11, .12, …; endpoints are at 10.244.1.1, 10.244.2.1, …, real nodes' pods in 10.244.1.0/24, ….

mod agent;
mod api;
mod audit;
mod binaries;
mod builder;
mod control;
mod cut;
mod delay;
mod disk;
mod elsewhere;
mod http;
mod kube_proxy;
mod kubelet;
mod machine;
mod node;
mod objects;
mod pki;
mod power;
mod secret;
mod server;

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::{
    agent::{ClusterAgent, NAMESPACE},
    api::Api,
    audit::{Audit, Mark, Request},
    binaries::{check_nodes, cluster_or_skip, kubelets_or_skip},
    builder::ClusterBuilder,
    cut::Cut,
    elsewhere::{Elsewhere, elsewhere_or_skip, serve_control_plane},
    kube_proxy::ProxyMode,
    kubelet::{LAB_IMAGE, Pod},
    node::ClusterNode,
    objects::{ENDPOINT_PORT, Endpoint, Service},
    server::Server,
};
use self::{control::Control, delay::Relay, kube_proxy::KubeProxies, kubelet::Kubelets};
use crate::{
    lab::Lab,
    node::Node,
    ns::{COMMAND_DEADLINE, NetNs},
    paths,
    process::Process,
    time::wait_until,
};

/// A Kubernetes cluster. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // In this order: processes before what they run in.
    proxies: Option<KubeProxies>,
    kubelets: Option<Kubelets>,
    nodes: Vec<Arc<ClusterNode>>,
    relays: Vec<Relay>,
    cuts: Mutex<BTreeSet<Cut>>,
    control: Control,
    builder: ClusterBuilder,
    lab: Lab,
}

impl Cluster {
    /// Three nodes without kube-proxy and controllers, unless told otherwise.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            binaries: None,
            nodes: 3,
            controllers: false,
            kube_proxy: false,
            delays: false,
            keepable: false,
            images: None,
            elsewhere: None,
        }
    }

    /// The segment: client `c`, router `r`, the switch, and the nodes as far as they are network namespaces.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A node.
    ///
    /// # Panics
    ///
    /// If there is none of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> &ClusterNode {
        self.find(name)
    }

    fn find(&self, name: &str) -> &Arc<ClusterNode> {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.unwrap_or_else(|| panic!("this cluster has no node {name:?}"))
    }

    /// All nodes, `n1` first.
    pub fn nodes(&self) -> impl Iterator<Item = &ClusterNode> {
        self.nodes.iter().map(AsRef::as_ref)
    }

    /// The namespace of the API server, with the bridge of the management network.
    #[must_use]
    pub fn management(&self) -> &NetNs {
        &self.control.ns
    }

    /// The administrator's kubeconfig; it works in [`Cluster::management`].
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.admin()
    }

    /// The API server.
    ///
    /// # Panics
    ///
    /// If it runs [elsewhere](ClusterBuilder::elsewhere).
    #[must_use]
    pub fn api(&self) -> &Server {
        self.control.api.as_ref().expect("this cluster's API server runs elsewhere")
    }

    /// etcd.
    ///
    /// # Panics
    ///
    /// If it runs [elsewhere](ClusterBuilder::elsewhere).
    #[must_use]
    pub fn etcd(&self) -> &Server {
        self.control.etcd.as_ref().expect("this cluster's etcd runs elsewhere")
    }

    /// kube-controller-manager, if [`ClusterBuilder::controllers`].
    #[must_use]
    pub fn controllers(&self) -> Option<&Server> {
        self.control.manager.as_ref()
    }

    /// How the nodes' kube-proxies forward, if [`ClusterBuilder::kube_proxy`].
    #[must_use]
    pub fn proxy_mode(&self) -> Option<ProxyMode> {
        self.proxies.as_ref().map(|proxies| proxies.mode)
    }

    /// Requests to the API server by the administrator, without starting a program.
    #[must_use]
    pub fn requests(&self) -> Api {
        self.control.requests()
    }

    /// Requests to the API server by the agent of a node: from the node, with the agent's token. They work as long as
    /// the process is there.
    ///
    /// # Errors
    ///
    /// If `kubectl` cannot be started, or the node is switched off.
    pub fn requests_of(&self, node: &str) -> Result<(Process, Api)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = self.host(node).dir().join(format!("api-{number}.sock"));
        let mut command = Command::new(self.kubectl_path());
        command.arg("--kubeconfig").arg(self.node(node).kubeconfig());
        command.arg("proxy").arg("--unix-socket").arg(&socket);
        let process = self.node(node).spawn(command)?;
        wait_until("kubectl proxy", COMMAND_DEADLINE, || UnixStream::connect(&socket).ok())?;
        Ok((process, Api::new(&socket)))
    }

    /// Who has asked the API server for what.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::new(self.control.audit_log())
    }

    /// Runs `kubectl` as administrator. Returns stdout.
    ///
    /// # Errors
    ///
    /// If it fails, with what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control.kubectl(arguments)
    }

    /// Where `kubectl` is.
    #[must_use]
    pub fn kubectl_path(&self) -> PathBuf {
        self.control.bin.join("kubectl")
    }

    /// `kubectl apply` of YAML documents. Returns what it says.
    ///
    /// # Errors
    ///
    /// If it fails, with what it printed.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let file = self.lab.dir().join(format!("apply-{}.yaml", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::write(&file, yaml).with_context(|| format!("writing {}", file.display()))?;
        self.kubectl(&["apply", "-f", &file.display().to_string()])
    }

    /// Starts the agent on a node, with further options of `responder run`. It is not waited for.
    ///
    /// # Errors
    ///
    /// If there is no binary, or the node is switched off.
    pub fn agent(&self, node: &str, options: &[&str]) -> Result<ClusterAgent> {
        ClusterAgent::spawn(Arc::clone(self.find(node)), options)
    }

    /// Starts an endpoint on a node: a web server at [`ENDPOINT_PORT`] that answers with the node's name. It ends with
    /// the node, or when it is dropped.
    ///
    /// # Errors
    ///
    /// If this package's program is not built, or the node is switched off.
    pub fn endpoint(&self, node: &str) -> Result<Process> {
        let mut command = Command::new(paths::lab()?);
        command.args(["serve", node, &ENDPOINT_PORT.to_string()]);
        let process = self.node(node).spawn(command)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ENDPOINT_PORT));
        let ns = self.lab.node(node).ns();
        wait_until(&format!("the endpoint on {node}"), COMMAND_DEADLINE, || {
            ns.run(|| Ok(TcpStream::connect(address)?)).ok().map(|_| ())
        })
        .with_context(|| process.last_words())?;
        Ok(process)
    }

    /// Cuts something. No effect if it is cut already.
    ///
    /// # Errors
    ///
    /// If `nft` or `ip` fails.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_carrier(&cut, "down")?;
        cuts.insert(cut);
        cut::enforce(&self.lab, &self.control.ns, &cuts)
    }

    /// Undoes [`Cluster::cut`]. No effect if it is not cut.
    ///
    /// # Errors
    ///
    /// If `nft` or `ip` fails.
    pub fn heal(&self, cut: &Cut) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if cuts.remove(cut) {
            self.set_carrier(cut, "up")?;
        }
        cut::enforce(&self.lab, &self.control.ns, &cuts)
    }

    /// Undoes all cuts.
    ///
    /// # Errors
    ///
    /// If `nft` or `ip` fails.
    pub fn heal_all(&self) -> Result<()> {
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cuts.iter().try_for_each(|cut| self.heal(cut))
    }

    fn set_carrier(&self, cut: &Cut, state: &str) -> Result<()> {
        match cut {
            Cut::Management(name) => {
                self.control.ns.ip(&format!("link set {} {state}", self.node(name).port()))
            }
            Cut::Segment(name) => {
                let port = Lab::port(self.lab.node(name), "eth0");
                self.lab.switch().ip(&format!("link set {port} {state}"))
            }
            Cut::Api(_) | Cut::Requests(_) | Cut::Responses(_) | Cut::Loss(..) | Cut::Between(..) => Ok(()),
        }
    }

    /// From now on, what a node's agent sends to the API server takes `requests` longer, and what it is sent
    /// `responses` longer; zero ends it.
    ///
    /// # Errors
    ///
    /// If the cluster was built without [`ClusterBuilder::delays`].
    pub fn delay(&self, node: &str, requests: Duration, responses: Duration) -> Result<()> {
        ensure!(self.builder.delays, "a cluster with delays must be built with `delays(true)`");
        let index = usize::from(self.node(node).number - 1);
        self.relays.get(index).context("no relay")?.set(requests, responses);
        Ok(())
    }

    /// Forgets all earlier revisions in etcd, so that a watch from one of them fails (410 Gone) once the API server
    /// does not remember them either, which is after a restart.
    ///
    /// # Errors
    ///
    /// If etcd does not answer or refuses.
    pub fn compact_etcd(&self) -> Result<()> {
        let ask =
            |path: &str, body: &str| server::request_local(&self.control.ns, 2379, ("POST", path), body);
        let range: serde_json::Value = serde_json::from_str(&ask("/v3/kv/range", r#"{"key":"AA=="}"#)?.body)?;
        let revision = range["header"]["revision"].as_str().context("etcd tells no revision")?;
        let answer = ask("/v3/kv/compaction", &format!("{{\"revision\":\"{revision}\",\"physical\":true}}"))?;
        ensure!(answer.status == 200, "etcd does not compact: {}", answer.body);
        Ok(())
    }

    /// Opens a way to the API server from outside of all namespaces, as long as the process is there. Returns the
    /// administrator's kubeconfig for it, too, which only root can read, or this person (user and group id). Once for each
    /// cluster.
    ///
    /// # Errors
    ///
    /// If this package's program is not built.
    pub fn open_outside(&self, person: Option<(u32, u32)>) -> Result<(Process, PathBuf)> {
        self.control.open_outside(&self.lab.dir().join("outside"), person)
    }

    /// Leaves everything as it is when this process ends. See [`Lab::keep`].
    ///
    /// # Errors
    ///
    /// If the lab's directory cannot be marked.
    pub fn keep(&self) -> Result<()> {
        ensure!(self.builder.keepable, "a cluster to be kept must be built with `keepable(true)`");
        self.lab.keep()
    }

    /// The network namespace and interfaces of a node, client or router. See [`Lab::node`].
    #[must_use]
    pub fn host(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// A directory for files of this cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.lab.dir()
    }
}
