//! Access to packet bytes: the only place with packet pointers.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::{TcContext, XdpContext},
};
use responder_common::wire::{Frame, Wire};

/// A received frame in the driver.
pub(crate) struct XdpFrame {
    ctx: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel calls the program with a valid context; its packet pointers are read anew on every
        // access, as resizing moves them.
        unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) }
    }
}

/// A frame on its way out, as far as it is linear (ARP and Neighbor Discovery from the host always are).
pub(crate) struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    /// Index of the interface that sends it.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel calls the program with a valid context.
        unsafe { (*self.skb).ifindex }
    }

    /// The VLAN id that the stack keeps beside the frame, 0 for none.
    #[inline(always)]
    pub(crate) fn vlan(&self) -> u32 {
        // SAFETY: the kernel calls the program with a valid context.
        unsafe { if (*self.skb).vlan_present == 0 { 0 } else { (*self.skb).vlan_tci & 0x0fff } }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel calls the program with a valid context.
        unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) }
    }
}

/// The `T` at `offset`, if the packet has that many bytes.
#[inline(always)]
fn at<T: Wire>((start, end): (usize, usize), offset: usize) -> Option<*mut T> {
    let at = start + offset;
    if at + size_of::<T>() > end {
        return None;
    }
    Some(at as *mut T)
}

/// Keeps the compiler from computing with parts of `number`: the verifier allows no arithmetic with the pointer
/// to the packet's end but the subtraction itself.
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // A real instruction: an empty one would give its line two places, which the kernel refuses in line info.
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nomem, nostack)) };
    number
}

macro_rules! view {
    () => {
        #[inline(always)]
        fn len(&self) -> usize {
            let (start, end) = self.bounds();
            opaque(end - start)
        }

        #[inline(always)]
        fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
            // SAFETY: `at` has checked the end of the packet (as the verifier demands), every bit pattern is a
            // `Wire`, frames and offsets are even, and the bytes change only through `&mut self`.
            at(self.bounds(), offset).map(|p| unsafe { &*p })
        }

        #[inline(always)]
        fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
            // SAFETY: as for `view`; the exclusive borrow makes it the only reference.
            at(self.bounds(), offset).map(|p| unsafe { &mut *p })
        }
    };
}

impl Frame for XdpFrame {
    view!();

    #[inline(always)]
    fn shrink(&mut self, len: usize) -> Option<()> {
        let delta = len as i32 - self.len() as i32;
        // SAFETY: a helper call on the program's own context; no reference into the packet outlives it, as they
        // all borrow `self`.
        let failed = unsafe { bpf_xdp_adjust_tail(self.ctx, delta) };
        (failed == 0).then_some(())
    }

    #[inline(always)]
    fn grow_front_8(&mut self) -> Option<()> {
        // SAFETY: as for `shrink`.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, -8) };
        (failed == 0).then_some(())
    }
}

impl Frame for SkbFrame {
    view!();

    #[inline(always)]
    fn shrink(&mut self, _len: usize) -> Option<()> {
        None // the egress program resizes nothing
    }

    #[inline(always)]
    fn grow_front_8(&mut self) -> Option<()> {
        None
    }
}
