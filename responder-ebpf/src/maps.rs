//! The maps: all statics, and [`Tables`] over them.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::btf_map,
};
use responder_common::{
    datapath::{Claim, Known, Tables},
    egress::{EgressOutcome, EgressOutcomes},
    layout::{
        DEFAULT_VIPS, EVENTS_BYTES, Event, EventLimit, Fence, Fenced, Link, LinkKey, MAX_LINKS, MAX_SLOTS,
        Slot, Vip4, Vip6, VipKey4, VipKey6, VipStats,
    },
    outcome::{Outcome, Outcomes},
};

// Memory is taken as VIPs come: most clusters have far fewer than fit.
const GROWING: usize = BPF_F_NO_PREALLOC as usize;
const SHARED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static VIPS4: HashMap<VipKey4, Vip4, { DEFAULT_VIPS as usize }, GROWING> = HashMap::new();
#[btf_map]
static VIPS6: HashMap<VipKey6, Vip6, { DEFAULT_VIPS as usize }, GROWING> = HashMap::new();
#[btf_map]
static SLOTS: Array<Slot, { MAX_SLOTS as usize }, SHARED> = Array::new();
#[btf_map]
static FENCE: Array<Fenced, 1, SHARED> = Array::new();
#[btf_map]
static LINKS: HashMap<LinkKey, Link, { MAX_LINKS as usize }, GROWING> = HashMap::new();
#[btf_map]
static OUTCOMES: PerCpuArray<Outcomes, 1> = PerCpuArray::new();
#[btf_map]
static EGRESS: PerCpuArray<EgressOutcomes, 1> = PerCpuArray::new();
#[btf_map]
// No value type: libbpf wants none for a ring buffer.
static EVENTS: RingBuf<(), { EVENTS_BYTES as usize }> = RingBuf::new();
#[btf_map]
static EVENT_LIMIT: PerCpuArray<EventLimit, 1> = PerCpuArray::new();

/// Counts what became of a received frame on this CPU.
#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(counters) = OUTCOMES.get_ptr_mut(0) {
        // SAFETY: the struct is made of one `u64` for each outcome, in order; no other program runs on this
        // CPU's copy meanwhile.
        unsafe { *counters.cast::<u64>().add(outcome as usize) += 1 };
    }
}

/// Counts what became of a frame to be sent on this CPU.
#[inline(always)]
pub(crate) fn count_egress(outcome: EgressOutcome) {
    if let Some(counters) = EGRESS.get_ptr_mut(0) {
        // SAFETY: as for `count`.
        unsafe { *counters.cast::<u64>().add(outcome as usize) += 1 };
    }
}

/// The maps of this object.
pub struct Maps;

/// Adds one to a counter that other CPUs may be adding to.
#[inline(always)]
fn increment(counter: *mut u64) {
    // `AtomicU64::fetch_add` does not exist for this target (it asks for compare-and-swap, which BPF has only
    // since 5.12); the instruction itself is as old as BPF.
    // SAFETY: `counter` points into a map value, which is aligned to 8 bytes and stays mapped while the program
    // runs; all writers in the kernel use atomics.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {one}",
            counter = in(reg) counter,
            one = in(reg) 1u64,
            options(nostack, preserves_flags),
        );
    }
}

macro_rules! find {
    ($map:ident, $key:expr, $raw:ty, $key_of:expr) => {{
        let entry = $map.get_ptr_mut($key)?;
        // SAFETY: the pointer comes from the map and stays valid while the program runs.
        let (slot, stats) = unsafe { ((&raw const (*entry).slot).read_volatile(), &raw mut (*entry).stats) };
        // The kernel may give the memory of an entry that is being deleted to a new one at once. The slot was
        // read first, so it belongs to this key if the key is still this one.
        // SAFETY: as above; `$raw` is the key in other words, and as aligned.
        let raw = unsafe { (&raw const (*entry).key).cast::<$raw>().read_volatile() };
        ($key_of(raw) == *$key).then_some(Known { slot, stats })
    }};
}

impl Tables for Maps {
    type Stats = *mut VipStats;

    #[inline(always)]
    fn vip4(&self, key: &VipKey4) -> Option<Known<Self::Stats>> {
        // The address as one number: a quarter of the loads.
        let key_of = |[addr, ifindex, vlan]: [u32; 3]| VipKey4 { addr: addr.to_ne_bytes(), ifindex, vlan };
        find!(VIPS4, key, [u32; 3], key_of)
    }

    #[inline(always)]
    fn vip6(&self, key: &VipKey6) -> Option<Known<Self::Stats>> {
        find!(VIPS6, key, VipKey6, |key| key)
    }

    #[inline(always)]
    fn link(&self, key: &LinkKey) -> Option<&Link> {
        // SAFETY: the agent replaces entries and never writes into them.
        unsafe { LINKS.get(key) }
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> u32 {
        match SLOTS.get_ptr(slot) {
            // Read as a number: the agent writes it at any time.
            // SAFETY: points to an aligned value in the map.
            Some(slot) => unsafe { (&raw const (*slot).state).cast::<u32>().read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn fence(&self) -> Fence {
        let Some(fence) = FENCE.get_ptr(0) else {
            return Fence::default();
        };
        // Field by field: each is one aligned word that the agent stores atomically.
        // SAFETY: points to an aligned value in the map.
        unsafe {
            Fence {
                deadline_ns: (&raw const (*fence).fence.deadline_ns).read_volatile(),
                suppress_until_ns: (&raw const (*fence).fence.suppress_until_ns).read_volatile(),
                heartbeat_ns: 0,
            }
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn count_answered(&self, vip: Known<Self::Stats>) {
        // SAFETY: `stats` points into the map value found by `find!`.
        increment(unsafe { &raw mut (*vip.stats).answered });
    }

    #[inline(always)]
    fn count_suppressed(&self, vip: Known<Self::Stats>) {
        // SAFETY: as above.
        increment(unsafe { &raw mut (*vip.stats).suppressed });
    }

    #[inline(always)]
    fn claim(&self, vip: Known<Self::Stats>, claim: &Claim, now_ns: u64) {
        // SAFETY: `stats` points into the map value found by `find!`.
        let (conflicts, event_ns) =
            unsafe { (&raw mut (*vip.stats).conflicts, &raw mut (*vip.stats).event_ns) };
        increment(conflicts);
        let Some(limit) = EVENT_LIMIT.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: this CPU's own copy, and no other program uses it meanwhile.
        let limit = unsafe { &mut *limit };
        // SAFETY: aligned words in the map value. Two CPUs may both send: one event too many, bounded by the
        // limit of each CPU.
        if !limit.admit(unsafe { event_ns.read_volatile() }, now_ns) {
            return;
        }
        // SAFETY: as above.
        unsafe { event_ns.write_volatile(now_ns) };
        let Some(mut event) = EVENTS.reserve_untyped::<Event>(0) else {
            limit.lost += 1;
            return;
        };
        // SAFETY: aligned word in the map value.
        let conflicts = unsafe { ptr::read_volatile(conflicts) } as u32;
        event.write(Event {
            boot_ns: now_ns,
            kind: claim.kind as u32,
            ifindex: claim.ifindex,
            vlan: claim.vlan,
            conflicts,
            vip: claim.vip,
            claimer: claim.claimer.octets(),
            reserved: 0,
        });
        event.submit(0);
    }
}
