//! Multicast groups: solicitations for IPv6 addresses arrive because their solicited-node groups are joined.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use agent_support::{SOON, assert_answers, one_host, states, v4, v6, wait_states, wait_status};
use responder_lab::{Agent, Lab, Node, StaticFile, root_or_skip, wait_until};

/// Solicited-node groups that host `node` is in, on `nic`, other than those of its own addresses.
fn joined(node: &Node, nic: &str) -> BTreeSet<Ipv6Addr> {
    // Not /proc/net, which is that of the process's first thread.
    let text = node.ns().run(|| Ok(fs::read_to_string("/proc/thread-self/net/igmp6")?)).unwrap();
    let mut own = BTreeSet::new();
    let shown = node.ns().ip_json(&format!("-6 addr show dev {nic}")).unwrap();
    for address in shown[0]["addr_info"].as_array().unwrap() {
        own.insert(solicited_node(address["local"].as_str().unwrap().parse().unwrap()));
    }
    let groups = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let group = Ipv6Addr::from_bits(u128::from_str_radix(fields.get(2)?, 16).ok()?);
        (fields[1] == nic && group.segments()[..7] == [0xff02, 0, 0, 0, 0, 1, group.segments()[6]])
            .then_some(group)
    });
    groups.filter(|group| group.segments()[6] >> 8 == 0xff && !own.contains(group)).collect()
}

/// RFC 4291 section 2.7.1.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

fn group(text: &str) -> Ipv6Addr {
    solicited_node(text.parse().unwrap())
}

fn wait_joined(node: &Node, nic: &str, groups: &[Ipv6Addr]) {
    let wanted: BTreeSet<_> = groups.iter().copied().collect();
    let found = wait_until("the groups", SOON, || (joined(node, nic) == wanted).then_some(()));
    assert!(found.is_ok(), "{:?} instead of {wanted:?}", joined(node, nic));
}

#[test]
fn joined_for_owned_and_standby_and_left_again() {
    if !root_or_skip("joined_for_owned_and_standby_and_left_again") {
        return;
    }
    let lab = one_host(2);
    let a = lab.node("a");
    // Two addresses with one group, an IPv4 address, and one known on both links, owned elsewhere.
    let twin: IpAddr = "2001:db8:0:7::10".parse().unwrap();
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]).own_on(v6(0x11), &["eth*"]);
    let (ten, eleven, twelve) = (group("2001:db8::10"), group("2001:db8::11"), group("2001:db8::12"));
    let agent = Agent::start(a, &file.clone().own(&[v6(0x10), twin]).standby(&[v6(0x12)]), &[]).unwrap();
    wait_joined(a, "eth0", &[ten, eleven, twelve]);
    wait_joined(a, "eth1", &[eleven]);
    wait_status(agent.commands(), "four groups", |s| s["agent"]["groups"] == 4);
    // As long as one of the two needs it, it stays.
    agent.write(&file.clone().own(&[twin])).unwrap();
    wait_joined(a, "eth0", &[ten, eleven]);
    agent.write(&file).unwrap();
    wait_joined(a, "eth0", &[eleven]);
    wait_joined(a, "eth1", &[eleven]);
    assert!(agent.terminate().unwrap().success());
    wait_joined(a, "eth0", &[]);
}

#[test]
fn a_switch_that_snoops_lets_solicitations_through() {
    if !root_or_skip("a_switch_that_snoops_lets_solicitations_through") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).snooping(true).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    lab.switch().ip("link set br0 type bridge mcast_querier 1").unwrap();
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v6(0x10)]), &[]).unwrap();
    // The kernel's report (MLD) for the group has reached the switch.
    let reported = || {
        let table = lab.switch().check(&["bridge", "mdb", "show", "dev", "br0"]).ok()?;
        let port = Lab::port(a, "eth0");
        table.lines().any(|l| l.contains("ff02::1:ff00:10") && l.contains(&port)).then_some(())
    };
    wait_until("the switch to know of the group", SOON, reported).unwrap();
    assert_answers(c, "eth0", v6(0x10), a.mac());
    wait_states(agent.commands(), &[(v6(0x10), "eth0", "answering")]);
}

#[test]
fn ten_thousand_addresses_are_in_their_groups() {
    if !root_or_skip("ten_thousand_addresses_are_in_their_groups") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let vips: Vec<IpAddr> = (0x10_0001..=0x10_0000 + 10_000)
        .map(|n| "2001:db8:2::".parse::<Ipv6Addr>().unwrap().to_bits() + n)
        .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        .collect();
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips), &[]).unwrap();
    let start = Instant::now();
    let status = wait_status(agent.commands(), "groups, or all of them", |s| {
        s["agent"]["groups"] == 10_000 || s["agent"]["links"]["eth0"]["all_multicast"].is_string()
    });
    println!("10,000 groups {:?} after ready", start.elapsed());
    if status["agent"]["groups"] == 10_000 {
        assert_eq!(joined(a, "eth0").len(), 10_000);
    }
    for vip in [vips[0], vips[5_000], vips[9_999]] {
        assert_answers(c, "eth0", vip, a.mac());
    }
}

#[test]
fn where_groups_cannot_be_joined_all_multicast_is_received() {
    if !root_or_skip("where_groups_cannot_be_joined_all_multicast_is_received") {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v6(0x10)]), &[]).unwrap();
    wait_joined(a, "eth0", &[group("2001:db8::10")]);
    let all_multicast = || a.ns().ip_json("-d link show dev eth0").unwrap()[0]["allmulti"].clone();
    assert_eq!(all_multicast(), 0);
    // Below the least MTU of IPv6 the kernel has no groups on a link.
    a.ns().ip("link set eth0 mtu 1270").unwrap();
    let status = wait_status(agent.commands(), "all multicast, and why", |s| {
        s["agent"]["links"]["eth0"]["all_multicast"].is_string()
    });
    let why = status["agent"]["links"]["eth0"]["all_multicast"].as_str().unwrap();
    assert!(why.contains("the link has no IPv6"), "{why}");
    assert_eq!(all_multicast(), 1);
    let shown = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(shown.contains("all-multicast: the link has no IPv6"), "{shown}");
    a.ns().ip("link set eth0 mtu 1500").unwrap();
    let status = wait_status(agent.commands(), "no need of it any more", |s| {
        s["agent"]["links"]["eth0"]["all_multicast"].is_null()
    });
    assert_eq!(states(&status).len(), 1);
    assert_eq!(all_multicast(), 0);
    wait_until("the group", SOON, || joined(a, "eth0").contains(&group("2001:db8::10")).then_some(()))
        .unwrap();
}
