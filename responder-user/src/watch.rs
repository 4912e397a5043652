//! `responder watch`: what happens on this host, or in the cluster.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::read::ReadError,
    control,
    journal::Happening,
    operator::{Followed, Operator},
    overview::{ClusterView, news},
    status::{say, until_closed},
};

/// Between two looks at the Leases.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// Follows this host's agent to its end. False: none answers.
///
/// # Errors
///
/// If the connection to it breaks.
pub async fn host(run_dir: &Path, json: bool) -> Result<bool> {
    let print = |line: &str, happening: Happening| {
        let mut out = io::stdout().lock();
        if json { writeln!(out, "{line}") } else { writeln!(out, "{happening}") }
    };
    match control::watch(run_dir, print).await {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(false),
        // Whoever read the output has had enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(e) => Err(e).context("the connection to the agent broke"),
    }
}

/// Follows the cluster by its Leases, until nobody reads the output any more. What comes and goes between two looks is
/// not told.
///
/// # Errors
///
/// If the Leases may not be read.
pub async fn cluster(operator: &Operator, json: bool) -> Result<()> {
    let mut before: Option<ClusterView> = None;
    let mut trouble: Option<String> = None;
    let mut followed = Followed::new();
    loop {
        let next = Instant::now() + LOOK;
        match operator.glance_again(&mut followed).await {
            Ok(view) => {
                if let (Some(_), false) = (trouble.take(), json) {
                    say("the API server answers again")?;
                }
                let told = match &before {
                    Some(before) => news::between(before, &view),
                    None => {
                        if !json {
                            say(first(&view))?;
                        }
                        for problem in &view.problems {
                            writeln!(io::stderr(), "{problem}").ok();
                        }
                        Vec::new()
                    }
                };
                for piece in told {
                    let line = if json { serde_json::to_string(&piece)? } else { piece.to_string() };
                    if let Err(error) = writeln!(io::stdout(), "{line}") {
                        return Ok(until_closed(Err(error))?);
                    }
                }
                before = Some(view);
            }
            Err(error @ ReadError::Forbidden { .. }) => return Err(error.into()),
            Err(error) => {
                let error = error.to_string();
                if trouble.as_ref() != Some(&error) {
                    // Not among the lines for programs.
                    writeln!(io::stderr(), "{error}; trying again").ok();
                    trouble = Some(error);
                }
            }
        }
        sleep_until(next).await;
    }
}

fn first(view: &ClusterView) -> String {
    let mut holders = BTreeMap::<&str, usize>::new();
    let mut free = 0;
    for claim in &view.claims {
        match claim.holder.as_ref().filter(|_| claim.problem.is_none()) {
            Some(holder) => *holders.entry(holder.node.as_str()).or_default() += 1,
            None => free += 1,
        }
    }
    let list: Vec<_> = holders.iter().map(|(node, count)| format!("{node} {count}")).collect();
    format!("following {} claims: {}; held by nobody: {free}", view.claims.len(), list.join(", "))
}
