//! From an interface, which the operator names, to the ports where its questions arrive.
//!
//! An **interface** is where the hardware address, the prefixes and the multicast groups are: `eth0`, `eth0.100`,
//! `bond0`, `br0`. A **port** is where the XDP program runs: an interface's own device, or one below it, before the
//! stack has merged what it receives; with the VLAN id that frames for the interface carry there.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::link::{BondMode, Detail, Link, NetState};

/// How many devices may be stacked. The kernel allows eight.
const DEEPEST: u8 = 8;

/// What becomes of a question at a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// It is answered, or dropped if its address is not owned here.
    Answers,
    /// It is answered, or passed: it goes on to other stations behind a bridge, and to the program on the bridge.
    Forwards,
    /// It is dropped: a bond's slave that is not in use, or a device below an interface that is down.
    Backup,
}

/// A place where questions for an interface arrive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Index of the device.
    pub ifindex: u32,
    /// VLAN id in frames for the interface, 0 for none.
    pub vlan: u32,
    /// What becomes of them.
    pub role: Role,
    /// Why the program can run in the network stack only; `None`: wherever the operator wants it.
    pub generic: Option<&'static str>,
}

/// Where an interface's questions arrive.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The places, in the order of the devices; the interface itself, if it is one, is the first.
    pub ports: Vec<Port>,
    /// Why the program must not run on them: it would answer what it should not.
    pub obstacle: Option<String>,
    /// What is not as good as it could be, and why.
    pub notes: Vec<String>,
    /// NICs that take VLAN tags off, where the program needs them.
    pub stripping: BTreeSet<u32>,
}

impl NetState {
    /// Why nothing can be announced on `link`: the end of a sentence that begins with its name.
    #[must_use]
    pub fn refusal(&self, link: &Link) -> Option<String> {
        if link.loopback {
            return Some("is the loopback interface, on which nobody asks".to_owned());
        }
        if !link.ethernet {
            return Some(
                "is no Ethernet interface, so there is neither ARP nor a hardware address".to_owned(),
            );
        }
        if let Some(reason) = self.enslaved(link) {
            return Some(reason);
        }
        if let Some("ipvlan" | "ipvtap") = link.kind.as_deref() {
            let below = link.parent.map_or_else(|| "the interface below it".to_owned(), |p| self.name(p));
            return Some(format!(
                "is an ipvlan, which receives only what is for its own addresses: name {below}"
            ));
        }
        None
    }

    /// Why nothing can be announced on `link` itself, if it is a port of another interface.
    #[must_use]
    pub fn enslaved(&self, link: &Link) -> Option<String> {
        let master = self.links.get(&link.master?);
        let (name, kind) = master.map_or(("another interface", None), |m| (&m.name, m.kind.as_deref()));
        match kind {
            // It only chooses a routing table.
            Some("vrf") => None,
            Some("openvswitch") => Some(
                "is a port of Open vSwitch: name the internal port of its bridge (`ovs-vsctl port-to-br` says \
                 which)"
                    .to_owned(),
            ),
            Some(kind) => Some(format!(
                "is a port of the {kind} {name}, whose hardware address is the one that neighbours must get: name \
                 {name}"
            )),
            None => Some(format!("is a part of {name}: name {name}")),
        }
    }

    /// Where the questions of `link` arrive, for which there is no [`NetState::refusal`].
    #[must_use]
    pub fn ports(&self, link: &Link) -> Ports {
        let mut found = Ports::default();
        found.ports = self.resolve(link, DEEPEST, &mut found);
        if found.ports.is_empty() {
            found.obstacle = Some("it has no slave yet".to_owned());
        }
        for port in found.ports.iter().filter(|port| port.vlan == 0) {
            let Some(device) = self.links.get(&port.ifindex) else {
                continue;
            };
            if let Some(reason) = self.vlans_in_the_way(link, device) {
                if device.strips_tags {
                    found.stripping.insert(device.index);
                }
                found.obstacle.get_or_insert(reason);
            }
        }
        found
    }

