//! Times, and which of them are safe together.

use std::{num::NonZeroU16, time::Duration};

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// The shortest lease.
pub const SHORTEST: Duration = Duration::from_millis(500);
/// The longest lease: what an observer waits that cannot know better.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The longest that a session may say that it lasts: that of a node that holds nothing and renews slowly.
pub const LONGEST_IDLE: Duration = Duration::from_secs(360);

/// How a machine is to behave.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// This node.
    pub node: NodeName,
    /// The identity of the maps that answer here.
    pub datapath: String,
    /// Number of groups, as the cluster's record says.
    pub claims: NonZeroU16,
    /// The longest lease duration that any agent of the cluster has, as the cluster's record says.
    pub longest: Duration,
    /// Times of this node.
    pub times: Times,
    /// Seed of the jitter.
    pub seed: u64,
    /// Milliseconds since 1970 when the boot clock was at `boot`.
    pub wall: (u64, Duration),
}

/// How long things take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Times {
    /// How long others leave a session alone after its last change.
    pub lease_duration: Duration,
    /// Between renewals while something is held.
    pub renew_interval: Duration,
    /// Between renewals while nothing is held.
    pub idle_renew_interval: Duration,
}

/// Times that cannot be safe together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadTimes(String);

impl Times {
    /// Times that follow from a lease duration: renewed four times in it, or once in two of it when idle.
    #[must_use]
    pub fn of(lease_duration: Duration) -> Self {
        Self { lease_duration, renew_interval: lease_duration / 4, idle_renew_interval: lease_duration * 2 }
    }

    /// Checks that times are safe together.
    ///
    /// # Errors
    ///
    /// With the arithmetic.
    pub fn check(self) -> Result<Self, BadTimes> {
        let Self { lease_duration, renew_interval, idle_renew_interval } = self;
        if !(SHORTEST..=LONGEST).contains(&lease_duration) {
            return Err(BadTimes(format!(
                "--lease-duration {lease_duration:?} is not within {SHORTEST:?} and {LONGEST:?}"
            )));
        }
        if renew_interval < Duration::from_millis(50) {
            return Err(BadTimes(format!("--renew-interval {renew_interval:?} is shorter than 50ms")));
        }
        let (margin, timeout) = (self.margin(), self.request_timeout());
        let need = renew_interval * 2 + timeout + margin;
        if need > lease_duration {
            return Err(BadTimes(format!(
                "--renew-interval {renew_interval:?} is too long for --lease-duration {lease_duration:?}: one \
                 renewal may fail, so 2 × {renew_interval:?} + {timeout:?} (timeout of a request) + {margin:?} \
                 (margin) = {need:?} must fit into it; at most {:?} does",
                (lease_duration - margin) * 3 / 8
            )));
        }
        if idle_renew_interval < renew_interval {
            return Err(BadTimes(format!(
                "--idle-renew-interval {idle_renew_interval:?} is shorter than --renew-interval {renew_interval:?}"
            )));
        }
        let longest_idle = LONGEST_IDLE - LONGEST;
        if idle_renew_interval > longest_idle {
            return Err(BadTimes(format!(
                "--idle-renew-interval {idle_renew_interval:?} is longer than {longest_idle:?}: for so long peers \
                 would take a dead idle node for alive"
            )));
        }
        Ok(self)
    }

    /// What a deadline stays behind the lease: a twentieth, at least 20 ms. It covers clocks whose rates differ by up
    /// to 5 %, and the time from a frame's arrival to its answer.
    #[must_use]
    pub fn margin(&self) -> Duration {
        (self.lease_duration / 20).max(Duration::from_millis(20))
    }

    /// After this a request to the API counts as failed, with unknown outcome.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.renew_interval * 2 / 3
    }

    /// How long a session goes on without its own renewals coming back by its watch.
    #[must_use]
    pub fn watch_limit(&self) -> Duration {
        self.lease_duration * 2
    }

    /// Between two candidates' turns.
    #[must_use]
    pub fn turn(&self) -> Duration {
        (self.renew_interval / 2).clamp(Duration::from_millis(20), Duration::from_millis(200))
    }

    /// How long the agents of a starting cluster wait for each other.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.watch_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn defaults_are_safe() {
        for duration in [500, 1000, 3000, 15_000, 60_000] {
            let times = Times::of(ms(duration)).check().unwrap();
            // What an idle session says must be understood.
            assert!(times.idle_renew_interval + times.lease_duration <= LONGEST_IDLE, "{duration}");
        }
    }

    #[test]
    fn unsafe_times_are_refused_with_the_arithmetic() {
        let text = |times: Times| times.check().unwrap_err().to_string();
        assert!(text(Times::of(ms(499))).contains("500ms"));
        assert!(text(Times::of(ms(60_001))).contains("60s"));
        let late = Times { renew_interval: ms(400), ..Times::of(ms(1000)) };
        let error = text(late);
        assert!(error.contains("2 × 400ms + 266.666666ms") && error.contains("at most 356.25ms"), "{error}");
        let at_most = Times { renew_interval: Duration::from_micros(356_250), ..Times::of(ms(1000)) };
        assert!(at_most.check().is_ok());
        assert!(text(Times { renew_interval: ms(10), ..Times::of(ms(1000)) }).contains("50ms"));
        assert!(text(Times { idle_renew_interval: ms(100), ..Times::of(ms(1000)) }).contains("100ms"));
        assert!(text(Times { idle_renew_interval: LONGEST * 6, ..Times::of(ms(1000)) }).contains("300s"));
    }
}
