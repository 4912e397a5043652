//! The maps of a [`Host`] on a host.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use responder_common::{
    datapath::{self, Known, Tables},
    layout::{Fence, LINK_BACKUP, LINK_FORWARDS, LINK_ROUTER, Link, LinkKey, SlotState, VipKey4, VipKey6},
};
use responder_tests::{
    frames::{Claim, ClaimKind},
    model::{self, Counted, Host, Part, Place},
    run::prefix,
};

/// The time on that host, in ns.
const NOW: u64 = 1000;

/// A host's maps as the programs see them.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) host: Host,
    links: BTreeMap<LinkKey, Link>,
}

impl Maps {
    pub(crate) fn new(host: Host) -> Self {
        let links = host.links.iter().map(|(&(ifindex, vlan), link)| {
            let part = match link.part {
                Part::Whole => 0,
                Part::Bridged => LINK_FORWARDS,
                Part::Backup => LINK_BACKUP,
            };
            let prefixes = link.own4.map(|own| own.map(prefix).unwrap_or_default());
            let flags = part | if link.router { LINK_ROUTER } else { 0 };
            (LinkKey { ifindex, vlan }, Link { mac: link.mac, flags, interface: ifindex, prefixes })
        });
        let links = links.collect();
        Self { host, links }
    }
}

/// Maps while one frame is looked at.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    maps: &'a Maps,
    pub(crate) counted: RefCell<Vec<(IpAddr, Place, Counted)>>,
    pub(crate) claims: RefCell<Vec<Claim>>,
}

impl<'a> Look<'a> {
    pub(crate) fn at(maps: &'a Maps) -> Self {
        Self { maps, counted: RefCell::default(), claims: RefCell::default() }
    }

    fn known(&self, ip: IpAddr, place: Place) -> Option<Known<(IpAddr, Place)>> {
        let slot = *self.maps.host.vips.get(&(ip, place))?;
        Some(Known { slot, stats: (ip, place) })
    }

    fn count(&self, vip: Known<(IpAddr, Place)>, what: Counted) {
        self.counted.borrow_mut().push((vip.stats.0, vip.stats.1, what));
    }
}

impl Tables for Look<'_> {
    type Stats = (IpAddr, Place);

    fn vip4(&self, key: &VipKey4) -> Option<Known<Self::Stats>> {
        self.known(key.ip(), (key.ifindex, key.vlan))
    }

    fn vip6(&self, key: &VipKey6) -> Option<Known<Self::Stats>> {
        self.known(key.ip(), (key.ifindex, key.vlan))
    }

    fn link(&self, key: &LinkKey) -> Option<&Link> {
        self.maps.links.get(key)
    }

    fn slot(&self, slot: u32) -> u32 {
        let owned = self.maps.host.owned.contains(&slot);
        (if owned { SlotState::Owned } else { SlotState::Standby }) as u32
    }

    fn fence(&self) -> Fence {
        let (deadline_ns, suppress_until_ns) = match self.maps.host.fence {
            model::Fence::Ahead => (NOW + 1, NOW + 1),
            model::Fence::Expired => (NOW, NOW + 1),
            model::Fence::Abandoned => (NOW, NOW),
        };
        Fence { deadline_ns, suppress_until_ns, heartbeat_ns: 0 }
    }

    fn now_ns(&self) -> u64 {
        NOW
    }

    fn count_answered(&self, vip: Known<Self::Stats>) {
        self.count(vip, Counted::Answered);
    }

    fn count_suppressed(&self, vip: Known<Self::Stats>) {
        self.count(vip, Counted::Suppressed);
    }

    fn claim(&self, vip: Known<Self::Stats>, claim: &datapath::Claim, now_ns: u64) {
        assert_eq!(now_ns, NOW);
        let (ip, place) = vip.stats;
        let kinds = [ClaimKind::Arp, ClaimKind::Solicitation, ClaimKind::Advertisement];
        let kind =
            kinds.into_iter().find(|kind| *kind as u32 == claim.kind as u32).expect("the same numbers");
        assert_eq!((IpAddr::from(claim.vip).to_canonical(), (claim.ifindex, claim.vlan)), (ip, place));
        let claimer = claim.claimer.octets();
        self.claims.borrow_mut().push(Claim { kind, vlan: claim.vlan, vip: ip, claimer });
    }
}
