//! Keys and values of the BPF maps.
//!
//! Values are laid out for three readers: the kernel side, the agent, and an operator with
//! `bpftool map dump pinned …`, who sees the field names, IPv4 addresses as `[192,0,2,10]` and IPv6 addresses as
//! `0x20010db8000000000000000000000010`. No type has padding: the kernel compares and copies every byte.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{Ip4, Ip6, Mac};

/// Version of everything in this module, part of the path where maps are pinned.
///
/// Maps of another version are never reinterpreted. Raise it with any change of a size, offset or meaning.
pub const LAYOUT_VERSION: u32 = 3;

/// IPv4 VIPs: [`VipKey4`] to [`Vip4`].
pub const VIPS4: &str = "VIPS4";
/// IPv6 VIPs: [`VipKey6`] to [`Vip6`].
pub const VIPS6: &str = "VIPS6";
/// What is owned: slot number to [`Slot`]; memory-mapped by the agent.
pub const SLOTS: &str = "SLOTS";
/// The [`Fenced`]; one entry, memory-mapped by the agent.
pub const FENCE: &str = "FENCE";
/// Links that announce: [`LinkKey`] to [`Link`].
pub const LINKS: &str = "LINKS";
/// [`crate::outcome::Outcomes`] per CPU; one entry.
pub const OUTCOMES: &str = "OUTCOMES";
/// [`crate::egress::EgressOutcomes`] per CPU; one entry.
pub const EGRESS: &str = "EGRESS";
/// Ring buffer of [`Event`].
pub const EVENTS: &str = "EVENTS";
/// [`EventLimit`] per CPU; one entry.
pub const EVENT_LIMIT: &str = "EVENT_LIMIT";
/// Every map that is pinned, in the order in which they are created.
pub const MAPS: [&str; 9] = [VIPS4, VIPS6, SLOTS, FENCE, LINKS, OUTCOMES, EGRESS, EVENTS, EVENT_LIMIT];

/// Name of the XDP program.
pub const XDP_PROGRAM: &str = "responder_xdp";
/// Name of the XDP program for multi-buffer frames (kernel 5.18 and later).
pub const XDP_FRAGS_PROGRAM: &str = "responder_frags";
/// Name of the tc egress program.
pub const EGRESS_PROGRAM: &str = "responder_tx";

/// Entries of [`VIPS4`] and of [`VIPS6`] unless the agent asks for another number.
pub const DEFAULT_VIPS: u32 = 65_536;
/// Entries of [`SLOTS`].
pub const MAX_SLOTS: u32 = 65_536;
/// Entries of [`LINKS`].
pub const MAX_LINKS: u32 = 1_024;
/// Bytes of [`EVENTS`]: a power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 64 * 1024;

/// The slot that is never owned: what `standby` addresses use.
pub const STANDBY_SLOT: u32 = 0;
/// The slot of addresses that are owned one by one: by a static file, or as exceptions of a group.
pub const SINGLE_SLOT: u32 = 1;
/// The slot of group 0; those of the other groups follow.
pub const FIRST_GROUP_SLOT: u32 = 2;

/// An IPv4 address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct VipKey4 {
    /// The address in transmission order.
    pub addr: [u8; 4],
    /// Index of the interface where the program runs.
    pub ifindex: u32,
    /// 802.1Q VLAN id in the frame; 0 for untagged and priority-tagged frames.
    pub vlan: u32,
}

/// An IPv6 address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
// A BPF stack is aligned to 8 bytes, and a `u128` wants 16.
#[repr(C, packed(8))]
pub struct VipKey6 {
    /// The address as a number, in host byte order: bpftool prints it in hexadecimal digits.
    pub addr: u128,
    /// Index of the interface where the program runs.
    pub ifindex: u32,
    /// 802.1Q VLAN id in the frame; 0 for untagged and priority-tagged frames.
    pub vlan: u32,
}

/// What the kernel counts for one VIP on one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct VipStats {
    /// Requests and solicitations answered.
    pub answered: u64,
    /// Requests and solicitations dropped because the address is not owned here, or not any more.
    pub suppressed: u64,
    /// Frames in which another station claimed this address while it was owned here.
    pub conflicts: u64,
    /// CLOCK_BOOTTIME in ns of the last event about this address; limits the rate of the next.
    pub event_ns: u64,
}