    fn resolve(&self, link: &Link, depth: u8, found: &mut Ports) -> Vec<Port> {
        if depth == 0 {
            return itself(link, Some("too many devices are below it"));
        }
        match (link.kind.as_deref(), link.detail) {
            (Some("vlan"), Detail::Vlan { id, service }) => self.vlan(link, (id, service), depth, found),
            (Some("vlan"), _) => itself(link, Some("a VLAN has no driver of its own")),
            (Some("bond"), Detail::Bond { mode, active }) => {
                let mut ports = Vec::new();
                for slave in self.slaves(link) {
                    let used = match mode {
                        BondMode::One => active == Some(slave.index),
                        BondMode::All => !slave.backup,
                    };
                    let below = self.resolve(slave, depth - 1, found);
                    ports.extend(below.into_iter().map(|port| match used {
                        true => port,
                        false => Port { role: Role::Backup, ..port },
                    }));
                }
                ports
            }
            (Some("bridge"), Detail::Bridge { vlan_filtering, stp }) => {
                self.bridge(link, vlan_filtering || stp, depth, found)
            }
            (Some("team"), _) => itself(link, Some("only the team knows which of its ports is in use")),
            (Some("bond" | "bridge"), _) => itself(link, Some("it has no driver of its own")),
            // Of others the kernel says whether they have one, such as macvlan and Open vSwitch's internal ports.
            _ => itself(link, None),
        }
    }

    /// A VLAN: what is below it, if the program there sees the tags; else itself, where they are off.
    fn vlan(&self, link: &Link, (id, service): (u16, bool), depth: u8, found: &mut Ports) -> Vec<Port> {
        let itself = |why| itself(link, Some(why));
        if service || id == 0 {
            return itself("its tags are not looked for in the driver");
        }
        let Some(parent) = link.parent.and_then(|parent| self.links.get(&parent)) else {
            return itself("the device below it is in another network namespace");
        };
        let mut below = Ports::default();
        let ports = self.resolve(parent, depth - 1, &mut below);
        if ports.iter().any(|port| port.vlan != 0) {
            return itself("two tags are not looked for in the driver");
        }
        if ports.iter().any(|port| port.generic.is_some()) {
            return itself("what is below it runs in the network stack");
        }
        let hiding: Vec<_> = ports
            .iter()
            .filter_map(|port| self.links.get(&port.ifindex))
            .filter(|device| hides_tags(device))
            .collect();
        found.notes.extend(below.notes);
        if let Some(first) = hiding.first() {
            let stripping = hiding.iter().filter(|device| device.strips_tags);
            found.stripping.extend(stripping.map(|device| device.index));
            found.notes.push(if first.strips_tags {
                format!(
                    "{} takes VLAN tags off, so the program runs on {} itself and not in the driver; \
                     --set-vlan-offload changes that",
                    first.name, link.name
                )
            } else {
                format!(
                    "{} hands VLAN tags on beside the frame, so the program runs on {} itself",
                    first.name, link.name
                )
            });
            return itself("a program below it would not see its tags");
        }
        ports.into_iter().map(|port| Port { vlan: u32::from(id), ..port }).collect()
    }

    /// A bridge: itself, for what its other ports ask, and its uplinks unless it decides what those may receive.
    fn bridge(&self, link: &Link, decides: bool, depth: u8, found: &mut Ports) -> Vec<Port> {
        let mut ports = itself(link, Some("it has no driver of its own"));
        if decides {
            found.notes.push(format!(
                "{} filters VLANs or runs STP, so the program runs on it alone, and not on its ports",
                link.name
            ));
            return ports;
        }
        // Guests are behind other kinds (veth, tap), and ask by the bridge.
        let uplinks = self.slaves(link).filter(|l| matches!(l.kind.as_deref(), None | Some("vlan" | "bond")));
        for uplink in uplinks {
            for port in self.resolve(uplink, depth - 1, found) {
                let device = self.links.get(&port.ifindex);
                if port.generic.is_some() {
                    continue; // it would be no quicker than on the bridge
                }
                // A bridge makes it receive all VLANs, those of its guests, too.
                if let Some(device) = device.filter(|device| port.vlan == 0 && hides_tags(device)) {
                    found.stripping.insert(device.index);
                    found.notes.push(format!(
                        "{} takes VLAN tags off, so the program runs on {} alone; --set-vlan-offload changes that",
                        device.name, link.name
                    ));
                    continue;
                }
                let role = if port.role == Role::Backup { Role::Backup } else { Role::Forwards };
                ports.push(Port { role, ..port });
            }
        }
        ports
    }

