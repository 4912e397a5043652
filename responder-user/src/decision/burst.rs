//! When to announce which VIP.
//!
//! A gained VIP is announced at once, again past one second (within which a Linux neighbour ignores some forms,
//! `locktime`), once more a second later, and then at a slow interval for ever, because switches and clients
//! forget. All is paced by a token bucket, fairly: nobody's second announcement comes before everybody's first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Rounds after a gain. RFC 4861 section 7.2.6 allows three unsolicited advertisements.
const ROUNDS: u32 = 3;
/// Between these rounds: more than `locktime` and than RetransTimer, both 1 s.
const ROUND_GAP: Duration = Duration::from_millis(1100);
/// After a frame could not be sent.
const RETRY: Duration = Duration::from_millis(100);
/// At most one defence against a conflicting claim in this time (RFC 5227 section 1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstPolicy {
    /// The slow interval; zero: never.
    pub interval: Duration,
    /// Packets per second over all VIPs and links; at least 1.
    pub rate: u32,
}

/// Where a VIP is in its burst.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The round that comes next; from [`ROUNDS`] on the slow ones.
    round: u32,
    /// When it is due.
    due: Duration,
    /// Packets that one announcement takes.
    packets: u32,
    defended: Option<Duration>,
}

/// The schedule of all announcements. `K` names a VIP on a link.
#[derive(Debug)]
pub struct Bursts<K> {
    policy: BurstPolicy,
    states: BTreeMap<K, State>,
    /// What is not due yet.
    waiting: BTreeSet<(Duration, K)>,
    /// What is due, earlier rounds first.
    ready: BTreeSet<(u32, Duration, K)>,
    /// Tokens in packets, and when they were counted.
    tokens: f64,
    counted: Duration,
}

impl<K: Ord + Clone> Bursts<K> {
    /// An empty schedule.
    #[must_use]
    pub fn new(policy: BurstPolicy) -> Self {
        Self {
            policy,
            states: BTreeMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            tokens: Self::depth(policy),
            counted: Duration::ZERO,
        }
    }

    /// Packets that may go out back to back: a twentieth of a second's worth, and at least a few VIPs.
    fn depth(policy: BurstPolicy) -> f64 {
        (f64::from(policy.rate) / 20.0).max(8.0)
    }

    /// Starts over for `key`: it has just been gained, or its hardware address or link has changed.
    /// `packets` is how many frames one announcement of it takes.
    pub fn gain(&mut self, key: K, packets: u32, now: Duration) {
        let defended = self.states.get(&key).and_then(|s| s.defended);
        self.put(key, State { round: 0, due: now, packets, defended });
    }

    /// Forgets `key`: not one more announcement of it.
    pub fn lose(&mut self, key: &K) {
        if let Some(state) = self.states.remove(key) {
            self.unschedule(key, state);
        }
    }

    /// Somebody else has claimed `key`: announces it once, unless that was done lately. Says whether it will.
    pub fn defend(&mut self, key: &K, now: Duration) -> bool {
        let Some(&state) = self.states.get(key) else {
            return false;
        };
        // Within the first rounds the next announcement is the defence.
        let recent = state.defended.is_some_and(|at| now.saturating_sub(at) < DEFEND_INTERVAL);
        if recent || state.round < ROUNDS {
            return false;
        }
        self.put(key.clone(), State { due: now, defended: Some(now), ..state });
        true
    }

