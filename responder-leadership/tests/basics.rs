//! The machine's everyday life, with an API server that answers at once.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
    time::Duration,
};

use responder_leadership::{
    event::{Effect, Eligible, Event, Holdings, Note, Outcome, Via},
    id::{NodeName, Object, Version},
    lease::{Claim, Content, Fitness, Reach, Seen, Session},
    machine::Machine,
    settings::{Settings, Times},
};

const LEASE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

#[derive(Default)]
struct World {
    now: Duration,
    version: u64,
    store: BTreeMap<Object, (Version, Content)>,
    nodes: BTreeMap<NodeName, Node>,
    /// What has not been told yet.
    queue: VecDeque<(NodeName, Event)>,
}

struct Node {
    machine: Machine,
    holdings: Holdings,
    deadline: Duration,
    notes: Vec<Note>,
    finished: bool,
    writes: usize,
    frozen: bool,
}

fn seen(object: &Object, version: Version, content: &Content, via: Via) -> Event {
    match (object, content) {
        (Object::Session(node), Content::Session(session)) => {
            Event::Session { node: node.clone(), version, seen: Seen::<Session>::Good(session.clone()), via }
        }
        (Object::Claim(group), Content::Claim(claim)) => {
            Event::Claim { group: *group, version, seen: Seen::<Claim>::Good(claim.clone()), via }
        }
        _ => panic!("a store of mixed content"),
    }
}

impl World {
    fn start(&mut self, name: &str, claims: u16) {
        let node = NodeName::from(name);
        let settings = Settings {
            node: node.clone(),
            datapath: format!("maps of {name} since {:?}", self.now),
            claims: NonZeroU16::new(claims).unwrap(),
            longest: LEASE,
            times: Times::of(LEASE),
            seed: 1,
            wall: (1_000_000, Duration::ZERO),
        };
        let machine = Machine::new(settings, None);
        let new = Node {
            machine,
            holdings: Holdings::default(),
            deadline: Duration::ZERO,
            notes: Vec::new(),
            finished: false,
            writes: 0,
            frozen: false,
        };
        self.nodes.insert(node.clone(), new);
        for (object, (version, content)) in self.store.clone() {
            self.tell(&node, seen(&object, version, &content, Via::Watch));
        }
        self.tell(&node, Event::Local { fitness: Fitness::Fit, reach: Reach::Any });
        let others = [192, 0, 2, 11].into();
        self.tell(&node, Event::Demand(vec![(vip(), Some(Eligible::Any)), (others, Some(Eligible::Any))]));
        let listed_at = self.now;
        self.tell(&node, Event::Synced { listed_at });
    }

    /// Tells a node something, and everybody all that follows from it.
    fn tell(&mut self, node: &NodeName, event: Event) {
        self.queue.push_back((node.clone(), event));
        while let Some((node, event)) = self.queue.pop_front() {
            let n = self.nodes.get_mut(&node).unwrap();
            if n.frozen {
                continue;
            }
            for effect in n.machine.handle(self.now, event) {
                self.perform(&node, effect);
            }
        }
    }

    fn perform(&mut self, node: &NodeName, effect: Effect) {
        let n = self.nodes.get_mut(node).unwrap();
        match effect {
            Effect::Answer(holdings) => n.holdings = (*holdings).clone(),
            Effect::Deadline(at) => n.deadline = at,
            Effect::DeadlineAtMost(at) => n.deadline = n.deadline.min(at),
            Effect::Tell(note) => n.notes.push(note),
            Effect::Finished => n.finished = true,
            Effect::Write { id, object, base, content, renewal: _ } => {
                n.writes += 1;
                let outcome = if self.store.get(&object).map(|(version, _)| *version) == base {
                    self.version += 1;
                    self.store.insert(object.clone(), (Version(self.version), content.clone()));
                    Outcome::Done(Version(self.version))
                } else {
                    Outcome::Conflict
                };
                let done = matches!(outcome, Outcome::Done(_));
                self.later(node, Event::Written { write: id, outcome });
                if done {
                    let version = Version(self.version);
                    for other in self.nodes.keys().cloned().collect::<Vec<_>>() {
                        self.later(&other, seen(&object, version, &content, Via::Watch));
                    }
                }
            }
            Effect::Read { object, known: _ } => {
                if let Some((version, content)) = self.store.get(&object).cloned() {
                    self.later(node, seen(&object, version, &content, Via::Read));
                }
            }
        }
    }

    fn later(&mut self, node: &NodeName, event: Event) {
        self.queue.push_back((node.clone(), event));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                if self.nodes[&node].machine.next_wake().is_some_and(|at| at <= self.now) {
                    self.tell(&node, Event::Tick);
                }
            }
        }
    }

    fn held(&self, name: &str) -> usize {
        let node = &self.nodes[&NodeName::from(name)];
        if self.now < node.deadline { node.holdings.groups.len() } else { 0 }
    }

    fn freeze(&mut self, name: &str) {
        self.nodes.get_mut(&NodeName::from(name)).unwrap().frozen = true;
    }
}

fn vip() -> std::net::IpAddr {
    [192, 0, 2, 10].into()
}

