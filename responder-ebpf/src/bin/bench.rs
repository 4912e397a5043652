//! What `cargo xtask bench` runs: programs that put the question back after having answered it, so that
//! `BPF_PROG_TEST_RUN` can repeat them, and programs for both ends of a flood.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet pointers and program sections")]
#![expect(missing_docs, unreachable_pub, reason = "of what the program macros generate")]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use responder_ebpf::receive;

/// Bytes of an ARP request, padded.
const ARP: usize = 60;
/// Bytes of a solicitation with one option.
const NS: usize = 86;
/// A frame of up to 88 bytes.
type Question = [u64; 11];

/// What is put back.
#[btf_map]
static QUESTION: Array<Question, 1> = Array::new();
/// Frames that `count` has seen on each CPU.
#[btf_map]
static COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Writes the first `N` bytes of the question over the frame, if it is long enough and the verdict is to send it.
#[inline(always)]
fn put_back<const N: usize>(ctx: &XdpContext, verdict: u32) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(question) = QUESTION.get_ptr(0) else {
        return xdp_action::XDP_ABORTED;
    };
    if verdict != xdp_action::XDP_TX || start + N > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the frame has `N` bytes (checked above), the question 88, and `N` is 60 or 86: whole words and then
    // what is left in halves of them. Frames begin at a multiple of eight bytes under `BPF_PROG_TEST_RUN`.
    unsafe {
        let (from, to) = (question.cast::<u64>(), start as *mut u64);
        let mut at = 0;
        while at < N / 8 {
            to.add(at).write(from.add(at).read());
            at += 1;
        }
        let (from, to) = (question.cast::<u16>(), start as *mut u16);
        let mut at = N / 8 * 4;
        while at < N / 2 {
            to.add(at).write(from.add(at).read());
            at += 1;
        }
    }
    verdict
}

/// The least that an answer can cost: exchanges the Ethernet addresses.
#[inline(always)]
fn exchange(ctx: &XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    let addresses = start as *mut [[u16; 3]; 2];
    // SAFETY: the frame has these twelve bytes (checked above) and begins at an even address.
    unsafe { (*addresses).swap(0, 1) };
    xdp_action::XDP_TX
}

/// Answers an ARP request of 60 bytes, and makes the request of it again.
#[xdp]
pub fn bench_arp(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive(&ctx);
    put_back::<ARP>(&ctx, verdict)
}

/// Answers a solicitation of 86 bytes, and makes the solicitation of it again.
#[xdp]
pub fn bench_ns(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive(&ctx);
    put_back::<NS>(&ctx, verdict)
}

/// To compare `bench_arp` with.
#[xdp]
pub fn swap_arp(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<ARP>(&ctx, verdict)
}

/// To compare `bench_ns` with.
#[xdp]
pub fn swap_ns(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<NS>(&ctx, verdict)
}

/// Sends the ARP request. It must be written each time: the kernel reuses the pages of live frames with what the
/// other end has made of them.
#[xdp]
pub fn send_arp(ctx: XdpContext) -> u32 {
    put_back::<ARP>(&ctx, xdp_action::XDP_TX)
}

/// Sends the solicitation.
#[xdp]
pub fn send_ns(ctx: XdpContext) -> u32 {
    put_back::<NS>(&ctx, xdp_action::XDP_TX)
}

/// Counts and drops what arrives.
#[xdp]
pub fn count(_ctx: XdpContext) -> u32 {
    if let Some(count) = COUNT.get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

responder_ebpf::object!();
