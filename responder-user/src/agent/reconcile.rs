//! Making plans true: writing the maps.

use std::sync::Arc;

use responder_common::layout::SlotState;

use super::{Agent, now, source::Source};
use crate::{
    datapath::chain,
    decision::{
        change::{Step, steps},
        plan::{LEFT_OUT, Plan, VipAt},
    },
    net::{boot, ethtool, groups::GroupReport, sysctl},
};

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
        let plan = self.make_plan();
        let before = std::mem::replace(&mut self.plan, plan);
        if self.options.set_vlan_offload && self.keep_tags() {
            self.plan = self.make_plan();
        }
        self.say_changes(&before);
        let fails = |interface| matches!(self.ports.get(&interface), Some(Err(_)));
        self.plan.silence_forwarding(|interface| !fails(interface));
    }

    fn make_plan(&mut self) -> Plan {
        // Where the sysctl cannot be read there is no IPv6.
        let router = |name: &str| sysctl::ipv6_forwarding(name).unwrap_or(false);
        match &mut self.source {
            Source::File(file) => Plan::for_static(&file.config, &self.net, router),
            Source::Cluster(cluster) => cluster.plan(&self.net, &self.actual, router),
        }
    }

    /// Names interfaces that cannot be used, and what is not as good as it could be; each once.
    fn say_changes(&self, before: &Plan) {
        for (name, reason) in &self.plan.waiting {
            if before.waiting.get(name) == Some(reason) {
                continue;
            }
            // A pattern may match the ports of all pods.
            if reason.contains(LEFT_OUT) {
                tracing::debug!(link = %name, %reason, "not used");
            } else {
                tracing::warn!(link = %name, %reason, "cannot be used");
            }
        }
        for (index, interface) in &self.plan.interfaces {
            let known = before.interfaces.get(index).map_or(&[][..], |interface| &interface.notes);
            for note in interface.notes.iter().filter(|note| !known.contains(note)) {
                tracing::info!(link = %interface.name, %note, "not as quick as it could be");
            }
        }
    }

    /// Has NICs leave VLAN tags in the frames where the program needs them. True if one does now that did not before.
    fn keep_tags(&mut self) -> bool {
        let mut changed = false;
        for index in self.plan.stripping.difference(&self.keep_stripping.clone()).copied() {
            let Some(link) = Arc::make_mut(&mut self.net).links.get_mut(&index) else {
                continue;
            };
            match ethtool::set_rx_vlan_offload(&link.name, false) {
                Ok(()) => {
                    tracing::warn!(
                        link = %link.name,
                        "rxvlan turned off, so that the program sees VLAN tags; it stays off (ethtool -K {} rxvlan on)",
                        link.name
                    );
                    link.strips_tags = false;
                    changed = true;
                }
                Err(error) => {
                    tracing::warn!(link = %link.name, %error, "the program does not see VLAN tags");
                    self.keep_stripping.insert(index);
                }
            }
        }
        changed
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
            Step::SetLink(place, link) => match self.maps.set_link(place, &link) {
                Ok(()) => drop(self.actual.links.insert(place, Some(link))),
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
            Step::RemoveLink(place) => match self.maps.remove_link(place) {
                Ok(()) => drop(self.actual.links.remove(&place)),
                Err(error) => tracing::error!(?place, error = %chain(&error), "cannot remove the link"),
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

    /// Takes note of what the joiner has done.
    pub(super) fn joined_groups(&mut self, report: GroupReport) {
        for (index, reason) in &report.all_multicast {
            if self.all_multicast.get(index) != Some(reason) {
                tracing::warn!(link = %self.device_name(*index), %reason, "receiving all multicast frames");
            }
        }
        for (index, group, error) in &report.errors {
            tracing::warn!(link = %self.device_name(*index), %group, %error, "cannot join");
        }
        self.joined = report.joined;
        self.all_multicast = report.all_multicast;
    }
}