#[test]
fn the_first_node_waits_and_then_takes_everything() {
    let mut world = World::default();
    world.start("n1", 16);
    world.run(LEASE * 2 - STEP * 2);
    assert_eq!(world.held("n1"), 0, "a claim that is absent may have been deleted");
    world.run(STEP * 4);
    assert_eq!(world.held("n1"), 16);
}

/// Whether or not it is known who will come, and however much later others begin.
#[test]
fn nodes_of_a_starting_cluster_share() {
    let names = ["n1", "n2", "n3"];
    let all: BTreeSet<NodeName> = names.map(NodeName::from).into();
    for expected in [None, Some(all)] {
        for later in [STEP, LEASE / 4, LEASE / 2, LEASE] {
            let mut world = World::default();
            for (index, name) in names.into_iter().enumerate() {
                world.start(name, 16);
                if let Some(expected) = &expected {
                    world.tell(&name.into(), Event::Expected(expected.clone()));
                }
                world.run(if index == 0 { later } else { STEP });
            }
            world.run(LEASE * 4);
            let held = names.map(|name| world.held(name));
            assert_eq!(held.iter().sum::<usize>(), 16);
            assert!(held.iter().all(|n| *n >= 4), "{held:?}, others {later:?} later, {expected:?} expected");
        }
    }
}

#[test]
fn a_dead_node_is_revoked_and_replaced() {
    let mut world = World::default();
    for node in ["n1", "n2", "n3"] {
        world.start(node, 16);
    }
    world.run(LEASE * 3);
    let (lost, before) = (world.held("n1"), world.nodes.values().map(|n| n.writes).sum::<usize>());
    world.freeze("n1");
    world.run(LEASE + Times::of(LEASE).turn() * 2);
    assert_eq!(world.held("n1"), 0);
    assert_eq!(world.held("n2") + world.held("n3"), 16);
    let writes = world.nodes.values().map(|n| n.writes).sum::<usize>() - before;
    let renewals = 2 * 6;
    assert!(writes <= lost + 1 + renewals, "{writes} writes for {lost} claims");
}

/// It waits for others as in a starting cluster only for what was nobody's when it came.
#[test]
fn a_new_node_takes_over_at_once_from_one_that_it_has_seen_alive() {
    let mut world = World::default();
    world.start("n1", 16);
    world.run(LEASE * 3);
    assert_eq!(world.held("n1"), 16);
    world.start("n2", 16);
    world.run(LEASE / 2);
    world.freeze("n1");
    world.run(LEASE + Times::of(LEASE).turn() * 2);
    assert_eq!((world.held("n1"), world.held("n2")), (0, 16));
}

#[test]
fn a_new_node_waits_for_others_where_all_were_dead_when_it_came() {
    let mut world = World::default();
    world.start("n1", 16);
    world.run(LEASE * 3);
    world.freeze("n1");
    world.run(LEASE * 10);
    world.start("n2", 16);
    let settle = Times::of(LEASE).settle();
    world.run(settle - STEP * 2);
    assert_eq!(world.held("n2"), 0);
    world.run(LEASE);
    assert_eq!(world.held("n2"), 16);
}

#[test]
fn who_ends_hands_over() {
    let mut world = World::default();
    for node in ["n1", "n2"] {
        world.start(node, 16);
    }
    world.run(LEASE * 3);
    assert!(world.held("n1") > 0);
    world.tell(&"n1".into(), Event::Stop);
    world.run(STEP);
    assert_eq!((world.held("n1"), world.held("n2")), (0, 16));
    assert!(world.nodes[&"n1".into()].finished);
}

#[test]
fn who_is_unfit_hands_over_and_does_not_take_back() {
    let mut world = World::default();
    for node in ["n1", "n2"] {
        world.start(node, 16);
    }
    world.run(LEASE * 3);
    let unfit = Fitness::Unfit("drained".to_owned());
    world.tell(&"n2".into(), Event::Local { fitness: unfit, reach: Reach::Any });
    world.run(STEP);
    assert_eq!((world.held("n1"), world.held("n2")), (16, 0));
    world.tell(&"n2".into(), Event::Local { fitness: Fitness::Fit, reach: Reach::Any });
    world.run(LEASE * 5);
    assert_eq!((world.held("n1"), world.held("n2")), (16, 0));
}

#[test]
fn an_address_goes_where_it_may_be_answered() {
    let mut world = World::default();
    for node in ["n1", "n2"] {
        world.start(node, 1);
    }
    world.run(LEASE * 3);
    let (holder, other) = if world.held("n1") == 1 { ("n1", "n2") } else { ("n2", "n1") };
    let only = |name: &str| Some(Eligible::Only(std::sync::Arc::new([NodeName::from(name)].into())));
    for node in ["n1", "n2"] {
        world.tell(&node.into(), Event::Demand(vec![(vip(), only(other))]));
    }
    world.run(STEP);
    assert!(world.nodes[&holder.into()].holdings.silent[&0].contains(&vip()));
    assert!(world.nodes[&other.into()].holdings.exceptions.contains(&vip()));
    // And back.
    for node in ["n1", "n2"] {
        world.tell(&node.into(), Event::Demand(vec![(vip(), only(holder))]));
    }
    world.run(LEASE);
    assert!(world.nodes[&other.into()].holdings.exceptions.is_empty());
    assert!(world.nodes[&holder.into()].holdings.silent.is_empty());
}
