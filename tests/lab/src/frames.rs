//! Building and reading ARP and Neighbor Discovery frames, independently of the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{mac::Mac, time::BootTime};

/// A frame with ARP or Neighbor Discovery in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// When the kernel received it.
    pub at: BootTime,
    /// Ethernet destination.
    pub dst: Mac,
    /// Ethernet source.
    pub src: Mac,
    /// 802.1Q VLAN id, if the tag is in the frame (VLAN offload off).
    pub vlan: Option<u16>,
    /// What it says.
    pub body: Body,
    /// All its bytes, padding included.
    pub bytes: Vec<u8>,
}

/// What a [`Frame`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// ARP.
    Arp(Arp),
    /// A Neighbor Solicitation.
    Solicitation(Nd),
    /// A Neighbor Advertisement.
    Advertisement(Nd),
}

/// An ARP packet for Ethernet and IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Operation: 1 request, 2 reply.
    pub op: u16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address.
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
}

/// A Neighbor Solicitation or Advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nd {
    /// IPv6 source.
    pub src: Ipv6Addr,
    /// IPv6 destination.
    pub dst: Ipv6Addr,
    /// Target address.
    pub target: Ipv6Addr,
    /// Flags of an advertisement: router 0x80, solicited 0x40, override 0x20.
    pub flags: u8,
    /// The link-layer address option (source in a solicitation, target in an advertisement).
    pub lladdr: Option<Mac>,
    /// Whether the ICMPv6 checksum is right.
    pub checksum_ok: bool,
}

impl Frame {
    /// The address that this frame binds to a hardware address for all who hear it, and that hardware address:
    /// the sender of an ARP packet, the target of an advertisement.
    #[must_use]
    pub fn claim(&self) -> Option<(IpAddr, Mac)> {
        match self.body {
            Body::Arp(arp) if !arp.spa.is_unspecified() => Some((IpAddr::V4(arp.spa), arp.sha)),
            Body::Advertisement(na) => Some((IpAddr::V6(na.target), na.lladdr.unwrap_or(self.src))),
            Body::Arp(_) | Body::Solicitation(_) => None,
        }
    }

    /// Whom this frame answers: the target of an ARP reply, the destination of a solicited advertisement.
    #[must_use]
    pub fn asker(&self) -> Option<IpAddr> {
        match self.body {
            Body::Arp(arp) if arp.op == 2 => Some(IpAddr::V4(arp.tpa)),
            Body::Advertisement(na) if na.flags & 0x40 != 0 => Some(IpAddr::V6(na.dst)),
            Body::Arp(_) | Body::Advertisement(_) | Body::Solicitation(_) => None,
        }
    }

    /// True for the frames of a burst about `vip`: sender = target in ARP, an unsolicited advertisement in ND.
    #[must_use]
    pub fn is_gratuitous(&self, vip: IpAddr) -> bool {
        match self.body {
            Body::Arp(arp) => arp.spa == arp.tpa && vip == IpAddr::V4(arp.spa),
            Body::Advertisement(na) => na.flags & 0x40 == 0 && vip == IpAddr::V6(na.target),
            Body::Solicitation(_) => false,
        }
    }

    /// Reads a frame; `None` if it is neither ARP nor Neighbor Discovery or cut short.
    #[must_use]
    pub fn parse(at: BootTime, bytes: &[u8]) -> Option<Self> {
        let mut ethertype = be16(bytes, 12)?;
        let mut l3 = 14;
        let mut vlan = None;
        if ethertype == 0x8100 {
            vlan = Some(be16(bytes, 14)? & 0xfff);
            ethertype = be16(bytes, 16)?;
            l3 = 18;
        }
        let body = match ethertype {
            0x0806 => Body::Arp(parse_arp(bytes.get(l3..)?)?),
            0x86dd => parse_nd(bytes.get(l3..)?)?,
            _ => return None,
        };
        Some(Self { at, dst: mac(bytes, 0)?, src: mac(bytes, 6)?, vlan, body, bytes: bytes.to_vec() })
    }
}

fn parse_arp(b: &[u8]) -> Option<Arp> {
    let ethernet_ipv4 = [0, 1, 8, 0, 6, 4];
    b.starts_with(&ethernet_ipv4).then_some(())?;
    Some(Arp {
        op: be16(b, 6)?,
        sha: mac(b, 8)?,
        spa: Ipv4Addr::from(array::<4>(b, 14)?),
        tha: mac(b, 18)?,
        tpa: Ipv4Addr::from(array::<4>(b, 24)?),
    })
}

fn parse_nd(b: &[u8]) -> Option<Body> {
    let len = usize::from(be16(b, 4)?);
    let icmp = b.get(40..40 + len)?;
    (b[6] == 58).then_some(())?;
    let (src, dst) = (Ipv6Addr::from(array::<16>(b, 8)?), Ipv6Addr::from(array::<16>(b, 24)?));
    let (kind, option) = match icmp.first()? {
        135 => (Body::Solicitation as fn(Nd) -> Body, 1),
        136 => (Body::Advertisement as fn(Nd) -> Body, 2),
        _ => return None,
    };
    let mut lladdr = None;
    let mut rest = icmp.get(24..)?;
    while let [ty, units @ 1..=u8::MAX, ..] = rest {
        if *ty == option {
            lladdr = mac(rest, 2);
        }
        rest = rest.get(usize::from(*units) * 8..).unwrap_or_default();
    }
    Some(kind(Nd {
        src,
        dst,
        target: Ipv6Addr::from(array::<16>(icmp, 8)?),
        flags: icmp[4],
        lladdr,
        checksum_ok: checksum(src, dst, icmp) == 0,
    }))
}

