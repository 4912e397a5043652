//! Bodies of rtnetlink messages, as plain data.
//!
//! Attributes are read one by one and only where they are used: a driver that reports something unheard-of
//! about its link must not make the link invisible, as it would if the whole message had to be understood.

mod info;

use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator, parse_ip, parse_mac, parse_string, parse_u8, parse_u32};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressFlags, AddressHeader},
    link::{LinkFlags, LinkHeader, LinkLayerType},
    route::{RouteHeader, RouteType},
};
use responder_common::wire::Mac;

use super::link::{Detail, Link, Prefix, Scope, XdpMode, XdpOnLink};

/// Lengths of `ifinfomsg`, `ifaddrmsg`, `rtmsg` and `rtnexthop`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEXTHOP_HEADER: usize = 8;

// linux/rtnetlink.h; musl has it not.
const RTA_VIA: u16 = 18;

// linux/if_link.h; not in libc.
const IFLA_EVENT: u16 = 44;
const IFLA_EVENT_FEATURES: u32 = 2;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// The index in a message about a link as such. `None` for messages about its role as a bridge port or about
/// its IPv6 settings, which come by the same types.
#[must_use]
pub fn link_index(body: &[u8]) -> Option<u32> {
    let header = LinkHeader::parse(body).ok()?;
    (header.interface_family == AddressFamily::Unspec).then_some(header.index)
}

/// Whether a message about a link comes because its offloads have changed.
#[must_use]
pub fn features_changed(body: &[u8]) -> bool {
    attributes(body.get(LINK_HEADER..).unwrap_or_default()).any(|nla| {
        nla.kind() == IFLA_EVENT && parse_u32(nla.value()).is_ok_and(|why| why == IFLA_EVENT_FEATURES)
    })
}

