//! The egress program: what this host sends in the name of addresses that it does not own.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::net::Ipv4Addr;

use responder_common::{egress::EgressOutcome, layout::Prefix4};
use responder_tests::{
    build::{ALL_NODES, ALL_NODES_MAC, Arp, BROADCAST, Nd},
    frames::{
        CLIENT, CLIENT4, CLIENT6, OTHER, OWN, OWN7, PRIORITY, UNKNOWN4, UNKNOWN6, VIP4, VIP6, VLAN5, VLAN7,
    },
    model::{Fence, Host, IFINDEX},
    run::Kernel,
    skip::is_root,
};

/// Other programs and filters decide.
const UNSPECIFIED: i32 = -1;
/// Dropped.
const SHOT: i32 = 2;

const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 51);
const SECOND4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);

fn prefix(addr: Ipv4Addr, bits: u32) -> Prefix4 {
    Prefix4 { addr: addr.octets(), mask: (!(u32::MAX >> bits)).to_be_bytes() }
}

fn request() -> Arp {
    Arp::request(OWN, VIP4, CLIENT4)
}

/// A host that asks from, and has the prefixes 192.0.2.51/24 and 198.51.100.51/25.
fn kernel(host: &Host) -> Kernel {
    let mut kernel = Kernel::with(host).unwrap();
    let own = [prefix(OWN4, 24), prefix(SECOND4, 25)];
    kernel.set_prefixes((IFINDEX, 0), &own).unwrap();
    kernel
}

/// Sends `frame`: what comes out of the program, and the counter that moved.
fn send(kernel: &Kernel, frame: &[u8]) -> (i32, Vec<u8>, Option<EgressOutcome>) {
    let before = kernel.egress().unwrap();
    let (verdict, out) = kernel.transmit(frame).unwrap();
    let after = kernel.egress().unwrap();
    let moved = |o: &&EgressOutcome| after.get(**o) != before.get(**o);
    let mut moved = EgressOutcome::ALL.iter().filter(moved);
    let outcome = moved.next().copied();
    assert_eq!(moved.next(), None, "two counters moved");
    (verdict, out, outcome)
}

fn states() -> [(Host, bool); 4] {
    let listed = Host::listed;
    [
        (listed(), true),
        (Host { owned: vec![], ..listed() }, false),
        (Host { fence: Fence::Expired, ..listed() }, false),
        (Host { fence: Fence::Abandoned, ..listed() }, true),
    ]
}

#[test]
fn requests_carry_an_address_of_the_link_unless_the_vip_is_owned() {
    if !is_root("requests_carry_an_address_of_the_link_unless_the_vip_is_owned") {
        return;
    }
    for (host, owned) in states() {
        let kernel = kernel(&host);
        for (tpa, own) in [
            (CLIENT4, OWN4),
            (Ipv4Addr::new(198, 51, 100, 9), SECOND4),
            // In no prefix, the second being a /25: the first.
            (Ipv4Addr::new(198, 51, 100, 200), OWN4),
            // Asking for the VIP itself, as an announcement does.
            (VIP4, OWN4),
        ] {
            for arp in [
                Arp { tpa, ..request() },
                Arp { tpa, pad: vec![], ..request() },
                Arp { tpa, tags: vec![PRIORITY], ..request() },
                Arp { tpa, dst: CLIENT, ..request() },
            ] {
                let sent = send(&kernel, &arp.bytes());
                let expected = if owned {
                    (UNSPECIFIED, arp.bytes(), Some(EgressOutcome::Owned))
                } else {
                    let corrected = Arp { spa: own, ..arp.clone() };
                    (UNSPECIFIED, corrected.bytes(), Some(EgressOutcome::RequestCorrected))
                };
                assert_eq!(sent, expected, "{arp:?} with {:?}", host.fence);
            }
        }
    }
}

#[test]
fn without_an_own_address_requests_carry_none() {
    if !is_root("without_an_own_address_requests_carry_none") {
        return;
    }
    let mut kernel = kernel(&Host { owned: vec![], ..Host::listed() });
    kernel.set_prefixes((IFINDEX, 0), &[]).unwrap();
    let corrected = Arp { spa: Ipv4Addr::UNSPECIFIED, ..request() };
    let expected = (UNSPECIFIED, corrected.bytes(), Some(EgressOutcome::RequestCorrected));
    assert_eq!(send(&kernel, &request().bytes()), expected);
}

