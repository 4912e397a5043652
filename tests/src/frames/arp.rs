//! ARP.

use super::{CLIENT, CLIENT4, Case, ClaimKind, OTHER, OWN, UNKNOWN4, VIP4};
use crate::build::{Arp, BROADCAST, Mac, ethernet};
use std::net::Ipv4Addr;

pub(super) const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];

pub(super) fn request() -> Arp {
    Arp::request(CLIENT, CLIENT4, VIP4)
}

/// What the client gets for a request of 60 bytes.
pub(super) fn reply() -> Arp {
    Arp::reply(OWN, VIP4, CLIENT, CLIENT4)
}

pub(super) fn answered(id: &str, request: &Arp, reply: &Arp) -> Case {
    Case::answer(id, request.bytes(), "arp_answered", reply.bytes()).linux()
}

/// A01 to A22.
pub(super) fn cases() -> Vec<Case> {
    let any = Ipv4Addr::UNSPECIFIED;
    let conflict =
        |id: &str, arp: Arp| Case::pass(id, arp.bytes(), "arp_conflict").claim(ClaimKind::Arp, VIP4, arp.sha);
    let mut cases = vec![
        answered("A01", &request(), &reply()),
        answered("A02", &Arp { dst: OWN, ..request() }, &reply()),
        answered("A03", &Arp { spa: any, ..request() }, &Arp { tpa: any, ..reply() }),
        answered("A04", &Arp { spa: any, tha: BROADCAST, ..request() }, &Arp { tpa: any, ..reply() }),
        conflict("A05", Arp { spa: VIP4, ..request() }),
        conflict("A06", Arp { spa: VIP4, tpa: UNKNOWN4, ..request() }),
        conflict("A07", Arp { dst: BROADCAST, ..Arp::reply(CLIENT, VIP4, CLIENT, VIP4) }),
        Case::pass("A08", Arp::reply(CLIENT, CLIENT4, OWN, VIP4).bytes(), "arp_not_request"),
        answered("A10", &Arp { htype: 6, ..request() }, &reply()),
        answered("A15", &Arp { src: OTHER, ..request() }, &reply()),
        Case::pass("A17", Arp { dst: OTHER, ..request() }.bytes(), "arp_other_host"),
        Case::drop("A18", Arp { dst: GROUP, ..request() }.bytes(), "arp_multicast").linux(),
        Case::pass("A21.6", Arp { sha: OWN, spa: VIP4, ..request() }.bytes(), "arp_announcement"),
        Case::drop("A21.7", Arp { sha: OWN, ..request() }.bytes(), "arp_own_hardware").linux(),
        Case::ignored(
            "A24",
            ethernet(
                BROADCAST,
                CLIENT,
                &[],
                36,
                &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 6], &request().packet()[..28]].concat(),
            ),
        ),
        Case::ignored("A25", ethernet(BROADCAST, CLIENT, &[], 0x8035, &request().packet())),
    ];
    for op in [0, 3, 4, 8, 9, 255, 65535] {
        cases.push(Case::pass(format!("A09.{op}"), Arp { op, ..request() }.bytes(), "arp_not_request"));
    }
    for htype in [0, 7, 15, 32, 65535] {
        cases.push(Case::pass(format!("A11.{htype}"), Arp { htype, ..request() }.bytes(), "arp_format"));
    }
    for (id, arp) in [
        ("A12.1", Arp { hlen: 8, ..request() }),
        ("A12.2", Arp { hlen: 0, ..request() }),
        ("A12.3", Arp { plen: 16, ..request() }),
        ("A12.4", Arp { plen: 0, ..request() }),
        ("A13", Arp { ptype: 0x86dd, ..request() }),
    ] {
        cases.push(Case::pass(id, arp.bytes(), "arp_format"));
    }
    for (i, mac) in [GROUP, BROADCAST, [0; 6]].into_iter().enumerate() {
        let i = i + 1;
        let sha = Arp { sha: mac, ..request() };
        cases.push(Case::drop(format!("A14.{i}"), sha.bytes(), "arp_bad_hardware").linux());
        let src = Arp { src: mac, ..request() };
        cases.push(Case::drop(format!("A16.{i}"), src.bytes(), "arp_bad_hardware").linux());
    }
    for (id, spa) in [
        ("A21.1", Ipv4Addr::new(224, 0, 0, 1)),
        ("A21.2", Ipv4Addr::BROADCAST),
        ("A21.3", Ipv4Addr::LOCALHOST),
        ("A21.8", Ipv4Addr::new(239, 255, 255, 255)),
    ] {
        cases.push(Case::pass(id, Arp { spa, ..request() }.bytes(), "arp_bad_sender"));
    }
    for (id, spa) in [
        ("A21.4", Ipv4Addr::new(192, 0, 2, 255)),
        ("A21.5", Ipv4Addr::new(203, 0, 113, 9)),
        ("A21.9", Ipv4Addr::new(240, 0, 0, 1)),
        ("A21.10", Ipv4Addr::new(0, 0, 0, 1)),
    ] {
        cases.push(answered(id, &Arp { spa, ..request() }, &Arp { tpa: spa, ..reply() }));
    }
    for (i, tpa) in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::LOCALHOST, any, Ipv4Addr::BROADCAST, UNKNOWN4]
        .into_iter()
        .enumerate()
    {
        let arp = Arp { tpa, ..request() };
        cases.push(Case::pass(format!("A22.{}", i + 1), arp.bytes(), "arp_not_ours"));
    }
    cases
}
