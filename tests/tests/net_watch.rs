//! Links are followed by netlink events, whatever happens to them.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "net_watch/bursts.rs"]
mod bursts;
mod net_support;

use std::{collections::BTreeSet, fs::File, net::IpAddr, os::fd::AsRawFd as _, sync::Arc, time::Duration};

use net_support::{in_namespace, run};
use responder_common::wire::Mac;
use responder_user::net::{
    link::{Link, NetState, Scope},
    watch::watch,
};
use tokio::sync::watch::Receiver;

/// Not what is promised (milliseconds), but what tells slowness of a loaded machine from a missed event.
const DEADLINE: Duration = Duration::from_secs(10);

async fn follow() -> Receiver<Arc<NetState>> {
    let (receiver, task) = watch().await.unwrap();
    tokio::spawn(task);
    receiver
}

async fn until(
    links: &mut Receiver<Arc<NetState>>,
    what: &str,
    condition: impl FnMut(&Arc<NetState>) -> bool,
) {
    let waited = tokio::time::timeout(DEADLINE, links.wait_for(condition)).await.map(|seen| seen.map(drop));
    let state = Arc::clone(&links.borrow());
    assert!(matches!(waited, Ok(Ok(()))), "{what}: not seen; what is seen: {state:#?}");
}

fn link<'a>(state: &'a NetState, name: &str) -> &'a Link {
    state.by_name(name).unwrap_or_else(|| panic!("no {name} in {state:#?}"))
}

fn ips(link: &Link) -> Vec<String> {
    link.addrs.iter().map(|prefix| format!("{}/{}", prefix.ip, prefix.len)).collect()
}

fn gateways(state: &NetState) -> Vec<String> {
    state.default_gateways.iter().map(ToString::to_string).collect()
}

