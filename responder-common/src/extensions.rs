//! IPv6 extension headers in front of Neighbor Discovery.

use crate::{
    ndp::NEXT_ICMPV6,
    wire::{Be16, Frame},
};

const NEXT_HOP_BY_HOP: u16 = 0;
const NEXT_ROUTING: u16 = 43;
const NEXT_DESTINATION: u16 = 60;

/// Extension headers that are walked to find a solicitation behind them: one of each kind, which is what a host
/// may send in front of a message (RFC 8200 section 4.1).
const MAX_EXTENSIONS: usize = 3;

/// Whether a header of this kind may stand in front of a message.
#[inline(always)]
pub(crate) fn is_walked(next: u16) -> bool {
    next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_DESTINATION
}

/// Finds ICMPv6 behind headers that Linux skips: Hop-by-Hop Options (first), Destination Options, a used-up Routing header.
#[inline(always)]
pub(crate) fn skip<F: Frame>(frame: &F, mut next: u16, mut offset: usize) -> Found {
    for _ in 0..MAX_EXTENSIONS {
        let Some(header) = frame.view::<[Be16; 2]>(offset) else {
            return Found::Other;
        };
        // An option that is unknown and not to be skipped makes the receiver drop the packet (RFC 8200
        // section 4.2), and the host must be able to report that. Segments left: the packet goes on.
        let stop = if next == NEXT_ROUTING { 0x00ff } else { 0xc000 };
        if header[1].get() & stop != 0 {
            return Found::Other;
        }
        next = header[0].get() >> 8;
        offset += 8 * (usize::from(header[0].get() & 0xff) + 1);
        if next == NEXT_ICMPV6 {
            return Found::At(offset);
        }
        if next != NEXT_DESTINATION && next != NEXT_ROUTING {
            return Found::Other;
        }
    }
    Found::TooDeep
}

/// What is behind extension headers: ICMPv6 at this offset, more headers than are walked, or something else.
pub(crate) enum Found {
    At(usize),
    TooDeep,
    Other,
}
