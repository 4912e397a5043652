//! Hosts and clients around a switch, each in a network namespace of its own.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cleanup::{self, KEPT, PREFIX, lab_dir},
    node::{Dir, Nic, Node},
    ns::{NetNs, ip},
    paths,
};

/// The number of the first client.
const CLIENTS: usize = 101;
/// There may be so many.
const MOST_CLIENTS: usize = 10;

/// What the addresses and the hardware address of a host end with. Those of clients are left out.
const fn host_numbers(index: usize) -> (usize, usize) {
    let number = index + 1;
    if number < CLIENTS { (number, 0x50 + number) } else { (number + MOST_CLIENTS, 0x100 + number) }
}

/// What a [`Lab`] is to consist of.
#[derive(Clone, Debug)]
pub struct Builder {
    hosts: Vec<String>,
    clients: Vec<String>,
    segments: u8,
    native_ports: bool,
    snooping: bool,
    keepable: bool,
}

impl Builder {
    /// Names of the hosts: short, lower-case, without `-`.
    #[must_use]
    pub fn hosts(mut self, names: &[&str]) -> Self {
        self.hosts = names.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// Names of the clients, like those of hosts.
    #[must_use]
    pub fn clients(mut self, names: &[&str]) -> Self {
        self.clients = names.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// Number of Ethernet segments (1 to 3); everybody has `eth0` on the first, `eth1` on the second.
    #[must_use]
    pub fn segments(mut self, count: u8) -> Self {
        self.segments = count;
        self
    }

    /// Whether the switch's ports towards hosts get an XDP program (default: yes), without which nothing arrives
    /// that a host's veth sends by native XDP_TX.
    #[must_use]
    pub fn native_ports(mut self, yes: bool) -> Self {
        self.native_ports = yes;
        self
    }

    /// Whether the switch snoops MLD, so that a solicitation reaches only who has joined its group (default: no).
    #[must_use]
    pub fn snooping(mut self, yes: bool) -> Self {
        self.snooping = yes;
        self
    }

    /// Whether [`Lab::keep`] may be called: processes then do not end by themselves if this one is killed.
    #[must_use]
    pub fn keepable(mut self, yes: bool) -> Self {
        self.keepable = yes;
        self
    }

    /// Builds it. All links are up and all addresses usable when this returns.
    ///
    /// # Errors
    ///
    /// If the caller is not root, or a tool or the eBPF objects are missing; the message says which.
    pub fn build(self) -> Result<Lab> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        ensure!((1..=3).contains(&self.segments), "1 to 3 segments, not {}", self.segments);
        cleanup::install();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = Dir::create(lab_dir(&name))?;
        let switch = NetNs::create(format!("{name}-switch"), dir.path(), self.keepable)?;
        let mut lab = Lab { name, nodes: Vec::new(), switch, dir, native_ports: self.native_ports };
        let snooping = u8::from(self.snooping);
        let mut bridges = String::new();
        for segment in 0..self.segments {
            writeln!(
                bridges,
                "link add br{segment} type bridge stp_state 0 forward_delay 0 mcast_snooping {snooping}\n\
                 link set br{segment} up"
            )?;
        }
        lab.switch.ip(&bridges)?;
        let hosts = self.hosts.iter().enumerate().map(|(i, name)| (name, host_numbers(i), true));
        let clients = self.clients.iter().enumerate().map(|(i, name)| (name, (CLIENTS + i, 0xc1 + i), false));
        for (name, (number, mac), is_host) in hosts.chain(clients) {
            let mut node = Node::create(&lab.name, lab.dir(), name, is_host, self.keepable)?;
            for segment in 0..self.segments {
                let nic = Nic::new(segment, u8::try_from(number)?, u16::try_from(mac)?);
                lab.connect(&node, &nic)?;
                node.add_nic(nic);
            }
            lab.nodes.push(node);
        }
        for node in &lab.nodes {
            for nic in node.nics() {
                node.wait_usable(&nic.name)?;
            }
        }
        Ok(lab)
    }
}

/// Hosts, clients and the switch between them. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    nodes: Vec<Node>,
    switch: NetNs,
    dir: Dir,
    native_ports: bool,
}

