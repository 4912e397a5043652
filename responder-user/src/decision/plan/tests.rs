use super::*;
use crate::{
    config::VipSpec,
    net::link::{Prefix, Scope},
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
    assert_eq!(plan.links.keys().copied().collect::<Vec<_>>(), [2, 3], "both are attached to");
    assert!(!plan.links[&2].router && plan.links[&3].router);
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
