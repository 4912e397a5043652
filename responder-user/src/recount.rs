//! `responder claims`: another number of claims. Every claim of the old number is closed before one of the new can be
//! taken: its Lease is deleted once nobody can answer by it any more.
//!
//! The record is changed first. Agents that see it give up what they hold; one that does not see it can take nothing that
//! is deleted here, because its watch would show it the record before. Agents take part anew when no Lease of the old
//! number is left ([`record::agree`]).

mod closing;

use std::{num::NonZeroU16, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use responder_leadership::{
    id::SessionId,
    lease::{Content, Fitness, Reach, Session, SessionState},
};
use tokio::time::{Instant, sleep};

use self::closing::{Closing, Step};
use crate::{
    cluster::{
        codec,
        names::Named,
        read::{self, ReadError, answer},
        record,
    },
    drain::UNFINISHED,
    operator::{LOOK, Operator},
    status::say,
};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many claims there are from now on.
    pub claims: NonZeroU16,
    /// How long to wait for those who hold claims of the old number.
    pub timeout: Duration,
}

/// Changes the number of claims.
///
/// # Errors
///
/// If the record cannot be changed, or a right is missing. Other failures of the API server are waited out until the
/// timeout.
pub async fn run(operator: &Operator, Options { claims, timeout }: Options) -> Result<ExitCode> {
    let right = || format!("needs `list, create, update, delete leases` in namespace {}", operator.namespace);
    let record = record::set_claims(&operator.line, &operator.namespace, claims).await.with_context(right)?;
    let mut closing = Closing::new(claims, record.longest);
    let start = Instant::now();
    let mut closed = 0;
    loop {
        let open = match close(operator, &mut closing, start, &mut closed).await {
            Ok(open) => open,
            Err(error) if is_final(&error) => return Err(error).with_context(right),
            // The API server may be restarting, and nothing is announced until this is done.
            Err(error) => Some(format!("{error:#}")),
        };
        match open {
            None => break,
            Some(open) if start.elapsed() >= timeout => {
                say(format!(
                    "not done: {open}. Nothing is announced until all claims of another number are closed; `responder \
                     status` and the agents' logs say more. Run this again, which goes on where this ended, or take it \
                     back by the number of before"
                ))?;
                return Ok(ExitCode::from(UNFINISHED));
            }
            Some(_) => sleep(LOOK).await,
        }
    }
    say(if closed == 0 {
        format!("the cluster has {claims} claims; no other was there")
    } else {
        format!(
            "the cluster has {claims} claims; {closed} of another number closed within {} ms",
            start.elapsed().as_millis()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Looks once and does what can be done. Says what is left; `None`: nothing.
async fn close(
    operator: &Operator,
    closing: &mut Closing,
    start: Instant,
    closed: &mut u32,
) -> Result<Option<String>> {
    let now = start.elapsed();
    let leases = read::leases(&operator.client, &operator.namespace).await?;
    let steps = closing.steps(&leases, now);
    if steps.is_empty() {
        return Ok(None);
    }
    let mut waits = Vec::new();
    for step in steps {
        match step {
            Step::Delete(lease) => *closed += u32::from(delete(operator, lease).await?),
            Step::Revoke(id) => revoke(operator, &id, &leases).await?,
            Step::Wait { claim, why } => waits.push(format!("{claim} {why}")),
        }
    }
    Ok(Some(match waits.as_slice() {
        [] => "the last claims were deleted, which has not been seen yet".to_owned(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first}, and {} more wait likewise", others.len()),
    }))
}

/// Whether waiting cannot help.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ReadError::Forbidden { .. }))
        || error.downcast_ref::<codec::EncodeError>().is_some()
}

/// Deletes a Lease if it is still as it was seen. Says whether it did.
async fn delete(operator: &Operator, lease: &Lease) -> Result<bool, ReadError> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions {
        uid: lease.metadata.uid.clone(),
        resource_version: lease.metadata.resource_version.clone(),
    };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let request = api(operator);
    unless_others_came_first(answer(name, "delete leases", request.delete(name, &params)).await)
}

/// Revokes a session if it is still as it was seen.
async fn revoke(operator: &Operator, id: &SessionId, leases: &[Lease]) -> Result<()> {
    let named = Named::Session(id.node.clone());
    let name = named.name();
    let old = leases.iter().find(|lease| lease.metadata.name.as_ref() == Some(&name));
    let seen = old.map(|lease| codec::decode_session(lease, &id.node));
    let seen = seen.as_ref().and_then(|seen| seen.good());
    let incarnation = seen.map_or(id.incarnation, |session| session.id.incarnation.max(id.incarnation));
    let session = Session {
        id: SessionId { node: id.node.clone(), incarnation },
        state: SessionState::Ended { by: operator.this_node.clone() },
        duration: seen.map_or(closing::UNKNOWN, |session| session.duration),
        renewal: seen.map_or(0, |session| session.renewal.saturating_add(1)),
        datapath: seen.map_or_else(String::new, |session| session.datapath.clone()),
        fitness: seen.map_or(Fitness::Fit, |session| session.fitness.clone()),
        reach: seen.map_or(Reach::Any, |session| session.reach.clone()),
    };
    let mut lease = codec::encode(&named, &Content::Session(session), old, Timestamp::now())?;
    lease.metadata.resource_version = old.and_then(|old| old.metadata.resource_version.clone());
    let (request, params) = (api(operator), PostParams::default());
    let written = if old.is_some() {
        answer(&name, "update leases", request.replace(&name, &params, &lease)).await
    } else {
        answer(&name, "create leases", request.create(&params, &lease)).await
    };
    if unless_others_came_first(written)? {
        say(format!("the session {id} is not renewed any more, and was revoked"))?;
    }
    Ok(())
}

fn api(operator: &Operator) -> Api<Lease> {
    Api::namespaced(operator.client.clone(), &operator.namespace)
}

/// Whether a write has been done; if the object has changed or gone meanwhile, the next look will tell.
fn unless_others_came_first<T>(written: Result<T, ReadError>) -> Result<bool, ReadError> {
    match written {
        Ok(_) => Ok(true),
        Err(ReadError::NotFound { .. }) => Ok(false),
        Err(ReadError::Failed { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 409) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
