//! The plan of a node in a cluster: leadership says which addresses there are and in which slots they are, the
//! subnets on which links.

use std::net::IpAddr;

use super::Plan;
use crate::{decision::subnets::Subnets, net::link::NetState};

impl Plan {
    /// Plans for a cluster. `subnets` is made of the same `net`; `vips` are all addresses that somebody in the
    /// cluster announces, with the slot that decides whether this node does; `router` says of an interface's name
    /// whether the host forwards IPv6 there.
    #[must_use]
    pub fn for_cluster(
        subnets: &Subnets,
        net: &NetState,
        vips: impl IntoIterator<Item = (IpAddr, u32)>,
        router: impl Fn(&str) -> bool,
    ) -> Self {
        let mut plan = Self { waiting: subnets.waiting.clone(), ..Self::default() };
        for (ip, slot) in vips {
            let links = subnets.links(ip);
            if links.is_empty() {
                plan.refused.insert((ip, String::new()), subnets.uncovered());
            }
            for link in links.iter().filter_map(|index| net.links.get(index)) {
                plan.add(ip, slot, link);
            }
        }
        // Attached even without a VIP, so that the first one is answered at once.
        for link in subnets.home().iter().filter_map(|index| net.links.get(index)) {
            plan.use_link(link);
        }
        plan.set_routers(router);
        plan
    }
}
