//! Array maps that the agent has in its own memory: a write is one store, without a system call.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use responder_common::layout::{Fence, Fenced, Owner, Slot, SlotState};

/// A mapped array of `len` values of `T`.
#[derive(Debug)]
struct Shared<T> {
    base: NonNull<T>,
    len: usize,
}

// SAFETY: the memory is not tied to a thread, and is only accessed by atomics.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn map(map: impl AsFd, len: u32) -> io::Result<Self> {
        let len = len as usize;
        let bytes = NonZeroUsize::new(len * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses more bytes than the map
        // has, and keeps the map alive while it is mapped.
        let base = unsafe { mmap(None, bytes, prot, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), len })
    }

    fn get(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: within the mapping (checked first). Values of both types are multiples of 8 bytes, which is
        // how the kernel spaces them.
        (index < self.len).then(|| unsafe { self.base.add(index) })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length, and nothing refers to it any more.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.len * size_of::<T>()) } {
            tracing::debug!(%errno, "munmap");
        }
    }
}

/// The fence in the kernel.
#[derive(Debug)]
pub struct SharedFence(Shared<Fenced>);

impl SharedFence {
    /// Maps the `FENCE` map.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn map(map: impl AsFd) -> io::Result<Self> {
        Shared::map(map, 1).map(Self)
    }

    fn words(&self) -> [&AtomicU64; 6] {
        let base = self.0.base.cast::<u64>().as_ptr();
        // SAFETY: `Fenced` is six aligned words, the fence's first, in this order; the agent writes them only here,
        // and the kernel only reads.
        std::array::from_fn(|index| unsafe { AtomicU64::from_ptr(base.add(index)) })
    }

    /// Writes the fence. Between the stores a reader may see old and new mixed: suppression is extended first,
    /// so that no instant has neither.
    pub fn store(&self, fence: Fence) {
        let [deadline, suppress, heartbeat, ..] = self.words();
        suppress.store(fence.suppress_until_ns, Ordering::SeqCst);
        deadline.store(fence.deadline_ns, Ordering::SeqCst);
        heartbeat.store(fence.heartbeat_ns, Ordering::SeqCst);
    }

    /// Reads the fence.
    #[must_use]
    pub fn load(&self) -> Fence {
        let [deadline_ns, suppress_until_ns, heartbeat_ns, ..] =
            self.words().map(|w| w.load(Ordering::SeqCst));
        Fence { deadline_ns, suppress_until_ns, heartbeat_ns }
    }

    /// Writes whose the maps are. Only while nothing is answered: a reader may see old and new mixed.
    pub fn set_owner(&self, owner: Owner) {
        let [.., datapath, incarnation, claims] = self.words();
        datapath.store(owner.datapath, Ordering::SeqCst);
        claims.store(owner.claims, Ordering::SeqCst);
        incarnation.store(owner.incarnation, Ordering::SeqCst);
    }

    /// Reads whose the maps are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let [.., datapath, incarnation, claims] = self.words().map(|w| w.load(Ordering::SeqCst));
        Owner { datapath, incarnation, claims }
    }
}

/// The slots in the kernel.
#[derive(Debug)]
pub struct SharedSlots(Shared<Slot>);

impl SharedSlots {
    /// Maps the `SLOTS` map of `len` entries.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn map(map: impl AsFd, len: u32) -> io::Result<Self> {
        Shared::map(map, len).map(Self)
    }

    /// The two words of a slot: state and time of the last change.
    fn words(&self, slot: u32) -> Option<(&AtomicU32, &AtomicU64)> {
        let entry = self.0.get(slot as usize)?.as_ptr();
        // SAFETY: aligned words inside the mapping; the agent writes them only here, and the kernel only reads.
        unsafe {
            Some((
                AtomicU32::from_ptr((&raw mut (*entry).state).cast()),
                AtomicU64::from_ptr(&raw mut (*entry).since_ns),
            ))
        }
    }

    /// Gives or takes ownership of all VIPs of a slot: one store. False if there is no such slot.
    pub fn set(&self, slot: u32, state: SlotState, now_ns: u64) -> bool {
        let Some((word, since)) = self.words(slot) else {
            return false;
        };
        if word.swap(state as u32, Ordering::SeqCst) != state as u32 {
            since.store(now_ns, Ordering::SeqCst);
        }
        true
    }

    /// Whether a slot is owned here, and since when (CLOCK_BOOTTIME).
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<(bool, Duration)> {
        let (word, since) = self.words(slot)?;
        let owned = word.load(Ordering::SeqCst) == SlotState::Owned as u32;
        Some((owned, Duration::from_nanos(since.load(Ordering::SeqCst))))
    }
}
