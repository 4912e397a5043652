//! The deadline up to which the datapath may answer.

use std::time::Duration;

use responder_common::layout::Fence;

/// The standalone fence: as long as the agent lives, it may answer.
///
/// With leadership in Kubernetes the base is the moment before the last successful renewal was sent; here it is
/// the agent's own heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencePolicy {
    /// How long the datapath answers without hearing from the agent.
    pub fence: Duration,
    /// How long it suppresses without hearing from the agent.
    pub suppress: Duration,
}

impl FencePolicy {
    /// What to write at `now`.
    #[must_use]
    pub fn at(&self, now: Duration) -> Fence {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Fence {
            deadline_ns: ns(now.saturating_add(self.fence)),
            suppress_until_ns: ns(now.saturating_add(self.suppress)),
            heartbeat_ns: ns(now),
        }
    }

    /// How often to write it: four chances before the deadline, and often enough for people who watch.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.fence / 4).min(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extends_from_now() {
        let policy = FencePolicy { fence: Duration::from_secs(10), suppress: Duration::from_secs(3600) };
        let fence = policy.at(Duration::from_secs(5));
        assert_eq!(fence.deadline_ns, 15_000_000_000);
        assert_eq!(fence.suppress_until_ns, 3_605_000_000_000);
        assert_eq!(policy.interval(), Duration::from_secs(1));
    }

    #[test]
    fn for_ever_does_not_wrap() {
        let policy = FencePolicy { fence: Duration::MAX, suppress: Duration::MAX };
        assert_eq!(policy.at(Duration::from_secs(5)).deadline_ns, u64::MAX);
    }
}
