use responder_common::wire::Mac;

use super::*;

/// A namespace under construction; indexes count from 1.
#[derive(Default)]
struct Net(NetState);

impl Net {
    fn add(&mut self, name: &str, kind: Option<&str>, change: impl FnOnce(&mut Link)) -> u32 {
        let index = u32::try_from(self.0.links.len()).unwrap() + 1;
        let mut link = Link {
            index,
            name: name.to_owned(),
            mac: Mac::ZERO,
            mtu: 1500,
            admin_up: true,
            carrier: true,
            kind: kind.map(str::to_owned),
            master: None,
            parent: None,
            addrs: Vec::new(),
            xdp: None,
            loopback: false,
            ethernet: true,
            detail: Detail::None,
            backup: false,
            strips_tags: false,
        };
        change(&mut link);
        self.0.links.insert(index, link);
        index
    }

    fn nic(&mut self, name: &str) -> u32 {
        self.add(name, None, |_| ())
    }

    fn vlan(&mut self, name: &str, parent: u32, id: u16) -> u32 {
        self.add(name, Some("vlan"), |link| {
            link.parent = Some(parent);
            link.detail = Detail::Vlan { id, service: false };
        })
    }

    fn bond(&mut self, name: &str, mode: BondMode, active: Option<u32>) -> u32 {
        self.add(name, Some("bond"), |link| link.detail = Detail::Bond { mode, active })
    }

    fn bridge(&mut self, name: &str, vlan_filtering: bool) -> u32 {
        self.add(name, Some("bridge"), |link| link.detail = Detail::Bridge { vlan_filtering, stp: false })
    }

    fn enslave(&mut self, slave: u32, master: u32) {
        self.0.links.get_mut(&slave).unwrap().master = Some(master);
    }

    fn strip(&mut self, nic: u32) {
        self.0.links.get_mut(&nic).unwrap().strips_tags = true;
    }

    fn found(&self, index: u32) -> Ports {
        self.0.ports(&self.0.links[&index])
    }

    /// The ports in short: device, VLAN, role, and whether only in the stack.
    fn ports(&self, index: u32) -> Vec<(u32, u32, Role, bool)> {
        let ports = self.found(index).ports.into_iter();
        ports.map(|port| (port.ifindex, port.vlan, port.role, port.generic.is_some())).collect()
    }

    fn refusal(&self, index: u32) -> Option<String> {
        self.0.refusal(&self.0.links[&index])
    }
}

use Role::{Answers, Backup, Forwards};

#[test]
fn what_has_a_driver_is_its_own_port() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    let veth = net.add("v0", Some("veth"), |_| ());
    let tap = net.add("tap0", Some("tun"), |_| ());
    for index in [eth0, veth, tap] {
        assert_eq!(net.ports(index), [(index, 0, Answers, false)]);
        assert_eq!((net.refusal(index), net.found(index).obstacle), (None, None));
    }
}

#[test]
fn a_vlan_is_answered_below_it_where_tags_are_seen() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    let vlan = net.vlan("eth0.100", eth0, 100);
    assert_eq!(net.ports(vlan), [(eth0, 100, Answers, false)]);
    assert_eq!(net.ports(eth0), [(eth0, 0, Answers, false)]);
    assert_eq!(net.found(eth0).obstacle, None);

    net.strip(eth0);
    assert_eq!(net.ports(vlan), [(vlan, 0, Answers, true)]);
    let found = net.found(vlan);
    assert_eq!((found.stripping, found.obstacle), ([eth0].into(), None));
    assert!(found.notes[0].contains("--set-vlan-offload"), "{:?}", found.notes);
    let found = net.found(eth0);
    assert_eq!(found.stripping, [eth0].into());
    let reason = found.obstacle.unwrap();
    for word in ["eth0.100", "ethtool -K eth0 rxvlan off", "--set-vlan-offload"] {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
}

#[test]
fn stripped_tags_do_not_matter_where_there_are_no_vlans() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    net.strip(eth0);
    assert_eq!((net.found(eth0).obstacle, net.found(eth0).stripping), (None, [].into()));
    let macvlan = net.add("macvlan0", Some("macvlan"), |link| link.parent = Some(eth0));
    assert_eq!(net.found(eth0).obstacle, None);
    net.vlan("macvlan0.5", macvlan, 5);
    assert!(net.found(eth0).obstacle.unwrap().contains("macvlan0.5"), "the NIC lets its frames in");
}