/// A broadcast ARP request of 60 bytes.
#[must_use]
pub fn arp_request(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    arp(Mac::BROADCAST, Arp { op: 1, sha, spa, tha: Mac::ZERO, tpa })
}

/// Any ARP packet, sent from its sender's hardware address, padded to 60 bytes.
#[must_use]
pub fn arp(dst: Mac, arp: Arp) -> Vec<u8> {
    let mut f = Vec::with_capacity(60);
    f.extend(dst.0);
    f.extend(arp.sha.0);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    f.extend(arp.op.to_be_bytes());
    f.extend(arp.sha.0);
    f.extend(arp.spa.octets());
    f.extend(arp.tha.0);
    f.extend(arp.tpa.octets());
    f.resize(60, 0);
    f
}

/// A Neighbor Solicitation to the target's solicited-node group, with the source link-layer address.
#[must_use]
pub fn solicitation(mac: Mac, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([1, 1]);
    icmp.extend(mac.0);
    icmpv6(Mac([0x33, 0x33, 0xff, a, b, c]), mac, src, group, icmp)
}

/// A Neighbor Solicitation with any destination and options (whole, their lengths in units of 8 bytes).
#[must_use]
pub fn solicitation_to(
    eth_dst: Mac,
    mac: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    options: &[u8],
) -> Vec<u8> {
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend(options);
    icmpv6(eth_dst, mac, src, dst, icmp)
}

/// The frame with an 802.1Q tag in it.
#[must_use]
pub fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0], &vlan.to_be_bytes(), rest].concat()
}

/// Any ICMPv6 message, its checksum made, with hop limit 255.
#[must_use]
pub fn icmpv6(eth_dst: Mac, eth_src: Mac, src: Ipv6Addr, dst: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = checksum(src, dst, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(eth_dst, eth_src, src, dst, 58, &icmp)
}

/// Any IPv6 packet with hop limit 255.
#[must_use]
pub fn ipv6(eth_dst: Mac, eth_src: Mac, src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = Vec::with_capacity(54 + payload.len());
    f.extend(eth_dst.0);
    f.extend(eth_src.0);
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    f.extend([next, 255]);
    f.extend(src.octets());
    f.extend(dst.octets());
    f.extend(payload);
    f
}

/// An unsolicited Neighbor Advertisement (override set) to all nodes.
#[must_use]
pub fn advertisement(mac: Mac, target: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac.0);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    icmpv6(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, target, all_nodes, icmp)
}

/// The ICMPv6 checksum; 0 over a message that has the right one in it.
fn checksum(src: Ipv6Addr, dst: Ipv6Addr, icmp: &[u8]) -> u16 {
    let len = u32::try_from(icmp.len()).unwrap_or(u32::MAX);
    let pseudo = [&src.octets()[..], &dst.octets(), &len.to_be_bytes(), &[0, 0, 0, 58]].concat();
    let mut sum = 0u32;
    for pair in pseudo.chunks(2).chain(icmp.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn array<const N: usize>(b: &[u8], at: usize) -> Option<[u8; N]> {
    b.get(at..at + N)?.try_into().ok()
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    array::<2>(b, at).map(u16::from_be_bytes)
}

fn mac(b: &[u8], at: usize) -> Option<Mac> {
    array::<6>(b, at).map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0xc1]);

    #[test]
    fn requests_read_back() {
        let (spa, tpa) = (Ipv4Addr::new(192, 0, 2, 101), Ipv4Addr::new(192, 0, 2, 10));
        let frame = Frame::parse(BootTime(1), &arp_request(MAC, spa, tpa)).unwrap();
        assert_eq!((frame.dst, frame.src, frame.bytes.len()), (Mac::BROADCAST, MAC, 60));
        assert_eq!(frame.claim(), Some((IpAddr::V4(spa), MAC)));
        assert!(!frame.is_gratuitous(IpAddr::V4(spa)));
    }

    #[test]
    fn neighbor_discovery_reads_back_with_right_checksums() {
        let vip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let ns = solicitation(MAC, "2001:db8::101".parse().unwrap(), vip);
        let Body::Solicitation(nd) = Frame::parse(BootTime(1), &ns).unwrap().body else {
            panic!("no solicitation");
        };
        assert_eq!((nd.target, nd.lladdr, nd.checksum_ok), (vip, Some(MAC), true));
        assert_eq!(nd.dst.to_string(), "ff02::1:ff00:10");
        let na = Frame::parse(BootTime(1), &advertisement(MAC, vip)).unwrap();
        assert!(na.is_gratuitous(IpAddr::V6(vip)));
        assert_eq!(na.claim(), Some((IpAddr::V6(vip), MAC)));
    }
}
