//! `responder check --cluster`: what stands in the way of agents in a cluster, before it hurts. Nothing is changed.
//!
//! * `rights`: what the agents may do. `timing`: clocks, and how fast the API server answers.
//! * `others`: who else announces addresses, and kube-proxy.
//! * `vips`: addresses that no node can announce. `segment`: who else has them, and VRRP.

mod others;
mod rights;
pub mod segment;
mod timing;
mod vips;

use std::time::Duration;

use anyhow::Result;
use http::Request;
use serde_json::Value;

use super::{
    Finding,
    Verdict::{Bad, Limited},
};
use crate::{
    cluster::read::{ReadError, answer},
    control::LeadershipStatus,
    operator::{Operator, Prefer, Where},
};

/// What to look at.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which cluster.
    pub place: Where,
    /// Interfaces of this host to listen and probe on; none: those whose prefix covers an address, and the default
    /// route's.
    pub interfaces: Vec<String>,
    /// The agents' lease duration; `None`: the shortest that a session has.
    pub lease_duration: Option<Duration>,
    /// The agents' renew interval; `None`: a quarter of it.
    pub renew_interval: Option<Duration>,
    /// The agents' ServiceAccount.
    pub service_account: String,
    /// How long to listen for VRRP.
    pub listen: Duration,
}

/// Looks.
///
/// # Errors
///
/// If no API server is known, or the links of this host cannot be listed.
pub async fn check(options: &Options, local: Option<&LeadershipStatus>) -> Result<Vec<Finding>> {
    let operator = Operator::connect(&options.place, local, Prefer::Own).await?;
    let mut findings = Vec::new();
    let reached = timing::reach(&operator).await;
    let is_there = reached.verdict != Bad;
    findings.push(reached);
    if !is_there {
        return Ok(findings);
    }
    findings.extend(rights::check(&operator, &options.service_account).await);
    let view = operator.look().await;
    findings.extend(view.problems.iter().map(|problem| Finding::new("reading", Limited, problem.as_str())));
    findings.extend(timing::check(&operator, options, &view).await);
    findings.extend(others::check(&operator).await);
    findings.extend(vips::check(&view));
    findings.extend(segment::check(options, &view).await?);
    Ok(findings)
}

/// Reads something as JSON.
async fn get(operator: &Operator, what: &str, verb: &str, path: &str) -> Result<Value, ReadError> {
    ask(operator, what, verb, Request::get(path).body(Vec::new())).await
}

/// Asks a question that is put by creating an object, which is not kept.
async fn post(
    operator: &Operator,
    what: &str,
    verb: &str,
    (path, body): (&str, &Value),
) -> Result<Value, ReadError> {
    let request = Request::post(path).header("content-type", "application/json");
    ask(operator, what, verb, request.body(body.to_string().into_bytes())).await
}

async fn ask(
    operator: &Operator,
    what: &str,
    verb: &str,
    request: Result<Request<Vec<u8>>, http::Error>,
) -> Result<Value, ReadError> {
    let asked = async {
        let request = request.map_err(kube::Error::HttpError)?;
        operator.client.request::<Value>(request).await
    };
    answer(what, verb, asked).await
}
