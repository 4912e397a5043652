//! On which links of this host an address can be announced, and which addresses on any.
//!
//! A neighbour asks for an address only where it takes it to be on the link: where the address is in a subnet of
//! the link. So a VIP belongs on the links with the longest prefix that covers it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use glob::Pattern;
use ipnet::IpNet;
use responder_leadership::lease::Reach;

use super::plan::select;
use crate::net::link::{Link, NetState, Prefix};

/// How links are chosen in a cluster.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LinkChoice {
    /// Interfaces to use. Empty: the default route's, and for each VIP those whose prefix covers it.
    pub interfaces: Vec<Pattern>,
    /// Announce an address that no prefix covers, too: on all of `interfaces`, or the default route's.
    pub any_subnet: bool,
}

/// A prefix on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OnLink {
    net: IpNet,
    ifindex: u32,
    running: bool,
}

/// The links of a host, for many questions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subnets {
    /// Longest prefixes first.
    on_link: Vec<OnLink>,
    /// Links that are attached to even without a VIP, and that announce what no prefix covers.
    home: BTreeSet<u32>,
    any_subnet: bool,
    /// Home links that are up and have a carrier.
    home_running: BTreeSet<u32>,
    /// Interfaces that are named but not there.
    pub(super) waiting: BTreeMap<String, String>,
}

impl Subnets {
    /// Looks the links over.
    #[must_use]
    pub fn new(choice: &LinkChoice, net: &NetState) -> Self {
        let mut waiting = BTreeMap::new();
        let by_default = choice.interfaces.is_empty();
        let home = if by_default {
            net.default_route_links.clone()
        } else {
            select(&choice.interfaces, net, &mut waiting)
        };
        if by_default && home.is_empty() {
            waiting.insert(
                "the default route's interface".to_owned(),
                "there is no default route; name one with --interface".to_owned(),
            );
        }
        let usable = |link: &&Link| net.refusal(link).is_none();
        // kube-proxy's and others' dummies have VIPs as addresses, and nobody is connected to them.
        let named = |link: &&Link| {
            home.contains(&link.index) || (by_default && link.kind.as_deref() != Some("dummy"))
        };
        let mut on_link: Vec<_> = net
            .links
            .values()
            .filter(usable)
            .filter(named)
            .flat_map(|link| {
                let running = running(link);
                link.addrs.iter().filter_map(on_link).map(move |net| OnLink {
                    net,
                    ifindex: link.index,
                    running,
                })
            })
            .collect();
        on_link.sort_by_key(|entry| (u8::MAX - entry.net.prefix_len(), entry.net, entry.ifindex));
        on_link.dedup();
        let home_running = home.iter().filter_map(|index| net.links.get(index));
        let home_running = home_running.filter(|l| usable(l) && running(l)).map(|l| l.index).collect();
        Self { on_link, home, any_subnet: choice.any_subnet, home_running, waiting }
    }

    /// The links to announce `ip` on; none: no prefix covers it.
    ///
    /// Links that are down or have no carrier are taken only if no other covers the address.
    #[must_use]
    pub fn links(&self, ip: IpAddr) -> BTreeSet<u32> {
        let covering = || self.on_link.iter().filter(|entry| entry.net.contains(&ip));
        let best = covering().find(|entry| entry.running).or_else(|| covering().next());
        match best {
            Some(best) => covering()
                .filter(|entry| entry.net == best.net && entry.running == best.running)
                .map(|entry| entry.ifindex)
                .collect(),
            None if self.any_subnet => self.home.clone(),
            None => BTreeSet::new(),
        }
    }

    /// What this node can announce now: links that are down or have no carrier do not count, nor do those on which the
    /// program cannot run. `fails` says which those are.
    #[must_use]
    pub fn reach(&self, fails: impl Fn(u32) -> bool) -> Reach {
        if self.any_subnet && self.home_running.iter().any(|index| !fails(*index)) {
            return Reach::Any;
        }
        let running = self.on_link.iter().filter(|entry| entry.running && !fails(entry.ifindex));
        Reach::Prefixes(running.map(|entry| entry.net).collect())
    }

    /// The links that are attached to even without a VIP.
    #[must_use]
    pub fn home(&self) -> &BTreeSet<u32> {
        &self.home
    }

    /// Why [`Subnets::links`] gave none: a sentence whose subject is the address.
    #[must_use]
    pub fn uncovered(&self) -> String {
        let all: BTreeSet<_> = self.on_link.iter().map(|entry| entry.net).collect();
        let subnets = Reach::Prefixes(all);
        format!(
            "is in no subnet of this node's links, which have {subnets}; --any-subnet announces it all the same"
        )
    }
}

fn running(link: &Link) -> bool {
    link.admin_up && link.carrier
}

/// The subnet that an address makes on-link. One of a single address has no neighbours, and link-local addresses
/// are on every link.
fn on_link(prefix: &Prefix) -> Option<IpNet> {
    let link_local = match prefix.ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let net = IpNet::new(prefix.ip, prefix.len).ok()?.trunc();
    (!link_local && net.prefix_len() < net.max_prefix_len()).then_some(net)
}
