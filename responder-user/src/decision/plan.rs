//! From configuration, links and ownership to what the maps should hold.

mod cluster;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use glob::Pattern;
use responder_common::{
    layout::{LINK_PREFIXES, LinkKey, Prefix4, SINGLE_SLOT, STANDBY_SLOT},
    wire::{Ip6, Mac},
};

use crate::{
    config::StaticConfig,
    net::{
        link::{Link, NetState},
        topology::{Port, Role},
    },
};

/// What is said of a port of another interface that a pattern matches.
pub(crate) const LEFT_OUT: &str = "; left out of ";

/// A VIP in a place. The place is an interface's own, or one of its ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VipAt {
    /// The device's index.
    pub ifindex: u32,
    /// 802.1Q VLAN id in the frames, 0 for none.
    pub vlan: u32,
    /// The address.
    pub ip: IpAddr,
}

impl VipAt {
    /// An address in a place.
    #[must_use]
    pub const fn new(LinkKey { ifindex, vlan }: LinkKey, ip: IpAddr) -> Self {
        Self { ifindex, vlan, ip }
    }

    /// An address in an interface's own place.
    #[must_use]
    pub const fn on(interface: u32, ip: IpAddr) -> Self {
        Self { ifindex: interface, vlan: 0, ip }
    }

    /// The place.
    #[must_use]
    pub const fn place(&self) -> LinkKey {
        LinkKey { ifindex: self.ifindex, vlan: self.vlan }
    }
}

/// What the programs must know of a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPlan {
    /// Name of the interface that it belongs to.
    pub name: String,
    /// Index of that interface.
    pub interface: u32,
    /// The hardware address that answers carry.
    pub mac: Mac,
    /// Whether the host forwards IPv6 on the interface.
    pub router: bool,
    /// The host's IPv4 addresses on it.
    pub prefixes: [Prefix4; LINK_PREFIXES],
    /// What becomes of questions there.
    pub role: Role,
}

/// An interface that announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Up and with carrier: announcements can be sent.
    pub running: bool,
    /// Where the XDP program is to run for it.
    pub ports: Vec<Port>,
    /// Why the program must not run there.
    pub obstacle: Option<String>,
    /// What is not as good as it could be.
    pub notes: Vec<String>,
}

impl Interface {
    /// The places of an interface with this index: its own, where what the host sends is judged, and its ports.
    fn places(&self, index: u32) -> impl Iterator<Item = (LinkKey, Role)> {
        let own = LinkKey { ifindex: index, vlan: 0 };
        let is_port = self.ports.iter().any(|port| key(port) == own);
        let first = (!is_port).then_some((own, Role::Answers));
        first.into_iter().chain(self.ports.iter().map(|port| (key(port), port.role)))
    }
}

fn key(port: &Port) -> LinkKey {
    LinkKey { ifindex: port.ifindex, vlan: port.vlan }
}

/// A device that the XDP program is to run on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Why it can run in the network stack only.
    pub generic: Option<&'static str>,
    /// Why it must not run there.
    pub obstacle: Option<String>,
    /// Names of the interfaces that it runs for.
    pub interfaces: Vec<String>,
}

/// What should be.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Interfaces that announce, by index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Their places.
    pub links: BTreeMap<LinkKey, LinkPlan>,
    /// VIPs and their slots.
    pub vips: BTreeMap<VipAt, u32>,
    /// Slots that are owned.
    pub owned: BTreeSet<u32>,
    /// What is not announced, and why: the address (with the link, where it is about one) and the reason.
    pub refused: BTreeMap<(IpAddr, String), String>,
    /// Interfaces that are named but not there, or cannot be used, and why.
    pub waiting: BTreeMap<String, String>,
    /// NICs that take VLAN tags off, where a program needs them.
    pub stripping: BTreeSet<u32>,
}