#[test]
fn state_is_complete_at_once() {
    in_namespace("state_is_complete_at_once", || async {
        run("ip link set lo up");
        run("ip link add br0 type bridge");
        run("ip link add v0 address 02:00:00:00:00:01 mtu 1400 type veth peer name v1");
        run("ip link set v1 master br0");
        run("ip link set v0 up");
        run("ip addr add 192.0.2.1/24 dev v0");
        run("ip addr add 192.0.2.2/24 dev v0 valid_lft 1000 preferred_lft 1000");
        run("ip addr add 2001:db8::1/64 dev v0 nodad");
        run("ip route add default via 192.0.2.254");
        let links = follow().await;
        let state = links.borrow();

        let v0 = link(&state, "v0");
        let v1 = link(&state, "v1");
        let br0 = link(&state, "br0");
        assert_eq!(state.links[&v0.index], *v0);
        assert_eq!((v0.mac, v0.mtu), (Mac::new([2, 0, 0, 0, 0, 1]), 1400));
        assert_eq!((v0.kind.as_deref(), br0.kind.as_deref()), (Some("veth"), Some("bridge")));
        assert_eq!((v0.parent, v1.parent), (Some(v1.index), Some(v0.index)));
        assert_eq!((v0.master, v1.master), (None, Some(br0.index)));
        assert!(v0.admin_up && !v1.admin_up && !v0.carrier, "{v0:?} {v1:?}");
        assert!(v0.ethernet && !v0.loopback && v0.xdp.is_none());
        let first = &v0.addrs[0];
        assert_eq!(first.ip, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert!(first.primary && first.permanent && !first.tentative && first.scope == Scope::Global);
        let second = v0.addrs.iter().find(|prefix| prefix.ip.to_string() == "192.0.2.2").unwrap();
        assert!(!second.primary && !second.permanent);
        assert!(ips(v0).contains(&"2001:db8::1/64".to_owned()));
        assert_eq!(state.default_route_links, BTreeSet::from([v0.index]));

        let lo = link(&state, "lo");
        assert!(lo.loopback && !lo.ethernet && lo.carrier);
        assert_eq!(lo.addrs[0].scope, Scope::Host);
        assert!(state.by_name("v").is_none());
    });
}

#[test]
fn every_change_is_seen() {
    in_namespace("every_change_is_seen", || async {
        let mut links = follow().await;
        run("ip link add v0 type veth peer name v1");
        until(&mut links, "new", |s| s.by_name("v0").is_some_and(|l| !l.admin_up)).await;
        let index = link(&links.borrow(), "v0").index;

        run("ip link set v0 up");
        until(&mut links, "up", |s| link(s, "v0").admin_up && !link(s, "v0").carrier).await;
        run("ip link set v1 up");
        until(&mut links, "carrier", |s| link(s, "v0").carrier).await;
        run("ip link set v1 down");
        until(&mut links, "no carrier", |s| !link(s, "v0").carrier && link(s, "v0").admin_up).await;
        run("ip link set v0 address 02:00:00:00:00:77");
        until(&mut links, "MAC", |s| link(s, "v0").mac == Mac::new([2, 0, 0, 0, 0, 0x77])).await;
        run("ip link set v0 mtu 1300");
        until(&mut links, "MTU", |s| link(s, "v0").mtu == 1300).await;

        run("ip addr add 192.0.2.1/24 dev v0");
        until(&mut links, "address", |s| ips(link(s, "v0")).contains(&"192.0.2.1/24".to_owned())).await;
        run("ip addr del 192.0.2.1/24 dev v0");
        until(&mut links, "address gone", |s| !ips(link(s, "v0")).contains(&"192.0.2.1/24".to_owned())).await;
        run("ip addr add 2001:db8::1/64 dev v0");
        let v6 =
            |s: &NetState| link(s, "v0").addrs.iter().find(|p| p.ip.to_string() == "2001:db8::1").cloned();
        until(&mut links, "tentative address", |s| v6(s).is_some_and(|p| p.tentative)).await;
        run("ip link set v1 up");
        until(&mut links, "end of DAD", |s| v6(s).is_some_and(|p| !p.tentative)).await;

        run("ip link set v0 name new.name");
        until(&mut links, "name", |s| s.by_name("v0").is_none() && s.by_name("new.name").is_some()).await;
        assert_eq!(link(&links.borrow(), "new.name").index, index);
        assert!(!link(&links.borrow(), "new.name").addrs.is_empty(), "addresses outlive a new name");

        run("ip link add br0 type bridge");
        run("ip link set v1 master br0");
        until(&mut links, "master", |s| {
            s.by_name("br0").is_some_and(|br0| link(s, "v1").master == Some(br0.index))
        })
        .await;
        run("ip addr add 198.51.100.1/24 dev v1");
        until(&mut links, "address of a port", |s| ips(link(s, "v1")).len() == 2).await;
        run("ip link set v1 nomaster");
        until(&mut links, "no master", |s| link(s, "v1").master.is_none()).await;
        let addresses = ips(link(&links.borrow(), "v1"));
        assert!(addresses.contains(&"198.51.100.1/24".to_owned()), "what ended is only its role as a port");

        run("ip link del new.name");
        until(&mut links, "deleted", |s| s.by_name("new.name").is_none() && s.by_name("v1").is_none()).await;
        run("ip link add v0 type veth peer name v1");
        until(&mut links, "another", |s| s.by_name("v0").is_some_and(|l| l.index != index)).await;
        assert!(link(&links.borrow(), "v0").addrs.is_empty());

        run("ip link set v0 down");
        until(&mut links, "down", |s| !link(s, "v0").admin_up && !link(s, "v0").carrier).await;
    });
}

#[test]
fn link_moves_away_and_back() {
    in_namespace("link_moves_away_and_back", || async {
        let namespace = || File::open("/proc/thread-self/ns/net").unwrap();
        let here = namespace();
        let there = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            namespace()
        });
        let there = there.join().unwrap();
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());

        let mut links = follow().await;
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 up");
        run("ip addr add 192.0.2.1/24 dev v0");
        until(&mut links, "new", |s| s.by_name("v0").is_some_and(|l| l.addrs.len() == 1)).await;
        let index = link(&links.borrow(), "v0").index;
        assert_eq!(link(&links.borrow(), "v1").parent, Some(index));

        run(&format!("ip link set v0 netns {}", path(&there)));
        until(&mut links, "moved away", |s| s.by_name("v0").is_none()).await;
        assert_eq!(link(&links.borrow(), "v1").parent, None, "its peer is elsewhere");

        run(&format!("nsenter --net={} ip link set v0 netns {}", path(&there), path(&here)));
        until(&mut links, "back", |s| s.by_name("v0").is_some()).await;
        let state = Arc::clone(&links.borrow());
        assert_eq!(link(&state, "v0").index, index, "the trap: it has its old index");
        assert!(link(&state, "v0").addrs.is_empty() && !link(&state, "v0").admin_up);
        assert_eq!(link(&state, "v1").parent, Some(index));
    });
}

