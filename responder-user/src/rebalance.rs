//! `responder rebalance`: claims go to the nodes that come first for them, one after the other.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use responder_leadership::id::{Group, NodeName};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{codec::Request, read::ReadError, record},
    drain::UNFINISHED,
    operator::{LOOK, Operator},
    overview::{ClaimView, ClusterView},
    status::say,
};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only say what would be moved.
    pub dry_run: bool,
    /// How long one move may take.
    pub timeout: Duration,
}

/// One move.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Move {
    claim: String,
    group: Group,
    from: NodeName,
    to: NodeName,
    vips: usize,
}

impl Move {
    fn of(claim: &ClaimView) -> Option<Self> {
        Some(Self {
            claim: claim.name.clone(),
            group: claim.group,
            from: claim.holder.as_ref()?.node.clone(),
            to: claim.misplaced()?.clone(),
            vips: claim.vips,
        })
    }
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { claim, from, to, vips, group: _ } = self;
        write!(f, "{claim}: from {from} to {to} ({vips} addresses)")
    }
}

/// Moves what is misplaced.
///
/// # Errors
///
/// If it cannot be told what is, or a right is missing.
pub async fn run(operator: &Operator, options: Options) -> Result<ExitCode> {
    let (mut moved, mut failed) = (0_usize, 0_usize);
    let mut tried = BTreeSet::new();
    loop {
        let view = operator.look().await;
        check(&view)?;
        let mut moves = view.claims.iter().filter_map(Move::of).filter(|step| !tried.contains(&step.group));
        if options.dry_run {
            return tell(&moves.collect::<Vec<_>>());
        }
        let Some(step) = moves.next() else {
            break;
        };
        tried.insert(step.group);
        let start = Instant::now();
        match make(operator, &step, options.timeout).await? {
            Ok(()) => {
                moved += 1;
                say(format!("{step}: moved within {} ms", start.elapsed().as_millis()))?;
            }
            Err(reason) => {
                failed += 1;
                say(format!("{step}: not moved: {reason}"))?;
            }
        }
    }
    if !tried.is_empty() {
        // So that an agent that starts later does not meet it.
        record::request(&operator.line, &operator.namespace, None).await?;
    }
    say(match (moved, failed) {
        (0, 0) => "every claim is where it should be; nothing to move".to_owned(),
        (moved, 0) => format!("{moved} claims moved; every claim is where it should be"),
        (moved, failed) => format!("{moved} claims moved, {failed} not"),
    })?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNFINISHED) })
}

/// Without all facts, what is moved might be moved right back.
fn check(view: &ClusterView) -> Result<()> {
    match view.problems.first() {
        None => Ok(()),
        Some(problem) => bail!("nothing is moved without knowing the whole cluster: {problem}"),
    }
}

fn tell(moves: &[Move]) -> Result<ExitCode> {
    for step in moves {
        say(format!("{step}: would be moved"))?;
    }
    say(match moves.len() {
        0 => "every claim is where it should be; nothing to move".to_owned(),
        count => format!("{count} claims would be moved; nothing was changed"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Asks for a move and waits for it. The inner error: why it did not come about.
async fn make(operator: &Operator, step: &Move, timeout: Duration) -> Result<Result<(), String>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let request = Request {
        id: format!("{}-{}-{}", operator.this_node, std::process::id(), since.as_micros()),
        group: step.group,
        to: step.to.clone(),
    };
    record::request(&operator.line, &operator.namespace, Some(request)).await.with_context(|| {
        format!("a move is asked for by `update leases` in namespace {}", operator.namespace)
    })?;
    let until = Instant::now() + timeout;
    loop {
        match operator.glance().await {
            Ok(view) => {
                let claim = view.claims.iter().find(|claim| claim.group == step.group);
                let holder = claim.and_then(|claim| claim.holder.as_ref()).map(|holder| &holder.node);
                if holder == Some(&step.to) {
                    return Ok(Ok(()));
                }
                if let Some(other) = holder.filter(|holder| **holder != step.from) {
                    return Ok(Err(format!("{other} holds it meanwhile")));
                }
            }
            Err(error @ ReadError::Forbidden { .. }) => return Err(error.into()),
            Err(_) => {} // the API server may be restarting
        }
        if Instant::now() >= until {
            return Ok(Err(format!(
                "{} has not handed it over within {timeout:?}; `responder status` and the log there say why",
                step.from
            )));
        }
        sleep(LOOK).await;
    }
}
