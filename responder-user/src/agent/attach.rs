//! Programs attached where the plan wants them: XDP on ports, egress on interfaces.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use responder_common::layout::SLOTS;

use super::Agent;
use crate::{
    datapath::{
        chain, egress,
        foreign::Foreign,
        object::is_ours,
        xdp::{self, AttachError, Attached, Attempt, Via, WantedMode},
    },
    decision::plan::Device,
    journal::Happening,
    net::link::Link,
};

/// Why the XDP program does not run on a link.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) tried: Vec<Attempt>,
    /// Another program is in the way.
    pub(super) foreign: Option<Foreign>,
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        let reason = match &error {
            AttachError::Other(error) => chain(error),
            AttachError::Foreign(_) | AttachError::Obstacle(_) | AttachError::Refused(_) => error.to_string(),
        };
        let (tried, foreign) = match error {
            AttachError::Refused(tried) => (tried, None),
            AttachError::Foreign(foreign) => (Vec::new(), Some(foreign)),
            AttachError::Obstacle(_) | AttachError::Other(_) => (Vec::new(), None),
        };
        Self { reason, tried, foreign }
    }
}

/// Another program is on every interface that should announce.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(link, foreign)| format!("{link}: {foreign} is attached, and not ours: left \
    alone. Detach it (`ip link set dev {link} xdp off` if it was attached by netlink), or leave {link} out of \
    `interfaces`")).collect::<Vec<_>>().join("; "))]
pub struct AllForeign(Vec<(String, Foreign)>);

impl Agent {
    /// Attaches to what is new in the plan, and detaches from what is not in it any more.
    pub(super) fn attach_links(&mut self) {
        let devices = self.plan.devices();
        let ports: BTreeSet<u32> = self.ports.keys().copied().chain(self.pins.linked("xdp")).collect();
        for index in ports.into_iter().filter(|index| !devices.contains_key(index)) {
            self.detach_port(index);
        }
        let sending: BTreeSet<u32> = self.egress.keys().copied().chain(self.pins.linked("tx")).collect();
        for index in sending.into_iter().filter(|index| !self.plan.interfaces.contains_key(index)) {
            let name = self.net.links.get(&index).map(|link| link.name.clone());
            self.detach_egress(index, name.as_deref());
            self.egress.remove(&index);
            self.groups.forget(index);
        }
        // First what the host itself sends, so that no answer of the other program is contradicted.
        for index in self.plan.interfaces.keys().copied().collect::<Vec<_>>() {
            self.attach_egress(index);
            self.beat_if_due(); // with many links, or slow NICs, it takes longer than the deadline allows
        }
        let mut order: Vec<_> = devices.keys().copied().collect();
        // The kernel refuses a program below one that is there.
        order.sort_by_key(|index| self.net.height(*index));
        for index in order {
            if let Some(device) = devices.get(&index) {
                self.attach_port(index, device);
                self.beat_if_due();
            }
        }
    }

    /// Detaches from links that an earlier agent was told to use and this one is not. Those with a pinned link
    /// are found by it; those attached by netlink only so.
    pub(super) fn leave_other_links(&mut self) {
        let devices = self.plan.devices();
        for (index, link) in &self.net.links {
            if !devices.contains_key(index)
                && let Err(error) = xdp::detach(&self.pins, *index)
            {
                tracing::warn!(index, error = %chain(&error), "cannot detach");
            }
            if !self.plan.interfaces.contains_key(index) {
                self.detach_egress(*index, Some(&link.name));
            }
        }
    }

    fn detach_port(&mut self, index: u32) {
        if let Err(error) = xdp::detach(&self.pins, index) {
            tracing::warn!(index, error = %chain(&error), "cannot detach");
        }
        self.ports.remove(&index);
    }

    fn detach_egress(&self, index: u32, name: Option<&str>) {
        if let Err(error) = egress::detach(&self.pins, index, name) {
            tracing::warn!(index, error = %chain(&error), "cannot detach");
        }
    }

    /// Attaches the egress program where it does not run yet.
    fn attach_egress(&mut self, index: u32) {
        let before = self.egress.get(&index);
        if matches!(before, Some(Ok(_))) {
            return;
        }
        let (again, name) = (before.is_some(), self.device_name(index));
        let egress = egress::attach(&mut self.object, &self.pins, index, &name, self.options.attach);
        match &egress {
            Ok(via) if again => tracing::info!(link = %name, ?via, "egress program attached"),
            Err(tried) if !again => {
                for Attempt { what, error } in tried {
                    tracing::warn!(
                        link = %name, %what, %error,
                        "what this host itself sends about the addresses is not corrected"
                    );
                }
            }
            Ok(_) | Err(_) => {}
        }
        self.egress.insert(index, egress);
    }