#[test]
fn default_routes_are_followed() {
    in_namespace("default_routes_are_followed", || async {
        for (link, net) in [("v1", 1), ("v2", 2)] {
            run(&format!("ip link add {link} type veth peer name {link}-peer"));
            run(&format!("ip link set {link} up"));
            run(&format!("ip link set {link}-peer up"));
            run(&format!("ip addr add 192.0.{net}.1/24 dev {link}"));
            run(&format!("ip addr add 2001:db8:{net}::1/64 dev {link} nodad"));
        }
        let mut links = follow().await;
        let [a, b] = ["v1", "v2"].map(|name| link(&links.borrow(), name).index);
        assert!(links.borrow().default_route_links.is_empty());

        run("ip route add default via 192.0.1.254");
        until(&mut links, "route", |s| s.default_route_links == BTreeSet::from([a])).await;
        run("ip route add default via 192.0.2.254 metric 7");
        until(&mut links, "second route", |s| s.default_route_links == BTreeSet::from([a, b])).await;
        run("ip route del default via 192.0.2.254 metric 7");
        until(&mut links, "one route less", |s| s.default_route_links == BTreeSet::from([a])).await;
        run("ip route replace default nexthop via 192.0.1.254 nexthop via 192.0.2.254");
        until(&mut links, "multipath", |s| s.default_route_links == BTreeSet::from([a, b])).await;
        assert_eq!(gateways(&links.borrow()), ["192.0.1.254", "192.0.2.254"]);
        run("ip route replace default via 192.0.2.254");
        until(&mut links, "replaced", |s| s.default_route_links == BTreeSet::from([b])).await;
        run("ip -6 route add default via 2001:db8:1::fe dev v1");
        until(&mut links, "IPv6", |s| s.default_route_links == BTreeSet::from([a, b])).await;
        assert_eq!(gateways(&links.borrow()), ["192.0.2.254", "2001:db8:1::fe"]);
        run("ip -6 route del default");
        until(&mut links, "IPv6 gone", |s| s.default_route_links == BTreeSet::from([b])).await;

        // The kernel removes these without telling anybody about the route (the latter on older kernels).
        std::fs::write("/proc/sys/net/ipv6/conf/v2/disable_ipv6", "1").unwrap(); // nor about anything else
        until(&mut links, "no IPv6", |s| !ips(link(s, "v2")).iter().any(|ip| ip.contains(':'))).await;
        run("ip link set v2 down");
        until(&mut links, "down", |s| s.default_route_links.is_empty()).await;
        run("ip addr add 192.0.1.2/24 dev v1");
        run("ip route add default via 192.0.1.254 src 192.0.1.2");
        until(&mut links, "route with a source", |s| s.default_route_links == BTreeSet::from([a])).await;
        run("ip addr del 192.0.1.2/24 dev v1");
        until(&mut links, "source gone", |s| s.default_route_links.is_empty()).await;

        run("ip route add default via 192.0.1.254 table 77");
        run("ip route add unreachable default metric 9");
        run("ip link set v1-peer address 02:00:00:00:00:01");
        until(&mut links, "a later event", |s| link(s, "v1-peer").mac == Mac::new([2, 0, 0, 0, 0, 1])).await;
        assert!(links.borrow().default_route_links.is_empty(), "of another table, and to nowhere");
    });
}

#[test]
fn watch_ends_with_its_last_receiver() {
    in_namespace("watch_ends_with_its_last_receiver", || async {
        let (receiver, task) = watch().await.unwrap();
        let task = tokio::spawn(task);
        drop(receiver);
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
    });
}
