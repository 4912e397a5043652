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
use responder_common::{
    datapath::{Claim, Known, Tables},
    eth::ETHERTYPE_ARP,
    layout::{Fence, Link, LinkKey, VipKey4, VipKey6},
    outcome::Outcome,
    wire::Ip4,
};
use responder_ebpf::{
    maps::{self, Maps},
    receive, receive_by,
};

/// Bytes of an ARP request, padded.
const ARP: usize = 60;
/// Bytes of a solicitation with one option.
const NS: usize = 86;
/// A frame of up to 88 bytes.
type Question = [u64; 11];

/// How many questions there are: a power of two.
const QUESTIONS: u32 = 65_536;

/// What is put back.
#[btf_map]
static QUESTION: Array<Question, { QUESTIONS as usize }> = Array::new();
/// How many questions have been put back on each CPU.
#[btf_map]
static TURN: PerCpuArray<u32, 1> = PerCpuArray::new();
/// Frames that `count` has seen on each CPU.
#[btf_map]
static COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Writes the first `N` bytes of the question over the frame, if it is long enough and the verdict is to send it.
/// `TURNS`: of the next question, not always of the first.
#[inline(always)]
fn put_back<const N: usize, const TURNS: bool>(ctx: &XdpContext, verdict: u32) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let mut place = 0;
    if TURNS && let Some(turn) = TURN.get_ptr_mut(0) {
        // SAFETY: this CPU's own number.
        unsafe {
            place = *turn;
            *turn = (place + 1) % QUESTIONS;
        }
    }
    let Some(question) = QUESTION.get_ptr(place) else {
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
    put_back::<ARP, false>(&ctx, verdict)
}

/// Answers a solicitation of 86 bytes, and makes the solicitation of it again.
#[xdp]
pub fn bench_ns(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive(&ctx);
    put_back::<NS, false>(&ctx, verdict)
}

/// To compare `bench_arp` with.
#[xdp]
pub fn swap_arp(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<ARP, false>(&ctx, verdict)
}

/// To compare `bench_ns` with.
#[xdp]
pub fn swap_ns(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<NS, false>(&ctx, verdict)
}

/// As `bench_arp`, for one address after the other.
#[xdp]
pub fn turns_bench_arp(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive(&ctx);
    put_back::<ARP, true>(&ctx, verdict)
}

/// As `bench_ns`, for one address after the other.
#[xdp]
pub fn turns_bench_ns(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive(&ctx);
    put_back::<NS, true>(&ctx, verdict)
}

/// The maps, and a clock that is not read: what is left is what an answer costs beside it.
struct Unclocked;

impl Tables for Unclocked {
    type Stats = <Maps as Tables>::Stats;

    #[inline(always)]
    fn vip4(&self, key: &VipKey4) -> Option<Known<Self::Stats>> {
        Maps.vip4(key)
    }

    #[inline(always)]
    fn vip6(&self, key: &VipKey6) -> Option<Known<Self::Stats>> {
        Maps.vip6(key)
    }

