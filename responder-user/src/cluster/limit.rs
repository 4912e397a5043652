//! How many Events may be sent. Pure: the time is told.

use std::{collections::BTreeMap, time::Duration};

/// So many at once …
const TOTAL_BURST: f64 = 100.0;
/// … and per second, …
const TOTAL_RATE: f64 = 5.0;
/// … of them about one Service at once …
const SERVICE_BURST: f64 = 10.0;
/// … and per second.
const SERVICE_RATE: f64 = 1.0 / 30.0;
/// What was said is not said again for so long.
const REPEAT: Duration = Duration::from_secs(600);
/// So many Services are remembered. Of more, those that would be let through anyway are forgotten first.
const REMEMBERED: usize = 20_000;

/// Lets Events through, or not.
#[derive(Clone, Debug)]
pub struct Limit {
    total: Bucket,
    services: BTreeMap<String, Service>,
}

#[derive(Clone, Debug)]
struct Service {
    bucket: Bucket,
    /// What was said, and when.
    said: BTreeMap<String, Duration>,
}

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn refill(&mut self, now: Duration, rate: f64, most: f64) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * rate).min(most);
        self.at = now;
    }
}

impl Service {
    fn refresh(&mut self, now: Duration) {
        self.bucket.refill(now, SERVICE_RATE, SERVICE_BURST);
        self.said.retain(|_, at| now.saturating_sub(*at) < REPEAT);
    }
}

impl Default for Limit {
    fn default() -> Self {
        let total = Bucket { tokens: TOTAL_BURST, at: Duration::ZERO };
        Self { total, services: BTreeMap::new() }
    }
}

impl Limit {
    /// Whether `text` may be said about `service` now.
    pub fn allow(&mut self, service: &str, text: &str, now: Duration) -> bool {
        self.total.refill(now, TOTAL_RATE, TOTAL_BURST);
        if self.total.tokens < 1.0 {
            return false;
        }
        if !self.services.contains_key(service) && self.services.len() >= REMEMBERED {
            self.services.retain(|_, service| {
                service.refresh(now);
                !service.said.is_empty() || service.bucket.tokens < SERVICE_BURST
            });
            if self.services.len() >= REMEMBERED {
                return false;
            }
        }
        let fresh = Bucket { tokens: SERVICE_BURST, at: now };
        let about = self
            .services
            .entry(service.to_owned())
            .or_insert_with(|| Service { bucket: fresh, said: BTreeMap::new() });
        about.refresh(now);
        if about.bucket.tokens < 1.0 || about.said.contains_key(text) {
            return false;
        }
        about.bucket.tokens -= 1.0;
        self.total.tokens -= 1.0;
        about.said.insert(text.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_same_is_not_said_again_soon() {
        let mut limit = Limit::default();
        assert!(limit.allow("a", "x", S));
        assert!(!limit.allow("a", "x", S * 600));
        assert!(limit.allow("a", "y", S * 600));
        assert!(limit.allow("b", "x", S * 600));
        assert!(limit.allow("a", "x", S * 601));
    }

    #[test]
    fn one_service_cannot_say_much() {
        let mut limit = Limit::default();
        let said = |limit: &mut Limit, now| {
            (0..1000).filter(|n| limit.allow("a", &format!("{n} {now:?}"), now)).count()
        };
        assert_eq!(said(&mut limit, S), 10);
        assert_eq!(said(&mut limit, S * 2), 0);
        assert_eq!(said(&mut limit, S * 62), 2);
    }

    #[test]
    fn all_together_cannot_say_much() {
        let mut limit = Limit::default();
        let said = |limit: &mut Limit, now| {
            (0..1000).filter(|n| limit.allow(&n.to_string(), &format!("{now:?}"), now)).count()
        };
        assert_eq!(said(&mut limit, S), 100);
        assert_eq!(said(&mut limit, S * 3), 10);
        assert_eq!(said(&mut limit, S * 1000), 100);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut limit = Limit::default();
        for n in 0..3 * REMEMBERED {
            limit.allow(&n.to_string(), "x", S * u32::try_from(n).unwrap());
        }
        assert!(limit.services.len() <= REMEMBERED);
        assert!(limit.allow("new", "x", S * 1_000_000));
    }
}