impl Lab {
    /// Two hosts `a` and `b` and a client `c` on one segment, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            hosts: vec!["a".to_owned(), "b".to_owned()],
            clients: vec!["c".to_owned()],
            segments: 1,
            native_ports: true,
            snooping: false,
            keepable: false,
        }
    }

    /// `rsp-<pid>-<n>`, what all its namespaces' names begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for files of this lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A host or client.
    ///
    /// # Panics
    ///
    /// If there is none of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let node = self.nodes.iter().find(|n| n.name() == name);
        node.unwrap_or_else(|| panic!("this lab has no node {name:?}"))
    }

    /// The number of a host, from 1: the last part of its addresses.
    pub(crate) fn host_number(&self, name: &str) -> u8 {
        let last = self.node(name).nics().first().map(|nic| nic.v4.octets()[3]);
        last.unwrap_or_default()
    }

    /// The namespace of the switch: bridges `br0`…, ports as [`Lab::port`] names them.
    #[must_use]
    pub fn switch(&self) -> &NetNs {
        &self.switch
    }

    /// Name of the switch's port to which `nic` of `node` is connected.
    #[must_use]
    pub fn port(node: &Node, nic: &str) -> String {
        format!("p-{}-{nic}", node.name())
    }

    /// Takes the carrier away from an interface by setting the switch's port down.
    ///
    /// # Errors
    ///
    /// If there is no such port.
    pub fn unplug(&self, node: &Node, nic: &str) -> Result<()> {
        self.switch.ip(&format!("link set {} down", Self::port(node, nic)))
    }

    /// Undoes [`Lab::unplug`].
    ///
    /// # Errors
    ///
    /// If there is no such port.
    pub fn plug(&self, node: &Node, nic: &str) -> Result<()> {
        self.switch.ip(&format!("link set {} up", Self::port(node, nic)))
    }

    /// Deletes an interface, wherever it is and whatever its name is by now.
    ///
    /// # Errors
    ///
    /// If its port is gone, too.
    pub fn delete_nic(&self, node: &Node, nic: &str) -> Result<()> {
        self.switch.ip(&format!("link del {}", Self::port(node, nic)))
    }

    /// Creates and connects an interface of `node`, as it was at first; it gets another index.
    ///
    /// # Errors
    ///
    /// If it exists.
    pub fn connect(&self, node: &Node, nic: &Nic) -> Result<()> {
        let port = Self::port(node, &nic.name);
        let Nic { name, mac, v4, v6, .. } = nic;
        self.switch.ip(&format!(
            "link add {port} type veth peer name {name} address {mac} netns {}\n\
             link set {port} master br{}\n\
             link set {port} up",
            node.ns().name(),
            nic.segment
        ))?;
        if self.native_ports && node.is_host() {
            let object = paths::object("reference.o")?;
            let object = object.to_str().context("the target directory's path is not UTF-8")?;
            self.switch
                .check(&["ip", "link", "set", "dev", &port, "xdpdrv", "object", object, "program", "pass"])?;
        }
        node.ns().ip(&format!(
            "addr add {v4}/24 dev {name}\n\
             addr add {v6}/64 dev {name} nodad\n\
             link set {name} up"
        ))
    }

    /// Leaves everything as it is when this process ends: namespaces, processes, files. [`crate::cleanup_kept`]
    /// removes it later.
    ///
    /// # Errors
    ///
    /// If the lab's directory cannot be marked.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.dir().join(KEPT), "").context("marking the lab as kept")?;
        cleanup::stay();
        Ok(())
    }
}

/// Names of all network namespaces, to see that none is left.
///
/// # Errors
///
/// If `ip` fails.
pub fn namespaces() -> Result<Vec<String>> {
    let list = ip(&["netns", "list"])?;
    Ok(list.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}
