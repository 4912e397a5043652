//! What an answer to a write means.

use k8s_openapi::api::coordination::v1::Lease;
use kube::core::Status;
use responder_leadership::event::Outcome;

use super::names::version;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Create,
    Update,
}

/// What an HTTP status and a body mean, with the Lease as it is now.
pub(super) fn outcome(asked: Asked, code: u16, body: &[u8]) -> (Outcome, Option<Lease>) {
    let outcome = match code {
        200..=299 => {
            let lease = serde_json::from_slice::<Lease>(body).map_err(|error| error.to_string());
            let done = lease.and_then(|lease| {
                let version = version(&lease.metadata).map_err(|error| error.to_string())?;
                Ok((Outcome::Done(version), Some(lease)))
            });
            return done.unwrap_or_else(|error| {
                (Outcome::Unknown(format!("HTTP {code} with an answer that cannot be read: {error}")), None)
            });
        }
        409 => Outcome::Conflict,
        404 if asked == Asked::Update => Outcome::Conflict,
        400..=407 | 410..=499 => Outcome::Refused(reason(code, body)),
        _ => Outcome::Unknown(reason(code, body)),
    };
    (outcome, None)
}

/// The API server's words.
pub(super) fn reason(code: u16, body: &[u8]) -> String {
    let message = match serde_json::from_slice::<Status>(body) {
        Ok(status) if !status.message.is_empty() => status.message,
        Ok(_) | Err(_) => String::from_utf8_lossy(body).trim().chars().take(200).collect(),
    };
    let way_out = match code {
        401 => "; are the token and its ServiceAccount valid?",
        403 if message.contains("being terminated") => "",
        403 => "; is the Role bound to this agent's ServiceAccount?",
        404 if message.contains("namespaces") => "; create the namespace",
        _ => "",
    };
    format!("{message} (HTTP {code}){way_out}")
}
