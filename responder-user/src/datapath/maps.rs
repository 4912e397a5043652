//! The maps, by what they are for.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use responder_common::{
    egress::EgressOutcomes,
    layout::{
        EGRESS, EVENT_LIMIT, EVENTS, EventLimit, FENCE, Fence, LINK_BACKUP, LINK_FORWARDS, LINK_ROUTER,
        LINKS, Link, LinkKey, MAX_SLOTS, OUTCOMES, Owner, SLOTS, SlotState, VIPS4, VIPS6, Vip4, Vip6,
        VipKey4, VipKey6, VipStats,
    },
    outcome::Outcomes,
};

use super::{
    DatapathError,
    pins::Pins,
    shared::{SharedFence, SharedSlots},
};
use crate::{
    decision::plan::{LinkPlan, VipAt},
    net::topology::Role,
};

/// All maps but the ring buffer.
pub struct Maps {
    vips4: HashMap<MapData, VipKey4, Vip4>,
    vips6: HashMap<MapData, VipKey6, Vip6>,
    links: HashMap<MapData, LinkKey, Link>,
    outcomes: PerCpuArray<MapData, Outcomes>,
    egress: PerCpuArray<MapData, EgressOutcomes>,
    limit: PerCpuArray<MapData, EventLimit>,
    slots: SharedSlots,
    fence: SharedFence,
    fence_id: u32,
}

/// A VIP's entry, of either family.
#[derive(Clone, Copy, Debug)]
pub struct VipEntry {
    /// Where.
    pub at: VipAt,
    /// Its slot.
    pub slot: u32,
    /// Its counters.
    pub stats: VipStats,
}

impl VipAt {
    fn key4(&self, ip: std::net::Ipv4Addr) -> VipKey4 {
        VipKey4 { addr: ip.octets(), ifindex: self.ifindex, vlan: self.vlan }
    }

    fn key6(&self, ip: std::net::Ipv6Addr) -> VipKey6 {
        VipKey6 { addr: ip.to_bits(), ifindex: self.ifindex, vlan: self.vlan }
    }
}

fn open(pins: &Pins, name: &'static str) -> Result<Map, DatapathError> {
    MapData::from_pin(pins.map(name))
        .and_then(Map::from_map_data)
        .map_err(|source| DatapathError::Map { name, source })
}

fn typed<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T, DatapathError> {
    T::try_from(open(pins, name)?).map_err(|source| DatapathError::Map { name, source })
}

