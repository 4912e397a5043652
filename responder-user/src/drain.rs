//! `responder drain`: a node hands over what it holds, and takes nothing until that is undone.

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use responder_leadership::{
    id::{Group, NodeName},
    lease::Fitness,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::read::{ReadError, answer},
    decision::fitness::DRAIN_ANNOTATION,
    operator::{LOOK, Operator},
    overview::{ClusterView, Life},
    status::say,
};

/// Not everything was moved in time.
pub(crate) const UNFINISHED: u8 = 6;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Let the node take part again.
    pub undo: bool,
    /// How long to wait until it holds nothing; `None`: not at all.
    pub wait: Option<Duration>,
}

/// Drains [`Operator::this_node`], or undoes that.
///
/// # Errors
///
/// If the node is not there, or a right is missing.
pub async fn run(operator: &Operator, options: Options) -> Result<ExitCode> {
    let node = &operator.this_node;
    if !options.undo
        && options.wait.is_some()
        && let Ok(view) = operator.glance().await
        && view.claim_count.is_none()
    {
        let problem = view.problems.first().map_or("its number of claims is not known", String::as_str);
        bail!(
            "{node} is not drained, because it would not be known when it holds nothing: {problem}. --no-wait drains it all \
             the same"
        );
    }
    let was_drained = mark(operator, !options.undo).await?;
    if options.undo {
        return undone(node, was_drained);
    }
    let already = if was_drained { " already" } else { "" };
    say(format!("{node} is drained{already} (annotation {DRAIN_ANNOTATION}); undo it by --undo"))?;
    match options.wait {
        Some(limit) => wait(operator, limit).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

fn undone(node: &NodeName, was_drained: bool) -> Result<ExitCode> {
    if was_drained {
        say(format!(
            "{node} takes part again. What has moved stays where it is, because every move breaks connections, until \
             `responder rebalance`, or until its holder goes"
        ))?;
    } else {
        say(format!("{node} was not drained; nothing changed"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets or removes the annotation; says whether it was there.
async fn mark(operator: &Operator, drained: bool) -> Result<bool> {
    let name = operator.this_node.as_str();
    let nodes: Api<Node> = Api::all(operator.client.clone());
    let what = format!("node {name:?}");
    let has = |node: &Node| {
        node.metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(DRAIN_ANNOTATION))
    };
    let found = match answer(&what, "get nodes", nodes.get(name)).await {
        Ok(node) => Some(has(&node)),
        // The one right that is needed is that to patch.
        Err(ReadError::Forbidden { .. }) => None,
        Err(error) => return Err(error).context("name another node by --node"),
    };
    if found == Some(drained) {
        return Ok(drained);
    }
    let value = drained.then_some("true");
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { DRAIN_ANNOTATION: value } } }));
    let patched = answer(&what, "patch nodes", nodes.patch(name, &PatchParams::default(), &patch)).await;
    match patched {
        Ok(_) => Ok(found.unwrap_or(!drained)),
        Err(error @ ReadError::Forbidden { .. }) => Err(error).context(format!(
            "node {name:?} cannot be changed; administrators may do it (ClusterRole cluster-admin), and the agents' own \
             ServiceAccount may not, so that a stolen token drains nothing: give an administrator's --kubeconfig, or \
             a role with `patch nodes`"
        )),
        Err(error) => Err(error.into()),
    }
}

/// What a node holds.
type Holdings = (Vec<Group>, Vec<IpAddr>);

/// Waits until the node holds nothing and knows that it is drained.
async fn wait(operator: &Operator, limit: Duration) -> Result<ExitCode> {
    let node = &operator.this_node;
    let until = Instant::now() + limit;
    let first = operator.look().await;
    let speaks = first.session(node).is_some_and(|session| session.life == Life::Live);
    if !speaks {
        say(format!("{node} has no live agent: others take what it held when its session expires"))?;
    }
    let before = first.held_by(node);
    let mut last: Option<Holdings> = None;
    loop {
        match operator.glance().await {
            Ok(view) => {
                let held = view.held_by(node);
                let told =
                    !speaks || view.session(node).is_none_or(|s| !matches!(s.fitness, Some(Fitness::Fit)));
                if told && held.0.is_empty() && held.1.is_empty() {
                    return finished(node, &before, &view);
                }
                if last.as_ref() != Some(&held) {
                    say(format!("{node} holds {}", text(&held)))?;
                    last = Some(held.clone());
                }
                if told && speaks && !another_may_take(node, &first, &view) {
                    say(format!(
                        "{node} keeps {}, and nobody answers for their addresses, because no other node is fit to take them; \
                         it hands over as soon as one is. Undo it by `responder drain --undo --node {node}`",
                        text(&held)
                    ))?;
                    return Ok(ExitCode::from(UNFINISHED));
                }
            }
            Err(error @ ReadError::Forbidden { .. }) => {
                return Err(error)
                    .context(format!("{node} is drained, but what it holds cannot be seen (--no-wait)"));
            }
            Err(error) => say(format!("waiting: {error}"))?,
        }
        if Instant::now() >= until {
            let held = last.unwrap_or_default();
            say(format!(
                "after {limit:?} {node} still holds {}; it stays drained, and goes on handing over. `responder status` \
                 on it says what stands in the way",
                text(&held)
            ))?;
            return Ok(ExitCode::from(UNFINISHED));
        }
        sleep(LOOK).await;
    }
}

/// Whether some other node would take something. Who lives was looked at more closely at `first`.
fn another_may_take(node: &NodeName, first: &ClusterView, view: &ClusterView) -> bool {
    let lived = |other: &NodeName| first.session(other).is_some_and(|session| session.life == Life::Live);
    view.sessions.iter().filter(|session| session.node != *node).any(|session| {
        session.may_take() || (session.life == Life::Expired && lived(&session.node) && session.would_take())
    })
}

fn text((groups, vips): &Holdings) -> String {
    format!("{} claims and {} single addresses", groups.len(), vips.len())
}

/// Says where everything has gone.
fn finished(node: &NodeName, before: &Holdings, view: &ClusterView) -> Result<ExitCode> {
    let mut holders = BTreeMap::<String, usize>::new();
    let mut free = Vec::new();
    for claim in view.claims.iter().filter(|claim| before.0.contains(&claim.group)) {
        match &claim.holder {
            Some(holder) => *holders.entry(holder.node.to_string()).or_default() += 1,
            None => free.push(claim.name.clone()),
        }
    }
    let list: Vec<_> = holders.iter().map(|(node, count)| format!("{node} {count}")).collect();
    let moved =
        if list.is_empty() { String::new() } else { format!("; its claims went to: {}", list.join(", ")) };
    say(format!("{node} holds nothing{moved}"))?;
    if free.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(format!(
        "nobody holds {}: no other node is fit to, and their addresses are silent until one is, or until \
         `responder drain --undo --node {node}`",
        free.join(", ")
    ))?;
    Ok(ExitCode::from(UNFINISHED))
}
