//! What the simulation has found, as the shortest stories that show it.

use std::{collections::BTreeSet, num::NonZeroU16, time::Duration};

use responder_leadership::{
    event::{Effect, Event, Outcome, Via},
    id::{Incarnation, Object, SessionId, Version},
    lease::{Claim, Content, Seen, Session},
    machine::{Adopted, Machine},
    settings::{Settings, Times},
};

const LEASE: Duration = Duration::from_secs(1);
const START: Duration = Duration::from_secs(100);

fn machine(adopted: Option<Adopted>) -> Machine {
    let settings = Settings {
        node: "n1".into(),
        datapath: "maps".to_owned(),
        claims: NonZeroU16::MIN,
        longest: LEASE,
        times: Times::of(LEASE),
        seed: 1,
        wall: (1_763_733_600_000, START),
    };
    Machine::new(settings, adopted)
}

fn written(effects: &[Effect]) -> Vec<(u64, Object, Content)> {
    let write = |effect: &Effect| {
        let Effect::Write { id, object, content, .. } = effect else { return None };
        Some((*id, object.clone(), content.clone()))
    };
    effects.iter().filter_map(write).collect()
}

/// The first session of a node, with the number of its write.
fn first_session(machine: &mut Machine) -> (u64, Session) {
    let effects = machine.handle(START, Event::Synced { listed_at: START });
    match written(&effects).remove(0) {
        (id, _, Content::Session(session)) => (id, session),
        (.., Content::Claim(claim)) => panic!("{claim:?} is written before there is a session"),
    }
}

/// Counted anew, a renewal could be what is stored already, which extends nothing; and a late echo of the predecessor's
/// renewals would confirm the successor's.
#[test]
fn a_successor_goes_on_counting() {
    let (_, session) = first_session(&mut machine(None));
    let nothing = (BTreeSet::new(), BTreeSet::new());
    let adopted = Adopted { incarnation: session.id.incarnation, groups: nothing.0, vips: nothing.1 };
    let mut successor = machine(Some(adopted));
    let later = START + Duration::from_millis(20);
    let seen = Seen::Good(session.clone());
    let node = session.id.node.clone();
    successor.handle(later, Event::Session { node, version: Version(1), seen, via: Via::Watch });
    let effects = successor.handle(later, Event::Synced { listed_at: later });
    let session_of = |content| if let Content::Session(session) = content { Some(session) } else { None };
    let renewed = written(&effects).into_iter().find_map(|(_, _, content)| session_of(content)).unwrap();
    assert_eq!(renewed.id, session.id);
    assert!(renewed.renewal > session.renewal, "{} after {}", renewed.renewal, session.renewal);
}

/// A creation succeeds also where the claim was there and was deleted, without this node having seen either: its last
/// holder may still answer.
#[test]
fn an_absent_claim_is_created_as_nobodys_and_taken_when_that_is_clear() {
    let mut machine = machine(None);
    let (write, session) = first_session(&mut machine);
    assert!(session.id.incarnation > Incarnation(0));
    let mut version = 1;
    let mut now = START;
    let mut waiting = vec![write];
    let mut holders = Vec::new();
    while holders.len() < 2 {
        let event = match waiting.pop() {
            Some(write) => Event::Written { write, outcome: Outcome::Done(Version(version)) },
            None => {
                now = machine.next_wake().unwrap();
                Event::Tick
            }
        };
        version += 1;
        for (id, object, content) in written(&machine.handle(now, event)) {
            waiting.push(id);
            if let Content::Claim(claim) = content {
                assert_eq!(object, Object::Claim(0));
                holders.push((now, claim.holder));
            }
        }
        // Renewals come back by the watch.
        machine.handle(now, Event::Synced { listed_at: now });
    }
    assert_eq!(holders[0].1, None);
    assert_eq!(holders[1].1, Some(session.id));
    assert!(holders[1].0 >= holders[0].0 + LEASE * 2, "{holders:?}");
}

/// A successor may have waited, and listed before its turn came: what its predecessor answers must not end because of that.
#[test]
fn an_old_list_does_not_end_what_the_predecessor_answers() {
    let (_, session) = first_session(&mut machine(None));
    let adopted =
        Adopted { incarnation: session.id.incarnation, groups: BTreeSet::new(), vips: BTreeSet::new() };
    let mut successor = machine(Some(adopted));
    let later = START + LEASE * 60;
    let node = session.id.node.clone();
    let seen = Seen::Good(session);
    successor
        .handle(later, Event::Session { node: node.clone(), version: Version(1), seen, via: Via::Watch });
    let mut effects = successor.handle(later, Event::Synced { listed_at: START });
    let renewal = |(_, object, _): &(u64, Object, Content)| matches!(object, Object::Session(_));
    let (write, _, content) = written(&effects).into_iter().find(renewal).unwrap();
    let done = Event::Written { write, outcome: Outcome::Done(Version(2)) };
    effects.extend(successor.handle(later + Duration::from_millis(5), done));
    let ends = effects.iter().find(|effect| matches!(effect, Effect::Deadline(at) if *at <= later));
    assert_eq!(ends, None);
    // The echo says that all is seen.
    let Content::Session(renewed) = content else { panic!("{content:?}") };
    let echo = Event::Session { node, version: Version(2), seen: Seen::Good(renewed), via: Via::Watch };
    let effects = successor.handle(later + Duration::from_millis(10), echo);
    assert!(effects.iter().any(|e| matches!(e, Effect::Deadline(at) if *at > later)), "{effects:?}");
}

