//! A record in words.

use std::{fmt::Write as _, num::NonZeroU16};

use responder_leadership::{
    event::{Effect, Eligible, Event, Holdings, Outcome, Via},
    group::group_of,
    id::SessionId,
    lease::{Claim, Content, Fitness, Seen, Session, SessionState},
    record::Begin,
};

/// The first line.
pub(super) fn begin(begin: &Begin) -> String {
    let settings = &begin.settings;
    let times = settings.times;
    let adopted = begin.adopted.as_ref().map_or_else(
        || "begins anew".to_owned(),
        |adopted| {
            let (groups, vips) = (adopted.groups.len(), adopted.vips.len());
            format!(
                "goes on with incarnation {}: {groups} claims, {vips} single addresses",
                adopted.incarnation
            )
        },
    );
    format!(
        "node {} (datapath {}), {} claims, lease {:?}, renewed every {:?}; {adopted}",
        settings.node, settings.datapath, settings.claims, times.lease_duration, times.renew_interval
    )
}

/// What the machine was told.
pub(super) fn event(event: &Event, claims: NonZeroU16) -> String {
    match event {
        Event::Session { node, version, seen, via } => {
            format!("session of {node} {} (version {}): {}", by(*via), version.0, what(seen, session))
        }
        Event::Claim { group, version, seen, via } => {
            format!("claim {group} {} (version {}): {}", by(*via), version.0, what(seen, claim))
        }
        Event::Synced { listed_at } => format!("all Leases listed, as they were at {listed_at:?} or later"),
        Event::Written { write, outcome } => format!("write {write} {}", outcome_text(outcome)),
        Event::Unread { object } => format!("read of {object} failed"),
        Event::Demand(changes) => {
            let mut text = format!("{} addresses wanted otherwise:", changes.len());
            for (vip, eligible) in changes {
                let who = match eligible {
                    None => "not any more".to_owned(),
                    Some(Eligible::Any) => "by any node".to_owned(),
                    Some(Eligible::Only(nodes)) => format!("by {:?}", nodes.iter().collect::<Vec<_>>()),
                };
                write!(text, " {vip} (claim {}) {who};", group_of(*vip, claims)).ok();
            }
            text
        }
        Event::Local { fitness, reach } => format!("this node {}, announces {reach}", fitness_text(fitness)),
        Event::Expected(nodes) => {
            let list: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            format!("agents expected on: {}", list.join(", "))
        }
        Event::Longest(longest) => format!("longest lease of the cluster {longest:?}"),
        Event::Move { group, to } => format!("an administrator wants claim {group} on {to}"),
        Event::Stop => "told to end".to_owned(),
        Event::Tick => "tick".to_owned(),
    }
}

/// What it decided.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Answer(answer) => format!("answer for {}", holdings(answer)),
        Effect::Deadline(deadline) if deadline.is_zero() => "deadline: none, nothing is answered".to_owned(),
        Effect::Deadline(deadline) => format!("deadline {deadline:?}"),
        Effect::DeadlineAtMost(deadline) => format!("deadline {deadline:?} at most"),
        Effect::Write { id, object, base, content, renewal } => {
            let how = match (renewal, base) {
                (true, Some(_)) => "renew".to_owned(),
                (_, Some(base)) => format!("update version {} of", base.0),
                (_, None) => "create".to_owned(),
            };
            let content = match content {
                Content::Session(content) => session(content),
                Content::Claim(content) => claim(content),
            };
            format!("write {id}: {how} {object}: {content}")
        }
        Effect::Read { object, known } => format!("read {object} (known: version {})", known.0),
        Effect::Tell(note) => {
            format!("tell {}", serde_json::to_string(note).unwrap_or_else(|error| error.to_string()))
        }
        Effect::Finished => "finished".to_owned(),
    }
}

const fn by(via: Via) -> &'static str {
    match via {
        Via::Watch => "by the watch",
        Via::List => "by a list",
        Via::Read => "by reading it",
    }
}

fn what<T>(seen: &Seen<T>, text: fn(&T) -> String) -> String {
    match seen {
        Seen::Absent => "absent".to_owned(),
        Seen::Bad(reason) => format!("not understood: {reason}"),
        Seen::Good(content) => text(content),
    }
}

fn session(session: &Session) -> String {
    let state = match &session.state {
        SessionState::Live => "live".to_owned(),
        SessionState::Ended { by } => format!("ended by {by}"),
    };
    format!(
        "{} {state}, renewal {}, good for {:?}, {}, announces {}",
        session.id,
        session.renewal,
        session.duration,
        fitness_text(&session.fitness),
        session.reach
    )
}

fn fitness_text(fitness: &Fitness) -> String {
    match fitness {
        Fitness::Fit => "fit".to_owned(),
        Fitness::LastResort(reason) => format!("last resort ({reason})"),
        Fitness::Unfit(reason) => format!("unfit ({reason})"),
    }
}

fn claim(claim: &Claim) -> String {
    let holder = claim.holder.as_ref().map_or_else(|| "nobody".to_owned(), SessionId::to_string);
    let mut text = format!("held by {holder}");
    for (vip, id) in &claim.exceptions {
        write!(text, ", {vip} by {id}").ok();
    }
    let (writer, number) = &claim.written;
    write!(text, " (write {number} of {writer})").ok();
    text
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(version) => format!("done: version {}", version.0),
        Outcome::Conflict => "not done: another version is there".to_owned(),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Unknown(reason) => format!("may have been done: {reason}"),
    }
}

fn holdings(holdings: &Holdings) -> String {
    let silent: usize = holdings.silent.values().map(|vips| vips.len()).sum();
    let groups: Vec<_> = holdings.groups.iter().map(ToString::to_string).collect();
    let exceptions: Vec<_> = holdings.exceptions.iter().map(ToString::to_string).collect();
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    format!("claims {}; single addresses {}; {silent} not with their claim", list(groups), list(exceptions))
}
