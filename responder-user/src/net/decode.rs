//! Bodies of rtnetlink messages, as plain data.
//!
//! Attributes are read one by one and only where they are used: a driver that reports something unheard-of
//! about its link must not make the link invisible, as it would if the whole message had to be understood.

use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator, parse_ip, parse_mac, parse_string, parse_u8, parse_u32};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressFlags, AddressHeader},
    link::{LinkFlags, LinkHeader, LinkLayerType},
    route::{RouteHeader, RouteType},
};
use responder_common::wire::Mac;

use super::link::{Link, Prefix, Scope, XdpMode, XdpOnLink};

/// Lengths of `ifinfomsg`, `ifaddrmsg`, `rtmsg` and `rtnexthop`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEXTHOP_HEADER: usize = 8;

// linux/if_link.h; not in libc.
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// The index in a message about a link as such. `None` for messages about its role as a bridge port or about
/// its IPv6 settings, which come by the same types.
pub(super) fn link_index(body: &[u8]) -> Option<u32> {
    let header = LinkHeader::parse(body).ok()?;
    (header.interface_family == AddressFamily::Unspec).then_some(header.index)
}

/// A link without its addresses. `None` also for the messages of [`link_index`] and for those that report
/// something else than the link's state (wireless events), which lack a name.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let index = link_index(body)?;
    let header = LinkHeader::parse(body).ok()?;
    let mut link = Link {
        index,
        name: String::new(),
        mac: Mac::ZERO,
        mtu: 0,
        admin_up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        kind: None,
        master: None,
        parent: None,
        addrs: Vec::new(),
        xdp: None,
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
    };
    let mut parent_elsewhere = false;
    for nla in attributes(body.get(LINK_HEADER..)?) {
        let value = nla.value();
        match nla.kind() {
            libc::IFLA_IFNAME => link.name = parse_string(value).ok()?,
            libc::IFLA_ADDRESS => link.mac = parse_mac(value).map_or(Mac::ZERO, Mac::new),
            libc::IFLA_MTU => link.mtu = parse_u32(value).unwrap_or(0),
            libc::IFLA_MASTER => link.master = index_of(value),
            libc::IFLA_LINK => link.parent = index_of(value).filter(|&parent| parent != index),
            libc::IFLA_LINK_NETNSID => parent_elsewhere = true,
            libc::IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|nla| nla.kind() == libc::IFLA_INFO_KIND)
                    .and_then(|nla| parse_string(nla.value()).ok());
            }
            libc::IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    if parent_elsewhere {
        link.parent = None;
    }
    (!link.name.is_empty()).then_some(link)
}

fn index_of(value: &[u8]) -> Option<u32> {
    parse_u32(value).ok().filter(|&index| index != 0)
}

fn xdp(value: &[u8]) -> Option<XdpOnLink> {
    let (mut mode, mut only, mut native, mut generic, mut hardware) = (0, None, None, None, None);
    for nla in attributes(value) {
        let value = nla.value();
        match nla.kind() {
            IFLA_XDP_ATTACHED => mode = parse_u8(value).ok()?,
            IFLA_XDP_PROG_ID => only = index_of(value),
            IFLA_XDP_DRV_PROG_ID => native = index_of(value),
            IFLA_XDP_SKB_PROG_ID => generic = index_of(value),
            IFLA_XDP_HW_PROG_ID => hardware = index_of(value),
            _ => {}
        }
    }
    let mode = match mode {
        1 => XdpMode::Native,
        2 => XdpMode::Generic,
        3 => XdpMode::Hardware,
        4 => XdpMode::Multi,
        _ => return None,
    };
    let prog_id = only.or(hardware).or(native).or(generic)?;
    Some(XdpOnLink { mode, prog_id })
}

/// An address and the index of its link.
pub(super) fn address(body: &[u8]) -> Option<(u32, Prefix)> {
    let header = AddressHeader::parse(body).ok()?;
    if !is_ip(header.family) {
        return None;
    }
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    let (mut local, mut address): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    for nla in attributes(body.get(ADDRESS_HEADER..)?) {
        let value = nla.value();
        match nla.kind() {
            libc::IFA_LOCAL => local = parse_ip(value).ok(),
            libc::IFA_ADDRESS => address = parse_ip(value).ok(),
            libc::IFA_FLAGS => flags = AddressFlags::from_bits_retain(parse_u32(value).ok()?),
            _ => {}
        }
    }
    let prefix = Prefix {
        ip: local.or(address)?, // with both, `address` is the peer's
        len: header.prefix_len,
        primary: !flags.contains(AddressFlags::Secondary),
        permanent: flags.contains(AddressFlags::Permanent),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        scope: match u8::from(header.scope) {
            libc::RT_SCOPE_UNIVERSE => Scope::Global,
            libc::RT_SCOPE_LINK => Scope::Link,
            libc::RT_SCOPE_HOST => Scope::Host,
            other => Scope::Other(other),
        },
    };
    Some((header.index, prefix))
}

fn is_ip(family: AddressFamily) -> bool {
    family == AddressFamily::Inet || family == AddressFamily::Inet6
}

/// The interfaces of a unicast default route in the main table; none for any other route.
pub(super) fn default_route(body: &[u8]) -> Vec<u32> {
    let Ok(header) = RouteHeader::parse(body) else {
        return Vec::new();
    };
    if !is_ip(header.address_family)
        || header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    let mut links = Vec::new();
    for nla in attributes(body.get(ROUTE_HEADER..).unwrap_or_default()) {
        match nla.kind() {
            libc::RTA_OIF => links.extend(index_of(nla.value())),
            libc::RTA_MULTIPATH => {
                let mut rest = nla.value();
                while let Some((header, _)) = rest.split_at_checked(NEXTHOP_HEADER) {
                    links.extend(header.get(4..8).and_then(index_of));
                    let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
                    rest = rest.get(len.max(NEXTHOP_HEADER).next_multiple_of(4)..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    links
}
