//! Neighbor Discovery (RFC 4861, RFC 4862): judging solicitations and advertisements, and answering.

use core::hint::black_box;

use crate::{
    checksum::Sum,
    datapath::{Claim, Known, Tables, left_alone},
    eth::Eth,
    extensions::{self, Found},
    fence::Standing,
    layout::{EventKind, LINK_BACKUP, LINK_FORWARDS, LINK_ROUTER, Link, LinkKey, VipKey6},
    outcome::Outcome,
    wire::{Advertisement, Be16, EthAddrs, Frame, Ip6, Ipv6Header, Mac, NdHeader, NdMessage, NdUnit},
};

/// Next header: ICMPv6.
pub const NEXT_ICMPV6: u16 = 58;
/// ICMPv6 type of a Neighbor Solicitation.
pub const SOLICITATION: u16 = 135;
/// ICMPv6 type of a Neighbor Advertisement.
pub const ADVERTISEMENT: u16 = 136;
/// Option type: source link-layer address.
pub const OPT_SOURCE_LL: u16 = 1;
/// Option type: target link-layer address.
pub const OPT_TARGET_LL: u16 = 2;
/// Advertisement flag R: the sender is a router.
pub const FLAG_ROUTER: u16 = 0x8000;
/// Advertisement flag S: sent in response to a solicitation.
pub const FLAG_SOLICITED: u16 = 0x4000;
/// Advertisement flag O: replaces a cached address.
pub const FLAG_OVERRIDE: u16 = 0x2000;
/// The only hop limit that cannot have crossed a router (RFC 4861 section 7.1.1).
pub const HOP_LIMIT: u16 = 255;

/// Options that are looked at, in units of eight bytes. Real solicitations have one or two.
pub const MAX_UNITS: usize = 32;

/// Judges an IPv6 packet and answers a solicitation for an address owned here. `None`: neither a
/// solicitation nor an advertisement.
#[inline(always)]
pub(crate) fn handle<F: Frame, T: Tables>(
    frame: &mut F,
    eth: Eth,
    ifindex: u32,
    tables: &T,
) -> Option<Outcome> {
    let Some(ip) = frame.view::<Ipv6Header>(eth.l3) else {
        return Some(Outcome::NdTruncated);
    };
    let (next, hop_limit) = (ip.next_hop.get() >> 8, ip.next_hop.get() & 0xff);
    let mut l4 = eth.l3 + size_of::<Ipv6Header>();
    let extended = next != NEXT_ICMPV6;
    if extended {
        if !extensions::is_walked(next) {
            return None;
        }
        match extensions::skip(frame, next, l4) {
            Found::At(offset) => l4 = offset,
            // Any host may have to drop such a packet (RFC 8200 section 4.1); one that has crossed a router is no
            // solicitation whatever is behind.
            Found::TooDeep if hop_limit == HOP_LIMIT => return Some(Outcome::NsExtensionHeader),
            Found::TooDeep | Found::Other => return None,
        }
    }
    let Some(header) = frame.view::<NdHeader>(l4) else {
        return Some(Outcome::NdTruncated);
    };
    let solicitation = match header.type_code.get() >> 8 {
        SOLICITATION => true,
        ADVERTISEMENT if !extended => false,
        _ => return None,
    };
    let Some(target) = frame.view::<NdMessage>(l4).map(|m| m.target) else {
        return Some(Outcome::NdTruncated);
    };
    let not_ours = if solicitation { Outcome::NsNotOurs } else { Outcome::NaNotOurs };
    let key = VipKey6::new(target, ifindex, eth.vlan);
    let Some(vip) = tables.vip6(&key) else {
        return Some(not_ours);
    };
    let Some(link) = tables.link(&LinkKey { ifindex, vlan: eth.vlan }) else {
        return Some(Outcome::Failed);
    };
    let now_ns = tables.now_ns();
    let standing = tables.standing(vip, now_ns);
    let about = About { vip, link, target, key, standing, now_ns };
    if standing == Standing::Abandoned && solicitation {
        return Some(Outcome::PassedAbandoned);
    }
    // The link's flags are looked at after the checks, though they come before what those find: verifiers before 6.8
    // would follow the checks' loops once for each.
    Some(if solicitation {
        let found = if extended {
            Err(Outcome::NsExtensionHeader)
        } else if eth.stacked {
            Err(Outcome::StackedTags)
        } else {
            check(frame, eth, l4, true)
        };
        match (left_alone(link, standing), found) {
            (Some(outcome), _) | (None, Err(outcome)) => outcome,
            (None, Ok(checked)) => solicitation_for(frame, eth, tables, &about, &checked),
        }
    } else {
        // Nobody's claim counts while the address is not owned here, or where another program of ours judges it.
        if standing != Standing::Owned || eth.stacked {
            return Some(not_ours);
        }
        let found = check(frame, eth, l4, false);
        if link.is(LINK_BACKUP | LINK_FORWARDS) {
            return Some(not_ours);
        }
        match found {
            Ok(checked) => advertisement_of(tables, &about, &checked),
            // Nothing of an advertisement is dropped.
            Err(Outcome::NsTooLong) => not_ours,
            Err(outcome) => outcome,
        }
    })
}

