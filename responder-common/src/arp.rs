//! ARP (RFC 826, RFC 5227): judging a packet and turning a request into its reply.

use crate::{
    datapath::{Claim, Known, Tables, left_alone},
    eth::Eth,
    fence::Standing,
    layout::{EventKind, LINK_BACKUP, LINK_FORWARDS, Link, LinkKey, VipKey4},
    outcome::Outcome,
    wire::{ArpPacket, Be16, EthAddrs, Frame, Ip4, Mac},
};

/// Operation: who has the target address?
pub const OP_REQUEST: u16 = 1;
/// Operation: the sender has the sender address.
pub const OP_REPLY: u16 = 2;
/// Hardware type Ethernet.
pub const HTYPE_ETHERNET: u16 = 1;
/// Hardware type IEEE 802, which Linux takes for Ethernet.
pub const HTYPE_IEEE802: u16 = 6;
/// EtherType of IPv4.
pub const PTYPE_IPV4: u16 = 0x0800;
/// Address lengths: 6 and 4.
pub const LENGTHS: u16 = 0x0604;

/// Bytes of an untagged frame that a reply keeps at most: the least that Ethernet carries without its FCS.
const MIN_FRAME: usize = 60;

impl ArpPacket {
    /// True if it is ARP for Ethernet and IPv4.
    #[inline(always)]
    pub(crate) fn is_ethernet_ipv4(&self) -> bool {
        let htype = self.htype.get();
        (htype == HTYPE_ETHERNET || htype == HTYPE_IEEE802)
            && self.ptype.get() == PTYPE_IPV4
            && self.lengths.get() == LENGTHS
    }
}

/// Judges an ARP packet and, if it asks for an address owned here, makes the reply of it.
#[inline(always)]
pub(crate) fn handle<F: Frame, T: Tables>(frame: &mut F, eth: Eth, ifindex: u32, tables: &T) -> Outcome {
    let Some(&EthAddrs { dst, src }) = frame.view(0) else {
        return Outcome::ArpTruncated;
    };
    let Some(arp) = frame.view::<ArpPacket>(eth.l3) else {
        return Outcome::ArpTruncated;
    };
    if !arp.is_ethernet_ipv4() {
        return Outcome::ArpFormat;
    }
    let is_request = arp.op.get() == OP_REQUEST;
    let (sha, spa, tpa) = (arp.sha, arp.spa, arp.tpa);

    let asked = tables.vip4(&VipKey4::new(tpa, ifindex, eth.vlan));
    let claimed = if spa == tpa {
        asked
    } else if spa == Ip4::UNSPECIFIED {
        None
    } else {
        tables.vip4(&VipKey4::new(spa, ifindex, eth.vlan))
    };
    if asked.is_none() && claimed.is_none() {
        return Outcome::ArpNotOurs;
    }
    let Some(link) = tables.link(&LinkKey { ifindex, vlan: eth.vlan }) else {
        return Outcome::Failed;
    };
    let mac = link.mac();

    let now_ns = tables.now_ns();
    let is_question = is_request && spa != tpa;
    // What a bridge's port passes is judged on the bridge, and what a backup slave receives, on the active one.
    let judged = if link.is(LINK_FORWARDS) {
        asked.is_some_and(|asked| is_question && tables.standing(asked, now_ns) == Standing::Owned)
    } else {
        !link.is(LINK_BACKUP)
    };
    let conflict = match claimed {
        Some(vip) if judged && sha != mac && tables.standing(vip, now_ns) == Standing::Owned => {
            let kind = EventKind::ArpConflict;
            let claim = Claim { kind, ifindex, vlan: eth.vlan, vip: mapped(spa), claimer: sha };
            tables.claim(vip, &claim, now_ns);
            true
        }
        _ => false,
    };
    match asked {
        Some(asked) if is_question => {
            let question = Question { dst, src, sha, spa, tpa, conflict, now_ns };
            answer(frame, eth, tables, asked, link, &question)
        }
        _ if conflict => Outcome::ArpConflict,
        None => Outcome::ArpNotOurs,
        Some(_) if !is_request => Outcome::ArpNotRequest,
        // An owner's announcement: a standby host must learn it like any other neighbour. Linux never answers
        // it where the address is its own (measured), because the sender address is a local one.
        Some(_) => Outcome::ArpAnnouncement,
    }
}

/// A request for a known address.
struct Question {
    dst: Mac,
    src: Mac,
    sha: Mac,
    spa: Ip4,
    tpa: Ip4,
    conflict: bool,
    now_ns: u64,
}

#[inline(always)]
fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    eth: Eth,
    tables: &T,
    asked: Known<T::Stats>,
    link: &Link,
    q: &Question,
) -> Outcome {
    let mac = link.mac();
    if q.dst != Mac::BROADCAST && q.dst != mac && !q.dst.is_multicast() {
        return Outcome::ArpOtherHost;
    }
    if no_host_has(q.spa) {
        return Outcome::ArpBadSender;
    }
    let standing = tables.standing(asked, q.now_ns);
    if let Some(outcome) = left_alone(link, standing) {
        return outcome;
    }
    if eth.stacked {
        return Outcome::StackedTags;
    }
    if q.dst != Mac::BROADCAST && q.dst != mac {
        return Outcome::ArpMulticast;
    }
    if q.conflict {
        return Outcome::ArpConflictDropped;
    }
    if !q.sha.is_station() || !q.src.is_station() {
        return Outcome::ArpBadHardware;
    }
    if q.sha == mac {
        return Outcome::ArpOwnHardware;
    }
    match standing {
        Standing::Owned => {}
        Standing::Expired => {
            tables.count_suppressed(asked);
            return Outcome::SuppressedExpired;
        }
        Standing::Standby | Standing::Abandoned => {
            tables.count_suppressed(asked);
            return Outcome::SuppressedStandby;
        }
    }
    let reply = ArpPacket {
        htype: Be16::new(HTYPE_ETHERNET),
        ptype: Be16::new(PTYPE_IPV4),
        lengths: Be16::new(LENGTHS),
        op: Be16::new(OP_REPLY),
        sha: mac,
        spa: q.tpa,
        tha: q.sha,
        tpa: q.spa,
    };
    if emit(frame, eth, &reply).is_none() {
        return Outcome::Failed;
    }
    tables.count_answered(asked);
    Outcome::ArpAnswered
}

/// Writes the reply, and makes sure that nothing of what lay behind the request is sent back.
#[inline(always)]
fn emit<F: Frame>(frame: &mut F, eth: Eth, reply: &ArpPacket) -> Option<()> {
    let end = eth.l3 + size_of::<ArpPacket>();
    let padded = eth.l3 - 14 + MIN_FRAME;
    let len = frame.len();
    if len > padded {
        frame.shrink(padded)?;
    } else if len != padded && len != end {
        frame.shrink(end)?;
    }
    eth.emit(frame, reply.tha, reply.sha)?;
    *frame.view_mut(eth.l3)? = *reply;
    if len >= padded {
        *frame.view_mut(end)? = [Be16::new(0); 9];
    }
    Some(())
}

/// Sender addresses that Linux takes for martians, so that it does not answer them either.
#[inline(always)]
fn no_host_has(spa: Ip4) -> bool {
    let bits = spa.to_bits();
    bits == u32::MAX || bits >> 24 == 127 || bits >> 28 == 0xe
}

/// An IPv4 address as an IPv4-mapped IPv6 address.
#[inline(always)]
fn mapped(ip: Ip4) -> [u8; 16] {
    let [a, b, c, d] = ip.octets();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
