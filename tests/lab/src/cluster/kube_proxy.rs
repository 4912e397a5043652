//! kube-proxy on each node.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Cluster, control::POD_RANGES, node::ClusterNode, server::get_local};
use crate::{ns::NetNs, process::Process, time::wait_until};

/// How long kube-proxy may take until its first rules are in place, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Where it says that it is in order.
const HEALTH_PORT: u16 = 10256;

/// Rules of the kinds that kube-proxy's nftables mode writes.
const NFTABLES: &str =
    "table ip probe { map services { type ipv4_addr . inet_proto . inet_service : verdict; }
chain nat { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @services; }
chain mark { fib daddr type local meta mark set 0x4000; numgen random mod 2 vmap { 0: drop, 1: accept }; }
chain post { type nat hook postrouting priority 100; meta mark & 0x4000 != 0 masquerade fully-random; } }";

/// How a kube-proxy forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyMode {
    /// `--proxy-mode nftables`
    Nftables,
    /// `--proxy-mode iptables`
    Iptables,
}

impl ProxyMode {
    /// As `--proxy-mode` wants it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// Tries in a namespace what the kernel and the tools here can do, nftables first.
    ///
    /// # Errors
    ///
    /// If neither works, with the reasons.
    pub fn choose(ns: &NetNs) -> Result<Self> {
        let nft = format!("nft '{NFTABLES}' && nft delete table ip probe");
        let nftables = match ns.check(&["sh", "-c", &nft]) {
            Ok(_) => return Ok(Self::Nftables),
            Err(error) => error,
        };
        let rule = "POSTROUTING -m comment --comment probe -m statistic --mode random --probability 0.5 -j MASQUERADE";
        let iptables = format!("iptables -w -t nat -A {rule} && iptables -w -t nat -D {rule}");
        match ns.check(&["sh", "-c", &iptables]) {
            Ok(_) => Ok(Self::Iptables),
            Err(error) => bail!("kube-proxy cannot forward here: {nftables:#}; {error:#}"),
        }
    }
}

/// Those of all nodes.
#[derive(Debug)]
pub(super) struct KubeProxies {
    pub(super) mode: ProxyMode,
    program: PathBuf,
    kubeconfig: PathBuf,
    running: Mutex<BTreeMap<String, Process>>,
}

impl KubeProxies {
    pub(super) fn new(cluster: &Cluster) -> Result<Self> {
        let first = cluster.nodes.first().context("a cluster without nodes")?;
        Ok(Self {
            mode: ProxyMode::choose(cluster.lab.node(&first.name).ns())?,
            program: cluster.control.bin.join("kube-proxy"),
            kubeconfig: cluster.control.proxy_user(),
            running: Mutex::default(),
        })
    }

    /// Starts that of a node; one that ran before the node crashed is forgotten.
    pub(super) fn start(&self, node: &ClusterNode) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(["--hostname-override", node.name(), "--proxy-mode", self.mode.name()]);
        command.args(["--cluster-cidr", POD_RANGES]);
        // The limits of connection tracking are the machine's, not a node's.
        command.args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
        let process = node.spawn(command)?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(node.name.clone(), process);
        Ok(())
    }

    /// Waits until its rules are in place.
    pub(super) fn wait_ready(&self, cluster: &Cluster, node: &ClusterNode) -> Result<()> {
        let ns = cluster.lab.node(&node.name).ns();
        let ready = wait_until(&format!("kube-proxy of {}", node.name), READY_DEADLINE, || {
            get_local(ns, HEALTH_PORT, "/healthz").is_ok_and(|answer| answer.status == 200).then_some(())
        });
        ready.with_context(|| {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(&node.name).map(Process::last_words).unwrap_or_default()
        })
    }
}
