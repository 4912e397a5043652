use super::*;
use crate::decision::plan::tests::{link, patterns};

/// eth0 and eth1 share a subnet, eth2 has a longer one in it; dummy0 and lo are nobody's neighbours.
fn net() -> NetState {
    let mut links = [
        link(1, "lo", &[("127.0.0.1", 8), ("203.0.113.1", 24)]),
        link(2, "eth0", &[("192.0.2.1", 24), ("2001:db8::1", 64), ("fe80::1", 64)]),
        link(3, "eth1", &[("192.0.2.2", 24), ("192.0.2.3", 24), ("198.51.100.1", 31)]),
        link(4, "eth2", &[("192.0.2.130", 25), ("192.0.2.77", 32), ("2001:db8:1::1", 128)]),
        link(5, "dummy0", &[("10.0.0.1", 8)]),
        link(6, "tun0", &[("172.16.0.1", 12)]),
    ];
    links[4].kind = Some("dummy".to_owned());
    NetState {
        links: links.into_iter().map(|l| (l.index, l)).collect(),
        default_route_links: [2].into(),
        ..NetState::default()
    }
}

fn choice(interfaces: &[&str], any_subnet: bool) -> LinkChoice {
    LinkChoice { interfaces: patterns(interfaces), any_subnet }
}

fn links(subnets: &Subnets, ip: &str) -> Vec<u32> {
    subnets.links(ip.parse().unwrap()).into_iter().collect()
}

fn reach(subnets: &Subnets) -> String {
    subnets.reach(|_| false).to_string()
}

#[test]
fn the_longest_prefix_and_all_links_that_have_it() {
    let subnets = Subnets::new(&choice(&[], false), &net());
    assert_eq!(links(&subnets, "192.0.2.10"), [2, 3]);
    assert_eq!(links(&subnets, "192.0.2.200"), [4]);
    assert_eq!(links(&subnets, "198.51.100.0"), [3]);
    assert_eq!(links(&subnets, "2001:db8::99"), [2]);
    assert_eq!(reach(&subnets), "192.0.2.0/24, 192.0.2.128/25, 198.51.100.0/31, 2001:db8::/64");
    assert_eq!(subnets.home(), &BTreeSet::from([2]));
}

#[test]
fn what_no_link_has_neighbours_for() {
    let subnets = Subnets::new(&choice(&[], false), &net());
    let outside = ["203.0.113.9", "10.0.0.9", "172.16.0.9", "fe80::9", "2001:db8:1::1", "8.8.8.8"];
    for ip in outside {
        assert!(links(&subnets, ip).is_empty(), "{ip}");
        assert!(!subnets.reach(|_| false).covers(&ip.parse().unwrap()), "{ip}");
    }
    assert_eq!(links(&subnets, "192.0.2.77"), [2, 3], "an address of its own is no subnet");
}

#[test]
fn named_interfaces_are_the_only_ones() {
    let subnets = Subnets::new(&choice(&["eth1", "eth7", "tun0"], false), &net());
    assert_eq!(links(&subnets, "192.0.2.10"), [3]);
    assert_eq!(links(&subnets, "192.0.2.200"), [3]);
    assert!(links(&subnets, "2001:db8::99").is_empty());
    assert!(links(&subnets, "172.16.0.9").is_empty(), "a tunnel has no Ethernet");
    assert_eq!(subnets.waiting.keys().collect::<Vec<_>>(), ["eth7"]);
    let named = Subnets::new(&choice(&["dummy0"], false), &net());
    assert_eq!(links(&named, "10.0.0.9"), [5], "who names a dummy means it");
}

#[test]
fn any_subnet_is_for_what_no_prefix_covers() {
    let subnets = Subnets::new(&choice(&[], true), &net());
    assert_eq!(links(&subnets, "8.8.8.8"), [2], "the default route's");
    assert_eq!(links(&subnets, "192.0.2.200"), [4]);
    assert_eq!(subnets.reach(|_| false), Reach::Any);
    let named = Subnets::new(&choice(&["eth*"], true), &net());
    assert_eq!(links(&named, "8.8.8.8"), [2, 3, 4]);
}

#[test]
fn links_without_carrier_announce_nothing() {
    let mut net = net();
    net.links.get_mut(&2).unwrap().carrier = false;
    net.links.get_mut(&4).unwrap().admin_up = false;
    let subnets = Subnets::new(&choice(&[], false), &net);
    assert_eq!(reach(&subnets), "192.0.2.0/24, 198.51.100.0/31");
    assert_eq!(links(&subnets, "192.0.2.10"), [3]);
    assert_eq!(links(&subnets, "192.0.2.200"), [3], "the shorter prefix, while the longer one is down");
    assert_eq!(links(&subnets, "2001:db8::99"), [2], "there is no other to wait on");
    let subnets = Subnets::new(&choice(&[], true), &net);
    assert_eq!(reach(&subnets), "192.0.2.0/24, 198.51.100.0/31", "its home is down");
    for link in net.links.values_mut() {
        link.carrier = false;
    }
    let subnets = Subnets::new(&choice(&[], true), &net);
    assert!(subnets.reach(|_| false).is_nothing());
    assert_eq!(reach(&subnets), "nothing");
}

#[test]
fn links_without_the_program_announce_nothing() {
    let subnets = Subnets::new(&choice(&[], false), &net());
    let on = |fails: &[u32]| subnets.reach(|index| fails.contains(&index)).to_string();
    assert_eq!(on(&[2]), "192.0.2.0/24, 192.0.2.128/25, 198.51.100.0/31", "eth1 has the first, too");
    assert_eq!(on(&[2, 3]), "192.0.2.128/25");
    assert_eq!(on(&[2, 3, 4]), "nothing");
    let any = Subnets::new(&choice(&[], true), &net());
    assert_eq!(any.reach(|index| index == 4), Reach::Any);
    assert_eq!(any.reach(|index| index == 2).to_string(), on(&[2]), "its home fails");
}

#[test]
fn without_a_default_route() {
    let net = NetState { default_route_links: BTreeSet::new(), ..net() };
    let subnets = Subnets::new(&choice(&[], true), &net);
    assert_eq!(links(&subnets, "192.0.2.200"), [4], "prefixes do");
    assert!(links(&subnets, "8.8.8.8").is_empty());
    assert!(!matches!(subnets.reach(|_| false), Reach::Any));
    assert!(subnets.waiting.contains_key("the default route's interface"));
}
