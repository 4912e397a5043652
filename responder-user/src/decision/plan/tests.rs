use super::*;
use crate::{
    config::VipSpec,
    net::link::{Detail, Prefix, Scope},
};

pub(in crate::decision) fn link(index: u32, name: &str, addrs: &[(&str, u8)]) -> Link {
    let prefix = |(ip, len): &(&str, u8)| Prefix {
        ip: ip.parse().unwrap(),
        len: *len,
        primary: true,
        permanent: true,
        tentative: false,
        scope: Scope::Global,
    };
    Link {
        index,
        name: name.to_owned(),
        mac: Mac::new([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        admin_up: true,
        carrier: true,
        kind: None,
        master: None,
        parent: None,
        addrs: addrs.iter().map(prefix).collect(),
        xdp: None,
        loopback: name == "lo",
        ethernet: name != "lo" && !name.starts_with("tun"),
        detail: Detail::None,
        backup: false,
        strips_tags: false,
    }
}

pub(super) fn net() -> NetState {
    let links = [
        link(1, "lo", &[("127.0.0.1", 8)]),
        link(2, "eth0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]),
        link(3, "eth1", &[("198.51.100.1", 31)]),
        link(4, "tun0", &[]),
    ];
    NetState {
        links: links.into_iter().map(|l| (l.index, l)).collect(),
        default_route_links: [2].into(),
        default_gateways: ["192.0.2.254".parse().unwrap()].into(),
        overruns: 0,
    }
}

pub(in crate::decision) fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|n| Pattern::new(n).unwrap()).collect()
}

fn plan(interfaces: &[&str], vips: &[(&str, &[&str])]) -> Plan {
    let spec = |(ip, on): &(&str, &[&str])| VipSpec {
        ip: ip.parse().unwrap(),
        interfaces: patterns(on),
        standby: false,
        line: 1,
    };
    let config = StaticConfig {
        interfaces: patterns(interfaces),
        vips: vips.iter().map(spec).collect(),
        refused: Vec::new(),
    };
    Plan::for_static(&config, &net(), |name| name == "eth1")
}

pub(super) fn router(plan: &Plan, ifindex: u32) -> bool {
    plan.links[&LinkKey { ifindex, vlan: 0 }].router
}

pub(super) fn places(plan: &Plan) -> Vec<(u32, String)> {
    plan.vips.keys().map(|at| (at.ifindex, at.ip.to_string())).collect()
}

#[test]
fn where_addresses_go() {
    let vip: (&str, &[&str]) = ("192.0.2.10", &[]);
    assert_eq!(places(&plan(&[], &[vip])), [(2, "192.0.2.10".into())], "the default route's interface");
    assert_eq!(places(&plan(&["eth1"], &[vip])), [(3, "192.0.2.10".into())]);
    assert_eq!(places(&plan(&["eth*"], &[vip])).len(), 2);
    assert_eq!(places(&plan(&["*"], &[vip])).len(), 2, "a pattern does not mean lo or a tunnel");
    let own: (&str, &[&str]) = ("192.0.2.10", &["eth1"]);
    let plan = plan(&["eth0"], &[own]);
    assert_eq!(places(&plan), [(3, "192.0.2.10".into())]);
    assert_eq!(plan.interfaces.keys().copied().collect::<Vec<_>>(), [2, 3], "both are attached to");
    assert!(!router(&plan, 2) && router(&plan, 3));
}

#[test]
fn what_is_waited_for_and_what_cannot_be_used() {
    let plan = plan(&["eth7", "bond*", "lo", "tun0"], &[("192.0.2.10", &[])]);
    assert!(plan.links.is_empty() && plan.vips.is_empty());
    let names: Vec<_> = plan.waiting.keys().map(String::as_str).collect();
    assert_eq!(names, ["bond*", "eth7", "lo", "tun0"]);
    assert!(plan.waiting["lo"].contains("loopback"));
    assert!(plan.waiting["tun0"].contains("no Ethernet"));
}

#[test]
fn what_a_link_refuses() {
    let vips: [(&str, &[&str]); 7] = [
        ("192.0.2.1", &[]),
        ("192.0.2.255", &[]),
        ("192.0.2.0", &[]),
        ("2001:db8::1", &[]),
        ("198.51.100.0", &["eth1"]), // a /31 has neither network nor broadcast address
        ("192.0.2.254", &[]),
        ("203.0.113.255", &[]),
    ];
    let plan = plan(&["eth0"], &vips);
    let refused: Vec<_> = plan.refused.keys().map(|(ip, link)| format!("{ip} {link}")).collect();
    assert_eq!(refused, ["192.0.2.0 eth0", "192.0.2.1 eth0", "192.0.2.255 eth0", "2001:db8::1 eth0"]);
    assert!(plan.refused[&("192.0.2.1".parse().unwrap(), "eth0".into())].contains("put it on lo"));
    assert_eq!(plan.vips.len(), 3);
}

#[test]
fn groups_of_all_ipv6_addresses() {
    let vips: [(&str, &[&str]); 3] =
        [("2001:db8::12:3456", &[]), ("2001:db8:1::12:3456", &[]), ("192.0.2.10", &[])];
    let groups: Vec<_> = plan(&["eth0"], &vips).groups().into_iter().collect();
    assert_eq!(groups, [(2, "ff02::1:ff12:3456".parse().unwrap())]);
}

#[test]
fn netmasks() {
    assert_eq!([mask(0), mask(24), mask(31), mask(32)], [0, 0xffff_ff00, 0xffff_fffe, u32::MAX]);
}

/// A bond with two slaves, and a VLAN on each of a NIC and the bond.
fn stacked() -> NetState {
    let mut net = net();
    let mut add = |link: Link| drop(net.links.insert(link.index, link));
    let vlan = |index, name: &str, parent, addrs: &[(&str, u8)]| Link {
        kind: Some("vlan".into()),
        parent: Some(parent),
        detail: Detail::Vlan { id: 100, service: false },
        ..link(index, name, addrs)
    };
    add(vlan(5, "eth0.100", 2, &[("198.18.0.1", 24)]));
    for (index, name) in [(6, "eth6"), (7, "eth7")] {
        add(Link { master: Some(8), ..link(index, name, &[]) });
    }
    let detail = Detail::Bond { mode: crate::net::link::BondMode::One, active: Some(7) };
    add(Link { kind: Some("bond".into()), detail, ..link(8, "bond0", &[("203.0.113.1", 24)]) });
    add(vlan(9, "bond0.100", 8, &[]));
    net
}

fn on(interfaces: &[&str], ip: &str) -> Plan {
    let vip = VipSpec { ip: ip.parse().unwrap(), interfaces: vec![], standby: false, line: 1 };
    let config = StaticConfig { interfaces: patterns(interfaces), vips: vec![vip], refused: Vec::new() };
    Plan::for_static(&config, &stacked(), |_| false)
}

fn keys(plan: &Plan) -> Vec<(u32, u32, Role)> {
    plan.links.iter().map(|(at, link)| (at.ifindex, at.vlan, link.role)).collect()
}

#[test]
fn an_address_is_known_in_all_places_of_its_interface() {
    use Role::{Answers, Backup};
    let vlan = on(&["eth0.100"], "198.18.0.10");
    assert_eq!(keys(&vlan), [(2, 100, Answers), (5, 0, Answers)]);
    assert!(vlan.links.values().all(|link| link.mac == Mac::new([2, 0, 0, 0, 0, 5]) && link.interface == 5));
    let own: Vec<_> = vlan.vips.keys().filter(|at| vlan.is_own(at)).collect();
    assert_eq!((vlan.vips.len(), own), (2, vec![&VipAt::on(5, "198.18.0.10".parse().unwrap())]));

    let bond = on(&["bond0"], "203.0.113.10");
    assert_eq!(keys(&bond), [(6, 0, Backup), (7, 0, Answers), (8, 0, Answers)]);
    assert_eq!(bond.vips.len(), 3);
    assert!(bond.is_attached(8, |port| port == 7) && !bond.is_attached(8, |port| port == 6));
    assert!(!bond.is_attached(7, |_| true), "that is no interface");
    let both = on(&["bond0", "bond0.100"], "2001:db8:1::10");
    assert_eq!(both.links.len(), 6);
    let joined: Vec<_> = both.groups().into_iter().map(|(link, _)| link).collect();
    assert_eq!(joined, [8, 9], "groups are joined on interfaces");
}

#[test]
fn what_is_below_an_interface_that_is_down_is_silent() {
    use Role::{Answers, Backup};
    let with = |change: fn(&mut Link)| {
        let mut net = stacked();
        [5, 8].into_iter().for_each(|index| change(net.links.get_mut(&index).unwrap()));
        let interfaces = patterns(&["eth0", "eth0.100", "bond0"]);
        keys(&Plan::for_static(&StaticConfig { interfaces, ..StaticConfig::default() }, &net, |_| false))
    };
    let wanted = |role| {
        let own = [(5, 0, Answers), (6, 0, Backup)];
        [&[(2, 0, Answers), (2, 100, role)], &own[..], &[(7, 0, role), (8, 0, Answers)]].concat()
    };
    assert_eq!(with(|_| ()), wanted(Answers));
    assert_eq!(with(|link| link.admin_up = false), wanted(Backup));
    assert_eq!(with(|link| link.carrier = false), wanted(Backup));
}

#[test]
fn ports_of_others_are_left_out_of_patterns_and_refused_by_name() {
    let plan = on(&["eth*"], "198.18.0.10");
    assert_eq!(plan.interfaces.keys().copied().collect::<Vec<_>>(), [2, 3, 5]);
    assert!(plan.waiting["eth6"].ends_with("name bond0; left out of \"eth*\""), "{:?}", plan.waiting);
    let plan = on(&["eth6"], "198.18.0.10");
    assert!(plan.interfaces.is_empty() && plan.vips.is_empty());
    assert!(plan.waiting["eth6"].contains("is a port of the bond bond0"));
}

#[test]
fn without_its_own_program_a_bridge_s_ports_are_silent() {
    let mut net = stacked();
    let detail = Detail::Bridge { vlan_filtering: false, stp: false };
    net.links.insert(10, Link { kind: Some("bridge".into()), detail, ..link(10, "br0", &[]) });
    net.links.get_mut(&3).unwrap().master = Some(10);
    let config = StaticConfig { interfaces: patterns(&["br0"]), ..StaticConfig::default() };
    let mut plan = Plan::for_static(&config, &net, |_| false);
    let wanted = |role| [(3, 0, role), (10, 0, Role::Answers)];
    assert_eq!(keys(&plan), wanted(Role::Forwards));
    assert!(!plan.is_attached(10, |port| port == 3));
    plan.silence_forwarding(|_| true);
    assert_eq!(keys(&plan), wanted(Role::Forwards));
    plan.silence_forwarding(|interface| interface != 10);
    assert_eq!(keys(&plan), wanted(Role::Backup));
}
