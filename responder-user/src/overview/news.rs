//! What has changed between two looks at a cluster. Pure.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use responder_leadership::{id::NodeName, lease::Fitness};
use serde::Serialize;

use super::{ClaimView, ClusterView, SessionView, sessions::Life};

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// A node's agent lives, has fallen silent, or has ended.
    Session {
        /// Which node.
        node: NodeName,
        /// How its session stands.
        now: String,
    },
    /// A node may hold something, or may not any more.
    Fitness {
        /// Which node.
        node: NodeName,
        /// `fit`, or why not.
        now: String,
    },
    /// A claim has changed hands.
    Claim {
        /// Its Lease.
        claim: String,
        /// Who held it.
        from: Option<NodeName>,
        /// Who holds it; `None`: nobody.
        to: Option<NodeName>,
        /// What is wrong, if something is.
        problem: Option<String>,
    },
    /// A single address is held by another node than its claim, or is not any more.
    Exception {
        /// Which.
        vip: IpAddr,
        /// Its claim's Lease.
        claim: String,
        /// Who held it as an exception.
        from: Option<NodeName>,
        /// Who does; `None`: whoever holds the claim.
        to: Option<NodeName>,
    },
    /// The number of claims.
    Claims {
        /// How many there are; `None`: not known.
        now: Option<u16>,
    },
}

/// What has changed.
#[must_use]
pub fn between(before: &ClusterView, after: &ClusterView) -> Vec<News> {
    let mut news = Vec::new();
    if before.claim_count != after.claim_count {
        news.push(News::Claims { now: after.claim_count.map(Into::into) });
    }
    let was: BTreeMap<&NodeName, &SessionView> = before.sessions.iter().map(|s| (&s.node, s)).collect();
    for session in &after.sessions {
        let was = was.get(&session.node);
        let (node, now) = (session.node.clone(), life(session));
        if was.is_none_or(|was| was.life != session.life || was.incarnation != session.incarnation) {
            news.push(News::Session { node: node.clone(), now });
        }
        if let Some(now) = session.fitness.as_ref()
            && was.and_then(|was| was.fitness.as_ref()) != Some(now)
            && (was.is_some() || *now != Fitness::Fit)
        {
            news.push(News::Fitness { node, now: fitness(now) });
        }
    }
    for was in &before.sessions {
        if after.session(&was.node).is_none() {
            news.push(News::Session { node: was.node.clone(), now: "gone".to_owned() });
        }
    }
    let was: BTreeMap<&str, &ClaimView> = before.claims.iter().map(|c| (c.name.as_str(), c)).collect();
    for claim in &after.claims {
        if let Some(was) = was.get(claim.name.as_str()) {
            claims(&mut news, was, claim);
        }
    }
    news
}

fn claims(news: &mut Vec<News>, was: &ClaimView, is: &ClaimView) {
    let node = |claim: &ClaimView| claim.holder.as_ref().map(|holder| holder.node.clone());
    if was.holder != is.holder || was.problem != is.problem {
        let (from, to, problem) = (node(was), node(is), is.problem.clone());
        news.push(News::Claim { claim: is.name.clone(), from, to, problem });
    }
    let vips =
        was.exceptions.keys().chain(is.exceptions.keys().filter(|vip| !was.exceptions.contains_key(vip)));
    for vip in vips {
        let node = |claim: &ClaimView| claim.exceptions.get(vip).map(|id| id.node.clone());
        let (from, to) = (node(was), node(is));
        if from != to {
            news.push(News::Exception { vip: *vip, claim: is.name.clone(), from, to });
        }
    }
}

fn life(session: &SessionView) -> String {
    match &session.life {
        Life::Live => "live".to_owned(),
        Life::Expired => "expired".to_owned(),
        Life::Ended(by) if *by == session.node => "ended".to_owned(),
        Life::Ended(by) => format!("revoked by {by}"),
        Life::Unreadable(reason) => format!("not understood: {reason}"),
        Life::Absent => "no agent".to_owned(),
    }
}

fn fitness(fitness: &Fitness) -> String {
    match fitness {
        Fitness::Fit => "fit".to_owned(),
        Fitness::LastResort(reason) => format!("last resort: it {reason}"),
        Fitness::Unfit(reason) => format!("unfit: it {reason}"),
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |node: &Option<NodeName>, nobody: &str| {
            node.as_ref().map_or_else(|| nobody.to_owned(), ToString::to_string)
        };
        match self {
            Self::Session { node, now } => write!(f, "session       {node}: {now}"),
            Self::Fitness { node, now } => write!(f, "fitness       {node}: {now}"),
            Self::Claim { claim, from, to, problem } => {
                write!(f, "claim         {claim}: ")?;
                if from != to {
                    write!(f, "from {} to {}", or(from, "nobody"), or(to, "nobody"))?;
                } else {
                    write!(f, "held by {}", or(to, "nobody"))?;
                }
                problem.as_ref().map_or(Ok(()), |problem| write!(f, " ({problem})"))
            }
            Self::Exception { vip, claim, from, to } => {
                let holder = format!("the holder of {claim}");
                write!(f, "exception     {vip}: from {} to {}", or(from, &holder), or(to, &holder))
            }
            Self::Claims { now } => match now {
                Some(now) => write!(f, "claims        there are {now}"),
                None => write!(f, "claims        their number is not known"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use responder_leadership::lease::{Session, SessionState};

    use super::*;
    use crate::overview::{
        Facts,
        tests::{VIP, claim_lease, facts, session, session_lease, set},
        view,
    };

    fn told(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut after = facts();
        change(&mut after);
        between(&view(&facts()), &view(&after)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_changes_is_told_once() {
        assert_eq!(told(|_| {}), Vec::<String>::new());
        // Renewals are no news.
        assert_eq!(told(|f| set(f, session_lease(session("n2"), 0))), Vec::<String>::new());
        let handed = told(|f| set(f, claim_lease(1, Some("n2"), &[])));
        assert_eq!(handed, ["claim         claim-4-1: from n1 to n2"]);
        let free = told(|f| set(f, claim_lease(1, None, &[])));
        assert_eq!(free, ["claim         claim-4-1: from n1 to nobody (nobody holds it)"]);
        let excepted = told(|f| set(f, claim_lease(0, Some("n1"), &[(VIP, "n3")])));
        assert_eq!(excepted, ["exception     192.0.2.10: from the holder of claim-4-0 to n3"]);
        let unfit = Session { fitness: Fitness::Unfit("is drained".to_owned()), ..session("n2") };
        assert_eq!(told(|f| set(f, session_lease(unfit, 1))), ["fitness       n2: unfit: it is drained"]);
    }

    #[test]
    fn an_end_is_told_with_what_it_means_for_claims() {
        let ended = Session { state: SessionState::Ended { by: "n2".into() }, ..session("n1") };
        let lines = told(|f| set(f, session_lease(ended, 1)));
        assert_eq!(lines[0], "session       n1: revoked by n2");
        assert_eq!(lines.len(), 1 + 4, "{lines:?}");
        assert!(lines[1].contains("held by n1 (the session of n1 was revoked by n2"), "{lines:?}");
        assert_eq!(told(|f| set(f, session_lease(session("n9"), 1))), ["session       n9: live"]);
        assert_eq!(told(|f| set(f, session_lease(session("n2"), 9))), ["session       n2: expired"]);
    }
}
