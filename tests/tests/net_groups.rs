//! Multicast groups are joined and left as wanted, however many.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod net_support;

use std::{collections::BTreeSet, fs, net::Ipv6Addr};

use net_support::{in_namespace, run};
use responder_user::net::groups::{GroupReport, Groups};

/// The solicited-node group of an address that ends in `low`.
fn solicited_node(low: u32) -> Ipv6Addr {
    let low = low.to_be_bytes();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(low[1]), u16::from_be_bytes([low[2], low[3]]))
}

/// Lines of the kernel's list: index, link, group, users, flags, timer.
fn memberships(link: &str) -> BTreeSet<String> {
    let list = fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let words = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words[1] == link).map(|words| words[2].to_owned()).collect()
}

fn is_member(link: &str, group: Ipv6Addr) -> bool {
    memberships(link).contains(&format!("{:032x}", group.to_bits()))
}

fn index(name: &str) -> u32 {
    run(&format!("ip -o link show {name}")).split(':').next().unwrap().parse().unwrap()
}

fn pair(name: &str) -> u32 {
    run(&format!("ip link add {name} type veth peer name {name}-peer"));
    index(name)
}

fn all_multicast(name: &str) -> bool {
    !run(&format!("ip -d link show {name}")).contains("allmulti 0")
}

#[test]
fn ten_thousand_groups() {
    in_namespace("ten_thousand_groups", || async {
        let link = pair("v0");
        run("ip link set v0 up");
        let before = memberships("v0").len();
        let mut groups = Groups::new();
        let mut wanted: BTreeSet<_> = (0..10_000).map(|low| (link, solicited_node(low * 7))).collect();
        let report = groups.sync(&wanted);
        assert_eq!(report, GroupReport { joined: 10_000, sockets: report.sockets, ..GroupReport::default() });
        let sockets = report.sockets;
        assert!(sockets > 1, "one socket cannot have them all: {report:?}");
        assert_eq!(memberships("v0").len(), before + 10_000);
        assert!(!all_multicast("v0"));
        assert_eq!(groups.sync(&wanted), report, "nothing to do");

        wanted.retain(|(_, group)| group.octets()[15] % 2 == 0);
        let report = groups.sync(&wanted);
        assert_eq!(report.joined, wanted.len());
        assert_eq!(memberships("v0").len(), before + wanted.len());
        // Room that was left is used again: by links that come and go, sockets do not pile up.
        let others =
            (10_000..).map(|low| (link, solicited_node(low * 7))).filter(|group| !wanted.contains(group));
        let refilled: BTreeSet<_> =
            others.take(10_000 - wanted.len()).chain(wanted.iter().copied()).collect();
        let report = groups.sync(&refilled);
        assert_eq!(report, GroupReport { joined: 10_000, sockets, ..GroupReport::default() });
        let report = groups.sync(&BTreeSet::new());
        assert_eq!(report, GroupReport::default());
        assert_eq!(memberships("v0").len(), before);

        groups.sync(&wanted);
        drop(groups);
        assert_eq!(memberships("v0").len(), before, "nothing outlives its owner");
    });
}

#[test]
fn groups_follow_their_link() {
    in_namespace("groups_follow_their_link", || async {
        let (gone, down) = (pair("v0"), pair("v1"));
        let (first, second) = (solicited_node(1), solicited_node(2));
        let mut groups = Groups::new();
        let report = groups.sync(&BTreeSet::from([(gone, first), (down, first), (down, second)]));
        assert_eq!((report.joined, report.sockets), (3, 1));
        assert!(is_member("v1", first) && is_member("v1", second) && !is_member("v0", second));

        run("ip link del v0");
        let report = groups.sync(&BTreeSet::from([(down, first)]));
        assert_eq!(report, GroupReport { joined: 1, sockets: 1, ..GroupReport::default() });
        assert!(is_member("v1", first) && !is_member("v1", second));

        // A link that is not there is not an error, and is tried anew.
        let wanted = BTreeSet::from([(down, first), (gone, first)]);
        let report = groups.sync(&wanted);
        assert_eq!(report, GroupReport { joined: 1, sockets: 1, ..GroupReport::default() });
        run(&format!("ip link add v0 index {gone} type veth peer name v0-peer"));
        assert_eq!(groups.sync(&wanted).joined, 2);
        assert!(is_member("v0", first));

        // Behind an index that stays the same, all is lost.
        run("ip link del v0");
        run(&format!("ip link add v0 index {gone} type veth peer name v0-peer"));
        assert_eq!(groups.sync(&wanted).joined, 2);
        assert!(!is_member("v0", first));
        groups.forget(gone);
        assert_eq!(groups.sync(&wanted).joined, 2);
        assert!(is_member("v0", first) && is_member("v1", first));
    });
}

#[test]
fn what_cannot_be_joined() {
    in_namespace("what_cannot_be_joined", || async {
        let (small, other) = (pair("v0"), pair("v1"));
        let mut groups = Groups::new();
        let group = solicited_node(1);
        run("ip link set v0 mtu 1279");
        let unicast = "2001:db8::1".parse().unwrap();
        let wanted = BTreeSet::from([(small, group), (other, group), (other, unicast)]);
        let report = groups.sync(&wanted);
        assert_eq!(report.joined, 1);
        assert_eq!(report.errors, [(other, unicast, "not a multicast address".to_owned())]);
        let reason = &report.all_multicast[&small];
        assert!(reason.contains("MTU") && report.all_multicast.len() == 1, "{report:?}");
        assert!(all_multicast("v0") && !all_multicast("v1"));

        assert_eq!(groups.sync(&wanted).all_multicast.len(), 1);
        run("ip link set v0 mtu 1280");
        let report = groups.sync(&wanted);
        assert_eq!((report.joined, report.all_multicast.len()), (2, 0));
        assert!(is_member("v0", group) && !all_multicast("v0"), "the filter is exact again");

        run("ip link set v0 mtu 1279");
        groups.forget(small);
        assert_eq!(groups.sync(&wanted).all_multicast.len(), 1);
        assert_eq!(groups.sync(&BTreeSet::new()), GroupReport::default());
        assert!(!all_multicast("v0"));
    });
}
