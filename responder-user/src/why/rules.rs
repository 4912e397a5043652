//! What the agents announce, and what they refuse, as one of them tells.

use responder_leadership::id::NodeName;

use super::{ask, facts::RulesFrom};
use crate::{
    control::LeadershipStatus,
    operator::{Operator, Where},
};

/// Agents asked for their rules, one after the other, until one answers.
const ASKED: usize = 3;

/// Makes the rules and default gateways of an agent the operator's: that of this host, on the node `told_here`, whose the
/// operator has already, or another that answers at `metrics_port`. Rules that the operator gives count more.
pub(crate) async fn rules(
    operator: &mut Operator,
    place: &Where,
    metrics_port: Option<u16>,
    told_here: Option<NodeName>,
) -> RulesFrom {
    let told = match (told_here, metrics_port) {
        (Some(node), _) => Some(node),
        (None, Some(port)) => first(operator, port).await.map(|agent| {
            operator.follow(&agent, place.rules.is_none());
            agent.node
        }),
        (None, None) => None,
    };
    match (&place.rules, told) {
        (Some(_), _) => RulesFrom::Arguments,
        (None, Some(node)) => RulesFrom::Agent(node),
        (None, None) => RulesFrom::Default,
    }
}

/// The first agent that answers.
async fn first(operator: &Operator, port: u16) -> Option<LeadershipStatus> {
    let view = operator.glance().await.ok()?;
    let nodes = crate::cluster::read::nodes(&operator.client).await.unwrap_or_default();
    let mut sessions: Vec<_> = view.sessions.iter().filter(|session| session.renewed_ms.is_some()).collect();
    // Those that live, as far as the clocks say.
    sessions.sort_by_key(|session| session.renewed_ms);
    for session in sessions.into_iter().take(ASKED) {
        let Ok(state) = ask::state(operator, &nodes, &session.node, port).await else {
            continue;
        };
        if let Some(leadership) = state.agent.and_then(|agent| agent.leadership) {
            return Some(leadership);
        }
    }
    None
}
