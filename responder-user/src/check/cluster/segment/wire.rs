//! Probes, their answers, and VRRP advertisements, as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv6Type, PacketBuilder, err::packet::BuildWriteError};
use responder_common::wire::Mac;

use crate::net::listen::VRRP;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of a VRRP header.
const VRRP_HEADER: usize = 8;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
/// Of every message of Neighbor Discovery (RFC 4861 section 7.1).
const ND_HOP_LIMIT: u8 = 255;
/// ICMPv6 type of a Neighbor Advertisement.
const ADVERTISEMENT: u8 = 136;
/// Types of options.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// An ARP probe: a request whose sender has no address (RFC 5227 section 2.1.1).
pub(super) fn probe(mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mac = mac.octets();
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ARP);
    frame.extend(ARP_FIXED);
    frame.extend([0, REQUEST]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

/// A Neighbor Solicitation from an address of `mac`'s; from nobody's (`UNSPECIFIED`) it is a probe of Duplicate Address
/// Detection (RFC 4862 section 5.4.2).
///
/// # Errors
///
/// Not for what is built here.
pub(super) fn solicitation(mac: Mac, from: Ipv6Addr, target: Ipv6Addr) -> Result<Vec<u8>, BuildWriteError> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let builder = PacketBuilder::ethernet2(mac.octets(), [0x33, 0x33, 0xff, a, b, c])
        .ipv6(from.octets(), group.octets(), ND_HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let mut payload = target.octets().to_vec();
    if !from.is_unspecified() {
        payload.extend([SOURCE_LINK_LAYER, 1]);
        payload.extend(mac.octets());
    }
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload)?;
    Ok(frame)
}

/// Who has an address, if a frame says that: an ARP reply or announcement, or a Neighbor Advertisement.
#[must_use]
pub fn answer(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    match *frame.get(12..14)?.first_chunk()? {
        ARP => arp_answer(frame).map(|(ip, mac)| (ip.into(), mac)),
        IPV6 => advertised(frame).map(|(ip, mac)| (ip.into(), mac)),
        _ => None,
    }
}

/// RFC 4861 section 4.4. The hardware address is that of the option, or else the frame's.
fn advertised(frame: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    let ip = frame.get(ETHERNET..)?;
    let &[0x60..=0x6f, _, _, _, high, low, ICMPV6, ND_HOP_LIMIT] = ip.first_chunk()? else {
        return None;
    };
    let message = ip.get(40..40 + usize::from(u16::from_be_bytes([high, low])))?;
    if *message.get(..2)? != [ADVERTISEMENT, 0] {
        return None;
    }
    let target = Ipv6Addr::from(*message.get(8..24)?.first_chunk::<16>()?);
    let mut mac = *frame.get(6..12)?.first_chunk::<6>()?;
    let mut options = message.get(24..)?;
    while let &[kind, units, ..] = options {
        // An option without length makes the message invalid (section 4.6).
        let length = Some(usize::from(units) * 8).filter(|length| *length > 0)?;
        if kind == TARGET_LINK_LAYER {
            mac = *options.get(2..8)?.first_chunk::<6>()?;
        }
        options = options.get(length..)?;
    }
    Some((target, Mac::new(mac)))
}

fn arp_answer(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let arp = frame.get(ETHERNET..ETHERNET + 28)?;
    if arp.get(..6)? != ARP_FIXED {
        return None;
    }
    let operation = arp.get(6..8)?;
    let sender = *arp.get(8..14)?.first_chunk::<6>()?;
    let ip = Ipv4Addr::from(*arp.get(14..18)?.first_chunk::<4>()?);
    let target = Ipv4Addr::from(*arp.get(24..28)?.first_chunk::<4>()?);
    let claims = operation == [0, REPLY] || (operation == [0, REQUEST] && ip == target);
    (claims && !ip.is_unspecified()).then(|| (ip, Mac::new(sender)))
}

/// A VRRP advertisement (RFC 3768, RFC 9568).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// Who sends it.
    pub sender: IpAddr,
    /// The virtual router.
    pub id: u8,
    /// Its priority.
    pub priority: u8,
    /// The addresses that it has.
    pub addresses: Vec<IpAddr>,
}

impl Advert {
    /// `None`: it is none (CARP has the same protocol number).
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let (sender, payload) = match ip.first()? >> 4 {
            4 if *ip.get(9)? == VRRP => {
                let header = usize::from(ip.first()? & 0xf) * 4;
                let sender = Ipv4Addr::from(*ip.get(12..16)?.first_chunk::<4>()?);
                (IpAddr::V4(sender), ip.get(header..)?)
            }
            6 if *ip.get(6)? == VRRP => {
                let sender = Ipv6Addr::from(*ip.get(8..24)?.first_chunk::<16>()?);
                (IpAddr::V6(sender), ip.get(40..)?)
            }
            _ => return None,
        };
        let &[version_type, id, priority, count, ..] = payload.first_chunk::<VRRP_HEADER>()?;
        // Type 1 is the only one. CARP calls itself version 2, with a count of 7 words of authentication.
        if !matches!(version_type, 0x21 | 0x31) {
            return None;
        }
        let list = payload.get(VRRP_HEADER..)?;
        let count = usize::from(count);
        let addresses = match sender {
            IpAddr::V4(_) => {
                let all = list.get(..count * 4)?.as_chunks::<4>().0;
                all.iter().map(|ip| Ipv4Addr::from(*ip).into()).collect()
            }
            IpAddr::V6(_) => {
                let all = list.get(..count * 16)?.as_chunks::<16>().0;
                all.iter().map(|ip| Ipv6Addr::from(*ip).into()).collect()
            }
        };
        Some(Self { sender, id, priority, addresses })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_arp_probe_has_no_sender_address() {
        let frame = probe(MAC, Ipv4Addr::new(192, 0, 2, 10));
        assert_eq!(frame.len(), 60);
        assert_eq!(&frame[..6], [0xff; 6]);
        assert_eq!(&frame[28..32], [0; 4], "the sender's address");
        assert_eq!(&frame[38..42], [192, 0, 2, 10]);
        assert_eq!(answer(&frame), None, "nobody claims anything by it");
    }

