//! Numbers, addresses and headers as they lie in a frame, and access to frames.
//!
//! All header types are `repr(C)` with an alignment of 2: a frame starts at an even address in every driver,
//! and with alignment 1 the compiler would load and store byte by byte for the BPF target.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A 16-bit number in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// Stores `value` in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The value in host byte order.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The 16 bits as they lie in memory, for the Internet checksum, which does not care about byte order.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The number whose memory representation is `raw`.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Mac([u16; 3]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xffff; 3]);
    /// `00:00:00:00:00:00`.
    pub const ZERO: Self = Self([0; 3]);
    /// `33:33:00:00:00:01`, where ff02::1 (all nodes) goes (RFC 2464 section 7).
    pub const ALL_NODES: Self = Self::new([0x33, 0x33, 0, 0, 0, 1]);

    /// An address from its six bytes in transmission order.
    #[must_use]
    #[inline(always)]
    pub const fn new(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    /// The six bytes in transmission order.
    #[must_use]
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c] = self.0;
        let (a, b, c) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// True for group addresses, broadcast included (the I/G bit).
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 != 0
    }

    /// True if one station can have this address: neither a group address nor zero.
    ///
    /// RFC 1812 section 3.3.2 forbids believing any other as somebody's hardware address.
    #[must_use]
    #[inline(always)]
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && (self.0[0] | self.0[1] | self.0[2]) != 0
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// An IPv4 address in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Ip4([u16; 2]);

impl Ip4 {
    /// `0.0.0.0`, the sender of an ARP probe (RFC 5227 section 1.1).
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// An address from its four bytes in transmission order.
    #[must_use]
    #[inline(always)]
    pub const fn new(b: [u8; 4]) -> Self {
        Self([u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]])])
    }

    /// The four bytes in transmission order.
    #[must_use]
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a[0], a[1], b[0], b[1]]
    }

    /// The four bytes as one number, as they lie in memory. A key is made of it: the kernel hashes keys in words, and
    /// would wait for four bytes that were stored one by one.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        let [a, b] = self.0;
        let (a, b) = (a as u32, b as u32);
        if cfg!(target_endian = "little") { (b << 16) | a } else { (a << 16) | b }
    }

    /// The address as a host-order number.
    #[must_use]
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        u32::from_be(self.raw())
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(a: Ipv4Addr) -> Self {
        Self::new(a.octets())
    }
}

/// An IPv6 address in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Ip6([u16; 8]);

impl Ip6 {
    /// `::`, the source of a Duplicate Address Detection probe (RFC 4862 section 5.4.2).
    pub const UNSPECIFIED: Self = Self([0; 8]);
    /// `::1`.
    pub const LOOPBACK: Self = Self([0, 0, 0, 0, 0, 0, 0, 1u16.to_be()]);
    /// `ff02::1`, all nodes on the link.
    pub const ALL_NODES: Self = Self([0xff02u16.to_be(), 0, 0, 0, 0, 0, 0, 1u16.to_be()]);

    /// An address from its 16 bytes in transmission order.
    #[must_use]
    pub const fn new(b: [u8; 16]) -> Self {
        let mut words = [0; 8];
        let mut i = 0;
        while i < 8 {
            words[i] = u16::from_ne_bytes([b[2 * i], b[2 * i + 1]]);
            i += 1;
        }
        Self(words)
    }

    /// The eight 16-bit groups as they lie in memory.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> [u16; 8] {
        self.0
    }

    /// The address as a host-order number.
    #[must_use]
    #[inline(always)]
    pub const fn to_bits(self) -> u128 {
        let [a, b, c, d, e, f, g, h] = self.0;
        // Two words at a time, so that the compiler swaps bytes and moves nothing else.
        const fn word(a: u16, b: u16, c: u16, d: u16) -> u64 {
            let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
            u64::from_be_bytes([a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]])
        }
        (word(a, b, c, d) as u128) << 64 | word(e, f, g, h) as u128
    }

    /// True for ff00::/8.
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    /// The solicited-node multicast address of this address (RFC 4291 section 2.7.1).
    #[must_use]
    #[inline(always)]
    pub const fn solicited_node(self) -> Self {
        let low = self.0[6].to_ne_bytes()[1];
        Self([0xff02u16.to_be(), 0, 0, 0, 0, 1u16.to_be(), u16::from_ne_bytes([0xff, low]), self.0[7]])
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(a: Ipv6Addr) -> Self {
        Self::new(a.octets())
    }
}

