//! The entry of the XDP program: a frame and the maps in, an outcome out.

use crate::{
    arp,
    eth::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Eth},
    fence::Standing,
    layout::{EventKind, Fence, LINK_BACKUP, LINK_FORWARDS, Link, LinkKey, VipKey4, VipKey6},
    ndp,
    outcome::Outcome,
    wire::{Frame, Mac},
};

/// A VIP that the map knows.
#[derive(Clone, Copy, Debug)]
pub struct Known<S> {
    /// Its slot.
    pub slot: u32,
    /// Where its counters are.
    pub stats: S,
}

/// Another station's claim of a VIP that is owned here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What kind of frame made it.
    pub kind: EventKind,
    /// Where it was seen.
    pub ifindex: u32,
    /// VLAN id, 0 for none.
    pub vlan: u32,
    /// The VIP; IPv4 as an IPv4-mapped IPv6 address.
    pub vip: [u8; 16],
    /// Who claims it.
    pub claimer: Mac,
}

/// The maps and the clock.
pub trait Tables {
    /// Where a VIP's counters are.
    type Stats: Copy;

    /// Looks an IPv4 address up.
    fn vip4(&self, key: &VipKey4) -> Option<Known<Self::Stats>>;
    /// Looks an IPv6 address up.
    fn vip6(&self, key: &VipKey6) -> Option<Known<Self::Stats>>;
    /// Looks a link up.
    fn link(&self, key: &LinkKey) -> Option<&Link>;
    /// The state of a slot, as the raw number in the map.
    fn slot(&self, slot: u32) -> u32;
    /// The fence.
    fn fence(&self) -> Fence;
    /// CLOCK_BOOTTIME in ns. Costs several times a lookup.
    fn now_ns(&self) -> u64;
    /// Counts an answer.
    fn count_answered(&self, vip: Known<Self::Stats>);
    /// Counts a question that was not answered.
    fn count_suppressed(&self, vip: Known<Self::Stats>);
    /// Counts a claim and tells the agent, unless it has just been told.
    fn claim(&self, vip: Known<Self::Stats>, claim: &Claim, now_ns: u64);

    /// How this host stands to `vip` at `now_ns`.
    #[inline(always)]
    fn standing(&self, vip: Known<Self::Stats>, now_ns: u64) -> Standing {
        Standing::judge(self.slot(vip.slot), self.fence(), now_ns)
    }
}

/// What becomes of a question for a known address that this host leaves alone here, whatever else it says: nobody has
/// heard of an agent, or this port is not the one to judge.
#[inline(always)]
pub(crate) fn left_alone(link: &Link, standing: Standing) -> Option<Outcome> {
    if standing == Standing::Abandoned {
        Some(Outcome::PassedAbandoned)
    } else if link.is(LINK_BACKUP) {
        Some(Outcome::BackupPort)
    } else if link.is(LINK_FORWARDS) && standing != Standing::Owned {
        Some(Outcome::PassedForwarded)
    } else {
        None
    }
}

/// Handles one received frame. `None`: not ARP, no Neighbor Solicitation, no Neighbor Advertisement, and nothing
/// that might hide one from the program but not from Linux.
///
/// With [`crate::outcome::Action::Answer`] the frame has become the answer; otherwise it is as it was, except
/// after [`Outcome::Failed`].
#[inline(always)]
pub fn handle<F: Frame, T: Tables>(frame: &mut F, ifindex: u32, tables: &T) -> Option<Outcome> {
    let eth = Eth::parse(frame)?;
    match eth.ethertype {
        ETHERTYPE_ARP => Some(arp::handle(frame, eth, ifindex, tables)),
        ETHERTYPE_IPV6 => ndp::handle(frame, eth, ifindex, tables),
        // More priority tags than any network has: it cannot be told whether Linux would answer what is below.
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Some(Outcome::StackedTags),
        _ => None,
    }
}