    #[test]
    fn replies_and_announcements_are_answers() {
        let ip = Ipv4Addr::new(192, 0, 2, 10);
        let mut frame = probe(Mac::ZERO, ip);
        frame[22..28].copy_from_slice(&MAC.octets());
        frame[28..32].copy_from_slice(&ip.octets());
        assert_eq!(answer(&frame), Some((ip.into(), MAC)), "an announcement");
        frame[21] = REPLY;
        frame[38..42].copy_from_slice(&[0; 4]);
        assert_eq!(answer(&frame), Some((ip.into(), MAC)), "the reply to a probe");
        frame[21] = REQUEST;
        assert_eq!(answer(&frame), None, "a question by that address is no answer for it, but a use of it");
        assert_eq!(answer(&frame[..41]), None);
    }

    #[test]
    fn a_probe_for_an_ipv6_address_is_one_of_duplicate_address_detection() {
        let target: Ipv6Addr = "2001:db8::12:3456".parse().unwrap();
        let frame = solicitation(MAC, Ipv6Addr::UNSPECIFIED, target).unwrap();
        assert_eq!(&frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(&frame[22..38], [0; 16], "the sender's address");
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(&frame[38..54], group.octets());
        assert_eq!(&frame[62..78], target.octets());
        assert_eq!(frame.len(), 78, "no option with a hardware address");
        assert_eq!(answer(&frame), None, "nobody claims anything by it");
        let frame = solicitation(MAC, "fe80::1".parse().unwrap(), target).unwrap();
        assert_eq!(&frame[78..], [SOURCE_LINK_LAYER, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(answer(&frame), None);
    }

    /// An advertisement of 2001:db8::10 in a frame from `02:…:ee`.
    fn advertisement(options: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xee], [0x33, 0x33, 0, 0, 0, 1])
            .ipv6([0; 16], [0; 16], ND_HOP_LIMIT)
            .icmpv6_raw(ADVERTISEMENT, 0, [0x20, 0, 0, 0]);
        let mut payload = TARGET.octets().to_vec();
        payload.extend(options);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).unwrap();
        frame
    }

    const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

    #[test]
    fn advertisements_are_answers() {
        let option = [TARGET_LINK_LAYER, 1, 2, 0, 0, 0, 0, 1];
        assert_eq!(answer(&advertisement(&option)), Some((TARGET.into(), MAC)));
        let other = [14, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(answer(&advertisement(&[other, option].concat())), Some((TARGET.into(), MAC)));
        let senders = Some((TARGET.into(), Mac::new([2, 0, 0, 0, 0, 0xee])));
        assert_eq!(answer(&advertisement(&[])), senders);
        assert_eq!(answer(&advertisement(&[1, 0])), None, "an option without length");
        let mut routed = advertisement(&option);
        routed[ETHERNET + 7] = 254;
        assert_eq!(answer(&routed), None, "from beyond the link");
    }

    fn advert(version: u8, addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        frame[12] = 8;
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 255, VRRP, 0, 0, 192, 0, 2, 3, 224, 0, 0, 18]);
        frame.extend([version << 4 | 1, 51, 100, addresses.len() as u8, 0, 1, 0, 0]);
        frame.extend(addresses.concat());
        frame.extend([0; 8]); // authentication
        frame
    }

    #[test]
    fn advertisements_of_both_versions_are_read() {
        for version in [2, 3] {
            let seen = Advert::parse(&advert(version, &[[192, 0, 2, 10], [192, 0, 2, 11]])).unwrap();
            assert_eq!((seen.id, seen.priority), (51, 100));
            assert_eq!(seen.sender, IpAddr::from([192, 0, 2, 3]));
            assert_eq!(seen.addresses, [IpAddr::from([192, 0, 2, 10]), IpAddr::from([192, 0, 2, 11])]);
        }
        assert_eq!(Advert::parse(&advert(1, &[])), None);
        let mut six = vec![0; ETHERNET];
        six.extend([0x60, 0, 0, 0, 0, 24, VRRP, 255]);
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend([0x31, 7, 1, 1, 0, 100, 0, 0]);
        six.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(Advert::parse(&six).unwrap().addresses, ["fe80::1".parse::<IpAddr>().unwrap()]);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, version in 0_u8..16, cut in 0_usize..60) {
            Advert::parse(&bytes);
            answer(&bytes);
            let claim = advertisement(&bytes);
            answer(&claim);
            answer(&claim[..cut.min(claim.len())]);
            let whole = advert(version, &[[1, 2, 3, 4]]);
            Advert::parse(&whole[..cut.min(whole.len())]);
        }
    }
}
