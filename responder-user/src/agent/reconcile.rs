//! Making plans true: attaching to links, writing the maps.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use responder_common::layout::{SLOTS, SlotState};

use super::{Agent, now, source::Source};
use crate::{
    datapath::{
        chain,
        egress::{self, EgressVia},
        foreign::Foreign,
        object::is_ours,
        pins::Pins,
        xdp::{self, AttachError, Attached, Attempt, Via},
    },
    decision::{
        change::{Step, steps},
        plan::{Plan, VipAt},
    },
    journal::Happening,
    net::{boot, ethtool, groups::GroupReport, link::Link, sysctl},
};

fn detach(pins: &Pins, index: u32, name: Option<&str>) {
    for result in [xdp::detach(pins, index), egress::detach(pins, index, name).map(drop)] {
        if let Err(error) = result {
            tracing::warn!(index, error = %chain(&error), "cannot detach");
        }
    }
}

/// How a link stands.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) xdp: Result<Attached, Failure>,
    pub(super) egress: Result<EgressVia, Vec<Attempt>>,
}

/// Why the XDP program does not run on a link.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) tried: Vec<Attempt>,
    /// Another program is in the way.
    pub(super) foreign: Option<Foreign>,
}

/// Another program is on every interface that should announce.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(link, foreign)| format!("{link}: {foreign} is attached, and not ours: left \
    alone. Detach it (`ip link set dev {link} xdp off` if it was attached by netlink), or leave {link} out of \
    `interfaces`")).collect::<Vec<_>>().join("; "))]
pub struct AllForeign(Vec<(String, Foreign)>);

impl Agent {
    /// Plans anew from the configuration and the links as they are, and makes the plan true.
    pub(super) fn replan(&mut self) {
        self.plan_anew();
        self.write_maps();
        self.attach_links();
        self.write_maps(); // what is attached now is announced
        self.begin_announcements(usize::MAX);
        self.groups.want(self.plan.groups());
    }

    /// Plans and writes the maps, without attaching to new links. What is gained is answered, and announced
    /// when the loop comes round: until then, more may be gained, and it must not wait.
    pub(super) fn plan_and_write(&mut self) {
        let reassigned = match &mut self.source {
            Source::File(_) => false,
            Source::Cluster(cluster) => cluster.reassign(&mut self.plan, &self.net),
        };
        if !reassigned {
            self.plan_anew();
        }
        self.write_maps();
    }

    fn plan_anew(&mut self) {
        // Where the sysctl cannot be read there is no IPv6.
        let router = |name: &str| sysctl::ipv6_forwarding(name).unwrap_or(false);
        self.plan = match &mut self.source {
            Source::File(file) => Plan::for_static(&file.config, &self.net, router),
            Source::Cluster(cluster) => cluster.plan(&self.net, &self.actual, router),
        };
    }

    /// Makes the maps hold what the plan says, and reports what they could not be told.
    fn write_maps(&mut self) {
        let mut rejected = self.take_steps();
        if !rejected.is_empty() {
            // Gains come before deletions, which have made room by now.
            rejected = self.take_steps();
        }
        let count = rejected.len();
        for (at, reason) in rejected {
            if self.failed_vips.insert(at, reason.clone()).is_none() && count <= 10 {
                tracing::error!(vip = %at.ip, %reason, "cannot announce");
            }
        }
        if count > 10 {
            tracing::error!(count, "cannot announce these addresses; `responder status` names them");
        }
        self.failed_vips
            .retain(|at, _| self.plan.vips.contains_key(at) && !self.actual.vips.contains_key(at));
        if !self.overdue.is_empty() && matches!(self.source, Source::Cluster(_)) {
            self.beat(now()); // sets the deadline to zero
        }
    }

    /// Whether a VIP is in a slot that does not belong there.
    fn has_strangers(&self, slot: u32) -> bool {
        let mut members = self.actual.vips.iter().filter(|(_, of)| **of == slot);
        members.any(|(at, of)| self.plan.vips.get(at) != Some(of))
    }

    /// Takes the steps that lead from what the maps hold to the plan. Those that the kernel refuses come back.
    fn take_steps(&mut self) -> Vec<(VipAt, String)> {
        self.overdue = self.actual.still_owned(&self.plan);
        let mut rejected = Vec::new();
        for step in self.steps() {
            // Where a loss was refused, what it concerns must not be answered with the rest.
            if let Step::GiveSlot(slot) = &step
                && !rejected.is_empty()
                && self.has_strangers(*slot)
            {
                continue;
            }
            if let Err(refusal) = self.take_step(step) {
                rejected.push(refusal);
            }
            self.beat_if_due();
        }
        rejected
    }

    /// The steps from what the maps hold to the plan.
    pub(super) fn steps(&self) -> Vec<Step> {
        let attached = self.attached();
        steps(&self.actual, &self.plan, |index| attached.contains(&index))
    }