    /// Programs of ours that keep a new one away from a device below them; also those of an earlier agent.
    fn ours_above(&self, index: u32) -> Vec<u32> {
        let is_new = !self.pins.xdp_link(index).exists();
        let earlier = |above| {
            let running = xdp::query(above).ok().flatten();
            is_new && running.is_some_and(|x| is_ours(&self.pins, "xdp", x.prog_id))
        };
        let runs = |above: &u32| match self.ports.get(above) {
            Some(state) => state.is_ok(),
            None => earlier(*above),
        };
        self.net.directly_above(index).filter(runs).collect()
    }

    /// A device has changed: where the program could not be attached, and would not be tried again because of one
    /// above it, it will be.
    pub(super) fn try_again(&mut self, index: u32) {
        if matches!(self.ports.get(&index), Some(Err(_))) && !self.ours_above(index).is_empty() {
            self.ports.remove(&index);
        }
    }

    fn attach_port(&mut self, index: u32, device: &Device) {
        let state = self.ports.get(&index);
        let told = state.and_then(|state| state.as_ref().err()).map(|failure| failure.reason.clone());
        match (state, &device.obstacle) {
            (Some(Ok(_)), None) => return,
            (Some(Ok(_)), Some(_)) => self.detach_port(index),
            (Some(Err(_)) | None, _) => {}
        }
        let above = self.ours_above(index);
        if !above.is_empty() {
            if self.ports.contains_key(&index) {
                return; // it would be refused again, and cost the one above a moment
            }
            above.into_iter().for_each(|above| self.detach_port(above)); // its turn comes after this one
        }
        let mut name = self.device_name(index);
        if !self.plan.interfaces.contains_key(&index) || device.interfaces.len() > 1 {
            name = format!("{name} (for {})", device.interfaces.join(", "));
        }
        let (wanted, how) = (self.options.mode, self.options.attach);
        let attached = match (&device.obstacle, device.generic) {
            (Some(reason), _) => {
                // What an earlier agent has attached would do wrong.
                self.detach_port(index);
                Err(AttachError::Obstacle(reason.clone()))
            }
            (None, Some(why)) if wanted == WantedMode::Native => Err(AttachError::Obstacle(format!(
                "the program can run in the network stack only: {why}. Allow that: --xdp-mode auto"
            ))),
            (None, Some(_)) => xdp::attach(&mut self.object, &self.pins, index, WantedMode::Generic, how),
            (None, None) => xdp::attach(&mut self.object, &self.pins, index, wanted, how),
        };
        let attached = attached.map_err(Failure::from);
        match &attached {
            Ok(Attached { mode, via, taken_over, tried, .. }) => {
                for Attempt { what, error } in tried {
                    tracing::warn!(link = %name, %what, %error, "did not work");
                }
                if mode == "native"
                    && let Some(reason) = self.net.links.get(&index).and_then(Link::native_tx_obstacle)
                {
                    tracing::info!(link = %name, %reason, "answers arrive on one condition");
                }
                let taken = if *taken_over { ", taken over" } else { "" };
                self.tell(Happening::Attached { link: name, mode: format!("{mode} by {via}{taken}") });
            }
            Err(failure) => {
                // Tried again at every inspection; said once.
                if told.as_ref() != Some(&failure.reason) {
                    self.tell(Happening::NotAttached { link: name, reason: failure.reason.clone() });
                }
            }
        }
        self.ports.insert(index, attached);
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
        for (index, state) in &self.ports {
            let Ok(attached) = state else {
                continue;
            };
            let running = xdp::query(*index).ok().flatten();
            if running.is_none_or(|x| x.prog_id != attached.prog_id && !is_ours(&self.pins, "xdp", x.prog_id))
            {
                lost.push(*index);
            }
        }
        for index in lost {
            tracing::warn!(link = %self.device_name(index), "the program was detached by somebody else");
            self.ports.remove(&index);
        }
        self.replan();
        Ok(())
    }

    /// Detaches what was attached by netlink. (What was attached by a link went with its pin.)
    fn detach_unpinned(&mut self) {
        for (index, state) in &self.ports {
            let Ok(Attached { via: Via::Netlink, prog_id, .. }) = state else {
                continue;
            };
            if let Err(error) = xdp::detach_own(&mut self.object, *index, *prog_id) {
                tracing::warn!(index, %error, "cannot detach");
            }
        }
    }

    /// Ends the start if other programs hold every link.
    pub(super) fn refuse_if_all_foreign(&self) -> Result<()> {
        let foreign: BTreeMap<_, _> = self
            .ports
            .iter()
            .filter_map(|(index, state)| {
                Some((self.device_name(*index), state.as_ref().err()?.foreign.clone()?))
            })
            .collect();
        if !foreign.is_empty() && foreign.len() == self.ports.len() {
            for index in self.egress.keys() {
                egress::detach(&self.pins, *index, Some(&self.device_name(*index)))?;
            }
            // Nothing of ours runs anywhere: as if this start had not been.
            self.pins.remove()?;
            return Err(AllForeign(foreign.into_iter().collect()).into());
        }
        Ok(())
    }
}
