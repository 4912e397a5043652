//! One node of a cluster: its place in the management network, its machine, its agent's credentials.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::machine::Machine;
use crate::{
    cgroup::Cgroup,
    node::Node,
    ns::NetNs,
    process::{Output, Process},
};

/// 10.77.0.11 for the first node.
pub(super) const fn management_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// fd00:77::11 for the first node.
pub(super) const fn management_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x10 + number as u16)
}

/// 10.244.1.1 for the first node: where its endpoints are.
pub(super) const fn pod_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, number, 1)
}

/// fd00:244:1::1 for the first node.
pub(super) const fn pod_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x244, number as u16, 0, 0, 0, 0, 1)
}

/// 10.244.1.0/24 for the first node: addresses of its pods, where there are any.
pub(super) fn pod_network_v4(number: u8) -> String {
    format!("{}/24", Ipv4Addr::new(10, 244, number, 0))
}

/// fd00:244:1::/64 for the first node.
pub(super) fn pod_network_v6(number: u8) -> String {
    format!("{}/64", Ipv6Addr::new(0xfd00, 0x244, number.into(), 0, 0, 0, 0, 0))
}

/// A node of a [`crate::Cluster`]: a [`Node`] with mounts, processes and a host name of its own.
#[derive(Debug)]
pub struct ClusterNode {
    pub(super) name: String,
    /// From 1.
    pub(super) number: u8,
    pub(super) machine: Machine,
    pub(super) kubeconfig: PathBuf,
    pub(super) token: PathBuf,
    /// What outlives a crash, with a kubelet.
    pub(super) disk: Option<PathBuf>,
    /// What its pods are in, with a kubelet. After the machine: it goes when nothing runs any more.
    pub(super) cgroup: Option<Cgroup>,
}

impl ClusterNode {
    /// Its name, and its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kubeconfig of its agent, which names [`ClusterNode::token`]; with a kubelet, that one's.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The file with its agent's ServiceAccount token, which is bound to this node.
    #[must_use]
    pub fn token(&self) -> &Path {
        &self.token
    }

    /// Its address in the management network (the Node's `InternalIP`).
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        management_v4(self.number)
    }

    /// The address of the endpoints on it, which other nodes reach through the management network.
    #[must_use]
    pub fn pod_address(&self) -> Ipv4Addr {
        pod_v4(self.number)
    }

    /// Its first process, by its id outside of the node.
    ///
    /// # Errors
    ///
    /// If it is switched off.
    pub fn pid(&self) -> Result<u32> {
        self.machine.pid()
    }

    /// Its files as they are seen from outside while it is on: `/run`, `/sys/fs/bpf`, …
    ///
    /// # Errors
    ///
    /// If it is switched off.
    pub fn root(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.pid()?)))
    }

    /// Starts a program on it: in its network, with its `/run`, `/sys/fs/bpf`, `/proc` and host name. It ends when
    /// the node crashes.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or the node is switched off.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.machine.spawn(command)
    }

    /// Runs a program on it to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not end; not if its exit code is not 0.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let mut command = Command::new(argv.first().copied().unwrap_or_default());
        command.args(argv.get(1..).unwrap_or_default());
        self.spawn(command)?.finish(crate::ns::COMMAND_DEADLINE)
    }

    /// Like [`ClusterNode::output`]; an exit code other than 0 is an error. Returns stdout.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self, argv: &[&str]) -> Result<String> {
        Ok(self.output(argv)?.ok()?.stdout)
    }

    /// Name of its port in the management network.
    pub(super) fn port(&self) -> String {
        format!("m-{}", self.name)
    }

    /// Connects it to the management network; `nodes` is how many there are, `router` the way out. It keeps its
    /// hardware address when it is switched off and on, as computers do: others may still know it.
    pub(super) fn connect(&self, node: &Node, management: &NetNs, nodes: u8, router: &Node) -> Result<()> {
        let (port, number) = (self.port(), self.number);
        management.ip(&format!(
            "link add {port} type veth peer name mgmt0 address 02:00:00:00:4d:{number:02x} netns {}\n\
             link set {port} master br0\n\
             link set {port} up",
            node.ns().name()
        ))?;
        let (v4, v6) = (management_v4(number), management_v6(number));
        let mut lines = format!(
            "addr add {v4}/24 dev mgmt0\n\
             addr add {v6}/64 dev mgmt0 nodad\n\
             link set mgmt0 up\n"
        );
        // Without a kubelet, what stands for pods are processes at an address of the node.
        let pods = |number| match self.disk {
            Some(_) => [pod_network_v4(number), pod_network_v6(number)],
            None => [format!("{}/32", pod_v4(number)), format!("{}/128", pod_v6(number))],
        };
        if self.disk.is_none() {
            let [v4, v6] = pods(number);
            writeln!(lines, "addr replace {v4} dev lo\naddr replace {v6} dev lo nodad")?;
        }
        for other in (1..=nodes).filter(|other| *other != number) {
            let [v4, v6] = pods(other);
            writeln!(lines, "route replace {v4} via {}", management_v4(other))?;
            writeln!(lines, "route replace {v6} via {}", management_v6(other))?;
        }
        if let Some(nic) = router.nics().first() {
            writeln!(lines, "route replace default via {}", nic.v4)?;
            writeln!(lines, "route replace default via {}", nic.v6)?;
        }
        node.ns().ip(&lines)
    }
}