    #[inline(always)]
    fn link(&self, key: &LinkKey) -> Option<&Link> {
        const MAPS: &Maps = &Maps;
        MAPS.link(key)
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> u32 {
        Maps.slot(slot)
    }

    #[inline(always)]
    fn fence(&self) -> Fence {
        Maps.fence()
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        1
    }

    #[inline(always)]
    fn count_answered(&self, vip: Known<Self::Stats>) {
        Maps.count_answered(vip);
    }

    #[inline(always)]
    fn count_suppressed(&self, vip: Known<Self::Stats>) {
        Maps.count_suppressed(vip);
    }

    #[inline(always)]
    fn claim(&self, vip: Known<Self::Stats>, claim: &Claim, now_ns: u64) {
        Maps.claim(vip, claim, now_ns);
    }
}

/// As `bench_arp`, without reading the clock.
#[xdp]
pub fn unclocked_arp(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive_by(&ctx, &Unclocked);
    put_back::<ARP, false>(&ctx, verdict)
}

/// As `bench_ns`, without reading the clock.
#[xdp]
pub fn unclocked_ns(ctx: XdpContext) -> u32 {
    let (verdict, _) = receive_by(&ctx, &Unclocked);
    put_back::<NS, false>(&ctx, verdict)
}

/// To compare `turns_bench_arp` with.
#[xdp]
pub fn turns_swap_arp(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<ARP, true>(&ctx, verdict)
}

/// To compare `turns_bench_ns` with.
#[xdp]
pub fn turns_swap_ns(ctx: XdpContext) -> u32 {
    let verdict = exchange(&ctx);
    put_back::<NS, true>(&ctx, verdict)
}

/// Sends the ARP request. It must be written each time: the kernel reuses the pages of live frames with what the
/// other end has made of them.
#[xdp]
pub fn send_arp(ctx: XdpContext) -> u32 {
    put_back::<ARP, false>(&ctx, xdp_action::XDP_TX)
}

/// Sends the solicitation.
#[xdp]
pub fn send_ns(ctx: XdpContext) -> u32 {
    put_back::<NS, false>(&ctx, xdp_action::XDP_TX)
}

/// As `send_arp`, but hands the request to the host, as if the link had received it.
#[xdp]
pub fn hand_arp(ctx: XdpContext) -> u32 {
    handed(put_back::<ARP, false>(&ctx, xdp_action::XDP_TX))
}

/// As `send_ns`, but hands the solicitation to the host, as if the link had received it.
#[xdp]
pub fn hand_ns(ctx: XdpContext) -> u32 {
    handed(put_back::<NS, false>(&ctx, xdp_action::XDP_TX))
}

#[inline(always)]
fn handed(verdict: u32) -> u32 {
    if verdict == xdp_action::XDP_TX { xdp_action::XDP_PASS } else { verdict }
}

/// Drops ARP and passes all else.
#[xdp]
pub fn no_arp(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the EtherType is among these 14 bytes (checked above), at an even place.
    let ethertype = u16::from_be(unsafe { *((start + 12) as *const u16) });
    if ethertype == ETHERTYPE_ARP { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// One of the things that an answer needs, done alone: what it costs is told by comparing with `step_key`.
///
/// The result is used, so that the compiler leaves nothing out.
macro_rules! step {
    ($(#[$doc:meta])* $name:ident, |$key:ident| $step:expr) => {
        $(#[$doc])*
        #[xdp]
        pub fn $name(ctx: XdpContext) -> u32 {
            let (start, end) = (ctx.data(), ctx.data_end());
            if start + 42 > end {
                return xdp_action::XDP_ABORTED;
            }
            // SAFETY: the target address, as far behind as an ARP request has it (checked above), at an even place.
            let target = unsafe { *((start + 38) as *const Ip4) };
            let $key = VipKey4::new(target, ctx.ingress_ifindex() as u32, 0);
            if $step { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
        }
    };
}

step!(/** Nothing but the key. */ step_key, |key| key.ifindex != 0);
step!(/** An address is looked up. */ step_vip, |key| Maps.vip4(&key).is_some());
step!(/** A link is looked up. */ step_link, |key| {
    Maps.link(&LinkKey { ifindex: key.ifindex, vlan: key.vlan }).is_some_and(|link| link.flags != 0xff)
});
step!(/** The clock is read. */ step_clock, |key| Maps.now_ns() > u64::from(key.ifindex));
step!(/** A slot and the fence are read. */ step_fence, |key| {
    Maps.slot(key.ifindex) != 7 && Maps.fence().deadline_ns != 7
});
step!(/** A frame is counted. */ step_count, |key| {
    maps::count(Outcome::ArpAnswered);
    key.ifindex != 0
});
step!(/** An address is looked up, and its answer counted. */ step_vip_count, |key| {
    Maps.vip4(&key).is_some_and(|vip| {
        Maps.count_answered(vip);
        true
    })
});

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
