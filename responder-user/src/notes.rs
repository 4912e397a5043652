//! What the leadership machine says, in words.

use responder_leadership::{event::Note, id::SessionId};

/// A sentence.
pub(crate) fn text(note: &Note) -> String {
    let or_nobody =
        |id: &Option<SessionId>| id.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    match note {
        Note::SessionStarted { incarnation } => format!("a new session began: incarnation {incarnation}"),
        Note::SessionAdopted { incarnation } => {
            format!("the session of the agent before goes on: incarnation {incarnation}")
        }
        Note::SessionLost { reason } => format!("the session is lost, nothing is answered: {reason}"),
        Note::WatchStale => {
            "renewals do not come back by the watch: the session is given up, because what others write is not seen \
             here, either"
                .to_owned()
        }
        Note::NameInUse { datapath } => format!(
            "another agent uses this node's name (its datapath is {datapath}); give each its own --node-name"
        ),
        Note::RenewalFailed { reason, failures } => format!("renewal failed ({failures} in a row): {reason}"),
        Note::Revoked { session, reason } => format!("session {session} was revoked: {reason}"),
        Note::Took { group, from } => format!("claim {group} taken; it was held by {}", or_nobody(from)),
        Note::Received { group, from } => format!("claim {group} received from {}", or_nobody(from)),
        Note::HandedOver { group, to, reason } => {
            format!("claim {group} handed over to {}: {reason}", or_nobody(to))
        }
        Note::Excepted { group, vips } => {
            let list: Vec<_> = vips
                .iter()
                .map(|(vip, to)| match to {
                    Some(to) => format!("{vip} to {to}"),
                    None => format!("{vip} back to the holder"),
                })
                .collect();
            format!("of claim {group}, given: {}", list.join(", "))
        }
        Note::GroupLost { group, reason } => format!("claim {group} is lost: {reason}"),
        Note::BadLease { object, reason } => {
            format!("{object} cannot be understood, and counts as nobody's: {reason}")
        }
        Note::WriteRefused { object, reason } => format!("{object} could not be written: {reason}"),
        Note::MoveRefused { group, reason } => format!("claim {group} is not moved: {reason}"),
    }
}

/// A line in the log: the sentence, and its parts as fields.
pub(crate) fn log(note: &Note) {
    let text = text(note);
    let name = |id: &Option<SessionId>| id.as_ref().map(ToString::to_string).unwrap_or_default();
    match note {
        Note::SessionStarted { incarnation } | Note::SessionAdopted { incarnation } => {
            tracing::info!(incarnation = incarnation.0, "{text}");
        }
        Note::Took { group, from } | Note::Received { group, from } => {
            tracing::info!(claim = group, from = name(from), "{text}");
        }
        Note::HandedOver { group, to, reason } => {
            tracing::info!(claim = group, to = name(to), cause = reason, "{text}");
        }
        Note::Excepted { group, vips } => tracing::info!(claim = group, vips = vips.len(), "{text}"),
        Note::SessionLost { reason } => tracing::warn!(cause = reason, "{text}"),
        Note::WatchStale => tracing::warn!("{text}"),
        Note::RenewalFailed { reason, failures } => tracing::warn!(cause = reason, failures, "{text}"),
        Note::Revoked { session, reason } => tracing::warn!(%session, cause = reason, "{text}"),
        Note::GroupLost { group, reason } | Note::MoveRefused { group, reason } => {
            tracing::warn!(claim = group, cause = reason, "{text}");
        }
        Note::BadLease { object, reason } | Note::WriteRefused { object, reason } => {
            tracing::warn!(%object, cause = reason, "{text}");
        }
        Note::NameInUse { datapath } => tracing::error!(datapath, "{text}"),
    }
}
