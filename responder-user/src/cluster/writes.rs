//! The machine's writes and reads.

#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Resource as _,
    api::{GetParams, PostParams},
    client::Body,
    core::Request,
};
use responder_leadership::{
    event::{Effect, Event, Outcome, Via},
    id::{Object, Version},
    lease::Content,
    settings::Times,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    client::{Line, Lines, text},
    codec,
    known::Known,
    leases::Arrival,
    names::Named,
    outcome::{Asked, outcome, reason},
    owed::Owed,
};
use crate::metrics::Renewals;

/// Does the machine's writes and reads, each as soon as it is asked for, and tells how they ended.
#[derive(Clone)]
pub struct Writer {
    lines: Lines,
    /// Path of the Leases.
    leases: Request,
    claims: NonZeroU16,
    timeout: Duration,
    known: Known,
    tell: UnboundedSender<Arrival>,
    renewals: Renewals,
    /// The last read was refused.
    refused: Arc<AtomicBool>,
}

/// An HTTP answer.
struct Answer {
    code: u16,
    body: Vec<u8>,
}

impl Writer {
    /// For the Leases of `namespace`. Every request ends within [`Times::request_timeout`].
    #[must_use]
    pub fn new(
        lines: Lines,
        namespace: &str,
        claims: NonZeroU16,
        times: &Times,
        known: Known,
        tell: UnboundedSender<Arrival>,
    ) -> Self {
        let leases = Request::new(Lease::url_path(&(), Some(namespace)));
        Self {
            lines,
            leases,
            claims,
            timeout: times.request_timeout(),
            known,
            tell,
            renewals: Renewals::default(),
            refused: Arc::default(),
        }
    }

    /// Tells there what renewals take.
    #[must_use]
    pub fn timing(mut self, renewals: Renewals) -> Self {
        self.renewals = renewals;
        self
    }

    /// Begins to do an effect that is for the API server, in a task of its own. Others are given back.
    #[must_use]
    pub fn start(&self, effect: Effect) -> Option<Effect> {
        let writer = self.clone();
        let owed = |otherwise| Owed::new(self.tell.clone(), otherwise);
        match effect {
            Effect::Write { id, object, base, content, renewal } => {
                let named = Named::of(&object, self.claims);
                let unknown =
                    Outcome::Unknown("the task that wrote it has ended without an outcome".to_owned());
                let owed = owed(Event::Written { write: id, outcome: unknown });
                tokio::spawn(async move {
                    let began = Instant::now();
                    let outcome = writer.write(&named, base, &content, renewal).await;
                    if renewal {
                        writer.renewals.observe(&outcome, began);
                    }
                    owed.tell(Event::Written { write: id, outcome });
                });
            }
            Effect::Read { object, known: _ } => {
                let owed = owed(Event::Unread { object: object.clone() });
                tokio::spawn(async move {
                    if let Some(event) = writer.read(&object).await {
                        owed.tell(event);
                    }
                });
            }
            Effect::Answer(_)
            | Effect::Deadline(_)
            | Effect::DeadlineAtMost(_)
            | Effect::Tell(_)
            | Effect::Finished => return Some(effect),
        }
        None
    }

    async fn write(&self, named: &Named, base: Option<Version>, content: &Content, renewal: bool) -> Outcome {
        let name = named.name();
        let previous = base.and_then(|_| self.known.get(&name));
        let mut lease = match codec::encode(named, content, previous.as_ref(), Timestamp::now()) {
            Ok(lease) => lease,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        lease.metadata.resource_version = base.map(|Version(version)| version.to_string());
        let json = match serde_json::to_vec(&lease) {
            Ok(json) => json,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let params = PostParams::default();
        let (asked, request) = match (base, &previous) {
            (None, _) => (Asked::Create, self.leases.create(&params, json)),
            (Some(_), Some(_)) => (Asked::Update, self.leases.replace(&name, &params, json)),
            // Without its uid the update could create it.
            (Some(_), None) => return Outcome::Conflict,
        };
        let request = match request {
            Ok(request) => request.map(Body::from),
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let line = if renewal { &self.lines.renewals } else { &self.lines.writes };
        let answer = match self.send(line, request).await {
            Ok(answer) => answer,
            Err(reason) => return Outcome::Unknown(reason),
        };
        let (outcome, lease) = outcome(asked, answer.code, &answer.body);
        if let Some(lease) = lease {
            self.known.learn(lease).ok(); // its version has been read already
        }
        outcome
    }

    /// What the object is; `None` if it cannot be read.
    async fn read(&self, object: &Object) -> Option<Event> {
        let named = Named::of(object, self.claims);
        let name = named.name();
        match self.get(&name).await {
            Ok(Some(lease)) => match self.known.learn(lease.clone()) {
                Ok(version) => codec::event(&lease, &named, version, self.claims, Via::Read),
                Err(error) => {
                    self.tell.send(Arrival::Unusable(error)).ok(); // the agent may be ending
                    None
                }
            },
            // The watch tells, after all that was written before: above all, what the cluster's record says now.
            Ok(None) => None,
            Err(reason) => {
                tracing::debug!(%name, %reason, "not read");
                None
            }
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Lease>, String> {
        let request = self.leases.get(name, &GetParams::default()).map_err(|error| error.to_string())?;
        let answer = self.send(&self.lines.writes, request.map(Body::from)).await?;
        match answer.code {
            200 => {
                self.refused.store(false, Ordering::Relaxed);
                serde_json::from_slice(&answer.body).map(Some).map_err(|error| error.to_string())
            }
            404 => Ok(None),
            code => {
                let reason = reason(code, &answer.body);
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%name, %reason, "a Lease cannot be read: only the watch tells what became of it");
                }
                Err(reason)
            }
        }
    }

    /// Sends a request and waits for the whole answer. An error means that it may have been done.
    async fn send(&self, line: &Arc<Line>, request: http::Request<Body>) -> Result<Answer, String> {
        let (client, number) = line.client();
        let answer = tokio::time::timeout(self.timeout, async {
            let response = client.send(request).await?;
            let code = response.status().as_u16();
            let body = response.into_body().collect_bytes().await?.to_vec();
            Ok::<_, kube::Error>(Answer { code, body })
        });
        let result = match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(text(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        // What did not answer is not asked again, and a token that is not valid any more is read again.
        if result.as_ref().map_or(true, |answer| answer.code == 401) {
            line.replace(number);
        }
        result
    }
}
