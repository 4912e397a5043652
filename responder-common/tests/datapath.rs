//! Golden frames, and what must hold for any bytes, in any state, whatever the driver does.

mod host;

use host::{Buffer, Host, OWN, VIP4, VIP6};
use proptest::{prelude::*, sample::Index};
use responder_common::{
    datapath, egress,
    fence::Standing,
    layout::Fence,
    outcome::{Action, Outcome},
};

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];

#[rustfmt::skip]
const ARP_REQUEST: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xc1, 0x08, 0x06,
    0, 1, 8, 0, 6, 4, 0, 1,
    2, 0, 0, 0, 0, 0xc1, 192, 0, 2, 193,
    0, 0, 0, 0, 0, 0, 192, 0, 2, 10,
];
#[rustfmt::skip]
const ARP_REPLY: [u8; 42] = [
    2, 0, 0, 0, 0, 0xc1, 2, 0, 0, 0, 0, 0x51, 0x08, 0x06,
    0, 1, 8, 0, 6, 4, 0, 2,
    2, 0, 0, 0, 0, 0x51, 192, 0, 2, 10,
    2, 0, 0, 0, 0, 0xc1, 192, 0, 2, 193,
];
#[rustfmt::skip]
const SOLICITATION: [u8; 86] = [
    0x33, 0x33, 0xff, 0xab, 0x10, 0x10, 2, 0, 0, 0, 0, 0xc1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xab, 0x10, 0x10,
    135, 0, 0xf9, 0x34, 0, 0, 0, 0,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
    1, 1, 2, 0, 0, 0, 0, 0xc1,
];
#[rustfmt::skip]
const ADVERTISEMENT: [u8; 86] = [
    2, 0, 0, 0, 0, 0xc1, 2, 0, 0, 0, 0, 0x51, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1,
    136, 0, 0x67, 0xf0, 0x60, 0, 0, 0,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
    2, 1, 2, 0, 0, 0, 0, 0x51,
];
#[rustfmt::skip]
const PROBE: [u8; 78] = [
    0x33, 0x33, 0xff, 0xab, 0x10, 0x10, 2, 0, 0, 0, 0, 0xc1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 24, 58, 255,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xab, 0x10, 0x10,
    135, 0, 0x2b, 0x79, 0, 0, 0, 0,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
];
#[rustfmt::skip]
const TO_ALL_NODES: [u8; 86] = [
    0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x51, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    136, 0, 0xd7, 0x66, 0x20, 0, 0, 0,
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10,
    2, 1, 2, 0, 0, 0, 0, 0x51,
];

#[test]
fn golden_answers() {
    for (question, outcome, answer) in [
        (&ARP_REQUEST[..], Outcome::ArpAnswered, &ARP_REPLY[..]),
        (&SOLICITATION, Outcome::NsAnswered, &ADVERTISEMENT),
        (&PROBE, Outcome::DadAnswered, &TO_ALL_NODES),
    ] {
        let mut frame = Buffer::new(question);
        let host = Host::owner();
        assert_eq!(datapath::handle(&mut frame, 1, &host), Some(outcome));
        assert_eq!(frame.bytes(), answer, "{outcome:?}");
        assert_eq!((host.answered.get(), host.suppressed.get()), (1, 0));
    }
}

#[test]
fn a_driver_that_cannot_resize_sends_nothing() {
    let mut padded = ARP_REQUEST.to_vec();
    padded.resize(64, 0);
    for question in [&padded[..], &PROBE] {
        let mut frame = Buffer::new(question);
        frame.rigid = true;
        let host = Host::owner();
        assert_eq!(datapath::handle(&mut frame, 1, &host), Some(Outcome::Failed));
        assert_eq!(host.answered.get(), 0);
    }
}

#[test]
fn another_interface_is_not_this_one() {
    let mut frame = Buffer::new(&ARP_REQUEST);
    assert_eq!(datapath::handle(&mut frame, 2, &Host::owner()), Some(Outcome::ArpNotOurs));
}