    /// Why a program on `device` would answer for `link` what is asked on a VLAN.
    fn vlans_in_the_way(&self, link: &Link, device: &Link) -> Option<String> {
        if !hides_tags(device) {
            return None;
        }
        let on_either = |l: &&Link| {
            l.kind.as_deref() == Some("vlan") && self.stands_on(l, &[link.index, device.index], DEEPEST)
        };
        let vlans: Vec<_> = self.links.values().filter(on_either).map(|l| l.name.as_str()).collect();
        if vlans.is_empty() {
            return None;
        }
        let (name, device_name, list) = (&link.name, &device.name, vlans.join(", "));
        let (taker, way_out) = if device.strips_tags {
            (
                "the NIC",
                format!(
                    "Turn that off: ethtool -K {device_name} rxvlan off, or let the agent do it: --set-vlan-offload"
                ),
            )
        } else {
            ("the kernel", format!("Announce on a VLAN of their own what is now on {name} itself"))
        };
        Some(format!(
            "{taker} takes VLAN tags off before a program on {device_name} sees them, and {list} is on it: a question \
             from there would be answered for {name}. {way_out}"
        ))
    }

    /// Whether one of these is below `link`, perhaps with a macvlan between.
    fn stands_on(&self, link: &Link, indexes: &[u32], depth: u8) -> bool {
        let Some(parent) = link.parent.filter(|_| depth > 0 && link.kind.as_deref() != Some("veth")) else {
            return false;
        };
        let further = || self.links.get(&parent).is_some_and(|l| self.stands_on(l, indexes, depth - 1));
        indexes.contains(&parent) || further()
    }

    /// How many devices lie below this one.
    #[must_use]
    pub fn height(&self, index: u32) -> u8 {
        self.height_within(index, DEEPEST)
    }

    fn height_within(&self, index: u32, depth: u8) -> u8 {
        let Some(link) = self.links.get(&index).filter(|_| depth > 0) else {
            return 0;
        };
        let parent = link.parent.filter(|_| link.kind.as_deref() != Some("veth"));
        let below = parent.into_iter().chain(self.slaves(link).map(|slave| slave.index));
        below.map(|below| 1 + self.height_within(below, depth - 1)).max().unwrap_or(0)
    }

    fn slaves(&self, master: &Link) -> impl Iterator<Item = &Link> {
        let index = master.index;
        self.links.values().filter(move |link| link.master == Some(index))
    }

    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    /// Devices that a program is kept away from by one on `index`: the kernel refuses it on a device below one that
    /// has one.
    pub fn directly_above(&self, index: u32) -> impl Iterator<Item = u32> {
        let below = self.links.get(&index);
        let master = below.and_then(|link| link.master);
        let children = self
            .links
            .values()
            .filter(move |link| link.parent == Some(index) && link.kind.as_deref() != Some("veth"));
        children.map(|link| link.index).chain(master)
    }
}

fn itself(link: &Link, generic: Option<&'static str>) -> Vec<Port> {
    vec![Port { ifindex: link.index, vlan: 0, role: Role::Answers, generic }]
}

/// Whether a program on `device` may get frames without the tags that they came with.
fn hides_tags(device: &Link) -> bool {
    match device.kind.as_deref() {
        None => device.strips_tags,
        // The other end of these pairs hands them on beside the frame; on the others, the stack has taken them off.
        Some("veth" | "netkit" | "team" | "bridge" | "macvlan" | "macvtap" | "openvswitch") => true,
        Some(_) => false,
    }
}
