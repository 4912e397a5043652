//! Which group an address belongs to, and which node comes first for what is free.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use crate::id::{Group, NodeName};

/// The group of an address: a function of the address alone, so that no two nodes can see it differently.
///
/// An IPv4-mapped IPv6 address is in the group of its IPv4 address. The function must never change: clusters
/// are upgraded node by node.
#[must_use]
pub fn group_of(address: IpAddr, claims: NonZeroU16) -> Group {
    let hash = match address.to_canonical() {
        IpAddr::V4(ip) => hash([&ip.octets()[..]]),
        IpAddr::V6(ip) => hash([&ip.octets()[..]]),
    };
    Group::try_from(hash % u64::from(claims.get())).unwrap_or_default() // smaller than a `u16`
}

/// How much a node is wanted for `key`; the highest comes first (rendezvous hashing, Thaler and Ravishankar 1998).
#[must_use]
pub fn score(node: &NodeName, key: &str) -> u64 {
    // The separator cannot be in a node's name.
    hash([node.as_str().as_bytes(), b"/", key.as_bytes()])
}

/// How much a node is wanted for a group's claim.
#[must_use]
pub fn claim_score(node: &NodeName, group: Group) -> u64 {
    score(node, &format!("claim {group}"))
}

/// Who is to have each of `free` groups: the node that comes first for it, but none gets more than an even share of all
/// `claims` while another has less. `held` says how many each candidate has; `useful`, whether a node may answer for
/// something in a group, which comes before everything else. Whoever sees the same comes to the same.
#[must_use]
pub fn spread(
    free: impl IntoIterator<Item = Group>,
    claims: NonZeroU16,
    mut held: BTreeMap<NodeName, usize>,
    useful: impl Fn(&NodeName, Group) -> bool,
) -> BTreeMap<Group, NodeName> {
    let share = usize::from(claims.get()).div_ceil(held.len().max(1));
    let mut chosen = BTreeMap::new();
    for group in free {
        let first = held.iter_mut().min_by_key(|(node, count)| {
            (!useful(node, group), **count >= share, Reverse(claim_score(node, group)))
        });
        if let Some((node, count)) = first {
            *count += 1;
            chosen.insert(group, node.clone());
        }
    }
    chosen
}

/// FNV-1a with the finaliser of MurmurHash3, whose every output bit depends on every input bit.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.into_iter().flatten() {
        h = (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIXTEEN: NonZeroU16 = NonZeroU16::new(16).unwrap();

    /// These values are in use in clusters.
    #[test]
    fn groups_never_change() {
        let group = |ip: &str| group_of(ip.parse().unwrap(), SIXTEEN);
        let groups =
            ["192.0.2.10", "192.0.2.11", "::ffff:192.0.2.10", "2001:db8::10", "2001:db8::11"].map(group);
        assert_eq!(groups, [12, 13, 12, 7, 6]);
    }

    #[test]
    fn neighbouring_addresses_spread() {
        let mut members = [0; 16];
        for host in 0..=255 {
            members[usize::from(group_of([192, 0, 2, host].into(), SIXTEEN))] += 1;
        }
        assert!(members.iter().all(|n| (4..=32).contains(n)), "{members:?}");
    }

    #[test]
    fn nobody_gets_more_than_its_share() {
        let nodes = || ["n1", "n2", "n3"].map(|name| (NodeName::from(name), 0)).into();
        let count = |chosen: &BTreeMap<Group, NodeName>, name: &str| {
            chosen.values().filter(|node| node.as_str() == name).count()
        };
        let all = spread(0..16, SIXTEEN, nodes(), |_, _| true);
        let counts = ["n1", "n2", "n3"].map(|name| count(&all, name));
        assert_eq!((counts.iter().sum(), counts.iter().max()), (16, Some(&6)));
        // What is of use goes before what is even.
        let one = spread(0..16, SIXTEEN, nodes(), |node, _| node.as_str() == "n2");
        assert_eq!(count(&one, "n2"), 16);
        assert_eq!(spread(0..16, SIXTEEN, BTreeMap::new(), |_, _| true), BTreeMap::new());
    }

    #[test]
    fn every_node_comes_first_for_its_share() {
        let nodes = ["n1", "n2", "n3"].map(NodeName::from);
        let mut wins = [0; 3];
        for group in 0..600 {
            let best = (0..3).max_by_key(|n| claim_score(&nodes[*n], group)).unwrap();
            wins[best] += 1;
        }
        assert!(wins.iter().all(|n| (150..=250).contains(n)), "{wins:?}");
    }
}
