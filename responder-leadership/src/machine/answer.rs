//! What the datapath is told.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Gives, Machine, session::Own};
use crate::{
    event::{Effect, Holdings},
    flaw::Flaw,
    id::{Group, Object},
};

/// What this node holds of a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    held: bool,
    /// VIPs held one by one.
    exceptions: BTreeSet<IpAddr>,
    /// VIPs that do not follow the group here.
    silent: Arc<BTreeSet<IpAddr>>,
}

impl Machine {
    /// What must not be answered because it may have been given away, or is about to be.
    fn given(&self, group: Group) -> Gives {
        let object = Object::Claim(group);
        let mut given = Gives::default();
        let version = self.claims.get(usize::from(group)).map(|view| view.version);
        let pending = self.pending.get(&object).filter(|pending| Some(pending.version) == version);
        let doubt = self.doubts.get(&object).filter(|doubt| Some(doubt.version) == version);
        for gives in pending.map(|p| &p.gives).into_iter().chain(doubt.map(|d| &d.gives)) {
            given.group |= gives.group;
            given.vips.extend(gives.vips.iter().copied());
        }
        if let Some(only) = doubt.and_then(|doubt| doubt.only.as_ref()) {
            let demand = self.demand.get(usize::from(group)).into_iter().flatten();
            given.vips.extend(demand.map(|(vip, _)| *vip).filter(|vip| !only.contains(vip)));
        }
        given
    }

    /// What this node holds now, as far as it may answer for it. Only groups that may have changed are looked at.
    pub(super) fn note_answer(&mut self) {
        let stale = std::mem::take(&mut self.stale);
        if stale.is_empty() && self.answered.is_some() {
            return;
        }
        for group in stale {
            let part = self.part(group);
            self.parts.insert(group, part);
        }
        let mut holdings = Holdings::default();
        for (group, part) in &self.parts {
            if part.held {
                holdings.groups.insert(*group);
            }
            holdings.exceptions.extend(&part.exceptions);
            if !part.silent.is_empty() {
                holdings.silent.insert(*group, Arc::clone(&part.silent));
            }
        }
        if self.answered.as_deref() != Some(&holdings) {
            self.answered = Some(Arc::new(holdings));
            self.say = true;
        }
    }

    /// What this node holds of a group.
    fn part(&self, group: Group) -> Part {
        let given = self.given(group);
        let claim = self.claim(group);
        let holder = claim.and_then(|claim| claim.holder.as_ref());
        let mut exceptions = BTreeSet::new();
        let mut silent = given.vips.clone();
        if let Some(demand) = self.demand.get(usize::from(group)) {
            silent.extend(demand.iter().filter(|(vip, e)| !self.able(vip, e)).map(|(vip, _)| *vip));
            for (vip, id) in claim.into_iter().flat_map(|claim| &claim.exceptions) {
                silent.insert(*vip);
                let able = demand.get(vip).is_some_and(|eligible| self.able(vip, eligible));
                if able && self.is_me(id) && !given.vips.contains(vip) {
                    exceptions.insert(*vip);
                }
            }
        }
        let held = holder.is_some_and(|holder| self.is_me(holder)) && !given.group;
        Part { held, exceptions, silent: Arc::new(silent) }
    }

    /// The deadline, unless that of the agent before this one still holds.
    fn wanted_deadline(&self) -> Option<Duration> {
        let times = self.settings.times;
        let Own::In(held) = &self.own else {
            return Some(Duration::ZERO);
        };
        let lease = held.confirmed? + times.lease_duration;
        let margin = if self.has(Flaw::NoMargin) { Duration::ZERO } else { times.margin() };
        // Twice as long, so clocks may differ by twice as much.
        let deadline =
            (lease - margin).min((self.watched_until + times.watch_limit()).saturating_sub(margin * 2));
        // The predecessor's ends by itself, and need not end now because the list was made long ago.
        (self.deadline.is_some() || deadline > self.now).then_some(deadline)
    }

    pub(super) fn say_answer(&mut self, effects: &mut Vec<Effect>) {
        if self.synced_at.is_none() {
            return;
        }
        let times = self.settings.times;
        if let Some(since) = self.limit.take() {
            // Others may be told a shorter lease than the predecessor's.
            effects.push(Effect::DeadlineAtMost(since + times.lease_duration - times.margin()));
        }
        let deadline = self.wanted_deadline();
        let changed = deadline.is_some() && deadline != self.deadline;
        if changed && deadline == Some(Duration::ZERO) {
            effects.push(Effect::Deadline(Duration::ZERO));
        }
        if std::mem::take(&mut self.say)
            && let Some(holdings) = &self.answered
        {
            effects.push(Effect::Answer(Arc::clone(holdings)));
        }
        if changed && let Some(deadline) = deadline {
            if deadline > Duration::ZERO {
                effects.push(Effect::Deadline(deadline));
            }
            self.deadline = Some(deadline);
        }
    }
}
