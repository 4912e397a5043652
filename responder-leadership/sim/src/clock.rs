//! Clocks that run at rates of their own.

use std::time::Duration;

/// An instant of the simulation, in ns since its beginning: no part of it can see this.
pub(crate) type Instant = u64;

pub(crate) const MS: u64 = 1_000_000;

/// The boot clock of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed at `since`, in ns.
    pub(crate) base: u64,
    pub(crate) since: Instant,
    /// How much faster it runs than it should, in millionths.
    pub(crate) ppm: i64,
}

impl Clock {
    fn rate(self) -> u128 {
        (1_000_000 + self.ppm).unsigned_abs().into()
    }

    /// What it shows at `t`.
    pub(crate) fn local(self, t: Instant) -> Duration {
        let passed = u128::from(t - self.since) * self.rate() / 1_000_000;
        Duration::from_nanos(self.base + narrow(passed))
    }

    /// The first instant at which it shows `local` or more.
    pub(crate) fn instant(self, local: Duration) -> Instant {
        let passed = local.as_nanos().saturating_sub(self.base.into());
        self.since.saturating_add(narrow((passed * 1_000_000).div_ceil(self.rate())))
    }
}

fn narrow(ns: u128) -> u64 {
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// A duration in ns.
pub(crate) fn ns(duration: Duration) -> u64 {
    narrow(duration.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_instant_and_not_before() {
        for ppm in [-20_000, -1, 0, 3, 20_000] {
            let clock = Clock { base: 5_000_000_007, since: 1_000, ppm };
            for local in [5_000_000_008, 5_123_456_789, 77_000_000_000] {
                let local = Duration::from_nanos(local);
                let at = clock.instant(local);
                assert!(clock.local(at) >= local && clock.local(at - 1) < local, "{ppm} {local:?}");
            }
        }
    }
}