/// A message about a known address.
struct About<'a, S> {
    vip: Known<S>,
    link: &'a Link,
    target: Ip6,
    key: VipKey6,
    standing: Standing,
    now_ns: u64,
}

/// The part of a message that both kinds have been checked for.
struct Checked {
    ip: Ipv6Header,
    /// The sender's hardware address: of the first source (in a solicitation) or target (in an advertisement)
    /// link-layer address option, or of the Ethernet header.
    sender: Mac,
    /// Whether there was such an option. An `Option<Mac>` would leave parts of the address undefined, and the
    /// compiler free to store a pointer there, which the verifier refuses.
    link_layer: bool,
}

/// Checks what RFC 4861 sections 7.1.1 and 7.1.2 share, and finds the option with the sender's hardware address.
#[inline(always)]
fn check<F: Frame>(frame: &F, eth: Eth, l4: usize, solicitation: bool) -> Result<Checked, Outcome> {
    let ip = *frame.view::<Ipv6Header>(eth.l3).ok_or(Outcome::NdTruncated)?;
    let message = frame.view::<NdMessage>(l4).ok_or(Outcome::NdTruncated)?;
    if ip.version_class.get() >> 12 != 6
        || ip.next_hop.get() & 0xff != HOP_LIMIT
        || message.header.type_code.get() & 0xff != 0
    {
        return Err(Outcome::NdHeader);
    }
    let length = usize::from(ip.payload_len.get());
    if length < size_of::<NdMessage>() || l4 + length > frame.len() {
        return Err(Outcome::NdTruncated);
    }
    let options = length - size_of::<NdMessage>();
    if !options.is_multiple_of(size_of::<NdUnit>()) {
        return Err(Outcome::NdOption);
    }
    let units = options / size_of::<NdUnit>();
    if units > MAX_UNITS {
        return Err(Outcome::NsTooLong);
    }
    let wanted = if solicitation { OPT_SOURCE_LL } else { OPT_TARGET_LL };
    let l5 = l4 + size_of::<NdMessage>();
    let mut sender = frame.view::<EthAddrs>(0).ok_or(Outcome::NdTruncated)?.src;
    let mut link_layer = false;
    let mut at = 0;
    for _ in 0..MAX_UNITS {
        if at >= units {
            break;
        }
        // Verifiers before 6.8 learn nothing from comparing two registers: only the remainder tells them that `at` is small.
        // The compiler, which knows, would leave it out.
        let seen = black_box(at) % MAX_UNITS;
        let unit = frame.view::<NdUnit>(l5 + seen * size_of::<NdUnit>()).ok_or(Outcome::NdTruncated)?;
        let (kind, len) = (unit.type_len.get() >> 8, usize::from(unit.type_len.get() & 0xff));
        if len == 0 || at + len > units {
            return Err(Outcome::NdOption);
        }
        if kind == wanted && !link_layer {
            if len != 1 {
                return Err(Outcome::NdOption);
            }
            (sender, link_layer) = (unit.mac, true);
        }
        at += len;
    }

    // A loop of its own: together with the one above it multiplies what the verifier must look at.
    let mut sum = Sum::default();
    sum.pseudo_header(&ip);
    let message = frame.view::<NdMessage>(l4).ok_or(Outcome::NdTruncated)?;
    sum.message(message);
    // Otherwise the compiler counts by something else than `i`, of which verifiers before 6.8 do not know how large it is.
    let units = black_box(units);
    for i in 0..MAX_UNITS {
        if i >= units {
            break;
        }
        let unit = frame.view::<NdUnit>(l5 + i * size_of::<NdUnit>()).ok_or(Outcome::NdTruncated)?;
        sum.unit(unit);
    }
    if sum.fold() != 0xffff {
        return Err(Outcome::NdChecksum);
    }
    Ok(Checked { ip, sender, link_layer })
}

#[inline(always)]
fn solicitation_for<F: Frame, T: Tables>(
    frame: &mut F,
    eth: Eth,
    tables: &T,
    about: &About<'_, T::Stats>,
    &Checked { ref ip, sender: asker, link_layer }: &Checked,
) -> Outcome {
    let Some(&EthAddrs { dst, src }) = frame.view(0) else {
        return Outcome::NdTruncated;
    };
    let &About { vip, link, target, ref key, standing, now_ns } = about;
    let mac = link.mac();
    let probe = ip.src == Ip6::UNSPECIFIED;
    if probe {
        if link_layer || !is_solicited_node(ip.dst) {
            return Outcome::NdBadSource;
        }
    } else if ip.src.is_multicast() || ip.src == Ip6::LOOPBACK {
        return Outcome::NdBadSource;
    }
    let unicast = ip.dst == target;
    if !unicast && ip.dst != target.solicited_node() && (ip.dst != Ip6::ALL_NODES || probe) {
        return Outcome::NsOtherDestination;
    }
    if !dst.is_multicast() && dst != mac {
        return Outcome::NsOtherHost;
    }
    if unicast && dst != mac {
        return Outcome::NsMulticast;
    }
    if asker == mac || src == mac {
        return Outcome::NsOwnHardware;
    }
    if !asker.is_station() || !src.is_station() {
        return Outcome::NsBadHardware;
    }
    match standing {
        Standing::Owned => {}
        Standing::Expired => {
            tables.count_suppressed(vip);
            return Outcome::SuppressedExpired;
        }
        Standing::Standby | Standing::Abandoned => {
            tables.count_suppressed(vip);
            return Outcome::SuppressedStandby;
        }
    }
    if ip.src == target {
        tables.claim(vip, &claim(EventKind::NsConflict, key, asker), now_ns);
        return Outcome::NsConflict;
    }
    answer(frame, eth, tables, vip, link, target, if probe { None } else { Some((ip.src, asker)) })
}

