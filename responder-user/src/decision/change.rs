//! From one plan to the next, in the order that is safe: what is lost is silenced before anything else
//! happens, and what is gained is in the maps before it is announced.

use std::collections::{BTreeMap, BTreeSet};

use responder_common::{
    layout::{LinkKey, STANDBY_SLOT},
    wire::Mac,
};

use super::{
    join::join,
    plan::{LinkPlan, Plan, VipAt},
};
use crate::net::topology::Role;

/// One step. Steps are taken in order; each is one map write or one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Take a slot's VIPs away: one store, which cannot fail.
    TakeSlot(u32),
    /// Forget all announcements of this VIP.
    StopAnnouncing(VipAt),
    /// Write a link's entry.
    SetLink(LinkKey, LinkPlan),
    /// Write a VIP's entry, keeping its counters.
    SetVip(VipAt, u32),
    /// Delete a VIP's entry.
    RemoveVip(VipAt),
    /// Delete a link's entry.
    RemoveLink(LinkKey),
    /// Give a slot's VIPs: one store.
    GiveSlot(u32),
    /// Begin a burst.
    Announce(VipAt),
}

/// What the maps hold, as far as it matters here.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Actual {
    /// Entries of the links map; `None` where an earlier agent's entry has not been compared.
    pub links: BTreeMap<LinkKey, Option<LinkPlan>>,
    /// Entries of the VIP maps with their slots.
    pub vips: BTreeMap<VipAt, u32>,
    /// Slots that are owned.
    pub owned: BTreeSet<u32>,
    /// What is being announced on interfaces, with which hardware address.
    pub announcing: BTreeMap<VipAt, Mac>,
}

impl Actual {
    /// What the maps answer for and the plan does not. While there is any, the deadline must not be extended.
    #[must_use]
    pub fn still_owned(&self, plan: &Plan) -> BTreeSet<VipAt> {
        join(&self.vips, &plan.vips)
            .filter(|(_, is, _)| is.is_some_and(|slot| self.owned.contains(slot)))
            .filter(|(_, _, planned)| !planned.is_some_and(|slot| plan.owned.contains(slot)))
            .map(|(at, ..)| *at)
            .collect()
    }
}