    fn take_step(&mut self, step: Step) -> Result<(), (VipAt, String)> {
        match step {
            Step::TakeSlot(slot) => {
                self.maps.set_slot(slot, SlotState::Standby, boot::now_ns());
                self.actual.owned.remove(&slot);
                self.overdue = self.actual.still_owned(&self.plan);
            }
            Step::GiveSlot(slot) => {
                self.maps.set_slot(slot, SlotState::Owned, boot::now_ns());
                self.actual.owned.insert(slot);
            }
            Step::StopAnnouncing(at) => {
                self.bursts.lose(&at);
                self.actual.announcing.remove(&at);
                self.announced.remove(&at);
                self.tell_lost(at);
            }
            Step::SetLink(index, link) => match self.maps.set_link(index, &link) {
                Ok(()) => drop(self.actual.links.insert(index, Some(link))),
                Err(error) => {
                    tracing::error!(link = %link.name, error = %chain(&error), "cannot write the link")
                }
            },
            Step::SetVip(at, slot) => match self.maps.set_vip(at, slot) {
                Ok(()) => {
                    self.actual.vips.insert(at, slot);
                    self.overdue.remove(&at);
                }
                Err(error) => {
                    // What stands there now must not be announced as if it had been changed.
                    return Err((at, self.explain_full(&chain(&error))));
                }
            },
            Step::RemoveVip(at) => match self.maps.remove_vip(at) {
                Ok(()) => {
                    self.actual.vips.remove(&at);
                    self.overdue.remove(&at);
                }
                Err(error) => {
                    tracing::error!(vip = %at.ip, error = %chain(&error), "cannot remove the address")
                }
            },
            Step::RemoveLink(index) => match self.maps.remove_link(index) {
                Ok(()) => drop(self.actual.links.remove(&index)),
                Err(error) => tracing::error!(index, error = %chain(&error), "cannot remove the link"),
            },
            Step::Announce(_) => self.behind = true,
        }
        Ok(())
    }

    fn explain_full(&self, error: &str) -> String {
        // E2BIG is the kernel's word for a full hash map.
        if error.contains("Argument list too long") || error.contains("os error 7") {
            format!(
                "the map is full: it has room for {} addresses of a family; start with a larger --capacity after \
                 `responder detach`",
                self.object.capacity
            )
        } else {
            error.to_owned()
        }
    }

    /// Attaches to links that are new in the plan, and detaches from those that are not in it any more.
    fn attach_links(&mut self) {
        let gone: Vec<u32> = self
            .links
            .keys()
            .copied()
            .chain(self.pins.linked("xdp"))
            .filter(|index| !self.plan.links.contains_key(index))
            .collect();
        for index in gone {
            let name = self.net.links.get(&index).map(|link| link.name.clone());
            detach(&self.pins, index, name.as_deref());
            self.groups.forget(index);
            self.links.remove(&index);
        }
        for index in self.plan.links.keys().copied().collect::<Vec<_>>() {
            match self.links.get(&index) {
                Some(LinkState { xdp: Ok(_), egress: Ok(_) }) => {}
                Some(LinkState { xdp: Ok(_), egress: Err(_) }) => self.attach_egress(index),
                Some(LinkState { xdp: Err(_), .. }) | None => self.attach_link(index),
            }
        }
    }

    /// Detaches from links that an earlier agent was told to use and this one is not. Those with a pinned link
    /// are found by it; those attached by netlink only so.
    pub(super) fn leave_other_links(&mut self) {
        for (index, link) in self.net.links.iter().filter(|(index, _)| !self.plan.links.contains_key(index)) {
            detach(&self.pins, *index, Some(&link.name));
        }
    }

    fn attach_link(&mut self, index: u32) {
        let name = self.link_name(index);
        let (mode, how) = (self.options.mode, self.options.attach);
        // First what the host itself sends, so that no answer of this program is contradicted.
        let egress = egress::attach(&mut self.object, &self.pins, index, &name, how);
        if let Err(tried) = &egress {
            for Attempt { what, error } in tried {
                tracing::warn!(
                    link = %name, %what, %error,
                    "what this host itself sends about the addresses is not corrected"
                );
            }
        }
        let attached = match self.vlan_obstacle(index) {
            Some(reason) => Err(AttachError::Obstacle(reason)),
            None => xdp::attach(&mut self.object, &self.pins, index, mode, how),
        };
        let xdp = attached.map_err(|error| match error {
            AttachError::Obstacle(reason) => Failure { reason, tried: Vec::new(), foreign: None },
            AttachError::Foreign(foreign) => Failure {
                reason: AttachError::Foreign(foreign.clone()).to_string(),
                tried: Vec::new(),
                foreign: Some(foreign),
            },
            AttachError::Refused(tried) => {
                Failure { reason: AttachError::Refused(tried.clone()).to_string(), tried, foreign: None }
            }
            AttachError::Other(error) => Failure { reason: chain(&error), tried: Vec::new(), foreign: None },
        });
        let before = self.links.insert(index, LinkState { xdp, egress });
        let Some(LinkState { xdp, .. }) = self.links.get(&index) else {
            return;
        };
        match xdp {
            Ok(attached) => {
                for Attempt { what, error } in &attached.tried {
                    tracing::warn!(link = %name, %what, %error, "did not work");
                }
                if attached.mode == "native"
                    && let Some(reason) = self.net.links.get(&index).and_then(Link::native_tx_obstacle)
                {
                    tracing::info!(link = %name, %reason, "answers arrive on one condition");
                }
                let taken = if attached.taken_over { ", taken over" } else { "" };
                let mode = format!("{} by {}{taken}", attached.mode, attached.via);
                self.tell(Happening::Attached { link: name, mode });
            }
            Err(failure) => {
                // Tried again at every inspection; said once.
                let known = before.is_some_and(|b| b.xdp.as_ref().err() == Some(failure));
                if !known {
                    self.tell(Happening::NotAttached { link: name, reason: failure.reason.clone() });
                }
            }
        }
    }

