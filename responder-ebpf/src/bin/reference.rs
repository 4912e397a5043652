//! Programs to compare with and to test against: they do as little as possible.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet pointers and program sections")]
#![expect(missing_docs, unreachable_pub, reason = "of what the program macros generate")]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Passes everything. Also what the other end of a veth pair needs to receive what its peer sends by `XDP_TX`.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops everything: the cost of a generator alone.
#[xdp]
pub fn drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Swaps the Ethernet addresses and sends the frame back: the least that an answer can cost.
#[xdp]
pub fn swap(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    let addresses = start as *mut [[u16; 3]; 2];
    // SAFETY: the frame has these twelve bytes (checked above) and begins at an even address.
    unsafe { (*addresses).swap(0, 1) };
    xdp_action::XDP_TX
}

responder_ebpf::object!();
