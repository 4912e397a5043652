//! The same as `responder`, with a line in the log for each frame that it looks at.
#![no_std]
#![no_main]
#![expect(missing_docs, unreachable_pub, reason = "of what the program macros generate")]

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::debug;
use responder_ebpf::{receive, transmit};

/// Answers, drops or passes a received frame.
#[xdp]
pub fn responder_xdp(ctx: XdpContext) -> u32 {
    logged(&ctx)
}

/// The same for links that receive jumbo frames in several buffers; kernel 5.18 and later.
#[xdp(frags)]
pub fn responder_frags(ctx: XdpContext) -> u32 {
    logged(&ctx)
}

#[inline(always)]
fn logged(ctx: &XdpContext) -> u32 {
    let (verdict, outcome) = receive(ctx);
    if let Some(outcome) = outcome {
        // The agent turns the numbers into names.
        debug!(ctx, "ifindex {} outcome {}", ctx.ingress_ifindex(), outcome as u32);
    }
    verdict
}

/// Sees what the host sends.
#[classifier]
pub fn responder_tx(ctx: TcContext) -> i32 {
    transmit(&ctx)
}

responder_ebpf::object!();
