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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(asked: Asked, code: u16, message: &str) -> Outcome {
        let body = format!(r#"{{"kind":"Status","status":"Failure","message":"{message}","code":{code}}}"#);
        outcome(asked, code, body.as_bytes()).0
    }

    fn refused(asked: Asked, code: u16, message: &str) -> String {
        match of(asked, code, message) {
            Outcome::Refused(reason) => reason,
            other @ (Outcome::Done(_) | Outcome::Conflict | Outcome::Unknown(_)) => {
                panic!("{code}: {other:?}")
            }
        }
    }

    #[test]
    fn only_what_is_certain_is_certain() {
        for asked in [Asked::Create, Asked::Update] {
            assert_eq!(of(asked, 409, "exists, or changed"), Outcome::Conflict);
            for code in [400, 401, 403, 405, 410, 413, 415, 422, 429] {
                assert!(refused(asked, code, "why").starts_with("why"), "{code}");
            }
            for code in [100, 301, 408, 500, 502, 503, 504, 599] {
                assert!(matches!(of(asked, code, "why"), Outcome::Unknown(_)), "{code}");
            }
        }
        assert_eq!(of(Asked::Update, 404, "not found"), Outcome::Conflict);
    }

    #[test]
    fn reasons_name_the_way_out() {
        let reason = refused(Asked::Create, 404, r#"namespaces \"x\" not found"#);
        assert!(reason.contains("\"x\"") && reason.contains("create the namespace"), "{reason}");
        let message = r#"unable to create new content in namespace x because it is being terminated"#;
        assert!(!refused(Asked::Create, 403, message).contains("Role"));
        assert!(refused(Asked::Create, 403, "forbidden").contains("Role"));
    }

    #[test]
    fn a_success_that_cannot_be_read_may_be_one() {
        let of = |body: &[u8]| outcome(Asked::Update, 200, body).0;
        for body in [&b""[..], b"<html>", b"{}", br#"{"metadata":{"resourceVersion":"x"}}"#, b"\xff"] {
            assert!(matches!(of(body), Outcome::Unknown(_)), "{body:?}");
        }
        let done = Outcome::Done(responder_leadership::id::Version(17));
        assert_eq!(of(br#"{"metadata":{"resourceVersion":"17"}}"#), done);
    }

    #[test]
    fn what_is_no_status_is_cut_short() {
        let (outcome, _) = outcome(Asked::Create, 502, "<p>".repeat(1000).as_bytes());
        assert!(matches!(&outcome, Outcome::Unknown(reason) if reason.len() < 300), "{outcome:?}");
    }
}
