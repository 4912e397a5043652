//! What can become of a frame.
//!
//! Each ARP packet, Neighbor Solicitation and Neighbor Advertisement that the program sees ends as exactly one
//! [`Outcome`]. Anything else (data, other ICMPv6) is passed without being counted.

/// What the program tells the driver to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send the frame, rewritten into the answer, back out of the link (`XDP_TX`).
    Answer,
    /// Leave it to the host (`XDP_PASS`).
    Pass,
    /// Drop it: the host must not answer (`XDP_DROP`).
    Drop,
}

/// Defines the enum, its table and the struct of counters from one list, so that they cannot disagree.
macro_rules! outcomes {
    (
        $(#[$enum_doc:meta])* enum $enum:ident;
        $(#[$struct_doc:meta])* struct $struct:ident;
        $( $(#[$doc:meta])+ $variant:ident, $field:ident, $action:expr; )+
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum $enum { $( $(#[$doc])+ $variant, )+ }

        $(#[$struct_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[repr(C)]
        pub struct $struct { $( $(#[$doc])+ pub $field: u64, )+ }

        impl $enum {
            /// All of them, in the order of the counters.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The name of the counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => stringify!($field), )+ }
            }

            /// What is done with the frame.
            #[must_use]
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $( Self::$variant => $action, )+ }
            }
        }

        impl $struct {
            /// The count of one outcome.
            #[must_use]
            pub const fn get(&self, outcome: $enum) -> u64 {
                match outcome { $( $enum::$variant => self.$field, )+ }
            }

            /// Adds another CPU's counts.
            pub const fn add(&mut self, other: &Self) {
                $( self.$field = self.$field.wrapping_add(other.$field); )+
            }
        }

        const _: () = assert!(size_of::<$struct>() == 8 * $enum::ALL.len());

        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "lets aya copy it out of the map")]
        // SAFETY: `repr(C)` of `u64`s only.
        unsafe impl aya::Pod for $struct {}
    };
}

use Action::{Answer, Drop, Pass};
pub(crate) use outcomes;

outcomes! {
    /// What became of a frame.
    ///
    /// "Known" is an address that the map has for this link and VLAN. A frame about a known address that Linux
    /// itself would answer, were the address its own, is never passed.
    enum Outcome;
    /// Frames by [`Outcome`], as the map holds them for each CPU.
    struct Outcomes;

    /// ARP request answered.
    ArpAnswered, arp_answered, Answer;
    /// Neighbor Solicitation answered to its sender.
    NsAnswered, ns_answered, Answer;
    /// Duplicate Address Detection probe (source `::`) answered to all nodes.
    DadAnswered, dad_answered, Answer;

    /// Question for a known address that is not owned here.
    SuppressedStandby, suppressed_standby, Drop;
    /// Question for an owned address after the fence's deadline.
    SuppressedExpired, suppressed_expired, Drop;
    /// Question for a known address, passed because the agent has been gone for so long that suppression ended.
    PassedAbandoned, passed_abandoned, Pass;
    /// Question for a known address that is not owned here, on a port of a bridge: the owner may be behind the bridge.
    /// The program on the bridge itself keeps this host silent.
    PassedForwarded, passed_forwarded, Pass;
    /// Question for a known address on a bond's backup slave. It comes to the active one, too.
    BackupPort, backup_port, Drop;

    /// ARP packet whose sender address is owned here, from a foreign hardware address.
    ArpConflict, arp_conflict, Pass;
    /// The same, in a request for another known address, which must be neither answered nor passed.
    ArpConflictDropped, arp_conflict_dropped, Drop;
    /// Neighbor Solicitation whose source is the owned target itself, from a foreign hardware address.
    NsConflict, ns_conflict, Drop;
    /// Neighbor Advertisement for an owned address with a foreign hardware address.
    NaConflict, na_conflict, Pass;

    /// ARP for and from unknown addresses.
    ArpNotOurs, arp_not_ours, Pass;
    /// ARP packet cut short.
    ArpTruncated, arp_truncated, Pass;
    /// ARP for other hardware or protocols, or with other address lengths.
    ArpFormat, arp_format, Pass;
    /// ARP about a known address that is not a request.
    ArpNotRequest, arp_not_request, Pass;
    /// ARP announcement of a known address (sender = target) that is not owned here, or our own come back.
    ArpAnnouncement, arp_announcement, Pass;
    /// ARP request for a known address sent to another station.
    ArpOtherHost, arp_other_host, Pass;
    /// ARP request for a known address sent to a multicast address.
    ArpMulticast, arp_multicast, Drop;
    /// ARP request whose sender address no host can have (multicast, 255.255.255.255, 127/8).
    ArpBadSender, arp_bad_sender, Pass;
    /// ARP request from a hardware address that no station can have (RFC 1812 section 3.3.2).
    ArpBadHardware, arp_bad_hardware, Drop;
    /// ARP request with our own hardware address and a foreign sender address: a loop or a forgery.
    ArpOwnHardware, arp_own_hardware, Drop;

    /// Solicitation for an unknown target.
    NsNotOurs, ns_not_ours, Pass;
    /// Advertisement for an address that is unknown or not owned here, or our own come back.
    NaNotOurs, na_not_ours, Pass;
    /// Solicitation or advertisement cut short, or shorter than its IPv6 header says.
    NdTruncated, nd_truncated, Pass;
    /// Hop limit other than 255, a code other than 0, or an IP version other than 6.
    NdHeader, nd_header, Pass;
    /// An option of length 0, one that does not fit, or a source link-layer address of another length.
    NdOption, nd_option, Pass;
    /// Checksum wrong.
    NdChecksum, nd_checksum, Pass;
    /// Source that no host can have, or a Duplicate Address Detection probe that RFC 4861 section 7.1.1 forbids.
    NdBadSource, nd_bad_source, Pass;
    /// Solicitation for a known target to an IP address that is neither the target nor a group it is in. Linux
    /// answers what comes to any of its addresses and groups, such as ff02::2 on a router.
    NsOtherDestination, ns_other_destination, Drop;
    /// Solicitation for a known target sent to another station.
    NsOtherHost, ns_other_host, Pass;
    /// Solicitation to the known target's own address in a multicast frame.
    NsMulticast, ns_multicast, Drop;
    /// Solicitation from a hardware address that no station can have.
    NsBadHardware, ns_bad_hardware, Drop;
    /// Solicitation with our own hardware address: a loop or a forgery.
    NsOwnHardware, ns_own_hardware, Drop;
    /// Solicitation for a known target behind IPv6 extension headers, which is not answered; also any packet
    /// with more of them than RFC 8200 section 4.1 lets a host send.
    NsExtensionHeader, ns_extension_header, Drop;
    /// Solicitation for a known target with more options than are looked at.
    NsTooLong, ns_too_long, Drop;

    /// Question for a known address below two or more VLAN tags of which none names a VLAN; also any frame
    /// below more than four of them.
    StackedTags, stacked_tags, Drop;
    /// The driver refused to resize the frame or a map was missing its entry.
    Failed, failed, Drop;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indexes() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, i);
        }
    }
}