/// Types that may be laid over the bytes of a frame.
///
/// # Safety
///
/// Implementors are `repr(C)` or `repr(transparent)`, valid for every bit pattern, without padding, and need
/// an alignment of at most 2.
#[expect(unsafe_code, reason = "the one promise that makes views of frames sound")]
pub unsafe trait Wire: Copy {}

/// The two Ethernet addresses that begin every frame.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EthAddrs {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
}

/// An 802.1Q tag: the TCI and the EtherType behind it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VlanTag {
    /// Priority, DEI and the 12-bit VLAN id.
    pub tci: Be16,
    /// EtherType of what follows.
    pub ethertype: Be16,
}

/// An ARP packet for Ethernet and IPv4 (RFC 826), behind the EtherType.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ArpPacket {
    /// Hardware type; 1 is Ethernet, 6 is IEEE 802.
    pub htype: Be16,
    /// Protocol type, an EtherType.
    pub ptype: Be16,
    /// Hardware and protocol address lengths in bytes, 0x0604 for Ethernet and IPv4.
    pub lengths: Be16,
    /// Operation; 1 is a request, 2 a reply.
    pub op: Be16,
    /// Sender hardware address (SHA).
    pub sha: Mac,
    /// Sender protocol address (SPA).
    pub spa: Ip4,
    /// Target hardware address (THA).
    pub tha: Mac,
    /// Target protocol address (TPA).
    pub tpa: Ip4,
}

/// The fixed IPv6 header (RFC 8200 section 3).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), start of the flow label (4).
    pub version_class: Be16,
    /// Rest of the flow label.
    pub flow: Be16,
    /// Bytes behind this header.
    pub payload_len: Be16,
    /// Next header (high byte) and hop limit (low byte).
    pub next_hop: Be16,
    /// Source address.
    pub src: Ip6,
    /// Destination address.
    pub dst: Ip6,
}

/// The first eight bytes of an ICMPv6 Neighbor Solicitation or Advertisement (RFC 4861 sections 4.3, 4.4).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NdHeader {
    /// ICMPv6 type (high byte) and code (low byte).
    pub type_code: Be16,
    /// Checksum over pseudo-header and message.
    pub checksum: Be16,
    /// R, S and O flags in the top bits of an advertisement; reserved otherwise.
    pub flags: Be16,
    /// Reserved.
    pub reserved: Be16,
}

/// Eight bytes of options: the unit in which Neighbor Discovery counts option lengths.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NdUnit {
    /// Option type (high byte) and length in units of eight bytes (low byte), where an option begins here.
    pub type_len: Be16,
    /// What follows: a link-layer address in the options that carry one.
    pub mac: Mac,
}

/// A Neighbor Solicitation without its options.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NdMessage {
    /// Type, code, checksum, flags.
    pub header: NdHeader,
    /// Target address.
    pub target: Ip6,
}

/// A whole Neighbor Advertisement behind the EtherType: IPv6, ICMPv6 and one target link-layer address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Advertisement {
    /// IPv6 header.
    pub ip: Ipv6Header,
    /// ICMPv6 message.
    pub nd: NdMessage,
    /// Target link-layer address option.
    pub tllao: NdUnit,
}

macro_rules! wire {
    ($($ty:ty: $size:literal),+ $(,)?) => { $(
        const _: () = assert!(size_of::<$ty>() == $size && align_of::<$ty>() <= 2);
        #[expect(unsafe_code, reason = "see the trait")]
        // SAFETY: made of `u16`s only, and the size is the sum of the fields (checked above).
        unsafe impl Wire for $ty {}
    )+ };
}

wire! {
    Be16: 2, EthAddrs: 12, VlanTag: 4, ArpPacket: 28, Ipv6Header: 40, NdHeader: 8, NdMessage: 24,
    NdUnit: 8, Advertisement: 72, [Be16; 9]: 18, [Be16; 2]: 4,
}

/// A frame that can be read, rewritten and resized.
///
/// The kernel implements it over the packet pointers of an XDP context, hosts over a buffer.
pub trait Frame {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// True if there is not one byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `T` at `offset` (even), or `None` where the frame ends before it does.
    fn view<T: Wire>(&self, offset: usize) -> Option<&T>;

    /// Like [`Frame::view`], to write.
    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;

    /// Cuts the frame at its end. `None` if the driver refuses.
    #[must_use]
    fn shrink(&mut self, len: usize) -> Option<()>;

    /// Adds eight bytes of unspecified content *in front*, where every driver has room on every kernel
    /// (growing at the end needs tailroom that veth lacks since 6.12). `None` if the driver refuses.
    #[must_use]
    fn grow_front_8(&mut self) -> Option<()>;
}
