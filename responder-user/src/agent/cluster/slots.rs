//! Which slot an address is in, by what is held.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16};

use responder_common::layout::{FIRST_GROUP_SLOT, SINGLE_SLOT, STANDBY_SLOT};
use responder_leadership::{event::Holdings, group::group_of, id::Group};

/// The slot of a group.
fn group_slot(group: Group) -> u32 {
    FIRST_GROUP_SLOT + u32::from(group)
}

/// The slots that are owned.
pub(super) fn owned(holdings: &Holdings) -> BTreeSet<u32> {
    holdings.groups.iter().map(|group| group_slot(*group)).chain([SINGLE_SLOT]).collect()
}

/// The slot of a VIP: its group's, unless it does not follow it here.
pub(super) fn slot(holdings: &Holdings, vip: IpAddr, claims: NonZeroU16) -> u32 {
    let group = group_of(vip, claims);
    if holdings.exceptions.contains(&vip) {
        SINGLE_SLOT
    } else if holdings.silent.get(&group).is_some_and(|silent| silent.contains(&vip)) {
        STANDBY_SLOT
    } else {
        group_slot(group)
    }
}

/// The VIPs whose slot may differ, with the one they are in after. There are few, however many are held.
pub(super) fn moved(before: &Holdings, after: &Holdings, claims: NonZeroU16) -> Vec<(IpAddr, u32)> {
    let none = BTreeSet::new();
    let mut vips: BTreeSet<IpAddr> =
        before.exceptions.symmetric_difference(&after.exceptions).copied().collect();
    let groups: BTreeSet<&Group> = before.silent.keys().chain(after.silent.keys()).collect();
    for group in groups {
        let of = |holdings: &'_ Holdings| holdings.silent.get(group).cloned();
        let (was, is) = (of(before), of(after));
        let was = was.as_deref().unwrap_or(&none);
        vips.extend(was.symmetric_difference(is.as_deref().unwrap_or(&none)));
    }
    vips.into_iter().map(|vip| (vip, slot(after, vip, claims))).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;

    const CLAIMS: NonZeroU16 = NonZeroU16::new(4).unwrap();

    fn vip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    /// Every VIP in one of three ways, by a number.
    fn holdings(seed: u32) -> Holdings {
        let mut holdings = Holdings::default();
        let mut silent: BTreeMap<Group, BTreeSet<IpAddr>> = BTreeMap::new();
        for n in 0..64 {
            match (seed.wrapping_mul(2_654_435_761) >> (n % 29)) % 5 {
                0 => drop(holdings.exceptions.insert(vip(n))),
                1 => drop(silent.entry(group_of(vip(n), CLAIMS)).or_default().insert(vip(n))),
                _ => {}
            }
        }
        holdings.groups = (0..4).filter(|group| seed >> group & 1 == 1).collect();
        holdings.silent = silent.into_iter().map(|(group, vips)| (group, Arc::new(vips))).collect();
        holdings
    }

    #[test]
    fn what_moves_is_all_that_differs() {
        for seed in 0..200 {
            let (before, after) = (holdings(seed), holdings(seed + 1));
            let mut slots: BTreeMap<IpAddr, u32> =
                (0..64).map(|n| (vip(n), slot(&before, vip(n), CLAIMS))).collect();
            slots.extend(moved(&before, &after, CLAIMS));
            let anew: BTreeMap<IpAddr, u32> =
                (0..64).map(|n| (vip(n), slot(&after, vip(n), CLAIMS))).collect();
            assert_eq!(slots, anew, "{seed}");
        }
    }

    #[test]
    fn a_group_that_is_taken_moves_no_vip() {
        let before = holdings(7);
        let after = Holdings { groups: [0, 1, 2, 3].into(), ..before.clone() };
        assert_eq!(moved(&before, &after, CLAIMS), []);
        assert_eq!(owned(&after), [1, 2, 3, 4, 5].into());
    }
}