/// The steps that lead from `actual` to `plan`. `attached` says of an interface whether the program runs for it.
#[must_use]
pub fn steps(actual: &Actual, plan: &Plan, attached: impl Fn(u32) -> bool) -> Vec<Step> {
    let running: BTreeMap<u32, Mac> = plan
        .interfaces
        .iter()
        .filter(|(index, link)| link.running && attached(**index))
        .map(|(index, link)| (*index, link.mac))
        .collect();
    let (mut stop, mut start) = (Vec::new(), Vec::new());
    for (at, slot, announced) in join(&plan.vips, &actual.announcing) {
        // Announced is on the interface alone, which sends on the ports that are in use.
        let owned = at.vlan == 0 && slot.is_some_and(|slot| plan.owned.contains(slot));
        match running.get(&at.ifindex).filter(|_| owned) {
            None if announced.is_some() => stop.push(Step::StopAnnouncing(*at)),
            Some(mac) if announced != Some(mac) => start.push(Step::Announce(*at)),
            None | Some(_) => {}
        }
    }
    // A slot that is not owned yet counts as owned if it will be: nobody may be in it by then who does not belong there.
    let will_be_owned = |slot: &u32| actual.owned.contains(slot) || plan.owned.contains(slot);
    let (mut leaving, mut standby, mut gained, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, is, planned) in join(&actual.vips, &plan.vips) {
        match planned {
            Some(slot) if is == Some(slot) => {}
            Some(slot) if plan.owned.contains(slot) => gained.push(Step::SetVip(*at, *slot)),
            Some(slot) => standby.push(Step::SetVip(*at, *slot)),
            None => {
                if is.is_some_and(will_be_owned) {
                    leaving.push(Step::SetVip(*at, STANDBY_SLOT));
                }
                gone.push(Step::RemoveVip(*at));
            }
        }
    }

    let mut steps: Vec<_> = actual.owned.difference(&plan.owned).copied().map(Step::TakeSlot).collect();
    steps.extend(stop);
    // Losses come before everything that takes time: what becomes standby, and what leaves. The latter is silenced
    // first and deleted last, because a deletion passes questions on to the host.
    steps.extend(leaving);
    steps.extend(standby);
    let (mut silenced, mut set) = (Vec::new(), Vec::new());
    for (place, link) in &plan.links {
        if actual.links.get(place).and_then(Option::as_ref) != Some(link) {
            let list = if link.role == Role::Backup { &mut silenced } else { &mut set };
            list.push(Step::SetLink(*place, link.clone()));
        }
    }
    // A bond's slave that is not in use any more is silent before the next one answers.
    steps.extend(silenced);
    steps.extend(set);
    steps.extend(gained);
    steps.extend(plan.owned.difference(&actual.owned).copied().map(Step::GiveSlot));
    // Deletions last: the kernel may reuse a deleted entry's memory for the next insertion at once.
    steps.extend(gone);
    steps.extend(
        actual.links.keys().filter(|index| !plan.links.contains_key(index)).map(|i| Step::RemoveLink(*i)),
    );
    steps.extend(start);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decision::plan::Interface, net::topology::Port};

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const ETH0: LinkKey = LinkKey { ifindex: 3, vlan: 0 };

    /// A place of interface 3.
    fn place(mac: Mac, role: Role) -> LinkPlan {
        LinkPlan { name: "eth0".into(), interface: 3, mac, router: false, prefixes: Default::default(), role }
    }

    fn vip(n: u8) -> VipAt {
        VipAt { ifindex: 3, vlan: 0, ip: [192, 0, 2, n].into() }
    }

    fn plan(vips: &[(u8, u32)], mac: Mac, running: bool) -> Plan {
        let port = Port { ifindex: 3, vlan: 0, role: Role::Answers, generic: None };
        let interface =
            Interface { name: "eth0".into(), mac, running, ports: vec![port], obstacle: None, notes: vec![] };
        Plan {
            interfaces: [(3, interface)].into(),
            links: [(ETH0, place(mac, Role::Answers))].into(),
            vips: vips.iter().map(|(n, slot)| (vip(*n), *slot)).collect(),
            owned: [1].into(),
            ..Plan::default()
        }
    }

    /// What holds after the steps have been taken.
    fn apply(actual: &mut Actual, plan: &Plan, steps: &[Step]) {
        for step in steps {
            match step.clone() {
                Step::StopAnnouncing(at) => drop(actual.announcing.remove(&at)),
                Step::SetLink(i, link) => drop(actual.links.insert(i, Some(link))),
                Step::SetVip(at, slot) => drop(actual.vips.insert(at, slot)),
                Step::TakeSlot(slot) => drop(actual.owned.remove(&slot)),
                Step::GiveSlot(slot) => drop(actual.owned.insert(slot)),
                Step::RemoveVip(at) => drop(actual.vips.remove(&at)),
                Step::RemoveLink(i) => drop(actual.links.remove(&i)),
                Step::Announce(at) => drop(actual.announcing.insert(at, plan.interfaces[&at.ifindex].mac)),
            }
        }
    }

    #[test]
    fn gain_is_map_first_then_burst() {
        let plan = plan(&[(1, 1)], MAC, true);
        let Step::SetLink(ETH0, _) = &steps(&Actual::default(), &plan, |_| true)[0] else {
            panic!("the link comes first");
        };
        assert_eq!(
            steps(&Actual::default(), &plan, |_| true)[1..],
            [Step::SetVip(vip(1), 1), Step::GiveSlot(1), Step::Announce(vip(1))]
        );
    }

    #[test]
    fn loss_is_silence_first() {
        let (old, new) = (plan(&[(1, 1), (2, 1)], MAC, true), plan(&[(1, 0), (3, 1)], MAC, true));
        let mut actual = Actual::default();
        let first = steps(&actual, &old, |_| true);
        apply(&mut actual, &old, &first);
        assert_eq!(
            steps(&actual, &new, |_| true),
            [
                Step::StopAnnouncing(vip(1)),
                Step::StopAnnouncing(vip(2)),
                Step::SetVip(vip(2), 0),
                Step::SetVip(vip(1), 0),
                Step::SetVip(vip(3), 1),
                Step::RemoveVip(vip(2)),
                Step::Announce(vip(3)),
            ]
        );
    }

    #[test]
    fn what_is_lost_is_owed_until_it_is_written() {
        let (old, new) = (plan(&[(1, 1), (2, 1), (3, 1)], MAC, true), plan(&[(1, 0), (3, 1)], MAC, true));
        let mut actual = Actual::default();
        let first = steps(&actual, &old, |_| true);
        apply(&mut actual, &old, &first);
        assert_eq!(actual.still_owned(&old), [].into());
        assert_eq!(actual.still_owned(&new), [vip(1), vip(2)].into());
        apply(&mut actual, &new, &[Step::SetVip(vip(1), 0)]);
        assert_eq!(actual.still_owned(&new), [vip(2)].into());
        apply(&mut actual, &new, &[Step::RemoveVip(vip(2))]);
        assert_eq!(actual.still_owned(&new), [].into());
    }

    #[test]
    fn a_group_is_gained_and_lost_by_its_slot() {
        let held = Plan { owned: [1, 7].into(), ..plan(&[(1, 7), (2, 7)], MAC, true) };
        let lost = Plan { owned: [1].into(), ..plan(&[(1, 7), (2, 7)], MAC, true) };
        let mut actual = Actual::default();
        let first = steps(&actual, &held, |_| true);
        apply(&mut actual, &held, &first);
        let loss = steps(&actual, &lost, |_| true);
        let stop = [1, 2].map(|n| Step::StopAnnouncing(vip(n)));
        assert_eq!(loss, [&[Step::TakeSlot(7)], &stop[..]].concat());
        apply(&mut actual, &lost, &loss);
        let gain = steps(&actual, &held, |_| true);
        assert_eq!(gain, [Step::GiveSlot(7), Step::Announce(vip(1)), Step::Announce(vip(2))]);
    }

    #[test]
    fn what_does_not_belong_into_a_slot_leaves_before_it_is_owned() {
        let standby = Plan { owned: [1].into(), ..plan(&[(1, 7), (2, 7), (3, 7)], MAC, true) };
        let mut actual = Actual::default();
        let first = steps(&actual, &standby, |_| true);
        apply(&mut actual, &standby, &first);
        let held = Plan { owned: [1, 7].into(), ..plan(&[(1, 7), (2, 0)], MAC, true) };
        let steps = steps(&actual, &held, |_| true);
        let give = steps.iter().position(|step| *step == Step::GiveSlot(7));
        let silent = [Step::SetVip(vip(2), 0), Step::SetVip(vip(3), 0)];
        assert!(silent.iter().all(|step| steps.iter().position(|s| s == step) < give), "{steps:?}");
    }

    #[test]
    fn nothing_to_do_is_no_steps() {
        let plan = plan(&[(1, 1), (2, 0)], MAC, true);
        let mut actual = Actual::default();
        let first = steps(&actual, &plan, |_| true);
        apply(&mut actual, &plan, &first);
        assert_eq!(steps(&actual, &plan, |_| true), []);
    }

    #[test]
    fn announced_anew_after_a_mac_change_and_when_the_carrier_returns() {
        let mut actual = Actual::default();
        let up = plan(&[(1, 1)], MAC, true);
        let first = steps(&actual, &up, |_| true);
        apply(&mut actual, &up, &first);
        let moved = plan(&[(1, 1)], Mac::new([2, 0, 0, 0, 0, 2]), true);
        let change = steps(&actual, &moved, |_| true);
        assert_eq!(change.len(), 2);
        assert_eq!(change[1], Step::Announce(vip(1)));
        let down = plan(&[(1, 1)], MAC, false);
        let change = steps(&actual, &down, |_| true);
        assert_eq!(change[0], Step::StopAnnouncing(vip(1)));
        apply(&mut actual, &down, &change);
        assert_eq!(steps(&actual, &up, |_| true).last(), Some(&Step::Announce(vip(1))));
    }

    /// The same address on interface 3, a bond, with slaves 4 and 5, of which this one is in use.
    fn bond(slot: u32, active: u32) -> Plan {
        let mut bond = plan(&[(1, slot)], MAC, true);
        for slave in [4, 5] {
            let at = LinkKey { ifindex: slave, vlan: 0 };
            let role = if slave == active { Role::Answers } else { Role::Backup };
            bond.links.insert(at, place(MAC, role));
            bond.vips.insert(VipAt { ifindex: slave, ..vip(1) }, slot);
        }
        bond
    }

    #[test]
    fn a_failover_of_a_bond_is_silence_first_and_no_burst() {
        let (before, after) = (bond(1, 4), bond(1, 5));
        let mut actual = Actual::default();
        let first = steps(&actual, &before, |_| true);
        assert_eq!(first.iter().filter(|step| matches!(step, Step::Announce(_))).count(), 1, "{first:?}");
        apply(&mut actual, &before, &first);
        let failover = steps(&actual, &after, |_| true);
        let set = |ifindex, role| Step::SetLink(LinkKey { ifindex, vlan: 0 }, place(MAC, role));
        assert_eq!(failover, [set(4, Role::Backup), set(5, Role::Answers)]);
    }

    #[test]
    fn a_loss_silences_all_places_before_anything_else() {
        let mut actual = Actual::default();
        let first = steps(&actual, &bond(1, 4), |_| true);
        apply(&mut actual, &bond(1, 4), &first);
        let lost = Plan { links: [(ETH0, place(MAC, Role::Answers))].into(), ..bond(0, 5) };
        let loss = steps(&actual, &lost, |_| true);
        let silent = [3, 4, 5].map(|ifindex| Step::SetVip(VipAt { ifindex, ..vip(1) }, 0));
        assert_eq!(loss[..4], [&[Step::StopAnnouncing(vip(1))], &silent[..]].concat());
        assert_eq!(actual.still_owned(&lost).len(), 3);
    }

    #[test]
    fn nothing_is_announced_where_nothing_answers() {
        let plan = plan(&[(1, 1)], MAC, true);
        let steps = steps(&Actual::default(), &plan, |_| false);
        assert!(!steps.contains(&Step::Announce(vip(1))), "{steps:?}");
    }
}
