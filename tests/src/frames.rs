//! The acceptance list: frames, and what becomes of each while the address in question is owned here.
//!
//! Names are those of docs/protocol.md: A for ARP, N for Neighbor Discovery. The hosts and addresses in it:
//!
//! * we are [`OWN`] on the link and [`OWN7`] in its VLAN 7, where we are a router;
//! * [`VIP4`] and [`VIP6`] are known on both and owned (or what a test makes of slot [`SLOT`]);
//! * [`STANDBY4`] and [`STANDBY6`] are known on the link and never owned;
//! * [`CLIENT`] asks, [`OTHER`] is some other station.

mod arp;
mod arp_more;
mod ndp;
mod ndp_more;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::build::{Mac, Tag};

/// Our hardware address.
pub const OWN: Mac = [2, 0, 0, 0, 0, 0x51];
/// Our hardware address in VLAN 7.
pub const OWN7: Mac = [2, 0, 0, 0, 0, 0x57];
/// Hardware address of who asks.
pub const CLIENT: Mac = [2, 0, 0, 0, 0, 0xc1];
/// Another hardware address.
pub const OTHER: Mac = [2, 0, 0, 0, 0, 0xc2];
/// Address of who asks.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 193);
/// Address of who asks.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xc1);
/// The VIP.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The VIP.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0x1010);
/// A known address that is never owned.
pub const STANDBY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// A known address that is never owned.
pub const STANDBY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
/// An address that is not known.
pub const UNKNOWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
/// An address that is not known.
pub const UNKNOWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
/// The slot of [`VIP4`] and [`VIP6`].
pub const SLOT: u32 = 5;
/// A tag with VLAN 0: priority only.
pub const PRIORITY: Tag = Tag(0x8100, 0xa000);
/// A tag with VLAN 5, where nothing is known.
pub const VLAN5: Tag = Tag(0x8100, 5);
/// A tag with VLAN 7.
pub const VLAN7: Tag = Tag(0x8100, 0x6007);

/// What is done with a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// These bytes are sent back.
    Answer(Vec<u8>),
    /// The host gets it, unchanged.
    Pass,
    /// Nobody gets it.
    Drop,
}

/// The kind of frame in which somebody claims an address. The numbers are those in events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ClaimKind {
    /// ARP sender address.
    Arp = 1,
    /// Source of a solicitation.
    Solicitation = 2,
    /// Advertisement.
    Advertisement = 3,
}

/// Another station's claim of an address owned here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// By what.
    pub kind: ClaimKind,
    /// VLAN id, 0 for none.
    pub vlan: u32,
    /// Of what.
    pub vip: IpAddr,
    /// By whom.
    pub claimer: Mac,
}

/// One frame of the list.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// The frame as received.
    pub frame: Vec<u8>,
    /// The counter that moves; none if the frame is none of our business.
    pub outcome: Option<&'static str>,
    /// What is done with it.
    pub verdict: Verdict,
    /// What is reported.
    pub claim: Option<Claim>,
    /// Linux with default settings would answer, were the address its own.
    pub linux_answers: bool,
}

impl Case {
    fn new(id: impl Into<String>, frame: Vec<u8>, outcome: Option<&'static str>, verdict: Verdict) -> Self {
        Self { id: id.into(), frame, outcome, verdict, claim: None, linux_answers: false }
    }

    fn answer(id: impl Into<String>, frame: Vec<u8>, outcome: &'static str, answer: Vec<u8>) -> Self {
        Self::new(id, frame, Some(outcome), Verdict::Answer(answer))
    }

    fn pass(id: impl Into<String>, frame: Vec<u8>, outcome: &'static str) -> Self {
        Self::new(id, frame, Some(outcome), Verdict::Pass)
    }

    fn drop(id: impl Into<String>, frame: Vec<u8>, outcome: &'static str) -> Self {
        Self::new(id, frame, Some(outcome), Verdict::Drop)
    }

    /// Passed without being looked at.
    fn ignored(id: impl Into<String>, frame: Vec<u8>) -> Self {
        Self::new(id, frame, None, Verdict::Pass)
    }

    fn linux(self) -> Self {
        Self { linux_answers: true, ..self }
    }

    fn claim(self, kind: ClaimKind, vip: impl Into<IpAddr>, claimer: Mac) -> Self {
        let vip = vip.into();
        Self { claim: Some(Claim { kind, vlan: 0, vip, claimer }), ..self }
    }
}

/// The whole list.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = arp::cases();
    cases.extend(arp_more::lengths());
    cases.extend(arp_more::tagged());
    cases.extend(arp_more::extra());
    cases.extend(ndp::solicitations());
    cases.extend(ndp::options());
    cases.extend(ndp_more::addresses());
    cases.extend(ndp_more::headers());
    cases.extend(ndp_more::advertisements());
    cases
}

/// The case of that name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn get(id: &str) -> Case {
    all().into_iter().find(|c| c.id == id).unwrap_or_else(|| panic!("no case {id} in the acceptance list"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use etherparse::{EtherPayloadSlice, NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for case in all() {
            assert!(seen.insert(case.id.clone()), "{} is there twice", case.id);
        }
        assert!(seen.len() > 250, "{} cases", seen.len());
    }

    /// Frames and expectations are built by this crate; another library must find them well-formed.
    #[test]
    fn answers_are_well_formed() {
        let mut answers = 0;
        for case in all() {
            let Verdict::Answer(frame) = &case.verdict else {
                continue;
            };
            answers += 1;
            let parsed = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{}: {e}", case.id));
            let payload: EtherPayloadSlice<'_> = parsed.ether_payload().unwrap();
            if payload.ether_type == etherparse::EtherType::ARP {
                let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("{}: no ARP", case.id) };
                assert_eq!(arp.operation(), etherparse::ArpOperation::REPLY, "{}", case.id);
                assert_eq!(arp.sender_protocol_addr(), VIP4.octets(), "{}", case.id);
                continue;
            }
            let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
                (parsed.net, parsed.transport)
            else {
                panic!("{}: no ICMPv6", case.id)
            };
            let header = ip.header();
            assert_eq!(header.hop_limit(), 255, "{}", case.id);
            assert_eq!(header.source_addr(), VIP6, "{}", case.id);
            assert!(icmp.is_checksum_valid(header.source(), header.destination()), "{}", case.id);
            assert_eq!(icmp.type_u8(), 136, "{}", case.id);
        }
        assert!(answers > 60, "{answers} answers");
    }
}
