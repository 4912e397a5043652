//! What the machine wants, done in its order.

use std::{collections::BTreeSet, fs::File, io::Write as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use responder_common::layout::{Fence, Owner};
use responder_leadership::{
    event::{Effect, Event, Note},
    record::{Begin, Entry},
};

use super::{
    causes::{self, Situation},
    leaving::Leaving,
};
use crate::{
    agent::{Agent, now},
    journal::Happening,
};

impl Agent {
    /// Tells the machine an event and does what it wants.
    pub(super) fn play(&mut self, event: Event) {
        let at = now();
        let Some(player) = self.cluster_mut().and_then(|cluster| cluster.player.as_mut()) else {
            return;
        };
        let before = player.machine.session();
        let recorded = player.recorder.is_some().then(|| event.clone());
        let effects = player.machine.handle(at, event);
        if let Some(event) = recorded {
            let entry = Entry { at, event, effects: effects.clone() };
            if let Some(file) = &mut player.recorder
                && let Err(error) = write_line(file, &entry)
            {
                tracing::error!(%error, "the record ends here");
                player.recorder = None;
            }
        }
        let session = player.machine.session();
        let claims = u64::from(player.claims.get());
        if let Some(session) = session.filter(|session| before.as_ref() != Some(session)) {
            self.own_maps(session.incarnation.0, claims);
        }
        self.take_causes(&effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    /// Takes note of why what is answered is about to change.
    fn take_causes(&mut self, effects: &[Effect]) {
        let Some(cluster) = self.cluster_mut().filter(|_| causes::matter(effects)) else {
            return;
        };
        if let Some(player) = &cluster.player {
            let overview = player.machine.overview();
            let situation = Situation {
                node: cluster.options.node.clone(),
                fitness: overview.fitness,
                leaving: cluster.leaving.as_ref().map(Leaving::why),
                moves: overview.moves,
            };
            cluster.causes.read(effects, situation);
        }
    }

    /// Tells the machine of this node and of those that should have an agent, if that has changed.
    pub(super) fn play_surroundings(&mut self, local: Event, expected: Event) {
        let news = [local, expected];
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        let before = cluster.surroundings.replace(news.clone());
        for (index, event) in news.into_iter().enumerate() {
            if before.as_ref().and_then(|before| before.get(index)) != Some(&event) {
                self.play(event);
            }
        }
    }

    /// Writes into the maps which session they belong to. Nothing is held yet in a new one.
    fn own_maps(&mut self, incarnation: u64, claims: u64) {
        if let Some(cluster) = self.cluster_mut() {
            cluster.owner = Owner { incarnation, claims, ..cluster.owner };
            let owner = cluster.owner;
            self.maps.set_owner(owner);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(holdings) => {
                let mut taken = BTreeSet::new();
                if let Some(cluster) = self.cluster_mut() {
                    cluster.adopted = None;
                    let before = cluster.holdings.replace(Arc::clone(&holdings));
                    taken.clone_from(&holdings.groups);
                    taken
                        .retain(|group| !before.as_ref().is_some_and(|before| before.groups.contains(group)));
                }
                self.plan_and_write();
                self.say_announcing();
                self.say_refusals_in(&taken);
                if !self.overdue.is_empty() {
                    self.beat(now()); // sets the deadline to zero
                }
            }
            Effect::Deadline(deadline) => {
                let before = Duration::from_nanos(self.maps.fence().deadline_ns);
                let at = now();
                let answers = !self.actual.announcing.is_empty();
                let mut answered = false;
                if let Some(cluster) = self.cluster_mut() {
                    cluster.deadline = Some(deadline);
                    if at < deadline {
                        // What has just been gained was not answered before: that is no lapse.
                        answered = std::mem::replace(&mut cluster.answered, answers);
                    } else if deadline.is_zero() {
                        // All is given up.
                        answered = std::mem::take(&mut cluster.answered);
                    }
                }
                let lapsed = before < at && answered && answers;
                if self.beat(at) && lapsed {
                    let silent = at.saturating_sub(before);
                    if deadline.is_zero() {
                        self.tell_lost_in_lapse(silent);
                    } else {
                        self.tell_lapse(silent);
                    }
                }
            }
            Effect::DeadlineAtMost(deadline) => {
                let fence = self.maps.fence();
                let at_most = deadline.as_nanos().try_into().unwrap_or(u64::MAX);
                self.maps.set_fence(Fence { deadline_ns: fence.deadline_ns.min(at_most), ..fence });
            }
            Effect::Write { .. } | Effect::Read { .. } => {
                let player = self.cluster().and_then(|cluster| cluster.player.as_ref());
                let left = player.and_then(|player| player.writer.start(effect));
                debug_assert!(left.is_none(), "all writes and reads are the writer's");
            }
            Effect::Tell(note) => {
                if note == Note::WatchStale
                    && let Some(player) = self.cluster().and_then(|cluster| cluster.player.as_ref())
                {
                    player.leases.restart();
                }
                if let Some(cluster) = self.cluster_mut() {
                    cluster.remember(&note);
                }
                self.tell(Happening::Leadership { note });
            }
            Effect::Finished => self.has_left(),
        }
    }
}

/// Begins a record: in `path`, or, after the agent's first one, in `path.2` and so on.
pub(super) fn start_record(path: &Path, number: u32, begin: &Begin) -> Result<File> {
    let mut path = path.to_owned();
    if number > 1 {
        path.as_mut_os_string().push(format!(".{number}"));
    }
    let mut file = File::create(&path)
        .with_context(|| format!("cannot write the record {} (--record)", path.display()))?;
    write_line(&mut file, begin).with_context(|| format!("cannot write the record {}", path.display()))?;
    Ok(file)
}

fn write_line<T: serde::Serialize>(file: &mut File, value: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}
