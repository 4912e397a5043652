//! The programs that run in the kernel.
//!
//! All decisions are in `responder-common`; here are the packet ([`packet`]), the maps ([`maps`]) and the
//! translation of outcomes into verdicts. The objects are in `bin/`: `responder`, which is what runs;
//! `responder-log`, the same with a line for each frame (its log map is of a kind that `bpftool prog load`
//! does not take, and so not in the first); `reference`, to compare with; and `bench`, which
//! measures.
#![no_std]
#![feature(asm_experimental_arch)] // one instruction in maps.rs; build-std needs unstable features anyhow
#![expect(unsafe_code, reason = "kernel pointers; all in packet.rs and maps.rs")]

pub mod maps;
mod packet;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    programs::{TcContext, XdpContext},
};
use responder_common::{
    datapath::{self, Tables},
    egress,
    outcome::{Action, Outcome},
};

use crate::{
    maps::Maps,
    packet::{SkbFrame, XdpFrame},
};

/// Handles a received frame: the XDP verdict, and the outcome if it was one to look at.
#[inline(always)]
#[must_use]
pub fn receive(ctx: &XdpContext) -> (u32, Option<Outcome>) {
    receive_by(ctx, &Maps)
}

/// The same by other tables.
#[inline(always)]
#[must_use]
pub fn receive_by(ctx: &XdpContext, tables: &impl Tables) -> (u32, Option<Outcome>) {
    let outcome = datapath::handle(&mut XdpFrame::new(ctx), ctx.ingress_ifindex() as u32, tables);
    let Some(outcome) = outcome else {
        return (xdp_action::XDP_PASS, None);
    };
    maps::count(outcome);
    let verdict = match outcome.action() {
        Action::Answer => xdp_action::XDP_TX,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    };
    (verdict, Some(outcome))
}

/// Corrects or stops what this host sends in the name of VIPs that it does not own: the tc verdict.
#[inline(always)]
#[must_use]
pub fn transmit(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx);
    let (ifindex, vlan) = (frame.ifindex(), frame.vlan());
    let Some(outcome) = egress::handle(&mut frame, ifindex, vlan, &Maps) else {
        return TC_ACT_UNSPEC;
    };
    maps::count_egress(outcome);
    match outcome.action() {
        // "Unspecified" lets other programs and filters have their say.
        Action::Pass | Action::Answer => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

/// What every object ends with: the panic handler and the licence.
#[macro_export]
macro_rules! object {
    () => {
        #[panic_handler]
        fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
            // Nothing panics: the verifier would find the endless loop and refuse the program.
            loop {}
        }

        // The helpers for the clock and the ring buffer are for GPL-compatible programs.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