/// Makes an advertisement of the frame: to the asker, or to all nodes in answer to a probe.
#[inline(always)]
fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    eth: Eth,
    tables: &T,
    vip: Known<T::Stats>,
    link: &Link,
    target: Ip6,
    asker: Option<(Ip6, Mac)>,
) -> Outcome {
    let router = if link.is(LINK_ROUTER) { FLAG_ROUTER } else { 0 };
    // Answers to a probe are not "solicited", as nobody can be told apart as their receiver (RFC 4861
    // section 7.2.4).
    let (ip_dst, eth_dst, solicited) = match asker {
        Some((ip, mac)) => (ip, mac, FLAG_SOLICITED),
        None => (Ip6::ALL_NODES, Mac::ALL_NODES, 0),
    };
    let mac = link.mac();
    let advertisement = Advertisement::new(target, ip_dst, mac, router | solicited | FLAG_OVERRIDE);
    if emit(frame, eth, eth_dst, mac, &advertisement).is_none() {
        return Outcome::Failed;
    }
    tables.count_answered(vip);
    if asker.is_some() { Outcome::NsAnswered } else { Outcome::DadAnswered }
}

#[inline(always)]
fn emit<F: Frame>(frame: &mut F, eth: Eth, dst: Mac, src: Mac, body: &Advertisement) -> Option<()> {
    let needed = eth.l3 + size_of::<Advertisement>();
    // A solicitation without options is eight bytes short.
    if frame.len() < needed {
        frame.grow_front_8()?;
    }
    if frame.len() > needed {
        frame.shrink(needed)?;
    }
    eth.emit(frame, dst, src)?;
    *frame.view_mut(eth.l3)? = *body;
    Some(())
}

/// An advertisement of an address owned here: what receivers would believe is a claim.
#[inline(always)]
fn advertisement_of<T: Tables>(tables: &T, about: &About<'_, T::Stats>, checked: &Checked) -> Outcome {
    let claimer = checked.sender;
    if claimer == about.link.mac() {
        return Outcome::NaNotOurs;
    }
    tables.claim(about.vip, &claim(EventKind::NaConflict, &about.key, claimer), about.now_ns);
    Outcome::NaConflict
}

#[inline(always)]
fn claim(kind: EventKind, key: &VipKey6, claimer: Mac) -> Claim {
    Claim { kind, ifindex: key.ifindex, vlan: key.vlan, vip: key.addr.to_be_bytes(), claimer }
}

/// True for ff02::1:ff00:0/104.
#[inline(always)]
fn is_solicited_node(ip: Ip6) -> bool {
    let words = ip.raw();
    let prefix = Ip6::UNSPECIFIED.solicited_node().raw();
    words[0] == prefix[0]
        && (words[1] | words[2] | words[3] | words[4]) == 0
        && words[5] == prefix[5]
        && words[6].to_ne_bytes()[0] == 0xff
}

impl Advertisement {
    /// An advertisement of `target` at `mac`, checksum included. Hop limit 255, with the target link-layer
    /// address; source is the target itself.
    #[must_use]
    #[inline(always)]
    pub fn new(target: Ip6, dst: Ip6, mac: Mac, flags: u16) -> Self {
        let length = size_of::<NdMessage>() + size_of::<NdUnit>();
        let mut it = Self {
            ip: Ipv6Header {
                version_class: Be16::new(0x6000),
                flow: Be16::new(0),
                payload_len: Be16::new(length as u16),
                next_hop: Be16::new(NEXT_ICMPV6 << 8 | HOP_LIMIT),
                src: target,
                dst,
            },
            nd: NdMessage {
                header: NdHeader {
                    type_code: Be16::new(ADVERTISEMENT << 8),
                    checksum: Be16::new(0),
                    flags: Be16::new(flags),
                    reserved: Be16::new(0),
                },
                target,
            },
            tllao: NdUnit { type_len: Be16::new(OPT_TARGET_LL << 8 | 1), mac },
        };
        let mut sum = Sum::default();
        sum.pseudo_header(&it.ip);
        sum.message(&it.nd);
        sum.unit(&it.tllao);
        it.nd.header.checksum = Be16::from_raw(!sum.fold());
        it
    }
}
