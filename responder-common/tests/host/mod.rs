//! Frames and maps on a host.

use std::cell::{Cell, RefCell};

use responder_common::{
    datapath::{Claim, Known, Tables},
    layout::{Fence, Link, LinkKey, Prefix4, VipKey4, VipKey6},
    wire::{Frame, Wire},
};

/// Our hardware address.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0x51];
/// The IPv4 VIP, known on interface 1, untagged and in VLAN 7.
pub(crate) const VIP4: [u8; 4] = [192, 0, 2, 10];
/// The IPv6 VIP, in the same places.
pub(crate) const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10];

/// A frame in memory that is aligned as drivers align theirs.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    words: Vec<u16>,
    start: usize,
    end: usize,
    /// The driver resizes nothing.
    pub(crate) rigid: bool,
}

impl Buffer {
    const HEADROOM: usize = 16;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; Self::HEADROOM / 2];
        words.extend(bytes.chunks(2).map(|c| u16::from_ne_bytes([c[0], c.get(1).copied().unwrap_or(0)])));
        Self { words, start: Self::HEADROOM, end: Self::HEADROOM + bytes.len(), rigid: false }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let all: Vec<u8> = self.words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        all[self.start..self.end].to_vec()
    }

    /// The index of the first word of a `T`, if the frame has all of it.
    fn place<T>(&self, offset: usize) -> Option<usize> {
        let at = self.start + offset;
        assert_eq!(at % 2, 0, "an odd offset");
        (at + size_of::<T>() <= self.end).then_some(at / 2)
    }
}

impl Frame for Buffer {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        let word = self.words.get(self.place::<T>(offset)?..)?.as_ptr();
        #[expect(unsafe_code, reason = "a view of the frame, as in the kernel")]
        // SAFETY: `place` has checked that the vector holds all bytes of it; every bit pattern is a `Wire`, whose
        // alignment is that of the words at most.
        unsafe {
            Some(&*word.cast())
        }
    }

    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let place = self.place::<T>(offset)?;
        let word = self.words.get_mut(place..)?.as_mut_ptr();
        #[expect(unsafe_code, reason = "a view of the frame, as in the kernel")]
        // SAFETY: as for `view`; the exclusive borrow of `self` goes on in the result.
        unsafe {
            Some(&mut *word.cast())
        }
    }

    fn shrink(&mut self, len: usize) -> Option<()> {
        assert!(len < self.len(), "not smaller");
        self.end = self.start + len;
        (!self.rigid).then_some(())
    }

    fn grow_front_8(&mut self) -> Option<()> {
        if self.rigid {
            return None;
        }
        self.start -= 8;
        // What is there is left over from whatever was there before.
        self.words[self.start / 2..][..4].fill(0x5a5a);
        Some(())
    }
}

/// A host that knows the two VIPs.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) slot: u32,
    pub(crate) fence: Fence,
    pub(crate) now_ns: u64,
    pub(crate) link: Option<Link>,
    pub(crate) answered: Cell<u32>,
    pub(crate) suppressed: Cell<u32>,
    pub(crate) claims: RefCell<Vec<Claim>>,
}

impl Host {
    pub(crate) fn new(slot: u32, fence: Fence, now_ns: u64) -> Self {
        let own = Prefix4 { addr: [192, 0, 2, 51], mask: [255, 255, 255, 0] };
        Self {
            slot,
            fence,
            now_ns,
            link: Some(Link {
                mac: OWN,
                flags: 0,
                interface: 1,
                prefixes: [own, Prefix4::default(), Prefix4::default(), Prefix4::default()],
            }),
            answered: Cell::new(0),
            suppressed: Cell::new(0),
            claims: RefCell::new(vec![]),
        }
    }

    /// Owned, both limits far ahead.
    pub(crate) fn owner() -> Self {
        let fence = Fence { deadline_ns: u64::MAX, suppress_until_ns: u64::MAX, heartbeat_ns: 0 };
        Self::new(1, fence, 5)
    }

    fn known(ours: bool, ifindex: u32, vlan: u32) -> Option<Known<()>> {
        (ours && ifindex == 1 && (vlan == 0 || vlan == 7)).then_some(Known { slot: 3, stats: () })
    }
}

impl Tables for Host {
    type Stats = ();

    fn vip4(&self, key: &VipKey4) -> Option<Known<()>> {
        Self::known(key.addr == VIP4, key.ifindex, key.vlan)
    }

    fn vip6(&self, key: &VipKey6) -> Option<Known<()>> {
        Self::known(key.addr.to_be_bytes() == VIP6, key.ifindex, key.vlan)
    }

    fn link(&self, _: &LinkKey) -> Option<&Link> {
        self.link.as_ref()
    }

    fn slot(&self, slot: u32) -> u32 {
        assert_eq!(slot, 3);
        self.slot
    }

    fn fence(&self) -> Fence {
        self.fence
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn count_answered(&self, _: Known<()>) {
        self.answered.set(self.answered.get() + 1);
    }

    fn count_suppressed(&self, _: Known<()>) {
        self.suppressed.set(self.suppressed.get() + 1);
    }

    fn claim(&self, _: Known<()>, claim: &Claim, now_ns: u64) {
        assert_eq!(now_ns, self.now_ns);
        self.claims.borrow_mut().push(*claim);
    }
}
