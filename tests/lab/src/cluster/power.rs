//! Nodes that fail and come back.

use std::sync::PoisonError;

use anyhow::Result;

use super::{Cluster, Cut, kubelet::BRIDGE, node::ClusterNode};
use crate::{ns::COMMAND_DEADLINE, time::BootTime};

impl Cluster {
    /// Switches a node off, as a power failure does: no process is left on it, and its links are down. Returns when
    /// that began. What is cut stays cut.
    ///
    /// # Errors
    ///
    /// If a program of it cannot be waited for, or a link is gone.
    pub fn crash(&self, name: &str) -> Result<BootTime> {
        let start = BootTime::now();
        self.node(name).machine.kill(|| {
            self.set_carrier(&Cut::segment(name), "down")?;
            self.set_carrier(&Cut::management(name), "down")
        })?;
        Ok(start)
    }

    /// Switches a node on again: new links with the old addresses, nothing in `/run` and in bpffs, no rules, and a
    /// kube-proxy if there was one. What a kubelet has stored is there, and it begins to start its pods; an agent that is
    /// no pod is for the caller to start.
    ///
    /// # Errors
    ///
    /// If it is not switched off.
    pub fn boot(&self, name: &str) -> Result<()> {
        let (node, lab_node) = (self.find(name), self.lab.node(name));
        self.control.ns.ip(&format!("link del {}", node.port()))?;
        for nic in lab_node.nics() {
            self.lab.delete_nic(lab_node, &nic.name)?;
            self.lab.connect(lab_node, nic)?;
        }
        lab_node.ns().check(&["nft", "flush", "ruleset"])?;
        if let Some(cgroup) = &node.cgroup {
            // What containers have left would cost the kubelet seconds to remove.
            cgroup.clear()?;
            // Not there if it had no pods.
            lab_node.ns().output(&["ip", "link", "del", BRIDGE], COMMAND_DEADLINE)?;
        }
        self.connect(node)?;
        for nic in lab_node.nics() {
            lab_node.wait_usable(&nic.name)?;
        }
        node.machine.boot()?;
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for cut in &cuts {
            if matches!(cut, Cut::Management(cut) | Cut::Segment(cut) if cut == name) {
                self.set_carrier(cut, "down")?;
            }
        }
        if let Some(kubelets) = &self.kubelets {
            kubelets.start(node)?;
        }
        match &self.proxies {
            Some(proxies) => proxies.start(node),
            None => Ok(()),
        }
    }

    pub(super) fn connect(&self, node: &ClusterNode) -> Result<()> {
        node.connect(self.lab.node(&node.name), &self.control.ns, self.builder.nodes, self.lab.node("r"))
    }
}