#[test]
fn an_end_of_a_pair_hides_tags_whatever_it_says() {
    for kind in ["veth", "netkit"] {
        let mut net = Net::default();
        let end = net.add("eth0", Some(kind), |_| ());
        let vlan = net.vlan("eth0.100", end, 100);
        assert_eq!(net.ports(vlan), [(vlan, 0, Answers, true)]);
        assert!(net.found(vlan).stripping.is_empty(), "nothing that could be switched off");
        assert!(net.found(end).obstacle.unwrap().contains("a VLAN of their own"));
    }
}

#[test]
fn two_tags_are_left_to_the_stack() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    let outer = net.vlan("eth0.100", eth0, 100);
    let inner = net.vlan("eth0.100.200", outer, 200);
    assert_eq!(net.ports(inner), [(inner, 0, Answers, true)]);
    assert_eq!(net.ports(outer), [(eth0, 100, Answers, false)]);
    let service = net.add("eth0.7", Some("vlan"), |link| {
        link.parent = Some(eth0);
        link.detail = Detail::Vlan { id: 7, service: true };
    });
    assert_eq!(net.ports(service), [(service, 0, Answers, true)]);
    let moved = net.add("x.100", Some("vlan"), |link| link.detail = Detail::Vlan { id: 100, service: false });
    assert_eq!(net.ports(moved), [(moved, 0, Answers, true)], "its parent is in another namespace");
}

#[test]
fn of_a_bond_those_slaves_answer_that_are_in_use() {
    let mut net = Net::default();
    let (eth1, eth2) = (net.nic("eth1"), net.nic("eth2"));
    let bond = net.bond("bond0", BondMode::One, Some(eth2));
    assert_eq!(net.found(bond).obstacle.as_deref(), Some("it has no slave yet"));
    net.enslave(eth1, bond);
    net.enslave(eth2, bond);
    assert_eq!(net.ports(bond), [(eth1, 0, Backup, false), (eth2, 0, Answers, false)]);
    let vlan = net.vlan("bond0.100", bond, 100);
    assert_eq!(net.ports(vlan), [(eth1, 100, Backup, false), (eth2, 100, Answers, false)]);
    assert_eq!(net.found(bond).obstacle, None);
    net.strip(eth1);
    assert_eq!(net.ports(vlan), [(vlan, 0, Answers, true)], "all slaves must see tags");
    assert!(net.found(bond).obstacle.unwrap().contains("ethtool -K eth1"));

    let reason = net.refusal(eth1).unwrap();
    assert!(reason.contains("bond bond0") && reason.ends_with("name bond0"), "{reason}");
}

#[test]
fn of_a_balancing_bond_all_slaves_answer_but_those_set_aside() {
    let mut net = Net::default();
    let slaves = [net.nic("eth1"), net.nic("eth2"), net.nic("eth3")];
    let bond = net.bond("bond0", BondMode::All, None);
    for slave in slaves {
        net.enslave(slave, bond);
    }
    net.0.links.get_mut(&slaves[1]).unwrap().backup = true;
    let roles: Vec<_> = net.ports(bond).into_iter().map(|(.., role, _)| role).collect();
    assert_eq!(roles, [Answers, Backup, Answers]);
}

