//! The plan of a node in a cluster: leadership says which addresses there are and in which slots they are, the
//! subnets on which links.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Plan, VipAt};
use crate::{decision::subnets::Subnets, net::link::NetState};

impl Plan {
    /// Plans for a cluster. `subnets` is made of the same `net`; `vips` are all addresses that somebody in the
    /// cluster announces, with the slot that decides whether this node does; `owned` are the slots that do; `router` says of an interface's name
    /// whether the host forwards IPv6 there.
    #[must_use]
    pub fn for_cluster(
        subnets: &Subnets,
        net: &NetState,
        vips: impl IntoIterator<Item = (IpAddr, u32)>,
        owned: BTreeSet<u32>,
        router: impl Fn(&str) -> bool,
    ) -> Self {
        let mut plan = Self { waiting: subnets.waiting.clone(), owned, ..Self::default() };
        for (ip, slot) in vips {
            let links = subnets.links(ip);
            if links.is_empty() {
                plan.refused.insert((ip, String::new()), subnets.uncovered());
            }
            for link in links.iter().filter_map(|index| net.links.get(index)) {
                plan.add(ip, slot, link, net);
            }
        }
        // Attached even without a VIP, so that the first one is answered at once.
        for link in subnets.home().iter().filter_map(|index| net.links.get(index)) {
            plan.use_link(link, net);
        }
        plan.set_routers(router);
        plan
    }

    /// The same addresses on the same links, with other slots owned, and some of the addresses in others. Addresses that
    /// are not in the plan stay out of it.
    pub fn reassign(&mut self, owned: BTreeSet<u32>, moved: impl IntoIterator<Item = (IpAddr, u32)>) {
        self.owned = owned;
        for (ip, slot) in moved {
            for place in self.links.keys() {
                if let Some(of) = self.vips.get_mut(&VipAt::new(*place, ip)) {
                    *of = slot;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decision::{
        plan::{
            Plan, VipAt,
            tests::{net, patterns, places, router},
        },
        subnets::{LinkChoice, Subnets},
    };

    fn plan(interfaces: &[&str], any_subnet: bool, vips: &[(&str, u32)]) -> Plan {
        let choice = LinkChoice { interfaces: patterns(interfaces), any_subnet };
        let vips = vips.iter().map(|(ip, slot)| (ip.parse().unwrap(), *slot));
        let subnets = Subnets::new(&choice, &net());
        Plan::for_cluster(&subnets, &net(), vips, [1].into(), |name| name == "eth1")
    }

    #[test]
    fn each_address_where_its_subnet_is_with_its_slot() {
        let plan = plan(&[], false, &[("192.0.2.10", 7), ("198.51.100.0", 0), ("2001:db8::9", 8)]);
        let slots: Vec<_> =
            plan.vips.iter().map(|(at, slot)| (at.ip.to_string(), at.ifindex, *slot)).collect();
        let wanted = [("192.0.2.10", 2, 7), ("2001:db8::9", 2, 8), ("198.51.100.0", 3, 0)];
        assert_eq!(slots, wanted.map(|(ip, link, slot)| (ip.to_owned(), link, slot)));
        assert_eq!(plan.interfaces.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert!(!router(&plan, 2) && router(&plan, 3));
        assert!(plan.refused.is_empty() && plan.waiting.is_empty());
        assert!(plan.vips.contains_key(&VipAt::on(2, "192.0.2.10".parse().unwrap())));
    }

    #[test]
    fn reassigned_as_if_planned_anew() {
        let addresses = ["192.0.2.10", "192.0.2.11", "198.51.100.0", "203.0.113.1", "2001:db8::9"];
        let mut changed = plan(&[], false, &addresses.map(|ip| (ip, 7)));
        let slots = [("192.0.2.10", 1), ("192.0.2.11", 7), ("198.51.100.0", 0), ("203.0.113.1", 1)];
        changed.reassign(
            [1].into(),
            slots.iter().chain(&[("192.0.2.99", 1)]).map(|(ip, slot)| (ip.parse().unwrap(), *slot)),
        );
        assert_eq!(changed, plan(&[], false, &[&slots[..], &[("2001:db8::9", 7)]].concat()));
    }

    #[test]
    fn the_links_are_attached_to_before_there_is_an_address() {
        assert_eq!(plan(&[], false, &[]).interfaces.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(plan(&["eth*"], false, &[]).interfaces.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn what_no_prefix_covers_is_refused_unless_any_subnet() {
        let vips = [("203.0.113.1", 1), ("192.0.2.10", 1)];
        let refusing = plan(&[], false, &vips);
        assert_eq!(places(&refusing), [(2, "192.0.2.10".to_owned())]);
        assert_eq!(
            refusing.refused[&("203.0.113.1".parse().unwrap(), String::new())],
            "is in no subnet of this node's links, which have 192.0.2.0/24, 198.51.100.0/31, 2001:db8::/64; \
             --any-subnet announces it all the same"
        );
        let any = plan(&[], true, &vips);
        assert_eq!(places(&any), [(2, "192.0.2.10".to_owned()), (2, "203.0.113.1".to_owned())]);
        assert!(any.refused.is_empty());
    }

    #[test]
    fn what_a_link_refuses_and_what_is_waited_for() {
        let plan = plan(
            &["eth0", "eth7", "tun0"],
            false,
            &[("192.0.2.255", 1), ("192.0.2.1", 1), ("2001:db8::1", 1)],
        );
        assert!(plan.vips.is_empty());
        let refused: Vec<_> = plan.refused.keys().map(|(ip, link)| format!("{ip} {link}")).collect();
        assert_eq!(refused, ["192.0.2.1 eth0", "192.0.2.255 eth0", "2001:db8::1 eth0"]);
        assert_eq!(plan.waiting.keys().collect::<Vec<_>>(), ["eth7", "tun0"]);
    }
}
