//! From facts to sentences. Pure.

use std::net::IpAddr;

use responder_leadership::id::NodeName;
use serde::Serialize;

use super::{
    facts::{Facts, Look},
    host, leadership, service,
};
use crate::overview::time;

/// Whether somebody answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// Somebody does.
    Yes,
    /// Nobody does.
    No,
    /// That cannot be told from what could be looked at.
    Unknown,
}

/// What one step of the explanation says of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It does not stand in the way.
    Ok,
    /// It does not, but somebody should know.
    Note,
    /// It could not be looked at.
    Unknown,
    /// This is why nobody answers.
    Bad,
}

/// One step, in the order from the Service to the counters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// What was looked at: "service", "holder", …
    pub about: &'static str,
    /// What it says of the answer.
    pub verdict: Verdict,
    /// Sentences.
    pub text: String,
}

/// The whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// The address.
    pub address: IpAddr,
    /// Whether somebody answers for it.
    pub answered: Answered,
    /// Who does: a node, or `this host`.
    pub by: Option<String>,
    /// Since when it is held there, in ms.
    pub since_ms: Option<u64>,
    /// All in one sentence.
    pub sentence: String,
    /// How that comes about.
    pub steps: Vec<Step>,
}

/// Steps as they are made.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    pub(super) fn add(&mut self, about: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Step { about, verdict, text: text.into() });
    }

    /// The first obstacle.
    pub(super) fn obstacle(&self) -> Option<&Step> {
        self.0.iter().find(|step| step.verdict == Verdict::Bad)
    }

    fn unknown(&self) -> Option<&Step> {
        self.0.iter().find(|step| step.verdict == Verdict::Unknown)
    }
}

/// Who should answer.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) since_ms: Option<u64>,
}

/// Explains.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    let mut steps = Steps::default();
    let owner = match &facts.cluster {
        Some(cluster) => {
            let wanted = service::steps(&mut steps, cluster, facts.address);
            let owner = wanted.and_then(|()| leadership::steps(&mut steps, cluster, facts.address));
            if let Some(owner) = &owner {
                on_its_host(&mut steps, facts, owner);
            }
            elsewhere(&mut steps, facts, owner.as_ref());
            owner
        }
        None => {
            if let Some(here) = &facts.here {
                host::standalone(&mut steps, here, facts.address);
            }
            Some(Owner { name: "this host".to_owned(), since_ms: None })
        }
    };
    conclude(facts, steps, owner)
}

/// Links, maps and counters of the node that should answer.
fn on_its_host(steps: &mut Steps, facts: &Facts, owner: &Owner) {
    if let Some(here) = facts.here.as_ref().filter(|_| facts.name_here() == owner.name) {
        host::steps(steps, &owner.name, here, facts.address);
        return;
    }
    match facts.holder.as_ref().filter(|look| look.node.as_str() == owner.name) {
        Some(Look { state: Ok(state), .. }) => host::steps(steps, &owner.name, state, facts.address),
        Some(Look { state: Err(reason), .. }) => host::not_seen(steps, &owner.name, Some(reason)),
        None => host::not_seen(steps, &owner.name, None),
    }
}

/// What this host does about it, if it is not the one that should answer.
fn elsewhere(steps: &mut Steps, facts: &Facts, owner: Option<&Owner>) {
    let name = facts.name_here();
    if let Some(here) = facts.here.as_ref().filter(|_| owner.is_none_or(|owner| owner.name != name)) {
        host::bystander(steps, name, here, facts.address);
    }
}

impl Facts {
    fn name_here(&self) -> &str {
        let of_view = || self.cluster.as_ref()?.view.this_node.as_ref();
        self.here.as_ref().and_then(|here| here.node()).or_else(of_view).map_or("this host", NodeName::as_str)
    }
}

fn conclude(facts: &Facts, steps: Steps, owner: Option<Owner>) -> Explanation {
    let address = facts.address;
    let (answered, sentence) = match (steps.obstacle(), &owner) {
        (Some(step), _) => (Answered::No, format!("{address} is not answered. {}", step.text)),
        (None, Some(owner)) => {
            let since = owner.since_ms.map(|ms| format!(", for {}", time(ms))).unwrap_or_default();
            (Answered::Yes, format!("{address} is answered by {}{since}.", owner.name))
        }
        (None, None) => {
            let why = steps.unknown().map_or("Too little is known.", |step| step.text.as_str());
            (Answered::Unknown, format!("It cannot be told whether {address} is answered. {why}"))
        }
    };
    let owner = owner.filter(|_| answered == Answered::Yes);
    Explanation {
        address,
        answered,
        since_ms: owner.as_ref().and_then(|owner| owner.since_ms),
        by: owner.map(|owner| owner.name),
        sentence,
        steps: steps.0,
    }
}