macro_rules! vip {
    ($(#[$doc:meta])* $name:ident, $key:ty, $($pad:ident)?) => {
        $(#[$doc])*
        ///
        /// The kernel writes `stats`; the agent all else.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(C)]
        pub struct $name {
            /// The entry's own key. The kernel may reuse a deleted entry's memory while a program still looks
            /// at it; comparing this tells.
            pub key: $key,
            /// Index into `SLOTS`: says whether this address is owned here.
            pub slot: u32,
            $(
                /// Zero.
                pub $pad: u32,
            )?
            /// Counters of this address.
            pub stats: VipStats,
        }

        impl $name {
            /// An entry whose counters are zero.
            #[must_use]
            pub fn new(key: $key, slot: u32) -> Self {
                Self { key, slot, $($pad: 0,)? stats: VipStats::default() }
            }
        }
    };
}

vip!(/** State and counters of one IPv4 VIP on one link. */ Vip4, VipKey4,);
vip!(/** State and counters of one IPv6 VIP on one link. */ Vip6, VipKey6, reserved);

impl VipKey4 {
    /// The key of an address as it lies in a frame.
    #[must_use]
    #[inline(always)]
    pub const fn new(addr: Ip4, ifindex: u32, vlan: u32) -> Self {
        Self { addr: addr.raw().to_ne_bytes(), ifindex, vlan }
    }

    /// The address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        let [a, b, c, d] = self.addr;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

impl VipKey6 {
    /// The key of an address as it lies in a frame.
    #[must_use]
    #[inline(always)]
    pub const fn new(addr: Ip6, ifindex: u32, vlan: u32) -> Self {
        Self { addr: addr.to_bits(), ifindex, vlan }
    }

    /// The address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.addr))
    }
}

/// Whether the addresses of a slot are owned here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SlotState {
    /// Another node answers, or nobody: questions are dropped.
    Standby = 0,
    /// Owned here: questions are answered until the fence's deadline.
    Owned = 1,
}

/// What one write switches: all addresses that name this slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Slot {
    /// Owned here or not.
    pub state: SlotState,
    /// Zero.
    pub reserved: u32,
    /// CLOCK_BOOTTIME in ns of the last change.
    pub since_ns: u64,
}

/// When answering and suppressing end by themselves. All times are CLOCK_BOOTTIME in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Fence {
    /// From here on nothing is answered. The agent extends it while it may.
    pub deadline_ns: u64,
    /// From here on nothing is suppressed either: the agent is gone for good.
    pub suppress_until_ns: u64,
    /// When the agent last wrote the two above.
    pub heartbeat_ns: u64,
}

/// Whose these maps are: what a successor must know to go on with its predecessor's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Owner {
    /// Identity of this set of maps, random; 0: not chosen yet.
    pub datapath: u64,
    /// Incarnation of the session that the slots belong to; 0: of none.
    pub incarnation: u64,
    /// Number of groups that the slots stand for; 0: none.
    pub claims: u64,
}

/// The value of `FENCE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Fenced {
    /// What the programs look at.
    pub fence: Fence,
    /// What agents look at.
    pub owner: Owner,
}

/// A link, or a VLAN on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct LinkKey {
    /// Index of the interface where the program runs.
    pub ifindex: u32,
    /// 802.1Q VLAN id; 0 for the link itself.
    pub vlan: u32,
}

/// An IPv4 prefix of a link, both parts in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Prefix4 {
    /// The host's address; 0.0.0.0 in an unused place.
    pub addr: [u8; 4],
    /// The netmask.
    pub mask: [u8; 4],
}

/// Prefixes that a [`Link`] holds.
pub const LINK_PREFIXES: usize = 4;

/// What the programs must know of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Link {
    /// The hardware address that answers carry.
    pub mac: [u8; 6],
    /// [`LINK_ROUTER`], [`LINK_FORWARDS`], [`LINK_BACKUP`].
    pub flags: u16,
    /// Index of the interface that the operator named: the key's, or of a VLAN, bond or bridge above. For agents.
    pub interface: u32,
    /// The host's own addresses, primary first: one replaces a VIP as the sender of the host's ARP requests.
    pub prefixes: [Prefix4; LINK_PREFIXES],
}

/// In [`Link::flags`]: the host forwards IPv6, so its advertisements carry the R flag (RFC 4861 section 4.4).
pub const LINK_ROUTER: u16 = 1;
/// In [`Link::flags`]: a bridge's port. What is passed goes on to other stations, one of which may own the address,
/// and reaches this host through the program on the bridge itself.
pub const LINK_FORWARDS: u16 = 2;
/// In [`Link::flags`]: a bond's backup slave. An answer would teach the switch the wrong port.
pub const LINK_BACKUP: u16 = 4;

