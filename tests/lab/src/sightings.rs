//! What an [`crate::Observer`] saw of one VIP, and what that says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use crate::{mac::Mac, time::BootTime};

/// Somebody says that a VIP is his.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// When the observer's kernel received it.
    pub at: BootTime,
    /// The hardware address that is given.
    pub mac: Mac,
    /// The round of the question that this answers; `None`: it was announced without a question.
    pub round: Option<usize>,
}

/// A time in which one station answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tenure {
    /// The station.
    pub mac: Mac,
    /// Its first sighting.
    pub from: BootTime,
    /// Its last.
    pub to: BootTime,
}

/// What was seen of a VIP from a round on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The VIP.
    pub vip: IpAddr,
    /// Number of the first round.
    pub first: usize,
    /// When rounds began.
    pub rounds: Vec<BootTime>,
    /// Sightings in the order of their arrival.
    pub seen: Vec<Sighting>,
}

impl Account {
    /// Rounds whose question more than one station answered.
    #[must_use]
    pub fn doubles(&self) -> Vec<(BootTime, BTreeSet<Mac>)> {
        let mut macs: BTreeMap<usize, BTreeSet<Mac>> = BTreeMap::new();
        for seen in &self.seen {
            if let Some(round) = seen.round {
                macs.entry(round).or_default().insert(seen.mac);
            }
        }
        macs.retain(|_, macs| macs.len() > 1);
        let at = |round: usize| round.checked_sub(self.first).and_then(|n| self.rounds.get(n)).copied();
        macs.into_iter().map(|(round, macs)| (at(round).unwrap_or_default(), macs)).collect()
    }

    /// Who answered or announced, one after the other: one who comes twice had it taken from him between.
    #[must_use]
    pub fn tenures(&self) -> Vec<Tenure> {
        let mut tenures = Vec::<Tenure>::new();
        for Sighting { at, mac, .. } in self.seen.iter().copied() {
            match tenures.last_mut() {
                Some(last) if last.mac == mac => last.to = at,
                _ => tenures.push(Tenure { mac, from: at, to: at }),
            }
        }
        tenures
    }

    /// How often a station answered or announced again after another had.
    #[must_use]
    pub fn returns(&self) -> usize {
        let mut had = BTreeSet::new();
        self.tenures().iter().filter(|tenure| !had.insert(tenure.mac)).count()
    }

    /// The longest time without an answer: from the last answer to the question that was answered next, if any in
    /// between was not. With how many were not.
    #[must_use]
    pub fn longest_silence(&self) -> (Duration, usize) {
        let answered: BTreeMap<usize, BootTime> =
            self.seen.iter().filter_map(|seen| Some((seen.round?, seen.at))).collect();
        let Some(begin) = self.rounds.first().copied() else {
            return (Duration::ZERO, 0);
        };
        let (mut longest, mut last, mut missed) = ((Duration::ZERO, 0), begin, 0);
        for (asked, round) in self.rounds.iter().zip(self.first..) {
            if let Some(at) = answered.get(&round) {
                if missed > 0 {
                    longest = longest.max((asked.since(last), missed));
                }
                (last, missed) = (*at, 0);
            } else {
                missed += 1;
            }
        }
        let end = self.rounds.last().copied().unwrap_or(begin);
        if missed > 0 { longest.max((end.since(last), missed)) } else { longest }
    }

    /// How many questions were not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        let answered: BTreeSet<usize> = self.seen.iter().filter_map(|seen| seen.round).collect();
        (self.first..self.first + self.rounds.len()).filter(|round| !answered.contains(round)).count()
    }
}

impl fmt::Display for Account {
    /// Sightings, runs of the same station as one line each; times in ms since the first round.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = self.rounds.first().copied().unwrap_or_default();
        let ms = |at: BootTime| at.since(begin).as_secs_f64() * 1e3;
        writeln!(f, "{}: 0 ms is {} ns of CLOCK_BOOTTIME", self.vip, begin.0)?;
        for tenure in self.tenures() {
            let within =
                |seen: &&Sighting| seen.mac == tenure.mac && (tenure.from..=tenure.to).contains(&seen.at);
            let seen = self.seen.iter().filter(within);
            let announced = seen.clone().filter(|seen| seen.round.is_none()).count();
            let answers = seen.count() - announced;
            let (from, to) = (ms(tenure.from), ms(tenure.to));
            writeln!(
                f,
                "  {from:10.3} … {to:10.3} ms: {}, {answers} answers, {announced} announced",
                tenure.mac
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0x51]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0x52]);

    fn account(seen: &[(Option<usize>, u64, Mac)]) -> Account {
        Account {
            vip: [192, 0, 2, 1].into(),
            first: 10,
            rounds: (0..6).map(|n| BootTime(n * 100)).collect(),
            seen: seen
                .iter()
                .map(|(round, at, mac)| Sighting { at: BootTime(*at), mac: *mac, round: *round })
                .collect(),
        }
    }

    #[test]
    fn doubles_returns_and_silences() {
        let clean = account(&[(Some(10), 10, A), (None, 250, B), (Some(13), 310, B), (Some(15), 510, B)]);
        assert_eq!(clean.doubles(), []);
        assert_eq!((clean.returns(), clean.unanswered()), (0, 3));
        assert_eq!(clean.longest_silence(), (Duration::from_nanos(290), 2));

        let late = account(&[(Some(10), 10, A), (Some(11), 110, B), (None, 120, A)]);
        assert_eq!((late.doubles().len(), late.returns()), (0, 1));

        let both = account(&[(Some(10), 10, A), (Some(11), 110, A), (Some(11), 111, B)]);
        assert_eq!(both.doubles(), [(BootTime(100), [A, B].into())]);
        assert_eq!(both.longest_silence(), (Duration::from_nanos(389), 4));
    }
}
