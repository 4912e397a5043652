//! The tc egress program: what this host sends about VIPs that it does not own.
//!
//! Linux asks for its neighbours with the packet's source as sender address if that is any local address
//! (`arp_announce=0`), so a host with a VIP on `lo` or `kube-ipvs0` announces the VIP at its own hardware
//! address, and every neighbour that has the VIP in its cache follows. The program puts one of the link's own
//! addresses there. It also stops what must not leave after ownership ended: gratuitous replies and
//! advertisements, such as those of a burst that was on its way when the deadline passed.

use crate::{
    arp::OP_REQUEST,
    datapath::Tables,
    eth::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Eth},
    fence::Standing,
    layout::{Link, LinkKey, VipKey4, VipKey6},
    ndp::{ADVERTISEMENT, NEXT_ICMPV6},
    outcome::{
        Action::{self, Drop, Pass},
        outcomes,
    },
    wire::{ArpPacket, EthAddrs, Frame, Ip4, Ipv6Header, NdMessage},
};

outcomes! {
    /// What became of a frame that this host sends with a known VIP as sender and the link's hardware address.
    enum EgressOutcome;
    /// Frames by [`EgressOutcome`], as the map holds them for each CPU.
    struct EgressOutcomes;

    /// The VIP is owned here (or suppression has ended): sent as it is.
    Owned, owned, Pass;
    /// ARP request for a neighbour in the name of a VIP not owned here: sent with the link's own address.
    RequestCorrected, request_corrected, Pass;
    /// ARP reply for a VIP not owned here: not sent.
    ReplyStopped, reply_stopped, Drop;
    /// Neighbor Advertisement for a VIP not owned here: not sent.
    AdvertisementStopped, advertisement_stopped, Drop;
}

/// Handles one frame before it is sent; `vlan` is the tag that the stack keeps beside the frame, 0 for none.
/// `None`: not about a known VIP, or not in this host's name.
#[inline(always)]
pub fn handle<F: Frame, T: Tables>(
    frame: &mut F,
    ifindex: u32,
    vlan: u32,
    tables: &T,
) -> Option<EgressOutcome> {
    let eth = Eth::parse(frame)?;
    let vlan = if vlan == 0 { eth.vlan } else { vlan };
    match eth.ethertype {
        ETHERTYPE_ARP => arp(frame, eth, ifindex, vlan, tables),
        ETHERTYPE_IPV6 => advertisement(frame, eth, ifindex, vlan, tables),
        _ => None,
    }
}

#[inline(always)]
fn arp<F: Frame, T: Tables>(
    frame: &mut F,
    eth: Eth,
    ifindex: u32,
    vlan: u32,
    tables: &T,
) -> Option<EgressOutcome> {
    let arp = frame.view_mut::<ArpPacket>(eth.l3)?;
    if !arp.is_ethernet_ipv4() {
        return None;
    }
    let vip = tables.vip4(&VipKey4::new(arp.spa, ifindex, vlan))?;
    let link = tables.link(&LinkKey { ifindex, vlan })?;
    // What a bridge forwards for others is their business.
    if arp.sha != link.mac() {
        return None;
    }
    if matches!(tables.standing(vip, tables.now_ns()), Standing::Owned | Standing::Abandoned) {
        return Some(EgressOutcome::Owned);
    }
    if arp.op.get() != OP_REQUEST {
        return Some(EgressOutcome::ReplyStopped);
    }
    arp.spa = own_address(link, arp.tpa);
    Some(EgressOutcome::RequestCorrected)
}

#[inline(always)]
fn advertisement<F: Frame, T: Tables>(
    frame: &F,
    eth: Eth,
    ifindex: u32,
    vlan: u32,
    tables: &T,
) -> Option<EgressOutcome> {
    let next = frame.view::<Ipv6Header>(eth.l3)?.next_hop.get() >> 8;
    if next != NEXT_ICMPV6 {
        return None;
    }
    let message = frame.view::<NdMessage>(eth.l3 + size_of::<Ipv6Header>())?;
    if message.header.type_code.get() >> 8 != ADVERTISEMENT {
        return None;
    }
    let vip = tables.vip6(&VipKey6::new(message.target, ifindex, vlan))?;
    let link = tables.link(&LinkKey { ifindex, vlan })?;
    if frame.view::<EthAddrs>(0)?.src != link.mac() {
        return None;
    }
    if matches!(tables.standing(vip, tables.now_ns()), Standing::Owned | Standing::Abandoned) {
        return Some(EgressOutcome::Owned);
    }
    Some(EgressOutcome::AdvertisementStopped)
}

/// The link's address in the target's subnet, else its first, else 0.0.0.0, which a request may carry too
/// (RFC 5227 section 2.1.1) and which no cache believes.
#[inline(always)]
fn own_address(link: &Link, target: Ip4) -> Ip4 {
    let target = target.to_bits();
    for prefix in &link.prefixes {
        let (addr, mask) = (u32::from_be_bytes(prefix.addr), u32::from_be_bytes(prefix.mask));
        if addr != 0 && (addr ^ target) & mask == 0 {
            return Ip4::new(prefix.addr);
        }
    }
    Ip4::new(link.prefixes[0].addr)
}
