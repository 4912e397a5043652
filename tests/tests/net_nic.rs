//! What a driver reports, frames that are sent, a setting and the clock.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod net_support;

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use net_support::{in_namespace, run};
use nix::errno::Errno;
use responder_user::net::{
    boot,
    ethtool::{Features, VlanOffloadError, features, set_rx_vlan_offload},
    packet::PacketSender,
    sysctl,
};
use socket2::{Domain, Protocol, Socket, Type};

#[test]
fn features_follow_ethtool() {
    in_namespace("features_follow_ethtool", || async {
        run("ip link add v0 numrxqueues 3 numtxqueues 4 type veth peer name v1 numrxqueues 4 numtxqueues 3");
        let before = features("v0");
        assert_eq!(before.driver.as_deref(), Some("veth"));
        assert_eq!((before.lro, before.gro_hw), (Some(false), Some(false)));

        for on in [false, true] {
            let switch = if on { "on" } else { "off" };
            run(&format!("ethtool -K v0 rxvlan {switch}"));
            assert_eq!(features("v0").rx_vlan_offload, Some(on));
            run(&format!("ethtool -K v0 txvlan {switch}"));
            assert_eq!(features("v0").tx_vlan_offload, Some(on));
        }

        run("ethtool -L v0 rx 2 tx 1");
        let channels = features("v0").channels.unwrap();
        assert_eq!((channels.rx, channels.max_rx, channels.tx, channels.max_tx), (2, 3, 1, 4));
        assert_eq!((channels.combined, channels.max_combined), (0, 0));

        assert_eq!(features("lo").channels, None);
        assert_eq!(features("nosuchlink"), Features::default());
        assert_eq!(features("a-name-of-sixteen"), Features::default());
    });
}

#[test]
fn vlan_tags_are_left_in_frames_on_request() {
    in_namespace("vlan_tags_are_left_in_frames_on_request", || async {
        run("ip link add v0 type veth peer name v1");
        run("ip link add br0 type bridge");
        let tells = |on: &str| assert!(run("ethtool -k v0").contains(&format!("rx-vlan-offload: {on}")));
        tells("on");
        for (on, word) in [(false, "off"), (false, "off"), (true, "on"), (false, "off")] {
            set_rx_vlan_offload("v0", on).unwrap();
            tells(word);
        }
        assert_eq!(features("v0").tx_vlan_offload, Some(true), "nothing else is switched");

        let reads = |name: &str, on: bool| set_rx_vlan_offload(name, on).unwrap_err().to_string();
        assert_eq!(
            reads("br0", true),
            "rxvlan stays off on br0: its driver does not let it be changed (`ethtool -k br0` calls it [fixed])"
        );
        assert_eq!(
            reads("nosuchlink", false),
            "cannot turn rxvlan off on nosuchlink: No such device (os error 19)"
        );
        set_rx_vlan_offload("br0", false).unwrap();
        assert!(matches!(set_rx_vlan_offload("br0", true), Err(VlanOffloadError::Kept { on: true, .. })));
    });
}

/// For local experiments (IEEE 802), so nothing else sends it.
const ETHERTYPE: u16 = 0x88b5;

#[test]
fn frame_arrives_by_way_of_the_qdisc() {
    in_namespace("frame_arrives_by_way_of_the_qdisc", || async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap(); // no frames but these
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 up");
        run("ip link set v1 up");
        run("tc qdisc add dev v0 root handle 1: pfifo");
        let link = run("ip -o link show v0").split(':').next().unwrap().parse().unwrap();
        let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
        let mut peer = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

        let mut frame = [0xff; 60];
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        let mut sender = PacketSender::new().unwrap();
        sender.send(link, &frame).unwrap();
        let mut received = [0; 100];
        let len = peer.read(&mut received).unwrap();
        assert_eq!(received[..len], frame);
        let statistics = run("tc -s qdisc show dev v0");
        assert!(statistics.contains("Sent 60 bytes 1 pkt"), "{statistics}");

        let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        assert!(sockets.contains(" 0000 "), "a socket of protocol 0, which receives nothing:\n{sockets}");

        let errno =
            |result: std::io::Result<()>| Errno::from_raw(result.unwrap_err().raw_os_error().unwrap());
        run("ip link set v0 down");
        assert_eq!(errno(sender.send(link, &frame)), Errno::ENETDOWN);
        assert_eq!(errno(sender.send(999_999, &frame)), Errno::ENXIO);
        assert!(sender.send(link, &frame[..13]).unwrap_err().to_string().contains("14 bytes"));
    });
}

#[test]
fn forwarding_is_read_by_name() {
    in_namespace("forwarding_is_read_by_name", || async {
        for name in ["v0", "v0.100"] {
            run(&format!("ip link add {name} type veth"));
            assert!(!sysctl::ipv6_forwarding(name).unwrap());
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/forwarding"), "1").unwrap();
            assert!(sysctl::ipv6_forwarding(name).unwrap());
        }
        let missing = sysctl::ipv6_forwarding("nosuchlink").unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("nosuchlink"));
        for name in ["", ".", "..", "../all", "a/b"] {
            assert_eq!(sysctl::ipv6_forwarding(name).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn clock_counts_since_boot() {
    let uptime: f64 =
        std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let before = boot::now_ns();
    let start = Instant::now();
    assert!(before as f64 >= uptime * 1e9 - 1e7, "{before} ns, but the kernel is up for {uptime} s");
    while start.elapsed() < Duration::from_millis(2) {}
    assert!(boot::now_ns() - before >= 2_000_000);
}