/// Opens the ring buffer of events.
///
/// # Errors
///
/// If it is not there.
pub fn open_events(pins: &Pins) -> Result<RingBuf<MapData>, DatapathError> {
    typed(pins, EVENTS)
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// If one is missing or of another kind, or cannot be mapped into memory.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let shared = |name: &'static str| {
            let Map::Array(data) = open(pins, name)? else {
                return Err(DatapathError::MapKind { name });
            };
            Ok(data)
        };
        let share = |name: &'static str| move |source: io::Error| DatapathError::Share { name, source };
        let fence = shared(FENCE)?;
        let info = fence.info().map_err(|source| DatapathError::Map { name: FENCE, source })?;
        Ok(Self {
            vips4: typed(pins, VIPS4)?,
            vips6: typed(pins, VIPS6)?,
            links: typed(pins, LINKS)?,
            outcomes: typed(pins, OUTCOMES)?,
            egress: typed(pins, EGRESS)?,
            limit: typed(pins, EVENT_LIMIT)?,
            slots: SharedSlots::map(shared(SLOTS)?.fd(), MAX_SLOTS).map_err(share(SLOTS))?,
            fence: SharedFence::map(fence.fd()).map_err(share(FENCE))?,
            fence_id: info.id(),
        })
    }

    /// Writes the fence: one store for each word, whatever the number of VIPs.
    pub fn set_fence(&self, fence: Fence) {
        self.fence.store(fence);
    }

    /// The fence as the kernel has it.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.load()
    }

    /// The kernel's id of the map `FENCE`: the same on the whole host, by whatever path the map was opened.
    #[must_use]
    pub fn fence_id(&self) -> u32 {
        self.fence_id
    }

    /// Writes whose the maps are. Only while nothing is answered.
    pub fn set_owner(&self, owner: Owner) {
        self.fence.set_owner(owner);
    }

    /// Whose the maps are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.fence.owner()
    }

    /// Gives or takes ownership of all VIPs of a slot.
    pub fn set_slot(&self, slot: u32, state: SlotState, now_ns: u64) -> bool {
        self.slots.set(slot, state, now_ns)
    }

    /// Whether the VIPs of a slot are owned here, and since when (CLOCK_BOOTTIME).
    #[must_use]
    pub fn slot(&self, slot: u32) -> Option<(bool, Duration)> {
        self.slots.get(slot)
    }

    /// The slots that are owned here.
    #[must_use]
    pub fn owned_slots(&self) -> BTreeSet<u32> {
        (0..MAX_SLOTS).filter(|slot| self.slots.get(*slot).is_some_and(|(owned, _)| owned)).collect()
    }

    /// Writes a VIP's entry, keeping the counters of one that exists.
    ///
    /// # Errors
    ///
    /// If the map is full, with the VIP's address, or the kernel refuses for another reason.
    pub fn set_vip(&mut self, at: VipAt, slot: u32) -> Result<(), MapError> {
        match at.ip {
            IpAddr::V4(ip) => {
                let key = at.key4(ip);
                let mut entry = Vip4::new(key, slot);
                if let Ok(old) = self.vips4.get(&key, 0) {
                    entry.stats = old.stats;
                }
                self.vips4.insert(key, entry, 0)
            }
            IpAddr::V6(ip) => {
                let key = at.key6(ip);
                let mut entry = Vip6::new(key, slot);
                if let Ok(old) = self.vips6.get(&key, 0) {
                    entry.stats = old.stats;
                }
                self.vips6.insert(key, entry, 0)
            }
        }
    }

    /// Deletes a VIP's entry; questions for it go to the host from here on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; not if there is no such entry.
    pub fn remove_vip(&mut self, at: VipAt) -> Result<(), MapError> {
        let result = match at.ip {
            IpAddr::V4(ip) => self.vips4.remove(&at.key4(ip)),
            IpAddr::V6(ip) => self.vips6.remove(&at.key6(ip)),
        };
        ignore_missing(result)
    }

    /// Writes a place's entry.
    ///
    /// # Errors
    ///
    /// If the map is full or the kernel refuses for another reason.
    pub fn set_link(&mut self, place: LinkKey, link: &LinkPlan) -> Result<(), MapError> {
        let role = match link.role {
            Role::Answers => 0,
            Role::Forwards => LINK_FORWARDS,
            Role::Backup => LINK_BACKUP,
        };
        let entry = Link {
            mac: link.mac.octets(),
            flags: role | if link.router { LINK_ROUTER } else { 0 },
            interface: link.interface,
            prefixes: link.prefixes,
        };
        self.links.insert(place, entry, 0)
    }

    /// Deletes a place's entry.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; not if there is no such entry.
    pub fn remove_link(&mut self, place: LinkKey) -> Result<(), MapError> {
        ignore_missing(self.links.remove(&place))
    }

    /// All VIPs. What changes meanwhile may be missing or there twice.
    pub fn vips(&self) -> impl Iterator<Item = VipEntry> + '_ {
        let v4 = self.vips4.iter().flatten().map(|(k, v)| VipEntry {
            at: VipAt { ifindex: k.ifindex, vlan: k.vlan, ip: k.ip() },
            slot: v.slot,
            stats: v.stats,
        });
        let v6 = self.vips6.iter().flatten().map(|(k, v)| VipEntry {
            at: VipAt { ifindex: k.ifindex, vlan: k.vlan, ip: k.ip() },
            slot: v.slot,
            stats: v.stats,
        });
        v4.chain(v6)
    }

    /// All places.
    pub fn links(&self) -> impl Iterator<Item = (LinkKey, Link)> + '_ {
        self.links.iter().flatten()
    }

    /// Frames by outcome, over all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn outcomes(&self) -> Result<Outcomes, MapError> {
        let mut sum = Outcomes::default();
        self.outcomes.get(&0, 0)?.iter().for_each(|cpu| sum.add(cpu));
        Ok(sum)
    }

    /// Frames that this host sent by outcome, over all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn egress(&self) -> Result<EgressOutcomes, MapError> {
        let mut sum = EgressOutcomes::default();
        self.egress.get(&0, 0)?.iter().for_each(|cpu| sum.add(cpu));
        Ok(sum)
    }

    /// Events that were left out and that were lost, over all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn events_missed(&self) -> Result<(u64, u64), MapError> {
        let cpus = self.limit.get(&0, 0)?;
        Ok(cpus.iter().fold((0, 0), |(limited, lost), cpu| (limited + cpu.limited, lost + cpu.lost)))
    }
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
