//! What runs on the links.
#![no_std]
#![no_main]
#![expect(missing_docs, unreachable_pub, reason = "of what the program macros generate")]

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use responder_ebpf::{receive, transmit};

/// Answers, drops or passes a received frame.
#[xdp]
pub fn responder_xdp(ctx: XdpContext) -> u32 {
    receive(&ctx).0
}

/// The same for links that receive jumbo frames in several buffers; kernel 5.18 and later.
#[xdp(frags)]
pub fn responder_frags(ctx: XdpContext) -> u32 {
    receive(&ctx).0
}

/// Sees what the host sends.
#[classifier]
pub fn responder_tx(ctx: TcContext) -> i32 {
    transmit(&ctx)
}

responder_ebpf::object!();