#[test]
fn a_bridge_answers_on_its_uplinks_and_for_its_guests() {
    let mut net = Net::default();
    let (eth0, eth1) = (net.nic("eth0"), net.nic("eth1"));
    let guest = net.add("tap0", Some("tun"), |_| ());
    let container = net.add("veth1", Some("veth"), |_| ());
    let vlan = net.vlan("eth1.100", eth1, 100);
    let bridge = net.bridge("br0", false);
    for port in [eth0, guest, container, vlan] {
        net.enslave(port, bridge);
    }
    let all = [(bridge, 0, Answers, true), (eth0, 0, Forwards, false), (eth1, 100, Forwards, false)];
    assert_eq!(net.ports(bridge), all);
    assert!(net.refusal(eth0).unwrap().contains("name br0"));
    assert_eq!(net.refusal(eth1), None, "only its VLAN belongs to the bridge");

    net.strip(eth0);
    let found = net.found(bridge);
    assert_eq!(net.ports(bridge), [all[0], all[2]]);
    assert_eq!((found.stripping, found.notes.len()), ([eth0].into(), 1));

    let filtering = net.bridge("br1", true);
    let eth2 = net.nic("eth2");
    net.enslave(eth2, filtering);
    assert_eq!(net.ports(filtering), [(filtering, 0, Answers, true)]);
    assert!(net.found(filtering).notes[0].contains("filters VLANs"));

    let tagged = net.vlan("br0.7", bridge, 7);
    assert_eq!(net.ports(tagged), [(tagged, 0, Answers, true)]);
    assert!(net.found(bridge).obstacle.unwrap().contains("br0.7"), "on br0 its tags are off");
}

#[test]
fn a_bond_in_a_bridge() {
    let mut net = Net::default();
    let (eth1, eth2) = (net.nic("eth1"), net.nic("eth2"));
    let bond = net.bond("bond0", BondMode::One, Some(eth1));
    let bridge = net.bridge("br0", false);
    net.enslave(eth1, bond);
    net.enslave(eth2, bond);
    net.enslave(bond, bridge);
    let wanted = [(bridge, 0, Answers, true), (eth1, 0, Forwards, false), (eth2, 0, Backup, false)];
    assert_eq!(net.ports(bridge), wanted);
    assert!(net.refusal(bond).unwrap().contains("name br0"));
}

#[test]
fn teams_macvlans_ipvlans_and_open_vswitch() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    let team = net.add("team0", Some("team"), |_| ());
    let macvlan = net.add("mv0", Some("macvlan"), |link| link.parent = Some(eth0));
    let internal = net.add("ovsbr0", Some("openvswitch"), |_| ());
    for index in [team, macvlan, internal] {
        assert_eq!(net.ports(index), [(index, 0, Answers, index == team)]);
        assert_eq!(net.refusal(index), None);
    }
    let ipvlan = net.add("iv0", Some("ipvlan"), |link| link.parent = Some(eth0));
    assert!(net.refusal(ipvlan).unwrap().ends_with("name eth0"));

    let system = net.add("ovs-system", Some("openvswitch"), |_| ());
    net.enslave(eth0, system);
    assert!(net.refusal(eth0).unwrap().contains("ovs-vsctl port-to-br"));
    let vlan = net.vlan("team0.100", team, 100);
    assert_eq!(net.ports(vlan), [(vlan, 0, Answers, true)]);
    assert!(net.found(team).obstacle.unwrap().contains("team0.100"));
}

#[test]
fn a_vrf_is_no_master_and_an_accelerator_belongs_to_its_owner() {
    let mut net = Net::default();
    let (eth0, vf) = (net.nic("eth0"), net.nic("enP1s1"));
    let vrf = net.add("red", Some("vrf"), |link| link.ethernet = false);
    net.enslave(eth0, vrf);
    assert_eq!(net.refusal(eth0), None);
    net.enslave(vf, eth0);
    assert!(net.refusal(vf).unwrap().ends_with("name eth0"));
}

#[test]
fn devices_that_are_stacked_in_a_ring_come_to_an_end() {
    let mut net = Net::default();
    let (a, b) = (net.vlan("a", 2, 5), net.vlan("b", 1, 6));
    assert_eq!(net.found(a).ports.len() + net.found(b).ports.len(), 2);
}

#[test]
fn what_is_directly_above() {
    let mut net = Net::default();
    let eth0 = net.nic("eth0");
    let vlan = net.vlan("eth0.100", eth0, 100);
    let bridge = net.bridge("br0", false);
    net.enslave(eth0, bridge);
    let peer = net.add("v0", Some("veth"), |link| link.parent = Some(eth0));
    assert_eq!(net.0.directly_above(eth0).collect::<Vec<_>>(), [vlan, bridge]);
    assert_eq!(net.0.directly_above(peer).count(), 0);
}