/// A link without its addresses. `None` also for the messages of [`link_index`] and for those that report
/// something else than the link's state (wireless events), which lack a name.
#[must_use]
pub fn link(body: &[u8]) -> Option<Link> {
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
        detail: Detail::None,
        backup: false,
        strips_tags: false,
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
            libc::IFLA_LINKINFO => info::read(&mut link, value),
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
#[must_use]
pub fn address(body: &[u8]) -> Option<(u32, Prefix)> {
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

/// Where a default route leads.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct DefaultRoute {
    /// Its interfaces.
    pub links: Vec<u32>,
    /// Its gateways; of either family, also where it is about IPv4.
    pub gateways: Vec<IpAddr>,
}

impl DefaultRoute {
    fn nexthop(&mut self, link: Option<u32>, bytes: &[u8]) {
        self.links.extend(link);
        for nla in attributes(bytes) {
            match nla.kind() {
                libc::RTA_OIF => self.links.extend(index_of(nla.value())),
                libc::RTA_GATEWAY => self.gateways.extend(parse_ip(nla.value()).ok()),
                // The family comes first (`rtvia`); the address's length says it, too.
                RTA_VIA => {
                    self.gateways.extend(nla.value().get(2..).and_then(|value| parse_ip(value).ok()));
                }
                _ => {}
            }
        }
    }
}

/// What a unicast default route in the main table says; of any other route nothing.
#[must_use]
pub fn default_route(body: &[u8]) -> DefaultRoute {
    let mut route = DefaultRoute::default();
    let Ok(header) = RouteHeader::parse(body) else {
        return route;
    };
    if !is_ip(header.address_family)
        || header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return route;
    }
    let body = body.get(ROUTE_HEADER..).unwrap_or_default();
    route.nexthop(None, body);
    for nla in attributes(body).filter(|nla| nla.kind() == libc::RTA_MULTIPATH) {
        let mut rest = nla.value();
        while let Some((header, _)) = rest.split_at_checked(NEXTHOP_HEADER) {
            let len = usize::from(u16::from_ne_bytes([header[0], header[1]])).max(NEXTHOP_HEADER);
            let nested = rest.get(NEXTHOP_HEADER..len).unwrap_or_default();
            route.nexthop(header.get(4..8).and_then(index_of), nested);
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    route
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
    use proptest::prelude::*;

    use super::*;

    /// The body of a message about link 7 with these attributes.
    fn message(attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn strange_attributes_do_not_hide_a_link() {
        let mut body = message(vec![
            LinkAttribute::IfName("ib0".to_owned()),
            LinkAttribute::Address(vec![1; 20]), // InfiniBand
        ]);
        body.extend(message(vec![LinkAttribute::Mtu(9000)]).split_off(LINK_HEADER));
        body.extend([6, 0, 0xff, 0x3f, 1, 2, 0, 0]); // of a kernel to come
        body.extend([5, 0, 4, 0, 1, 0, 0, 0]); // an MTU of one byte
        let link = link(&body).unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mac, link.mtu), (7, "ib0", Mac::ZERO, 0));
    }

    #[test]
    fn wireless_event_is_no_link() {
        assert_eq!(link(&message(vec![LinkAttribute::Mtu(1500)])), None);
    }

    #[test]
    fn first_of_several_programs() {
        let attached = |attributes: Vec<LinkXdp>| {
            let name = LinkAttribute::IfName("eth0".to_owned());
            link(&message(vec![name, LinkAttribute::Xdp(attributes)])).unwrap().xdp
        };
        let mode = LinkXdp::Attached;
        let multi = attached(vec![mode(XdpAttached::Multiple), LinkXdp::SkbProgId(5), LinkXdp::DrvProgId(6)]);
        assert_eq!(multi, Some(XdpOnLink { mode: XdpMode::Multi, prog_id: 6 }));
        let hardware = attached(vec![mode(XdpAttached::Hardware), LinkXdp::ProgId(9), LinkXdp::HwProgId(9)]);
        assert_eq!(hardware, Some(XdpOnLink { mode: XdpMode::Hardware, prog_id: 9 }));
        assert_eq!(attached(vec![mode(XdpAttached::None)]), None);
    }

    #[test]
    fn gateways_of_either_family_and_of_all_next_hops() {
        let attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let hop = |link: u8, gateway: &[u8]| {
            let len = u16::try_from(NEXTHOP_HEADER + gateway.len()).unwrap();
            [&len.to_ne_bytes(), &[0, 0][..], &u32::from(link).to_ne_bytes(), gateway].concat()
        };
        let header = [2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        let via = [&u16::from(10u8).to_ne_bytes(), &std::net::Ipv6Addr::LOCALHOST.octets()[..]].concat();
        let plain = [attribute(libc::RTA_OIF, &7u32.to_ne_bytes()), attribute(libc::RTA_VIA, &via)].concat();
        let route = default_route(&[&header[..], &plain].concat());
        assert_eq!((route.links, route.gateways), (vec![7], vec!["::1".parse().unwrap()]));

        let hops = [
            hop(7, &attribute(libc::RTA_GATEWAY, &[192, 0, 2, 1])),
            hop(8, &[]),
            hop(9, &attribute(libc::RTA_GATEWAY, &[192, 0, 2, 2])),
        ];
        let route = default_route(&[&header[..], &attribute(libc::RTA_MULTIPATH, &hops.concat())].concat());
        let gateways = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        assert_eq!((route.links, route.gateways), (vec![7, 8, 9], gateways.into()));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (link(&bytes), address(&bytes), default_route(&bytes));
        }

        #[test]
        fn any_attributes(
            attributes in proptest::collection::vec((0u16..64, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let mut nlas = Vec::new();
            for (kind, value) in &attributes {
                nlas.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
                nlas.extend(kind.to_ne_bytes());
                nlas.extend(value);
                nlas.resize(nlas.len().next_multiple_of(4), 0);
            }
            let of = |header: &[u8]| [header, &nlas].concat();
            let _ = link(&of(&[0; LINK_HEADER]));
            let _ = address(&of(&[2, 24, 0, 0, 7, 0, 0, 0]));
            let _ = default_route(&of(&[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0]));
        }
    }
}
