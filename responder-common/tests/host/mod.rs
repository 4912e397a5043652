//! Frames and maps on a host.

mod buffer;

use std::cell::{Cell, RefCell};

use responder_common::{
    datapath::{Claim, Known, Tables},
    layout::{Fence, Link, LinkKey, Prefix4, VipKey4, VipKey6},
};

pub(crate) use buffer::Buffer;

/// Our hardware address.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0x51];
/// The IPv4 VIP, known on interface 1, untagged and in VLAN 7.
pub(crate) const VIP4: [u8; 4] = [192, 0, 2, 10];
/// The IPv6 VIP, in the same places.
pub(crate) const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x10, 0x10];

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