#[test]
fn claims_leave_only_while_the_vip_is_owned() {
    if !is_root("claims_leave_only_while_the_vip_is_owned") {
        return;
    }
    let reply = Arp::reply(OWN, VIP4, CLIENT, CLIENT4);
    let gratuitous = Arp { dst: BROADCAST, ..Arp::reply(OWN, VIP4, OWN, VIP4) };
    let unsolicited = Nd::advertisement(OWN, VIP6, ALL_NODES_MAC, ALL_NODES, 2);
    let answer = Nd::advertisement(OWN, VIP6, CLIENT, CLIENT6, 6);
    let tagged = Nd { tags: vec![PRIORITY], ..answer.clone() };
    let claims = [
        (reply.bytes(), EgressOutcome::ReplyStopped),
        (gratuitous.bytes(), EgressOutcome::ReplyStopped),
        (unsolicited.bytes(), EgressOutcome::AdvertisementStopped),
        (answer.bytes(), EgressOutcome::AdvertisementStopped),
        (tagged.bytes(), EgressOutcome::AdvertisementStopped),
    ];
    for (host, owned) in states() {
        let kernel = kernel(&host);
        for (frame, stopped) in &claims {
            let (verdict, out, outcome) = send(&kernel, frame);
            assert_eq!(out, *frame);
            let expected = if owned { (UNSPECIFIED, EgressOutcome::Owned) } else { (SHOT, *stopped) };
            assert_eq!((verdict, outcome), (expected.0, Some(expected.1)), "{frame:02x?} {:?}", host.fence);
        }
    }
}

#[test]
fn vlans_have_their_own_addresses() {
    if !is_root("vlans_have_their_own_addresses") {
        return;
    }
    let mut kernel = kernel(&Host { owned: vec![], ..Host::listed() });
    let own = Ipv4Addr::new(192, 0, 2, 57);
    kernel.set_prefixes((IFINDEX, 7), &[prefix(own, 24)]).unwrap();
    let arp = Arp { tags: vec![VLAN7], ..Arp::request(OWN7, VIP4, CLIENT4) };
    let corrected = Arp { spa: own, ..arp.clone() };
    let expected = (UNSPECIFIED, corrected.bytes(), Some(EgressOutcome::RequestCorrected));
    assert_eq!(send(&kernel, &arp.bytes()), expected);
    // Another VLAN's hardware address is foreign, and an unknown VLAN is none of our business.
    for arp in [Arp { sha: OWN, ..arp.clone() }, Arp { tags: vec![VLAN5], ..arp }] {
        assert_eq!(send(&kernel, &arp.bytes()), (UNSPECIFIED, arp.bytes(), None));
    }
}

#[test]
fn what_is_not_ours_leaves_as_it_is() {
    if !is_root("what_is_not_ours_leaves_as_it_is") {
        return;
    }
    let kernel = kernel(&Host { owned: vec![], ..Host::listed() });
    let na = Nd::advertisement(OWN, VIP6, CLIENT, CLIENT6, 6);
    for frame in [
        // Forwarded by a bridge for others, whoever they are.
        Arp { sha: OTHER, ..request() }.bytes(),
        Nd { src: OTHER, ..na.clone() }.bytes(),
        Arp { spa: UNKNOWN4, ..request() }.bytes(),
        Arp { spa: Ipv4Addr::UNSPECIFIED, ..request() }.bytes(),
        Arp { htype: 32, ..request() }.bytes(),
        Arp { pad: vec![], ..request() }.bytes()[..41].to_vec(),
        Nd { target: UNKNOWN6, ..na.clone() }.bytes(),
        Nd { kind: 135, ..na.clone() }.bytes(),
        Nd { next: 17, ..na.clone() }.bytes(),
        na.bytes()[..77].to_vec(),
        na.bytes()[..60].to_vec(),
    ] {
        assert_eq!(send(&kernel, &frame), (UNSPECIFIED, frame.clone(), None), "{frame:02x?}");
    }
}
