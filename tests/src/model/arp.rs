//! RFC 826 and RFC 5227.

use std::net::Ipv4Addr;

use super::{Counted, Expected, Host, Link, Outer, Part, Standing, be16, is_station, mac};
use crate::{
    build::{Arp, BROADCAST},
    frames::{Claim, ClaimKind, Verdict},
};

pub(super) fn expect(host: &Host, outer: &Outer<'_>) -> Expected {
    let Some(packet) = outer.body.get(..28) else {
        return Expected::pass("arp_truncated");
    };
    let [htype, ptype, lengths, op] = [0, 2, 4, 6].map(|at| be16(packet, at).unwrap_or_default());
    if !matches!(htype, 1 | 6) || ptype != 0x0800 || lengths != 0x0604 {
        return Expected::pass("arp_format");
    }
    let ip = |at| Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| packet[at + i]));
    let (sha, spa, tpa) = (mac(packet, 8), ip(14), ip(24));

    let asked = host.known(tpa, outer.place);
    let claimed =
        if spa.is_unspecified() && !tpa.is_unspecified() { None } else { host.known(spa, outer.place) };
    if asked.is_none() && claimed.is_none() {
        return Expected::pass("arp_not_ours");
    }
    let Some(link) = host.links.get(&outer.place) else {
        return Expected::drop("failed");
    };
    let is_question = asked.is_some() && op == 1 && spa != tpa;
    // Claims are reported where the frame ends: a bridge has its own program, and of a bond's slaves one is in use.
    let ends_here = match link.part {
        Part::Whole => true,
        Part::Bridged => is_question && asked == Some(Standing::Owned),
        Part::Backup => false,
    };
    // RFC 5227 section 2.4: a foreign hardware address with one of our addresses as sender.
    let claims = claimed == Some(Standing::Owned) && sha != link.mac;
    let claim = (claims && ends_here).then_some(Claim {
        kind: ClaimKind::Arp,
        vlan: outer.place.1,
        vip: spa.into(),
        claimer: sha,
    });
    let mut expected = match asked {
        Some(standing) if is_question => question(outer, standing, *link, claim.is_some(), (sha, spa, tpa)),
        _ if claim.is_some() => Expected::pass("arp_conflict"),
        None => Expected::pass("arp_not_ours"),
        Some(_) if op == 1 => Expected::pass("arp_announcement"),
        Some(_) => Expected::pass("arp_not_request"),
    };
    expected.claim = claim;
    expected
}

/// A request for an address that is known.
fn question(
    outer: &Outer<'_>,
    standing: Standing,
    link: Link,
    conflict: bool,
    (sha, spa, tpa): ([u8; 6], Ipv4Addr, Ipv4Addr),
) -> Expected {
    let own = link.mac;
    let for_us = outer.dst == own || outer.dst == BROADCAST;
    let group = outer.dst[0] & 1 == 1;
    if !for_us && !group {
        return Expected::pass("arp_other_host");
    }
    if spa.is_multicast() || spa.is_broadcast() || spa.is_loopback() {
        return Expected::pass("arp_bad_sender");
    }
    if standing == Standing::Abandoned {
        return Expected::pass("passed_abandoned");
    }
    match link.part {
        Part::Backup => return Expected::drop("backup_port"),
        Part::Bridged if standing != Standing::Owned => return Expected::pass("passed_forwarded"),
        Part::Bridged | Part::Whole => {}
    }
    if outer.stacked {
        return Expected::drop("stacked_tags");
    }
    if !for_us {
        return Expected::drop("arp_multicast");
    }
    if conflict {
        return Expected::drop("arp_conflict_dropped");
    }
    if !is_station(sha) || !is_station(outer.src) {
        return Expected::drop("arp_bad_hardware");
    }
    if sha == own {
        return Expected::drop("arp_own_hardware");
    }
    let (outcome, verdict, counted) = match standing {
        Standing::Owned => {
            let mut reply = Arp::reply(own, tpa, sha, spa);
            reply.tags.clone_from(&outer.tags);
            // A frame long enough for Ethernet stays so; a shorter one never was on a wire.
            if outer.body.len() < 46 {
                reply.pad.clear();
            }
            ("arp_answered", Verdict::Answer(reply.bytes()), Counted::Answered)
        }
        Standing::Expired => ("suppressed_expired", Verdict::Drop, Counted::Suppressed),
        Standing::Standby | Standing::Abandoned => ("suppressed_standby", Verdict::Drop, Counted::Suppressed),
    };
    Expected { counted: Some((tpa.into(), outer.place, counted)), ..Expected::new(Some(outcome), verdict) }
}
