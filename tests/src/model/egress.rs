//! What this host sends in the name of an address that is not its own: the correction of `arp_announce=0`, and no late
//! claims.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Host, Layers, Link, Outer, Standing, be16, mac, outer};

/// What must become of a frame that this host sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// The counter that moves, if any.
    pub outcome: Option<&'static str>,
    /// Whether it leaves at all.
    pub leaves: bool,
    /// The frame as it is then.
    pub frame: Vec<u8>,
}

/// What must become of `frame`, sent on [`super::IFINDEX`] with its VLAN tag, if it has one, inside.
#[must_use]
pub fn expect_sent(host: &Host, frame: &[u8]) -> Sent {
    let mut sent = Sent { outcome: None, leaves: true, frame: frame.to_vec() };
    let outer = match outer(frame) {
        Layers::Body(0x0806, outer) => outer,
        Layers::Body(0x86dd, outer) => {
            if let Some((standing, link)) = advertised(host, &outer)
                && outer.src == link.mac
            {
                (sent.outcome, sent.leaves) = judge(standing, "advertisement_stopped");
            }
            return sent;
        }
        Layers::Body(..) | Layers::TooDeep | Layers::None => return sent,
    };
    let Some(packet) = outer.body.get(..28) else {
        return sent;
    };
    let [htype, ptype, lengths, op] = [0, 2, 4, 6].map(|at| be16(packet, at).unwrap_or_default());
    let ip = |at| Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| packet[at + i]));
    let (Some(standing), Some(link)) = (host.known(ip(14), outer.place), host.links.get(&outer.place)) else {
        return sent;
    };
    // What a bridge forwards for others is their business.
    if !matches!(htype, 1 | 6) || ptype != 0x0800 || lengths != 0x0604 || mac(packet, 8) != link.mac {
        return sent;
    }
    (sent.outcome, sent.leaves) = judge(standing, "reply_stopped");
    if op == 1 && !sent.leaves {
        (sent.outcome, sent.leaves) = (Some("request_corrected"), true);
        let sender = frame.len() - outer.body.len() + 14;
        sent.frame[sender..sender + 4].copy_from_slice(&own(link, ip(24)).octets());
    }
    sent
}

/// Outcome, and whether it leaves, of a claim.
fn judge(standing: Standing, stopped: &'static str) -> (Option<&'static str>, bool) {
    match standing {
        Standing::Owned | Standing::Abandoned => (Some("owned"), true),
        Standing::Standby | Standing::Expired => (Some(stopped), false),
    }
}

/// The known address of an advertisement, and its link.
fn advertised<'a>(host: &'a Host, outer: &Outer<'_>) -> Option<(Standing, &'a Link)> {
    let message = outer.body.get(40..64)?;
    if outer.body[6] != 58 || message[0] != 136 {
        return None;
    }
    let target = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| message[8 + i]));
    Some((host.known(target, outer.place)?, host.links.get(&outer.place)?))
}

/// The link's address in the subnet of `target`, else its first, else none.
fn own(link: &Link, target: Ipv4Addr) -> Ipv4Addr {
    let near = |&(ip, bits): &(Ipv4Addr, u8)| {
        let differ = ip.to_bits() ^ target.to_bits();
        differ.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
    };
    let all = || link.own4.iter().flatten().copied();
    all().find(near).or_else(|| all().next()).map_or(Ipv4Addr::UNSPECIFIED, |(ip, _)| ip)
}
