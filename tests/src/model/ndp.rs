//! RFC 4861 sections 7.1.1, 7.1.2 and 7.2.4, RFC 4862 section 5.4.

use std::net::Ipv6Addr;

use super::{Counted, Expected, Host, Link, Outer, Part, Standing, be16, is_station, mac};
use crate::{
    build::{ALL_NODES, ALL_NODES_MAC, Mac, Nd, checksum, solicited_node},
    frames::{Claim, ClaimKind, Verdict},
};

const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Where ICMPv6 begins.
enum Message {
    /// Behind the IPv6 header.
    Plain(usize),
    /// Behind extension headers that a host skips.
    Hidden(usize),
    /// Behind more of them than any host may send.
    TooDeep,
    /// There is none.
    None,
}

fn find(body: &[u8]) -> Message {
    let mut next = body[6];
    if next == ICMPV6 {
        return Message::Plain(40);
    }
    if ![HOP_BY_HOP, ROUTING, DESTINATION].contains(&next) {
        return Message::None;
    }
    let mut at = 40;
    for _ in 0..3 {
        let Some(&[following, units, first, second]) = body.get(at..at + 4) else {
            return Message::None;
        };
        let skipped = match next {
            // Segments left: the packet goes on to another node.
            ROUTING => second == 0,
            // An unknown option with these bits makes the receiver drop the packet (RFC 8200 section 4.2).
            _ => first & 0xc0 == 0,
        };
        if !skipped {
            return Message::None;
        }
        at += 8 * (usize::from(units) + 1);
        next = following;
        match next {
            ICMPV6 => return Message::Hidden(at),
            ROUTING | DESTINATION => {}
            _ => return Message::None,
        }
    }
    Message::TooDeep
}

pub(super) fn expect(host: &Host, outer: &Outer<'_>) -> Expected {
    let body = outer.body;
    if body.len() < 40 {
        return Expected::pass("nd_truncated");
    }
    let (at, hidden) = match find(body) {
        Message::Plain(at) => (at, false),
        Message::Hidden(at) => (at, true),
        // Hop limit 255: it may be a solicitation.
        Message::TooDeep if body[7] == 255 => return Expected::drop("ns_extension_header"),
        Message::TooDeep => return Expected::ignored(),
        Message::None => return Expected::ignored(),
    };
    let Some(icmp) = body.get(at..).filter(|m| m.len() >= 8) else {
        return Expected::pass("nd_truncated");
    };
    let solicitation = match icmp[0] {
        135 => true,
        136 if !hidden => false,
        _ => return Expected::ignored(),
    };
    if icmp.len() < 24 {
        return Expected::pass("nd_truncated");
    }
    let target = address(icmp, 8);
    let not_ours = Expected::pass(if solicitation { "ns_not_ours" } else { "na_not_ours" });
    let Some(standing) = host.known(target, outer.place) else {
        return not_ours;
    };
    let Some(link) = host.links.get(&outer.place) else {
        return Expected::drop("failed");
    };
    if solicitation {
        if standing == Standing::Abandoned {
            return Expected::pass("passed_abandoned");
        }
        match link.part {
            Part::Backup => return Expected::drop("backup_port"),
            Part::Bridged if standing != Standing::Owned => return Expected::pass("passed_forwarded"),
            Part::Bridged | Part::Whole => {}
        }
        if hidden {
            return Expected::drop("ns_extension_header");
        }
        if outer.stacked {
            return Expected::drop("stacked_tags");
        }
        return match validate(body, 1) {
            Ok(link_layer) => question(outer, *link, target, standing, link_layer),
            Err(Invalid::TooLong) => Expected::drop("ns_too_long"),
            Err(Invalid::As(outcome)) => Expected::pass(outcome),
        };
    }
    if standing != Standing::Owned || outer.stacked || link.part != Part::Whole {
        return not_ours;
    }
    match validate(body, 2) {
        Err(Invalid::TooLong) => not_ours,
        Err(Invalid::As(outcome)) => Expected::pass(outcome),
        Ok(link_layer) => {
            let claimer = link_layer.unwrap_or(outer.src);
            if claimer == link.mac {
                return not_ours;
            }
            Expected {
                claim: claim(ClaimKind::Advertisement, outer, target, claimer),
                ..Expected::pass("na_conflict")
            }
        }
    }
}

