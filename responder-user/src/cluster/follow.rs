//! A list and the watch after it, for ever.

#[cfg(test)]
mod tests;

use std::{fmt::Debug, future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, time::Instant};

use super::client::{Line, text};
use crate::net::boot;

/// A page of a list must have come by then, and a watch must have begun.
const ANSWER: Duration = Duration::from_secs(30);
/// The API server ends a watch after so many seconds. It goes on in the next one.
const WATCH_SECONDS: u32 = 290;
/// A watch that the API server has not ended by then is dead.
const WATCH_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);
/// A watch that says nothing for so long shows nothing.
const MUTE: Duration = Duration::from_secs(150);
/// After the first failure; doubled after each one that follows.
const BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// What a list or a watch brings.
#[derive(Clone, PartialEq, Debug)]
pub enum Step<K> {
    /// A list begins: what it does not bring is not there any more.
    Listing,
    /// An object of the list.
    Listed(K),
    /// The list is complete.
    Synced {
        /// CLOCK_BOOTTIME before it was asked for.
        began: Duration,
        /// The version that it shows.
        version: String,
    },
    /// An object came or changed.
    Applied(K),
    /// An object went; its version is that of its end.
    Deleted(K),
}

/// The other end does not listen any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// Who is told.
pub trait Sink<K>: Send {
    /// Takes a step. Nothing is read meanwhile.
    fn step(&mut self, step: Step<K>) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// What to follow.
pub struct Followed<F> {
    /// Its name in the log: "Leases".
    pub what: &'static str,
    /// The connections.
    pub line: Arc<Line>,
    /// Where it is.
    pub api: F,
    /// Only what has this label.
    pub labels: Option<&'static str>,
    /// So many objects at a time; `None`: all at once.
    pub page: Option<u32>,
    /// Begins anew, with a list and on new connections.
    pub restart: Arc<Notify>,
}

/// Why a list or a watch has ended.
enum End {
    /// Nobody listens.
    Gone,
    /// The version is not known to the API server any more, or not yet: only a list helps.
    Expired,
    /// Something failed.
    Failed {
        reason: String,
        /// A connection or the credentials may be of no use any more.
        renew: bool,
    },
}

impl<F> Followed<F> {
    /// Follows until nobody listens.
    pub async fn run<K, S>(self, mut sink: S)
    where
        F: Fn(Client) -> Api<K> + Send + Sync,
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        S: Sink<K>,
    {
        let mut retry = Retry { what: self.what, failures: 0, reason: String::new() };
        let mut version: Option<String> = None;
        loop {
            let (client, number) = self.line.client();
            let api = (self.api)(client);
            let end = tokio::select! {
                biased;
                () = self.restart.notified() => {
                    self.line.replace(number);
                    version = None;
                    continue;
                }
                end = self.round(&api, &mut version, &mut sink, &mut retry) => end,
            };
            match end {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Expired) => version = None,
                Err(End::Failed { reason, renew }) => {
                    if renew {
                        self.line.replace(number);
                    }
                    tokio::select! {
                        () = self.restart.notified() => version = None,
                        () = retry.wait(reason) => {}
                    }
                }
            }
        }
    }