/// A list has an order of its own, and may show this session's last renewal before what others have taken long ago: only
/// the whole list says that all is seen. Found by the simulation (seed 866651): a claim deleted and made anew
/// while its holder heard nothing, so that nobody revoked its session; back again, it renewed it and listed.
#[test]
fn an_echo_in_a_list_says_nothing_of_the_rest_of_it() {
    let (_, session) = first_session(&mut machine(None));
    let node = session.id.node.clone();
    let adopted = Adopted {
        incarnation: session.id.incarnation,
        groups: BTreeSet::from([0]),
        vips: BTreeSet::from([[192, 0, 2, 1].into()]),
    };
    let mut holder = machine(Some(adopted));
    let told =
        |version, seen, via| Event::Session { node: node.clone(), version: Version(version), seen, via };
    let written_by = (session.id.clone(), 1);
    let claim = Claim { holder: Some(session.id.clone()), exceptions: [].into(), written: written_by };
    holder.handle(START, told(1, Seen::Good(session), Via::List));
    let held = Event::Claim { group: 0, version: Version(2), seen: Seen::Good(claim), via: Via::List };
    holder.handle(START, held);
    let renewal = |(_, object, _): &(u64, Object, Content)| matches!(object, Object::Session(_));
    let effects = holder.handle(START, Event::Synced { listed_at: START });
    let (write, _, _) = written(&effects).into_iter().find(renewal).unwrap();
    holder.handle(START, Event::Written { write, outcome: Outcome::Unknown("no answer".to_owned()) });
    // Long after its deadline a renewal succeeds: nobody has revoked the session.
    let late = START + LEASE * 10;
    let mut at = late;
    let (write, renewed) = loop {
        let effects = holder.handle(at, Event::Tick);
        if let Some((write, _, Content::Session(renewed))) = written(&effects).into_iter().find(renewal) {
            break (write, renewed);
        }
        at += Duration::from_millis(10);
        assert!(at < late + LEASE, "it goes on renewing");
    };
    let ahead =
        |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Deadline(until) if *until > at));
    let effects = holder.handle(at, Event::Written { write, outcome: Outcome::Done(Version(9)) });
    assert!(!ahead(&effects), "what others have taken meanwhile is not seen: {effects:?}");
    let effects = holder.handle(at, told(9, Seen::Good(renewed), Via::List));
    assert!(!ahead(&effects), "the claims of the same list are not seen: {effects:?}");
    let effects = holder.handle(at, Event::Synced { listed_at: at });
    assert!(ahead(&effects), "now all is seen: {effects:?}");
}

/// A host of the same name, whose clock is ahead, had a session that was deleted. Others may still have it in mind when
/// this node takes something: a session with an earlier incarnation would be dead for them. Found by the simulation
/// (seed 572932).
#[test]
fn a_new_incarnation_is_later_than_any_that_was_seen() {
    let mut machine = machine(None);
    let (write, own) = first_session(&mut machine);
    let ahead = Incarnation(own.id.incarnation.0 + 11_000);
    let twin = Session {
        id: SessionId { incarnation: ahead, ..own.id.clone() },
        datapath: "other maps".to_owned(),
        ..own.clone()
    };
    let node = own.id.node;
    let told = |version, seen| Event::Session {
        node: node.clone(),
        version: Version(version),
        seen,
        via: Via::Watch,
    };
    let mut events = vec![
        told(3, Seen::Absent),
        told(2, Seen::Good(twin)),
        Event::Written { write, outcome: Outcome::Done(Version(1)) },
    ];
    let mut at = START;
    let begun = loop {
        let effects = machine.handle(at, events.pop().unwrap_or(Event::Tick));
        let unread = |effect: &Effect| {
            let Effect::Read { object, .. } = effect else { return None };
            Some(Event::Unread { object: object.clone() })
        };
        events.extend(effects.iter().filter_map(unread));
        let begins = |content| match content {
            Content::Session(session) if session.id.incarnation > own.id.incarnation => Some(session),
            Content::Session(_) | Content::Claim(_) => None,
        };
        let begun = written(&effects).into_iter().find_map(|(write, _, content)| {
            events.insert(0, Event::Written { write, outcome: Outcome::Conflict });
            begins(content)
        });
        if let Some(session) = begun {
            break session;
        }
        at += Duration::from_millis(10);
        assert!(at < START + LEASE * 10, "it begins anew");
    };
    assert!(begun.id.incarnation > ahead, "{begun:?}");
}