    /// The next VIP to announce at `now`. Its next round counts from here.
    pub fn poll(&mut self, now: Duration) -> Option<K> {
        self.refill(now);
        while let Some((due, key)) = self.waiting.first().cloned() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            if let Some(state) = self.states.get(&key) {
                self.ready.insert((state.round, due, key));
            }
        }
        let (_, _, key) = self.ready.first()?;
        let key = key.clone();
        let state = *self.states.get(&key)?;
        if self.tokens < f64::from(state.packets) {
            return None;
        }
        self.tokens -= f64::from(state.packets);
        self.unschedule(&key, state);
        let round = state.round.saturating_add(1).min(ROUNDS);
        let gap = if round < ROUNDS { ROUND_GAP } else { self.policy.interval };
        let next = State { round, due: now.saturating_add(gap), ..state };
        if round >= ROUNDS && self.policy.interval.is_zero() {
            self.states.insert(key.clone(), State { due: Duration::MAX, ..next });
        } else {
            self.put(key.clone(), next);
        }
        Some(key)
    }

    /// The announcement that [`Bursts::poll`] gave could not be sent: tries it again soon, in the same round.
    pub fn failed(&mut self, key: &K, now: Duration) {
        if let Some(&state) = self.states.get(key) {
            let round = state.round.saturating_sub(1);
            self.put(key.clone(), State { round, due: now + RETRY, ..state });
        }
    }

    /// When to call [`Bursts::poll`] again if it has just given nothing.
    #[must_use]
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        if let Some((_, _, key)) = self.ready.first() {
            let packets = self.states.get(key).map_or(1, |s| s.packets);
            let missing = (f64::from(packets) - self.tokens).max(0.0);
            return Some(now + Duration::from_secs_f64(missing / f64::from(self.policy.rate)));
        }
        self.waiting.first().map(|(due, _)| *due)
    }

    /// VIPs whose announcement is due and waits for its turn.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.ready.len()
    }

    fn put(&mut self, key: K, state: State) {
        if let Some(old) = self.states.insert(key.clone(), state) {
            self.unschedule(&key, old);
        }
        self.waiting.insert((state.due, key));
    }

    fn unschedule(&mut self, key: &K, state: State) {
        self.waiting.remove(&(state.due, key.clone()));
        self.ready.remove(&(state.round, state.due, key.clone()));
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.counted).as_secs_f64();
        self.counted = now;
        // A single announcement must fit, however slow the rate.
        self.tokens = (self.tokens + elapsed * f64::from(self.policy.rate)).min(Self::depth(self.policy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BurstPolicy = BurstPolicy { interval: Duration::from_secs(30), rate: 1000 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs to `end` and returns what was announced when.
    fn run(bursts: &mut Bursts<u32>, mut now: Duration, end: Duration) -> Vec<(Duration, u32)> {
        let mut out = Vec::new();
        while now <= end {
            while let Some(key) = bursts.poll(now) {
                out.push((now, key));
            }
            match bursts.next_due(now) {
                Some(due) => now = due.max(now + Duration::from_micros(1)),
                None => break,
            }
        }
        out
    }

    #[test]
    fn at_once_past_a_second_and_for_ever() {
        let mut bursts = Bursts::new(POLICY);
        bursts.gain(1, 2, ms(5000));
        let times: Vec<_> =
            run(&mut bursts, ms(5000), ms(70_000)).iter().map(|(t, _)| t.as_millis()).collect();
        assert_eq!(times, [5000, 6100, 7200, 37_200, 67_200]);
    }

    #[test]
    fn an_interval_of_zero_ends_after_the_burst() {
        let mut bursts = Bursts::new(BurstPolicy { interval: Duration::ZERO, ..POLICY });
        bursts.gain(1, 2, ms(0));
        assert_eq!(run(&mut bursts, ms(0), ms(1_000_000)).len(), 3);
        assert!(bursts.next_due(ms(9000)).is_none());
        assert!(bursts.defend(&1, ms(20_000)), "it is still owned");
        assert_eq!(run(&mut bursts, ms(20_000), ms(90_000)), [(ms(20_000), 1)]);
    }

    #[test]
    fn everybody_once_before_anybody_twice_and_paced() {
        let mut bursts = Bursts::new(POLICY);
        for key in 0..10_000 {
            bursts.gain(key, 2, ms(0));
        }
        let sent = run(&mut bursts, ms(0), ms(45_000));
        let first: BTreeSet<u32> = sent.iter().take(10_000).map(|(_, k)| *k).collect();
        assert_eq!(first.len(), 10_000);
        let second: BTreeSet<u32> = sent.iter().skip(10_000).take(10_000).map(|(_, k)| *k).collect();
        assert_eq!(second.len(), 10_000);
        for (i, (at, _)) in sent.iter().enumerate() {
            let allowed = 50.0 + at.as_secs_f64() * 1000.0;
            assert!(2.0 * (i as f64 + 1.0) <= allowed + 1.0, "{i} at {at:?}");
        }
    }

    #[test]
    fn a_new_gain_comes_before_old_second_rounds() {
        let mut bursts = Bursts::new(BurstPolicy { rate: 10, ..POLICY });
        for key in 0..100 {
            bursts.gain(key, 1, ms(0));
        }
        run(&mut bursts, ms(0), ms(9_900));
        bursts.gain(1000, 1, ms(9_950));
        let sent = run(&mut bursts, ms(9_950), ms(10_400));
        assert_eq!(sent.iter().position(|(_, k)| *k == 1000), Some(0), "{sent:?}");
    }

    #[test]
    fn nothing_after_a_loss() {
        let mut bursts = Bursts::new(POLICY);
        for key in 0..100 {
            bursts.gain(key, 2, ms(0));
        }
        assert!(bursts.poll(ms(0)).is_some());
        for key in 0..100 {
            bursts.lose(&key);
        }
        assert_eq!(bursts.poll(ms(100_000)), None);
        assert_eq!(bursts.next_due(ms(0)), None);
    }

    #[test]
    fn what_cannot_be_sent_is_tried_again_in_its_round() {
        let mut bursts = Bursts::new(POLICY);
        bursts.gain(1, 2, ms(0));
        assert_eq!(bursts.poll(ms(0)), Some(1));
        bursts.failed(&1, ms(0));
        let times: Vec<_> = run(&mut bursts, ms(0), ms(10_000)).iter().map(|(t, _)| t.as_millis()).collect();
        assert_eq!(times, [100, 1200, 2300]);
    }

    #[test]
    fn defends_once_in_ten_seconds() {
        let mut bursts = Bursts::new(POLICY);
        bursts.gain(1, 2, ms(0));
        assert!(!bursts.defend(&1, ms(10)), "the burst is the defence");
        run(&mut bursts, ms(0), ms(3_000));
        let defended = (0..1000).filter(|i| bursts.defend(&1, ms(4_000 + i))).count();
        assert_eq!(defended, 1);
        assert_eq!(run(&mut bursts, ms(5_000), ms(5_000)).len(), 1);
        assert!(!bursts.defend(&1, ms(13_999)));
        assert!(bursts.defend(&1, ms(14_000)));
        assert!(!bursts.defend(&2, ms(14_000)), "not ours");
    }

    #[test]
    fn a_rate_of_one_still_announces() {
        let mut bursts = Bursts::new(BurstPolicy { rate: 1, ..POLICY });
        for key in 0..20 {
            bursts.gain(key, 2, ms(0));
        }
        let sent = run(&mut bursts, ms(0), ms(60_000));
        assert!(sent.len() >= 20 && sent.len() <= 35, "{}", sent.len());
    }
}