/// Bytes of one of the frames above, or others, some of them changed, cut or extended, perhaps tagged.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let golden = prop_oneof![
        Just(ARP_REQUEST.to_vec()),
        Just(ARP_REPLY.to_vec()),
        Just(SOLICITATION.to_vec()),
        Just(ADVERTISEMENT.to_vec()),
        Just(PROBE.to_vec()),
    ];
    let tags = prop::collection::vec((any::<bool>(), prop_oneof![Just(0u16), Just(7), any::<u16>()]), 0..3);
    let edits = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let tail = prop::collection::vec(any::<u8>(), 0..60);
    let edited = (golden, tags, edits, tail, any::<Index>(), any::<bool>()).prop_map(
        |(mut frame, tags, edits, tail, cut, whole)| {
            for (index, value) in edits {
                let at = index.index(frame.len());
                frame[at] = value;
            }
            for (service, tci) in tags {
                let tpid: u16 = if service { 0x88a8 } else { 0x8100 };
                let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
                frame.splice(12..12, tag);
            }
            frame.extend(tail);
            if !whole {
                frame.truncate(cut.index(frame.len()));
            }
            frame
        },
    );
    prop_oneof![9 => edited, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// Limits and clock that are often equal or next to each other.
fn times() -> impl Strategy<Value = (Fence, u64)> {
    let time = || prop_oneof![4u64..7, any::<u64>(), Just(u64::MAX)];
    (time(), time(), time()).prop_map(|(deadline_ns, suppress_until_ns, now)| {
        let fence = Fence { deadline_ns, suppress_until_ns, heartbeat_ns: 0 };
        (fence, now)
    })
}

/// RFC 1071 over an ICMPv6 message and its pseudo-header, for an even length.
fn checksum_is_right(ip: &[u8]) -> bool {
    let length = u16::from_be_bytes([ip[4], ip[5]]);
    let words = ip[8..40 + usize::from(length)].chunks_exact(2);
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = sum + u32::from(length) + 58;
    (sum & 0xffff) + (sum >> 16) == 0xffff || (sum & 0xffff) + (sum >> 16) == 0x1_fffe
}

/// What an answer must be, whatever the question was.
fn assert_answer(question: &[u8], answer: &[u8]) {
    assert_eq!(answer[6..12], OWN);
    assert!(answer[..6] == [0x33, 0x33, 0, 0, 0, 1] || answer[0] & 1 == 0, "to a group: {answer:02x?}");
    assert_ne!(answer[..6], OWN, "to ourselves");
    let tagged = answer[12..14] == [0x81, 0];
    let l3 = if tagged { 18 } else { 14 };
    assert_eq!(answer[12..l3 - 2], question[12..l3 - 2], "another tag");
    let body = &answer[l3..];
    match answer[l3 - 2..l3] {
        [0x08, 0x06] => {
            assert_eq!(body[..8], [0, 1, 8, 0, 6, 4, 0, 2]);
            assert_eq!(body[8..14], OWN);
            assert_eq!(body[14..18], VIP4);
            assert_eq!(body[18..24], answer[..6]);
            assert!(body.len() == 28 || body.len() == 46, "{} bytes", body.len());
            assert!(body[28..].iter().all(|b| *b == 0), "padding {body:02x?}");
            assert!(answer.len() <= question.len());
        }
        [0x86, 0xdd] => {
            assert_eq!(body[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
            assert_eq!((body.len(), &body[8..24], &body[40..42]), (72, &VIP6[..], &[136, 0][..]));
            assert_eq!((&body[48..64], &body[64..66], &body[66..]), (&VIP6[..], &[2, 1][..], &OWN[..]));
            assert!(body[44] == 0x20 || body[44] == 0x60, "flags {:#x}", body[44]);
            assert!(checksum_is_right(body), "{body:02x?}");
        }
        _ => panic!("neither ARP nor IPv6: {answer:02x?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_bytes_are_judged(
        bytes in frames(), slot in 0u32..3, (fence, now) in times(), rigid in prop::bool::weighted(0.1),
        linked in prop::bool::weighted(0.95),
    ) {
        let mut host = Host::new(slot, fence, now);
        if !linked {
            host.link = None;
        }
        let mut frame = Buffer::new(&bytes);
        frame.rigid = rigid;
        let outcome = datapath::handle(&mut frame, 1, &host);
        let standing = Standing::judge(slot, fence, now);
        let answered = outcome.is_some_and(|o| o.action() == Action::Answer);
        if answered {
            prop_assert_eq!(standing, Standing::Owned);
            assert_answer(&bytes, &frame.bytes());
        } else if outcome != Some(Outcome::Failed) {
            prop_assert_eq!(frame.bytes(), bytes, "{:?} must leave the frame as it is", outcome);
        }
        prop_assert_eq!(host.answered.get(), u32::from(answered));
        let suppressed = matches!(outcome, Some(Outcome::SuppressedStandby | Outcome::SuppressedExpired));
        prop_assert_eq!(host.suppressed.get(), u32::from(suppressed));
        let claims = host.claims.borrow();
        prop_assert!(claims.is_empty() || standing == Standing::Owned && claims.len() == 1);
        prop_assert!(claims.iter().all(|c| c.claimer.octets() != OWN));
    }

    #[test]
    fn sent_frames_change_in_one_place_only(
        bytes in frames(), slot in 0u32..3, (fence, now) in times(), vlan in prop_oneof![Just(0), Just(7)],
        ours in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if ours {
            // From us and in the VIP's name: what the program is for.
            for (at, field) in [(6, &OWN[..]), (22, &OWN), (28, &VIP4)] {
                if let Some(place) = bytes.get_mut(at..at + field.len()) {
                    place.copy_from_slice(field);
                }
            }
        }
        let host = Host::new(slot, fence, now);
        let mut frame = Buffer::new(&bytes);
        let outcome = egress::handle(&mut frame, 1, vlan, &host);
        let after = frame.bytes();
        prop_assert_eq!(after.len(), bytes.len());
        let changed: Vec<usize> = (0..bytes.len()).filter(|i| after[*i] != bytes[*i]).collect();
        if outcome == Some(egress::EgressOutcome::RequestCorrected) {
            prop_assert!(changed.iter().all(|i| (28..32 + 16).contains(i)), "{:?}", changed);
            prop_assert!(changed.len() <= 4, "{:?}", changed);
        } else {
            prop_assert!(changed.is_empty(), "{:?} {:?}", outcome, changed);
        }
        let free = matches!(Standing::judge(slot, fence, now), Standing::Owned | Standing::Abandoned);
        prop_assert!(outcome.is_none() || (outcome == Some(egress::EgressOutcome::Owned)) == free);
    }
}

/// Every prefix of a request, of which only the whole is one.
#[test]
fn frames_cut_short_are_not_answered() {
    for whole in [&ARP_REQUEST[..], &SOLICITATION, &PROBE] {
        for length in 0..whole.len() {
            let mut frame = Buffer::new(&whole[..length]);
            let outcome = datapath::handle(&mut frame, 1, &Host::owner());
            let expected = match (length, whole[12]) {
                (0..14, _) => None,
                (_, 0x08) => Some(Outcome::ArpTruncated),
                _ => Some(Outcome::NdTruncated),
            };
            assert_eq!(outcome, expected, "{length} bytes");
        }
    }
}

#[test]
fn claims_say_who_and_what() {
    let mut frame = Buffer::new(&ADVERTISEMENT);
    let host = Host::owner();
    // The advertisement above is our own; with another address in it, it is somebody's claim.
    assert_eq!(datapath::handle(&mut frame, 1, &host), Some(Outcome::NaNotOurs));
    let mut spoofed = ADVERTISEMENT;
    spoofed[80..86].copy_from_slice(&CLIENT);
    // 0x51 has become 0xc1: so much less for the checksum.
    spoofed[57] -= 0x70;
    let mut frame = Buffer::new(&spoofed);
    assert_eq!(datapath::handle(&mut frame, 1, &host), Some(Outcome::NaConflict));
    let claims = host.claims.borrow();
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].vip, claims[0].claimer.octets(), claims[0].vlan), (VIP6, CLIENT, 0));
}