impl Plan {
    /// Plans for a static file. `router` says of an interface's name whether the host forwards IPv6 there.
    #[must_use]
    pub fn for_static(config: &StaticConfig, net: &NetState, router: impl Fn(&str) -> bool) -> Self {
        let mut plan = Self { owned: [SINGLE_SLOT].into(), ..Self::default() };
        for (spec, reason) in &config.refused {
            plan.refused.insert((spec.ip, String::new()), format!("{reason} (line {})", spec.line));
        }
        let default = select(&config.interfaces, net, &mut plan.waiting);
        let default = if config.interfaces.is_empty() {
            if net.default_route_links.is_empty() {
                plan.waiting.insert(
                    "the default route's interface".to_owned(),
                    "there is no default route; name one with `interfaces = [\"eth0\"]`".to_owned(),
                );
            }
            net.default_route_links.clone()
        } else {
            default
        };
        for spec in &config.vips {
            let own;
            let links = if spec.interfaces.is_empty() {
                &default
            } else {
                own = select(&spec.interfaces, net, &mut plan.waiting);
                &own
            };
            for link in links.iter().filter_map(|index| net.links.get(index)) {
                plan.add(spec.ip, if spec.standby { STANDBY_SLOT } else { SINGLE_SLOT }, link, net);
            }
        }
        // Attached even without a VIP, so that the first one is answered at once.
        for link in default.iter().filter_map(|index| net.links.get(index)) {
            plan.use_link(link, net);
        }
        plan.set_routers(router);
        plan
    }

    /// The interface's own place, if it is one: where an address is announced, and told of.
    #[must_use]
    pub fn is_own(&self, at: &VipAt) -> bool {
        at.vlan == 0 && self.interfaces.contains_key(&at.ifindex)
    }

    /// Multicast groups to join for solicitations to arrive: interface and solicited-node address.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<(u32, Ipv6Addr)> {
        self.vips
            .keys()
            .filter(|at| self.is_own(at))
            .filter_map(|at| match at.ip {
                IpAddr::V6(ip) => {
                    let group = Ip6::from(ip).solicited_node();
                    Some((at.ifindex, Ipv6Addr::from_bits(group.to_bits())))
                }
                IpAddr::V4(_) => None,
            })
            .collect()
    }

    pub(crate) fn set_routers(&mut self, router: impl Fn(&str) -> bool) {
        for link in self.links.values_mut() {
            link.router = router(&link.name);
        }
    }

    /// Keeps an address on an interface where it is.
    pub(crate) fn keep(&mut self, ip: IpAddr, slot: u32, link: &Link, net: &NetState) {
        if self.use_link(link, net) {
            self.insert(ip, slot, link.index);
        }
    }

    fn add(&mut self, ip: IpAddr, slot: u32, link: &Link, net: &NetState) {
        if let Some(reason) = refused_on(ip, link) {
            self.refused.insert((ip, link.name.clone()), reason);
            return;
        }
        if self.use_link(link, net) {
            self.insert(ip, slot, link.index);
        }
    }

    fn insert(&mut self, ip: IpAddr, slot: u32, interface: u32) {
        let places = self.interfaces.get(&interface).into_iter().flat_map(|i| i.places(interface));
        self.vips.extend(places.map(|(place, _)| (VipAt::new(place, ip), slot)));
    }

    fn use_link(&mut self, link: &Link, net: &NetState) -> bool {
        if self.interfaces.contains_key(&link.index) {
            return true;
        }
        if let Some(reason) = net.refusal(link) {
            self.waiting.insert(link.name.clone(), reason);
            return false;
        }
        let found = net.ports(link);
        self.stripping.extend(found.stripping);
        let interface = Interface {
            name: link.name.clone(),
            mac: link.mac,
            running: link.admin_up && link.carrier,
            ports: found.ports,
            obstacle: found.obstacle,
            notes: found.notes,
        };
        for (place, role) in interface.places(link.index) {
            // The device below goes on receiving where the interface is down, or has no carrier.
            let silent = !interface.running && place.ifindex != link.index;
            let role = if silent { Role::Backup } else { role };
            let plan = LinkPlan {
                name: link.name.clone(),
                interface: link.index,
                mac: link.mac,
                router: false,
                prefixes: prefixes(link),
                role,
            };
            self.links.insert(place, plan);
        }
        self.interfaces.insert(link.index, interface);
        true
    }

    /// Keeps the ports of a bridge silent on which the program does not run itself: what they passed, nobody would keep
    /// the host from answering.
    pub(crate) fn silence_forwarding(&mut self, runs_on: impl Fn(u32) -> bool) {
        for link in self.links.values_mut() {
            if link.role == Role::Forwards && !runs_on(link.interface) {
                link.role = Role::Backup;
            }
        }
    }

    /// The devices that the XDP program is to run on.
    #[must_use]
    pub fn devices(&self) -> BTreeMap<u32, Device> {
        let mut devices: BTreeMap<u32, Device> = BTreeMap::new();
        for interface in self.interfaces.values() {
            for port in &interface.ports {
                let device = devices.entry(port.ifindex).or_insert_with(|| Device {
                    generic: port.generic,
                    obstacle: interface.obstacle.clone(),
                    interfaces: Vec::new(),
                });
                device.generic = device.generic.or(port.generic);
                // One interface's obstacle does not keep the program from another's questions.
                device.obstacle = device.obstacle.take().filter(|_| interface.obstacle.is_some());
                device.interfaces.push(interface.name.clone());
            }
        }
        devices
    }

    /// Whether the program runs for an interface: on one of its ports that answers. `runs` says of a device whether it runs there.
    #[must_use]
    pub fn is_attached(&self, interface: u32, runs: impl Fn(u32) -> bool) -> bool {
        let Some(found) = self.interfaces.get(&interface).filter(|found| found.obstacle.is_none()) else {
            return false;
        };
        found.ports.iter().any(|port| port.role == Role::Answers && runs(port.ifindex))
    }
}