    /// Lists, unless a version is known, and watches until the watch ends.
    async fn round<K, S>(
        &self,
        api: &Api<K>,
        version: &mut Option<String>,
        sink: &mut S,
        retry: &mut Retry,
    ) -> Result<(), End>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        S: Sink<K>,
    {
        let from = match version {
            Some(version) => version,
            None => {
                let listed = self.list(api, sink).await?;
                version.insert(listed)
            }
        };
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector = self.labels.map(str::to_owned);
        let stream = answer(api.watch(&params, from)).await?;
        retry.succeeded();
        let mut stream = pin!(stream);
        let began = Instant::now();
        let limit = tokio::time::sleep(WATCH_LIMIT);
        let mut limit = pin!(limit);
        let mut told = false;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = &mut limit => return Err(failed(format!("the watch did not end within {WATCH_LIMIT:?}"))),
            };
            let Some(event) = event else {
                return match told {
                    true => Ok(()),
                    // Not even a bookmark, which come every minute: etcd's data may be older than they were (restored
                    // from a backup), and the API server waits for the version to come.
                    false if began.elapsed() > MUTE => Err(End::Expired),
                    // The API server must not be asked again and again without a pause.
                    false => Err(quiet("the watch ended before it said anything")),
                };
            };
            told = true;
            match event.map_err(end_of)? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let reached = object.meta().resource_version.clone();
                    tell(sink, Step::Applied(object)).await?;
                    advance(from, reached);
                }
                WatchEvent::Deleted(object) => {
                    let reached = object.meta().resource_version.clone();
                    tell(sink, Step::Deleted(object)).await?;
                    advance(from, reached);
                }
                WatchEvent::Bookmark(bookmark) => advance(from, Some(bookmark.metadata.resource_version)),
                WatchEvent::Error(status) => return Err(end_of_status(&status)),
            }
        }
    }

    /// Lists; with the version that the list shows.
    async fn list<K, S>(&self, api: &Api<K>, sink: &mut S) -> Result<String, End>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        S: Sink<K>,
    {
        let began = Duration::from_nanos(boot::now_ns());
        // Without a version: as it is now, not as some cache of the API server has it.
        let mut params = ListParams { limit: self.page, ..ListParams::default() };
        params.label_selector = self.labels.map(str::to_owned);
        tell(sink, Step::Listing).await?;
        loop {
            let page = answer(api.list(&params)).await?;
            for object in page.items {
                tell(sink, Step::Listed(object)).await?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version.unwrap_or_default();
                    tell(sink, Step::Synced { began, version: version.clone() }).await?;
                    return Ok(version);
                }
            }
        }
    }
}

async fn tell<K, S: Sink<K>>(sink: &mut S, step: Step<K>) -> Result<(), End> {
    sink.step(step).await.map_err(|Gone| End::Gone)
}

fn advance(from: &mut String, reached: Option<String>) {
    if let Some(reached) = reached {
        *from = reached;
    }
}

/// Waits for an answer, but not for ever.
async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, End> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(end_of),
        Err(_) => Err(failed(format!("no answer within {ANSWER:?}"))),
    }
}

fn failed(reason: String) -> End {
    End::Failed { reason, renew: true }
}

/// A failure that no new connection would mend.
fn quiet(reason: &str) -> End {
    End::Failed { reason: reason.to_owned(), renew: false }
}

fn end_of(error: kube::Error) -> End {
    if let kube::Error::Api(status) = &error {
        return end_of_status(status);
    }
    failed(text(&error))
}

fn end_of_status(status: &Status) -> End {
    let too_large = status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge"));
    // The latter: etcd's data are older than ours.
    if status.code == 410 || too_large {
        return End::Expired;
    }
    End::Failed { reason: format!("{} ({})", status.message, status.code), renew: status.code == 401 }
}

/// Pauses between attempts.
struct Retry {
    what: &'static str,
    failures: u32,
    reason: String,
}

impl Retry {
    /// Says so once per reason.
    async fn wait(&mut self, reason: String) {
        if self.reason != reason {
            tracing::warn!(what = self.what, %reason, "cannot be followed; trying again");
            self.reason = reason;
        }
        let pause = jittered(BACKOFF.saturating_mul(1 << self.failures.min(10)).min(LONGEST_BACKOFF));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }

    fn succeeded(&mut self) {
        if !self.reason.is_empty() {
            tracing::info!(what = self.what, failures = self.failures, "followed again");
        }
        self.failures = 0;
        self.reason.clear();
    }
}

/// Between half of it and all of it, so that agents that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), boot::now_ns());
    let half = pause / 2;
    let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % span)
}

/// Metadata that nobody here reads.
pub(super) fn prune(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
}