    /// Why the program would answer on the wrong VLAN here. What runs already goes on, and is warned about.
    fn vlan_obstacle(&self, index: u32) -> Option<String> {
        let link = self.net.links.get(&index)?;
        let features = ethtool::features(&link.name);
        let reason = self.net.vlan_obstacle(link, features.rx_vlan_offload)?;
        if self.pins.xdp_link(index).exists() {
            tracing::warn!(link = %link.name, %reason, "may answer on the wrong VLAN");
            return None;
        }
        Some(reason)
    }

    /// Tries the egress program again where it could not be attached.
    fn attach_egress(&mut self, index: u32) {
        let name = self.link_name(index);
        let egress = egress::attach(&mut self.object, &self.pins, index, &name, self.options.attach);
        if let (Ok(via), Some(state)) = (egress, self.links.get_mut(&index)) {
            tracing::info!(link = %name, ?via, "egress program attached");
            state.egress = Ok(via);
        }
    }

    /// Looks whether the programs still run where they should, and tries again where they could not.
    ///
    /// # Errors
    ///
    /// If the pins are gone: what would be attached now, no other agent could take over.
    pub(super) fn inspect(&mut self) -> Result<()> {
        if !self.pins.map(SLOTS).exists() {
            self.detach_unpinned();
            let root = self.pins.root().display();
            bail!("the pins at {root} were removed under the agent; start it again, and it makes them anew");
        }
        let mut lost = Vec::new();
        for (index, state) in &self.links {
            let Ok(attached) = &state.xdp else {
                continue;
            };
            let running = xdp::query(*index).ok().flatten();
            if running.is_none_or(|x| x.prog_id != attached.prog_id && !is_ours(&self.pins, "xdp", x.prog_id))
            {
                lost.push(*index);
            }
        }
        for index in lost {
            tracing::warn!(link = %self.link_name(index), "the program was detached by somebody else");
            self.links.remove(&index);
        }
        self.replan();
        Ok(())
    }

    /// Detaches what was attached by netlink. (What was attached by a link went with its pin.)
    fn detach_unpinned(&mut self) {
        for (index, state) in &self.links {
            let Ok(Attached { via: Via::Netlink, prog_id, .. }) = &state.xdp else {
                continue;
            };
            if let Err(error) = xdp::detach_own(&mut self.object, *index, *prog_id) {
                tracing::warn!(index, %error, "cannot detach");
            }
        }
    }

    /// Takes note of what the joiner has done.
    pub(super) fn joined_groups(&mut self, report: GroupReport) {
        for (index, reason) in &report.all_multicast {
            if self.all_multicast.get(index) != Some(reason) {
                tracing::warn!(link = %self.link_name(*index), %reason, "receiving all multicast frames");
            }
        }
        for (index, group, error) in &report.errors {
            tracing::warn!(link = %self.link_name(*index), %group, %error, "cannot join");
        }
        self.joined = report.joined;
        self.all_multicast = report.all_multicast;
    }

    /// Ends the start if other programs hold every interface.
    pub(super) fn refuse_if_all_foreign(&self) -> Result<()> {
        let foreign: BTreeMap<_, _> = self
            .links
            .iter()
            .filter_map(|(index, state)| {
                Some((self.link_name(*index), state.xdp.as_ref().err()?.foreign.clone()?))
            })
            .collect();
        if !foreign.is_empty() && foreign.len() == self.links.len() {
            for index in self.links.keys() {
                let name = self.link_name(*index);
                egress::detach(&self.pins, *index, Some(&name))?;
            }
            // Nothing of ours runs anywhere: as if this start had not been.
            self.pins.remove()?;
            return Err(AllForeign(foreign.into_iter().collect()).into());
        }
        Ok(())
    }
}