/// The links that match any of `patterns`. What names one link that does not exist goes to `waiting`.
pub(super) fn select(
    patterns: &[Pattern],
    net: &NetState,
    waiting: &mut BTreeMap<String, String>,
) -> BTreeSet<u32> {
    let mut selected = BTreeSet::new();
    for pattern in patterns {
        let plain = Pattern::escape(pattern.as_str()) == pattern.as_str();
        let mut found = false;
        for link in net.links.values().filter(|l| pattern.matches(&l.name)) {
            found = true;
            // A pattern like "*" does not mean the loopback interface, nor "eth*" what belongs to a bond.
            if !plain && let Some(reason) = net.enslaved(link) {
                waiting.insert(link.name.clone(), format!("{reason}{LEFT_OUT}\"{pattern}\""));
            } else if plain || (link.ethernet && !link.loopback) {
                selected.insert(link.index);
            }
        }
        if !found {
            let reason = if plain { "there is no such interface yet" } else { "no interface matches yet" };
            waiting.insert(pattern.as_str().to_owned(), reason.to_owned());
        }
    }
    selected
}

/// Why an address cannot be announced on one link.
fn refused_on(ip: IpAddr, link: &Link) -> Option<String> {
    for prefix in &link.addrs {
        if prefix.ip == ip {
            return Some(format!(
                "is an address of {} itself, so the kernel answers for it; remove it there (`ip addr del \
                 {ip}/{} dev {}`) or put it on lo",
                link.name, prefix.len, link.name
            ));
        }
        if let (IpAddr::V4(vip), IpAddr::V4(own)) = (ip, prefix.ip) {
            let mask = mask(prefix.len);
            let (vip, own) = (vip.to_bits(), own.to_bits());
            if prefix.len < 31 && (vip ^ own) & mask == 0 && (vip | mask == u32::MAX || vip & !mask == 0) {
                return Some(format!(
                    "is the network or broadcast address of {}/{} on {}",
                    prefix.ip, prefix.len, link.name
                ));
            }
        }
    }
    None
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

fn prefixes(link: &Link) -> [Prefix4; LINK_PREFIXES] {
    let mut prefixes = [Prefix4::default(); LINK_PREFIXES];
    let own = link.addrs.iter().filter_map(|p| match p.ip {
        IpAddr::V4(ip) => Some(Prefix4 { addr: ip.octets(), mask: mask(p.len).to_be_bytes() }),
        IpAddr::V6(_) => None,
    });
    for (to, from) in prefixes.iter_mut().zip(own) {
        *to = from;
    }
    prefixes
}
