//! Frames: the programs as functions on a host, against the model.
//!
//! The first byte says which host, the second what is done there; the rest is the frame.

use std::sync::LazyLock;

use responder_common::{
    datapath, egress,
    outcome::{Action, Outcome},
};
use responder_tests::{
    compare,
    frames::{self, Verdict},
    model::{IFINDEX, expect, expect_sent},
};

use crate::{
    buffer::Buffer,
    tables::{Look, Maps},
};

/// The driver resizes nothing.
const RIGID: u8 = 1;
/// The frame is sent, not received.
const SENT: u8 = 2;

/// The list's host in all its states, and others.
static HOSTS: LazyLock<Vec<Maps>> =
    LazyLock::new(|| (0..=u64::from(u8::MAX)).map(|seed| Maps::new(compare::host(seed))).collect());

/// The acceptance list, received and sent.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let cases = frames::all().into_iter().map(|case| case.frame);
    let of = |frame: Vec<u8>| [0, SENT].map(|what| [&[0, what], &frame[..]].concat());
    cases.flat_map(of).collect()
}

/// See above.
///
/// # Panics
///
/// If the programs and the model disagree.
pub fn run(bytes: &[u8]) {
    let [host, what, frame @ ..] = bytes else {
        return;
    };
    let maps = &HOSTS[usize::from(*host)];
    if what & SENT != 0 { send(maps, frame) } else { receive(maps, frame, what & RIGID != 0) }
}

fn receive(maps: &Maps, bytes: &[u8], rigid: bool) {
    let expected = expect(&maps.host, bytes);
    let look = Look::at(maps);
    let mut frame = Buffer::new(bytes);
    frame.rigid = rigid;
    let outcome = datapath::handle(&mut frame, IFINDEX, &look);
    if rigid && outcome == Some(Outcome::Failed) {
        // The answer would have had another length, or there is no link.
        let resized = matches!(&expected.verdict, Verdict::Answer(answer) if answer.len() != bytes.len());
        assert!(resized || expected.outcome == Some("failed"), "{outcome:?}, not {expected:02x?}");
        assert_eq!(*look.counted.borrow(), [], "what is not sent is not counted");
        return;
    }
    let verdict = match outcome.map(Outcome::action) {
        None | Some(Action::Pass) => Verdict::Pass,
        Some(Action::Drop) => Verdict::Drop,
        Some(Action::Answer) => Verdict::Answer(frame.bytes()),
    };
    if !matches!(verdict, Verdict::Answer(_)) {
        assert_eq!(frame.bytes(), bytes, "changed without being answered");
    }
    assert_eq!(outcome.map(Outcome::name), expected.outcome);
    assert_eq!(verdict, expected.verdict);
    assert_eq!(*look.claims.borrow(), Vec::from_iter(expected.claim));
    assert_eq!(*look.counted.borrow(), Vec::from_iter(expected.counted));
}

fn send(maps: &Maps, bytes: &[u8]) {
    let expected = expect_sent(&maps.host, bytes);
    let look = Look::at(maps);
    let mut frame = Buffer::new(bytes);
    let outcome = egress::handle(&mut frame, IFINDEX, 0, &look);
    assert_eq!(outcome.map(|o| o.name()), expected.outcome);
    assert_eq!(outcome.is_none_or(|o| o.action() == Action::Pass), expected.leaves);
    assert_eq!(frame.bytes(), expected.frame);
    assert!(look.claims.borrow().is_empty() && look.counted.borrow().is_empty());
}