enum Invalid {
    TooLong,
    As(&'static str),
}

/// Checks of sections 7.1.1 and 7.1.2 that need no address of ours; the first option of type `wanted`.
fn validate(body: &[u8], wanted: u8) -> Result<Option<Mac>, Invalid> {
    if body[0] >> 4 != 6 || body[7] != 255 || body[41] != 0 {
        return Err(Invalid::As("nd_header"));
    }
    let length = usize::from(be16(body, 4).unwrap_or_default());
    let Some(message) = body.get(40..40 + length).filter(|m| m.len() >= 24) else {
        return Err(Invalid::As("nd_truncated"));
    };
    let options = &message[24..];
    if options.len() % 8 != 0 {
        return Err(Invalid::As("nd_option"));
    }
    if options.len() > 32 * 8 {
        return Err(Invalid::TooLong);
    }
    let (mut rest, mut found) = (options, None);
    while let [kind, units, ..] = *rest {
        let size = 8 * usize::from(units);
        if units == 0 || size > rest.len() {
            return Err(Invalid::As("nd_option"));
        }
        if kind == wanted && found.is_none() {
            if units != 1 {
                return Err(Invalid::As("nd_option"));
            }
            found = Some(mac(rest, 2));
        }
        rest = &rest[size..];
    }
    if checksum(address(body, 8), address(body, 24), message) != 0 {
        return Err(Invalid::As("nd_checksum"));
    }
    Ok(found)
}

/// A valid solicitation for an address that is known.
fn question(
    outer: &Outer<'_>,
    link: Link,
    target: Ipv6Addr,
    standing: Standing,
    source: Option<Mac>,
) -> Expected {
    let (ip_src, ip_dst) = (address(outer.body, 8), address(outer.body, 24));
    let probe = ip_src.is_unspecified();
    let any_solicited_node = ip_dst.octets()[..13] == solicited_node(ip_dst).octets()[..13];
    if probe && (source.is_some() || !any_solicited_node) || ip_src.is_multicast() || ip_src.is_loopback() {
        return Expected::pass("nd_bad_source");
    }
    let unicast = ip_dst == target;
    if !(unicast || ip_dst == solicited_node(target) || ip_dst == ALL_NODES && !probe) {
        return Expected::drop("ns_other_destination");
    }
    if outer.dst != link.mac {
        if outer.dst[0] & 1 == 0 {
            return Expected::pass("ns_other_host");
        }
        if unicast {
            return Expected::drop("ns_multicast");
        }
    }
    let asker = source.unwrap_or(outer.src);
    if asker == link.mac || outer.src == link.mac {
        return Expected::drop("ns_own_hardware");
    }
    if !is_station(asker) || !is_station(outer.src) {
        return Expected::drop("ns_bad_hardware");
    }
    let counted = |c| Some((target.into(), outer.place, c));
    match standing {
        Standing::Owned => {}
        Standing::Expired => {
            return Expected {
                counted: counted(Counted::Suppressed),
                ..Expected::drop("suppressed_expired")
            };
        }
        Standing::Standby | Standing::Abandoned => {
            return Expected {
                counted: counted(Counted::Suppressed),
                ..Expected::drop("suppressed_standby")
            };
        }
    }
    if ip_src == target {
        return Expected {
            claim: claim(ClaimKind::Solicitation, outer, target, asker),
            ..Expected::drop("ns_conflict")
        };
    }
    let router = if link.router { 8 } else { 0 };
    let (outcome, mut answer) = if probe {
        let answer = Nd::advertisement(link.mac, target, ALL_NODES_MAC, ALL_NODES, router | 2);
        ("dad_answered", answer)
    } else {
        ("ns_answered", Nd::advertisement(link.mac, target, asker, ip_src, router | 6))
    };
    answer.tags.clone_from(&outer.tags);
    Expected {
        counted: counted(Counted::Answered),
        ..Expected::new(Some(outcome), Verdict::Answer(answer.bytes()))
    }
}

fn claim(kind: ClaimKind, outer: &Outer<'_>, vip: Ipv6Addr, claimer: Mac) -> Option<Claim> {
    Some(Claim { kind, vlan: outer.place.1, vip: vip.into(), claimer })
}

fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[at + i]))
}