impl Link {
    /// Whether a flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The hardware address.
    #[must_use]
    #[inline(always)]
    pub const fn mac(&self) -> Mac {
        Mac::new(self.mac)
    }
}

/// What an [`Event`] reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EventKind {
    /// An ARP packet whose sender address is a VIP owned here, from a foreign hardware address.
    ArpConflict = 1,
    /// A Neighbor Solicitation whose source is a VIP owned here, from a foreign hardware address.
    NsConflict = 2,
    /// A Neighbor Advertisement for a VIP owned here, with a foreign hardware address.
    NaConflict = 3,
}

/// Something an operator must know, sent through [`EVENTS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Event {
    /// CLOCK_BOOTTIME in ns.
    pub boot_ns: u64,
    /// An [`EventKind`] as a number.
    pub kind: u32,
    /// Interface where it was seen.
    pub ifindex: u32,
    /// VLAN id where it was seen, 0 for none.
    pub vlan: u32,
    /// Claims of this address seen so far, this one included; grows by more than one where events were
    /// left out.
    pub conflicts: u32,
    /// The VIP; IPv4 as an IPv4-mapped IPv6 address.
    pub vip: [u8; 16],
    /// The hardware address that claims it.
    pub claimer: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

/// The least time in ns between two events about one VIP.
pub const EVENT_INTERVAL_NS: u64 = 1_000_000_000;
/// Events per CPU and [`EVENT_INTERVAL_NS`], whatever the number of VIPs.
pub const EVENT_BURST: u32 = 32;

/// How many events a CPU has sent in the current second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct EventLimit {
    /// When the current interval began.
    pub start_ns: u64,
    /// Events sent in it.
    pub sent: u32,
    /// Zero.
    pub reserved: u32,
    /// Events not sent because of [`EVENT_INTERVAL_NS`] or [`EVENT_BURST`].
    pub limited: u64,
    /// Events lost because the ring was full.
    pub lost: u64,
}

impl EventLimit {
    /// Whether an event may be sent at `now_ns` about a VIP whose last one was at `event_ns` (0: never).
    ///
    /// Counts it either way. The same limits hold for a flood of claims for one address and for claims of many.
    #[inline(always)]
    pub fn admit(&mut self, event_ns: u64, now_ns: u64) -> bool {
        let since_last = now_ns.wrapping_sub(event_ns);
        if now_ns.wrapping_sub(self.start_ns) >= EVENT_INTERVAL_NS {
            self.start_ns = now_ns;
            self.sent = 0;
        }
        if (event_ns != 0 && since_last < EVENT_INTERVAL_NS) || self.sent >= EVENT_BURST {
            self.limited = self.limited.wrapping_add(1);
            return false;
        }
        self.sent += 1;
        true
    }
}

macro_rules! pod {
    ($($ty:ty: $size:literal),+ $(,)?) => { $(
        // The sum of the fields: there is no padding.
        const _: () = assert!(size_of::<$ty>() == $size && align_of::<$ty>() <= 8);
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "lets aya copy it in and out of maps")]
        // SAFETY: `repr(C)`, plain numbers without padding (checked above).
        unsafe impl aya::Pod for $ty {}
    )+ };
}

pod! {
    VipKey4: 12, VipKey6: 24, VipStats: 32, Vip4: 48, Vip6: 64, Fence: 24, Owner: 24, Fenced: 48, LinkKey: 8, Link: 44, Event: 48, EventLimit: 32,
}

const _: () = assert!(size_of::<Slot>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_limited_per_address_and_in_total() {
        let mut limit = EventLimit::default();
        let start = 5 * EVENT_INTERVAL_NS;
        assert!(limit.admit(0, start));
        assert!(!limit.admit(start, start + EVENT_INTERVAL_NS - 1));
        assert!(limit.admit(start, start + EVENT_INTERVAL_NS));
        for _ in 1..EVENT_BURST {
            assert!(limit.admit(0, start + EVENT_INTERVAL_NS));
        }
        assert!(!limit.admit(0, start + EVENT_INTERVAL_NS));
        assert_eq!(limit.limited, 2);
        assert!(limit.admit(0, start + 2 * EVENT_INTERVAL_NS));
    }

    #[test]
    fn frame_and_map_byte_order_agree() {
        let v4 = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(VipKey4::new(v4.into(), 1, 0).ip(), IpAddr::V4(v4));
        let v6: Ipv6Addr = "2001:db8::10".parse().unwrap();
        assert_eq!(VipKey6::new(v6.into(), 1, 0).ip(), IpAddr::V6(v6));
    }
}
