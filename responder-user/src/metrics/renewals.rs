//! What renewals of this node's session take: the answer, and the way back by the watch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use responder_leadership::{event::Outcome, id::Version};

/// Upper ends of the buckets, in s: lease durations are from 0.5 to 60 s, and an answer takes some ms.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// So many renewals may be on their way back. A session whose renewals do not come back ends long before.
const UNDERWAY: usize = 64;

/// Histograms by the value of one label.
type Histograms = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// Times of renewals.
#[derive(Clone, Debug)]
pub struct Renewals {
    answers: Histograms,
    lag: Histogram,
    underway: Arc<Mutex<Underway>>,
}

/// Renewals that were done and have not been seen, and the last one that was seen: either may be told first.
#[derive(Debug, Default)]
struct Underway {
    done: VecDeque<(Version, Instant)>,
    seen: Option<(Version, Instant)>,
}

impl Default for Renewals {
    fn default() -> Self {
        let answers = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        for outcome in ["done", "conflict", "refused", "unknown"] {
            drop(answers.get_or_create(&[("outcome", outcome)]));
        }
        Self { answers, lag: Histogram::new(BUCKETS), underway: Arc::default() }
    }
}

impl Renewals {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "renewal_duration",
            "What renewals of this node's session took, from the request to the answer (outcome unknown: to the time-out)",
            Unit::Seconds,
            self.answers.clone(),
        );
        registry.register_with_unit(
            "watch_lag",
            "How far the agent is behind the cluster: from the request of a renewal of its own until its watch has shown it",
            Unit::Seconds,
            self.lag.clone(),
        );
    }

    /// A renewal that began then has ended now.
    pub fn observe(&self, outcome: &Outcome, began: Instant) {
        let label = match outcome {
            Outcome::Done(version) => {
                self.done(*version, began);
                "done"
            }
            Outcome::Conflict => "conflict",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        self.answers.get_or_create(&[("outcome", label)]).observe(began.elapsed().as_secs_f64());
    }

    fn done(&self, version: Version, began: Instant) {
        let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        match underway.seen {
            Some((seen, at)) if seen == version => self.took(at.saturating_duration_since(began)),
            // A later one was seen first, so this one's own moment is not known.
            Some((seen, _)) if seen > version => {}
            _ => {
                if underway.done.len() == UNDERWAY {
                    underway.done.pop_front();
                }
                underway.done.push_back((version, began));
            }
        }
    }

    /// The watch has shown this node's session at a version.
    pub fn seen(&self, version: Version) {
        let now = Instant::now();
        let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((done, began)) = underway.done.front().copied().filter(|(done, _)| *done <= version) {
            underway.done.pop_front();
            if done == version {
                self.took(now.saturating_duration_since(began));
            }
        }
        underway.seen = Some((version, now));
    }

    fn took(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(tell: impl FnOnce(&Renewals, Instant)) -> String {
        let renewals = Renewals::default();
        let began = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        tell(&renewals, began);
        let mut registry = Registry::default();
        renewals.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &registry).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("watch_lag_seconds_count "));
        let short = text.lines().find_map(|line| line.strip_prefix("watch_lag_seconds_bucket{le=\"1.0\"} "));
        format!("{} {}", count.unwrap(), short.unwrap())
    }

    #[test]
    fn lag_is_from_the_request_to_the_watch_in_either_order() {
        let done = |version| Outcome::Done(Version(version));
        // How many were observed, and how many of them as a second at most: all began two ago.
        assert_eq!(observed(|_, _| {}), "0 0");
        assert_eq!(observed(|r, began| r.observe(&done(3), began)), "0 0");
        let answer_first = |r: &Renewals, began| {
            r.observe(&done(3), began);
            r.seen(Version(2));
            r.seen(Version(3));
            r.seen(Version(3));
        };
        assert_eq!(observed(answer_first), "1 0");
        let watch_first = |r: &Renewals, began| {
            r.seen(Version(3));
            r.observe(&done(3), began);
        };
        assert_eq!(observed(watch_first), "1 0");
        let passed_over = |r: &Renewals, began| {
            r.observe(&done(3), began);
            r.observe(&done(5), began);
            r.seen(Version(6));
            r.observe(&done(4), began);
            r.observe(&Outcome::Conflict, began);
        };
        assert_eq!(observed(passed_over), "0 0");
    }
}
