//! Gratuitous ARP and unsolicited Neighbor Advertisements, the frames of a burst.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    arp::{HTYPE_ETHERNET, LENGTHS, OP_REPLY, OP_REQUEST, PTYPE_IPV4},
    eth::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
    ndp::{FLAG_OVERRIDE, FLAG_ROUTER},
    wire::{Advertisement, ArpPacket, Be16, EthAddrs, Ip6, Mac},
};

/// A gratuitous ARP packet in a frame, without tag and padding: 42 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GratuitousArp {
    eth: EthAddrs,
    ethertype: Be16,
    arp: ArpPacket,
}

impl GratuitousArp {
    /// The request form of RFC 5227 section 2.3 (sender = target = VIP, target hardware address zero): the one
    /// that a Linux neighbour always believes.
    #[must_use]
    pub fn request(vip: Ipv4Addr, mac: Mac) -> Self {
        Self::new(vip, mac, OP_REQUEST, Mac::ZERO)
    }

    /// The reply form. Its target hardware address is the sender's: with any other a Linux neighbour ignores
    /// it for a second after the last change (`arp_is_garp` in net/ipv4/arp.c).
    #[must_use]
    pub fn reply(vip: Ipv4Addr, mac: Mac) -> Self {
        Self::new(vip, mac, OP_REPLY, mac)
    }

    fn new(vip: Ipv4Addr, mac: Mac, op: u16, tha: Mac) -> Self {
        Self {
            eth: EthAddrs { dst: Mac::BROADCAST, src: mac },
            ethertype: Be16::new(ETHERTYPE_ARP),
            arp: ArpPacket {
                htype: Be16::new(HTYPE_ETHERNET),
                ptype: Be16::new(PTYPE_IPV4),
                lengths: Be16::new(LENGTHS),
                op: Be16::new(op),
                sha: mac,
                spa: vip.into(),
                tha,
                tpa: vip.into(),
            },
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        bytes(self)
    }
}

/// An unsolicited Neighbor Advertisement in a frame, without tag: 86 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct UnsolicitedNa {
    eth: EthAddrs,
    ethertype: Be16,
    body: Advertisement,
}

impl UnsolicitedNa {
    /// To all nodes, O = 1 and S = 0, with the target link-layer address (RFC 4861 section 7.2.6).
    #[must_use]
    pub fn new(vip: Ipv6Addr, mac: Mac, router: bool) -> Self {
        let flags = FLAG_OVERRIDE | if router { FLAG_ROUTER } else { 0 };
        Self {
            eth: EthAddrs { dst: Mac::ALL_NODES, src: mac },
            ethertype: Be16::new(ETHERTYPE_IPV6),
            body: Advertisement::new(vip.into(), Ip6::ALL_NODES, mac, flags),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        bytes(self)
    }
}

const _: () = assert!(size_of::<GratuitousArp>() == 42 && size_of::<UnsolicitedNa>() == 86);

fn bytes<T: Copy>(frame: &T) -> &[u8] {
    #[expect(unsafe_code, reason = "frames are sent as they lie in memory")]
    // SAFETY: called only with the two types above, which have no padding: their sizes, checked above, are
    // the sums of their fields.
    unsafe {
        core::slice::from_raw_parts(core::ptr::from_ref(frame).cast(), size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x51]);

    #[test]
    fn golden_gratuitous_arp() {
        let vip = Ipv4Addr::new(192, 0, 2, 10);
        let request: [u8; 42] = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x51, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x51, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10,
        ];
        assert_eq!(GratuitousArp::request(vip, MAC).as_bytes(), request);
        let mut reply = request;
        reply[21] = 2;
        reply[32..38].copy_from_slice(&MAC.octets());
        assert_eq!(GratuitousArp::reply(vip, MAC).as_bytes(), reply);
    }

    #[test]
    fn golden_unsolicited_advertisement() {
        let na = UnsolicitedNa::new("2001:db8::10".parse().unwrap(), MAC, false);
        let expected: [u8; 86] = [
            0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x51, 0x86, 0xdd, // Ethernet
            0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // source
            0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // destination
            136, 0, 0xf8, 0xbc, 0x20, 0, 0, 0, // ICMPv6
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // target
            2, 1, 2, 0, 0, 0, 0, 0x51, // target link-layer address
        ];
        assert_eq!(na.as_bytes(), expected);
    }
}
