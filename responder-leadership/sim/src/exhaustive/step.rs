//! What can happen in a state, and what follows.

use responder_leadership::{
    event::{Event, Outcome, Via},
    id::Object,
};

use super::{
    Action, Bounds,
    cluster::{Cluster, Kind, Request, name},
};
use crate::api::{Answer, told};

impl Cluster {
    pub(super) fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        // Among two nodes either may see a change first; with more there would be too many orders.
        let calm = self.requests.is_empty() && self.responses.is_empty();
        if calm && self.nodes.len() == 2 && self.readers().next().is_some() {
            actions.extend(self.readers().map(Action::See));
        } else {
            actions.push(Action::Go);
        }
        actions.extend((0..self.late.len()).map(Action::Land));
        for (n, node) in self.nodes.iter().enumerate() {
            if node.machine.is_none() {
                actions.push(Action::Start(n));
            }
            if node.held {
                actions.push(Action::ReleaseWatch(n));
            }
            if node.paused {
                actions.push(Action::Continue(n));
            }
        }
        if self.faults >= bounds.faults {
            return;
        }
        if let Some(request) = self.requests.front() {
            actions.extend([Action::LoseRequest, Action::LoseResponse]);
            if matches!(request.kind, Kind::Write { .. }) {
                actions.push(Action::Delay);
            }
        }
        for (n, node) in self.nodes.iter().enumerate() {
            if node.machine.is_none() {
                continue;
            }
            if !node.held {
                actions.push(Action::HoldWatch(n));
            }
            if !node.paused {
                actions.push(Action::Pause(n));
            }
            actions.extend([Action::Kill(n), Action::Reboot(n)]);
            if self.answerer(0).is_some_and(|holder| holder != n) {
                actions.push(Action::Move(n));
            }
        }
        if bounds.deletions {
            let there = |object: Object| self.api.get(&object).is_some();
            let claims = (0..bounds.claims).filter(|group| there(Object::Claim(*group)));
            actions.extend(claims.map(Action::DeleteClaim));
            let sessions = (0..bounds.nodes).filter(|node| there(Object::Session(name(*node))));
            actions.extend(sessions.map(Action::DeleteSession));
        }
    }

    /// Does something; false if nothing can follow.
    pub(super) fn act(&mut self, bounds: &Bounds, action: Action) -> bool {
        match action {
            Action::Go => return self.go(),
            Action::See(n) => {
                self.see(n);
                return true;
            }
            Action::LoseRequest => drop(self.requests.pop_front()),
            Action::LoseResponse => {
                if let Some(request) = self.requests.pop_front() {
                    self.execute(&request);
                }
            }
            Action::Delay => self.late.extend(self.requests.pop_front()),
            Action::Land(n) => {
                let request = self.late.remove(n);
                self.serve(request);
                return true;
            }
            Action::HoldWatch(n) => self.nodes[n].held = true,
            Action::ReleaseWatch(n) => {
                self.nodes[n].held = false;
                return true;
            }
            Action::Pause(n) => self.nodes[n].paused = true,
            Action::Continue(n) => {
                self.nodes[n].paused = false;
                for event in std::mem::take(&mut self.nodes[n].inbox) {
                    self.tell(n, event);
                }
                return true;
            }
            Action::Kill(n) => self.kill(n),
            Action::Reboot(n) => self.reboot(n),
            Action::Start(n) => {
                self.start(bounds, n);
                return true;
            }
            Action::Move(to) => {
                for node in 0..self.nodes.len() {
                    self.tell(node, Event::Move { group: 0, to: name(to) });
                }
            }
            Action::DeleteClaim(group) => self.api.delete(&Object::Claim(group)),
            Action::DeleteSession(node) => self.api.delete(&Object::Session(name(node))),
        }
        self.faults += 1;
        true
    }

    /// What comes next if nothing goes wrong: responses, requests, the watch, and then time.
    fn go(&mut self) -> bool {
        if let Some((node, generation, event)) = self.responses.pop_front() {
            if self.nodes[node].generation == generation {
                self.respond(node, event);
            }
            return true;
        }
        if let Some(request) = self.requests.pop_front() {
            self.serve(request);
            return true;
        }
        let reader = self.readers().next();
        match reader {
            Some(node) => {
                self.see(node);
                true
            }
            None => self.wait(),
        }
    }

    /// The nodes that have changes to see, and can.
    fn readers(&self) -> impl Iterator<Item = usize> + '_ {
        let end = self.api.log().len();
        let reads = move |n: &usize| {
            let node = &self.nodes[*n];
            node.next < end && !node.held && node.machine.is_some()
        };
        (0..self.nodes.len()).filter(reads)
    }

    fn see(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(change) = self.api.log().get(n.next) {
            n.next += 1;
            let event = told(&change.object, change.version, change.now.as_deref(), Via::Watch);
            self.tell(node, event);
        }
    }

    /// Lets time pass until something happens by itself.
    fn wait(&mut self) -> bool {
        let awake = |n: &usize| !self.nodes[*n].paused;
        let nodes = 0..self.nodes.len();
        let wakes = nodes
            .clone()
            .filter(awake)
            .filter_map(|n| Some((self.nodes[n].machine.as_ref()?.next_wake()?, n)));
        let expiries = nodes.flat_map(|n| self.nodes[n].open.iter().map(move |(.., at)| (*at, n)));
        let wake = wakes.min();
        let expiry = expiries.min();
        match (wake, expiry) {
            (Some((at, node)), other) if other.is_none_or(|(expiry, _)| at < expiry) => {
                self.now = self.now.max(at);
                self.tell(node, Event::Tick);
            }
            (_, Some((at, node))) => {
                self.now = self.now.max(at);
                self.expire(node);
            }
            (_, None) => return false,
        }
        true
    }

    /// The first open request of a node has waited long enough.
    fn expire(&mut self, node: usize) {
        let open = &mut self.nodes[node].open;
        let Some(first) = (0..open.len()).min_by_key(|n| open[*n].2) else { return };
        let (id, object, _) = open.remove(first);
        let event = match id {
            0 => Event::Unread { object },
            write => Event::Written { write, outcome: Outcome::Unknown("no answer in time".to_owned()) },
        };
        self.tell(node, event);
    }

    fn serve(&mut self, request: Request) {
        if let Some(event) = self.execute(&request) {
            self.responses.push_back((request.node, request.generation, event));
        }
    }

    fn execute(&mut self, request: &Request) -> Option<Event> {
        match &request.kind {
            Kind::Read { known } => {
                let found = self.api.get(&request.object);
                let version = found.map_or(*known, |(version, _)| *version);
                Some(told(&request.object, version, found.map(|(_, stored)| &**stored), Via::Read))
            }
            Kind::Write { id, base, content } => {
                let outcome = match self.api.write(&request.object, *base, content) {
                    Answer::Stored(version) | Answer::Same(version) => Outcome::Done(version),
                    Answer::Conflict => Outcome::Conflict,
                };
                Some(Event::Written { write: *id, outcome })
            }
        }
    }

    /// Tells a response, unless it was given up.
    fn respond(&mut self, node: usize, event: Event) {
        let open = &mut self.nodes[node].open;
        let answers = |id: u64, object: &Object| {
            matches!(&event, Event::Written { write, .. } if *write == id)
                || matches!(&event, Event::Session { node, .. } if *object == Object::Session(node.clone()))
                || matches!(&event, Event::Claim { group, .. } if *object == Object::Claim(*group))
        };
        let read = !matches!(event, Event::Written { .. });
        let found = open.iter().position(|(id, object, _)| answers(*id, object) && read == (*id == 0));
        if let Some(found) = found {
            open.remove(found);
            self.tell(node, event);
        }
    }
}
