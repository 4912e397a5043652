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
    layout::{LINK_PREFIXES, Prefix4, SINGLE_SLOT, STANDBY_SLOT},
    wire::{Ip6, Mac},
};

use crate::{
    config::StaticConfig,
    net::link::{Link, NetState},
};

/// A VIP on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VipAt {
    /// The link's index.
    pub ifindex: u32,
    /// 802.1Q VLAN id in the frames, 0 for none.
    pub vlan: u32,
    /// The address.
    pub ip: IpAddr,
}

/// What the programs must know of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPlan {
    /// Its name.
    pub name: String,
    /// The hardware address that answers carry.
    pub mac: Mac,
    /// Up and with carrier: announcements can be sent.
    pub running: bool,
    /// Whether the host forwards IPv6 here.
    pub router: bool,
    /// The host's IPv4 addresses on it.
    pub prefixes: [Prefix4; LINK_PREFIXES],
}

/// What should be.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Links to attach to, by index.
    pub links: BTreeMap<u32, LinkPlan>,
    /// VIPs and their slots.
    pub vips: BTreeMap<VipAt, u32>,
    /// Slots that are owned.
    pub owned: BTreeSet<u32>,
    /// What is not announced, and why: the address (with the link, where it is about one) and the reason.
    pub refused: BTreeMap<(IpAddr, String), String>,
    /// Interfaces that are named but not there, or cannot be used, and why.
    pub waiting: BTreeMap<String, String>,
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
                plan.add(spec.ip, if spec.standby { STANDBY_SLOT } else { SINGLE_SLOT }, link);
            }
        }
        // Attached even without a VIP, so that the first one is answered at once.
        for link in default.iter().filter_map(|index| net.links.get(index)) {
            plan.use_link(link);
        }
        plan.set_routers(router);
        plan
    }

    /// Multicast groups to join for solicitations to arrive: link and solicited-node address.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<(u32, Ipv6Addr)> {
        self.vips
            .keys()
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

    /// Keeps an address where it is.
    pub(crate) fn keep(&mut self, at: VipAt, slot: u32, link: &Link) {
        if self.use_link(link) {
            self.vips.insert(at, slot);
        }
    }

    fn add(&mut self, ip: IpAddr, slot: u32, link: &Link) {
        if let Some(reason) = refused_on(ip, link) {
            self.refused.insert((ip, link.name.clone()), reason);
            return;
        }
        if self.use_link(link) {
            self.vips.insert(VipAt { ifindex: link.index, vlan: 0, ip }, slot);
        }
    }

    fn use_link(&mut self, link: &Link) -> bool {
        let unusable = if link.loopback {
            Some("is the loopback interface, on which nobody asks")
        } else if !link.ethernet {
            Some("is no Ethernet interface, so there is neither ARP nor a hardware address")
        } else {
            None
        };
        if let Some(reason) = unusable {
            self.waiting.insert(link.name.clone(), reason.to_owned());
            return false;
        }
        self.links.entry(link.index).or_insert_with(|| LinkPlan {
            name: link.name.clone(),
            mac: link.mac,
            running: link.admin_up && link.carrier,
            router: false,
            prefixes: prefixes(link),
        });
        true
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
            // A pattern like "*" does not mean the loopback interface.
            if plain || (link.ethernet && !link.loopback) {
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
