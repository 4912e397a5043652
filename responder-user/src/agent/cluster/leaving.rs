//! Giving everything up: to end, or to begin anew with another number of claims.

use std::{num::NonZeroU16, time::Duration};

use responder_common::layout::Owner;
use responder_leadership::event::Event;

use crate::agent::{Agent, now};

/// How long handing over may take. Kubernetes allows 30 s.
const LIMIT: Duration = Duration::from_secs(20);

/// Everything is being handed over.
pub(super) struct Leaving {
    /// When to go on although something is still held.
    pub(super) by: Duration,
    then: Then,
    done: bool,
}

impl Leaving {
    /// Why.
    pub(super) const fn why(&self) -> &'static str {
        match self.then {
            Then::End => "the agent ends",
            Then::AgreeAgain => "the number of claims changes",
        }
    }
}

/// What comes after that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    End,
    AgreeAgain,
}

impl Agent {
    /// The machine's time has come.
    pub(in crate::agent) fn take_turn(&mut self) {
        let at = now();
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        if let Some(leaving) = cluster.leaving.as_mut().filter(|leaving| at >= leaving.by) {
            tracing::warn!(
                "not everything could be handed over in time; it is free when the session expires"
            );
            leaving.done = true;
            return;
        }
        self.play(Event::Tick);
    }

    /// Begins to hand over. True: there is nothing to wait for, or it was asked for twice.
    pub(in crate::agent) fn begin_stop(&mut self) -> bool {
        self.leave(Then::End)
    }

    fn leave(&mut self, then: Then) -> bool {
        let Some(cluster) = self.cluster_mut() else {
            return true;
        };
        if let Some(leaving) = &mut cluster.leaving {
            let again = leaving.then == then;
            leaving.then = then;
            return again;
        }
        let can_hand_over = cluster.player.as_ref().is_some_and(|player| player.synced);
        if !can_hand_over {
            return true;
        }
        cluster.leaving = Some(Leaving { by: now() + LIMIT, then, done: false });
        tracing::info!("handing over");
        self.play(Event::Stop);
        false
    }

    /// The record has another number of claims. With two numbers an address could have two owners: nothing is held any
    /// more, then what the record says is followed.
    pub(super) fn recount(&mut self, claims: NonZeroU16, followed: NonZeroU16) {
        if self.cluster().is_some_and(|cluster| cluster.leaving.is_some()) {
            return; // that comes to the same
        }
        tracing::warn!(
            "the cluster's record says {claims} claims now, and this agent has followed {followed}: it gives up what it \
             holds, and takes part anew once the others have, too"
        );
        if self.leave(Then::AgreeAgain) {
            self.start_over();
        }
    }

    /// The machine has nothing left to do with its session.
    pub(super) fn has_left(&mut self) {
        if let Some(leaving) = self.cluster_mut().and_then(|cluster| cluster.leaving.as_mut()) {
            leaving.done = true;
        }
    }

    /// Whether the agent is to end now that everything is handed over; else it begins anew if it is to.
    pub(in crate::agent) fn has_ended(&mut self) -> bool {
        let leaving = self.cluster().and_then(|cluster| cluster.leaving.as_ref());
        match leaving.filter(|leaving| leaving.done).map(|leaving| leaving.then) {
            Some(Then::End) => true,
            Some(Then::AgreeAgain) => {
                self.start_over();
                false
            }
            None => false,
        }
    }

    fn start_over(&mut self) {
        self.silence();
        if let Some(cluster) = self.cluster_mut() {
            cluster.leaving = None;
            cluster.player = None;
            cluster.surroundings = None;
            cluster.voiced.clear();
            cluster.connected.agree_again();
        }
    }

    /// Takes everything out of the datapath.
    pub(in crate::agent) fn silence(&mut self) {
        if let Some(cluster) = self.cluster_mut() {
            cluster.deadline = Some(Duration::ZERO);
            cluster.holdings = None;
            cluster.adopted = None;
        }
        self.plan_and_write();
        self.beat(now());
        let owner = self.maps.owner();
        self.maps.set_owner(Owner { incarnation: 0, ..owner });
    }
}
