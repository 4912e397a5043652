//! Frames out of plain fields. Every field can be given any value, as tests need wrong ones, too.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A hardware address in transmission order.
pub type Mac = [u8; 6];

/// ff:ff:ff:ff:ff:ff.
pub const BROADCAST: Mac = [0xff; 6];
/// 33:33:00:00:00:01.
pub const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Solicited-node multicast address (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Hardware address of an IPv6 multicast address (RFC 2464 section 7).
#[must_use]
pub fn multicast_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Internet checksum of an ICMPv6 message with its pseudo-header (RFC 8200 section 8.1); 0 over a message whose
/// checksum field is right.
#[must_use]
pub fn checksum(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("frames are short");
    let mut all = Vec::with_capacity(40 + message.len());
    all.extend(src.octets());
    all.extend(dst.octets());
    all.extend(length.to_be_bytes());
    all.extend([0, 0, 0, 58]);
    all.extend(message);
    let mut sum = 0u64;
    for pair in all.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Ethernet header, with tags, and what it carries.
#[must_use]
pub fn ethernet(dst: Mac, src: Mac, tags: &[Tag], ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(18 + body.len());
    frame.extend(dst);
    frame.extend(src);
    for tag in tags {
        frame.extend(tag.0.to_be_bytes());
        frame.extend(tag.1.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

/// A VLAN tag: TPID and TCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub u16, pub u16);

/// An ARP packet in a frame.
#[derive(Clone, Debug)]
pub struct Arp {
    /// Ethernet destination.
    pub dst: Mac,
    /// Ethernet source.
    pub src: Mac,
    /// Tags, outermost first.
    pub tags: Vec<Tag>,
    /// Hardware type.
    pub htype: u16,
    /// Protocol type.
    pub ptype: u16,
    /// Length of hardware addresses.
    pub hlen: u8,
    /// Length of protocol addresses.
    pub plen: u8,
    /// Operation.
    pub op: u16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address.
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
    /// What lies behind the packet; by default what fills the frame up to 60 bytes and its tags.
    pub pad: Vec<u8>,
}

impl Arp {
    /// A broadcast request for `tpa`, padded to 60 bytes.
    #[must_use]
    pub fn request(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Self {
        Self {
            dst: BROADCAST,
            src: sha,
            tags: vec![],
            htype: 1,
            ptype: 0x0800,
            hlen: 6,
            plen: 4,
            op: 1,
            sha,
            spa,
            tha: [0; 6],
            tpa,
            pad: vec![0; 18],
        }
    }

    /// The reply that `mac` gives for `vip`, padded to 60 bytes.
    #[must_use]
    pub fn reply(mac: Mac, vip: Ipv4Addr, to: Mac, to_ip: Ipv4Addr) -> Self {
        Self { dst: to, op: 2, tha: to, ..Self::request(mac, vip, to_ip) }
    }

    /// The packet without Ethernet header.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut p = Vec::with_capacity(64);
        p.extend(self.htype.to_be_bytes());
        p.extend(self.ptype.to_be_bytes());
        p.extend([self.hlen, self.plen]);
        p.extend(self.op.to_be_bytes());
        p.extend(self.sha);
        p.extend(self.spa.octets());
        p.extend(self.tha);
        p.extend(self.tpa.octets());
        p.extend(&self.pad);
        p
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        ethernet(self.dst, self.src, &self.tags, 0x0806, &self.packet())
    }
}

/// A Neighbor Solicitation or Advertisement (or any other ICMPv6 message of that form) in a frame.
#[derive(Clone, Debug)]
pub struct Nd {
    /// Ethernet destination.
    pub dst: Mac,
    /// Ethernet source.
    pub src: Mac,
    /// Tags, outermost first.
    pub tags: Vec<Tag>,
    /// IPv6 version, traffic class, flow label.
    pub version: u32,
    /// IPv6 payload length, if it is not to be the true one.
    pub payload_len: Option<u16>,
    /// Next header in the IPv6 header, if it is not to be 58.
    pub next: u8,
    /// Hop limit.
    pub hop: u8,
    /// IPv6 source.
    pub ip_src: Ipv6Addr,
    /// IPv6 destination.
    pub ip_dst: Ipv6Addr,
    /// Extension headers, raw.
    pub extensions: Vec<u8>,
    /// ICMPv6 type.
    pub kind: u8,
    /// ICMPv6 code.
    pub code: u8,
    /// Checksum, if it is not to be the true one.
    pub checksum: Option<u16>,
    /// Flags and reserved.
    pub flags: u32,
    /// Target.
    pub target: Ipv6Addr,
    /// Options, raw.
    pub options: Vec<u8>,
    /// Bytes behind the IPv6 payload.
    pub trailer: Vec<u8>,
}

/// A link-layer address option of `kind` 1 (source) or 2 (target).
#[must_use]
pub fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(mac);
    option
}

impl Nd {
    /// A multicast solicitation for `target` with the sender's link-layer address.
    #[must_use]
    pub fn solicitation(mac: Mac, ip: Ipv6Addr, target: Ipv6Addr) -> Self {
        let group = solicited_node(target);
        Self {
            dst: multicast_mac(group),
            src: mac,
            tags: vec![],
            version: 0x6000_0000,
            payload_len: None,
            next: 58,
            hop: 255,
            ip_src: ip,
            ip_dst: group,
            extensions: vec![],
            kind: 135,
            code: 0,
            checksum: None,
            flags: 0,
            target,
            options: link_layer(1, mac),
            trailer: vec![],
        }
    }

    /// A probe for `target`: from `::`, without options.
    #[must_use]
    pub fn probe(mac: Mac, target: Ipv6Addr) -> Self {
        Self { options: vec![], ..Self::solicitation(mac, Ipv6Addr::UNSPECIFIED, target) }
    }

    /// An advertisement of `target` at `mac`; `flags` are R = 8, S = 4 and O = 2.
    #[must_use]
    pub fn advertisement(mac: Mac, target: Ipv6Addr, to: Mac, to_ip: Ipv6Addr, flags: u32) -> Self {
        Self {
            dst: to,
            ip_dst: to_ip,
            kind: 136,
            flags: flags << 28,
            options: link_layer(2, mac),
            ..Self::solicitation(mac, target, target)
        }
    }

    /// The ICMPv6 message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut m = vec![self.kind, self.code, 0, 0];
        m.extend(self.flags.to_be_bytes());
        m.extend(self.target.octets());
        m.extend(&self.options);
        let sum = self.checksum.unwrap_or_else(|| checksum(self.ip_src, self.ip_dst, &m));
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        m
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let message = self.message();
        let true_len = u16::try_from(self.extensions.len() + message.len()).expect("frames are short");
        let mut p = Vec::with_capacity(128);
        p.extend(self.version.to_be_bytes());
        p.extend(self.payload_len.unwrap_or(true_len).to_be_bytes());
        p.extend([self.next, self.hop]);
        p.extend(self.ip_src.octets());
        p.extend(self.ip_dst.octets());
        p.extend(&self.extensions);
        p.extend(message);
        p.extend(&self.trailer);
        ethernet(self.dst, self.src, &self.tags, 0x86dd, &p)
    }
}
