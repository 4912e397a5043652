//! What became of the questions of a [`crate::Prober`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{mac::Mac, time::BootTime};

/// One answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Number of the question, from 0.
    pub question: usize,
    /// When the client's kernel received it.
    pub at: BootTime,
    /// The hardware address that it gives.
    pub mac: Mac,
}

/// A run of unanswered questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// When the last answer before it came; when probing began if there was none.
    pub last_answer: BootTime,
    /// When the first question that was answered again was sent; when probing ended if there was none.
    pub until: BootTime,
    /// How many questions remained unanswered.
    pub unanswered: usize,
}

impl Silence {
    /// Its length: from the last answer to the first question that was answered again.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.since(self.last_answer)
    }
}

/// A question that two stations answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Double {
    /// When it was asked.
    pub at: BootTime,
    /// The addresses given.
    pub macs: BTreeSet<Mac>,
}

/// What became of all questions.
#[derive(Clone, Debug)]
pub struct Report {
    /// When each question was sent.
    pub sent: Vec<BootTime>,
    /// Questions that the interface did not take (it was down).
    pub not_sent: usize,
    /// All answers in the order of their arrival.
    pub answers: Vec<Answer>,
    /// Questions without an answer.
    pub unanswered: Vec<usize>,
    /// Runs of them.
    pub silences: Vec<Silence>,
    /// Answers by the address that they give.
    pub by_mac: BTreeMap<Mac, usize>,
    /// Questions that two stations answered.
    pub doubles: Vec<Double>,
}

impl Report {
    /// The longest silence; zero if every question was answered.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.silences.iter().map(Silence::length).max().unwrap_or_default()
    }

    /// Number of questions that were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.sent.len() - self.unanswered.len()
    }

    /// When the last answer that gave `mac` came.
    #[must_use]
    pub fn last_answer_by(&self, mac: Mac) -> Option<BootTime> {
        self.answers.iter().filter(|a| a.mac == mac).map(|a| a.at).max()
    }

    /// When the first answer that gave `mac` came.
    #[must_use]
    pub fn first_answer_by(&self, mac: Mac) -> Option<BootTime> {
        self.answers.iter().filter(|a| a.mac == mac).map(|a| a.at).min()
    }

    /// `end`: when asking ended.
    pub(crate) fn new(sent: Vec<BootTime>, not_sent: usize, answers: Vec<Answer>, end: BootTime) -> Self {
        let mut macs = vec![BTreeSet::new(); sent.len()];
        let mut arrival = vec![BootTime::default(); sent.len()];
        let mut by_mac = BTreeMap::new();
        for a in &answers {
            macs[a.question].insert(a.mac);
            arrival[a.question] = a.at;
            *by_mac.entry(a.mac).or_insert(0) += 1;
        }
        let mut silences = Vec::<Silence>::new();
        let mut last_answer = sent.first().copied().unwrap_or(end);
        let mut run = 0;
        for (n, at) in sent.iter().enumerate() {
            if macs[n].is_empty() {
                run += 1;
                continue;
            }
            if run > 0 {
                silences.push(Silence { last_answer, until: *at, unanswered: run });
                run = 0;
            }
            last_answer = arrival[n];
        }
        if run > 0 {
            silences.push(Silence { last_answer, until: end, unanswered: run });
        }
        let doubles = macs.iter().zip(&sent).filter(|(macs, _)| macs.len() > 1);
        Self {
            unanswered: (0..sent.len()).filter(|n| macs[*n].is_empty()).collect(),
            doubles: doubles.map(|(macs, at)| Double { at: *at, macs: macs.clone() }).collect(),
            sent,
            not_sent,
            answers,
            silences,
            by_mac,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0x51]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0x52]);

    fn answer(question: usize, at: u64, mac: Mac) -> Answer {
        Answer { question, at: BootTime(at), mac }
    }

    #[test]
    fn silences_and_doubles() {
        let sent = (0..6).map(|n| BootTime(n * 100)).collect();
        let answers = vec![answer(0, 10, A), answer(3, 310, A), answer(3, 320, B)];
        let report = Report::new(sent, 0, answers, BootTime(600));
        assert_eq!(report.unanswered, [1, 2, 4, 5]);
        let lengths: Vec<u128> = report.silences.iter().map(|s| s.length().as_nanos()).collect();
        assert_eq!(lengths, [290, 280]);
        assert_eq!(report.doubles.len(), 1);
        assert_eq!((report.by_mac[&A], report.by_mac[&B]), (2, 1));
        assert_eq!(report.last_answer_by(A), Some(BootTime(310)));
    }
}
