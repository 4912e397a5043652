//! Asking for a VIP at a steady rate, and what became of each question.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    asking::{Asking, Pace, Shared},
    frames::{Body, Frame},
    mac::Mac,
    ns::NetNs,
    packet::{ARP, IPV6, PacketSocket},
    question::Turns,
    report::{Answer, Report},
    time::{BootTime, wait_until},
};

/// How late an answer may come before its question counts as unanswered.
pub const GRACE: Duration = Duration::from_millis(500);

/// What to ask, from where, and how often.
#[derive(Clone, Debug)]
pub struct Probing {
    /// Interface of the client's namespace.
    pub interface: String,
    /// Who is asked for.
    pub vip: IpAddr,
    /// Time between two questions; 50 µs is about the least.
    pub interval: Duration,
    /// How many sender addresses take turns, so that an answer tells its question. Below 500 where a Linux kernel
    /// answers: it makes a neighbour entry of each, and stops answering when its table is full.
    pub senders: u32,
}

impl Probing {
    /// Probing as fast as `interval` for `vip` from `eth0`, a program answering.
    #[must_use]
    pub fn new(vip: IpAddr, interval: Duration) -> Self {
        Self { interface: "eth0".to_owned(), vip, interval, senders: 1 << 20 }
    }
}

#[derive(Default)]
struct Log {
    sent: Vec<BootTime>,
    not_sent: usize,
    answers: Vec<Answer>,
}

/// Asks and listens until it is stopped or dropped.
pub struct Prober(Asking<Log>);

impl Prober {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub fn start(ns: &NetNs, probing: Probing) -> Result<Self> {
        ensure!(
            probing.senders > 0 && probing.senders <= 1 << 20,
            "1 to 2^20 senders, not {}",
            probing.senders
        );
        let Probing { interface, vip, interval, senders } = probing;
        let turns = Turns(senders);
        let ethertype = if vip.is_ipv4() { ARP } else { IPV6 };
        let pace = Pace { interval, catch_up: 32 };
        let ask = move |shared: &Shared<Log>, socket: &PacketSocket, mac| {
            let n = shared.log().sent.len();
            let question = turns.question(mac, vip, n);
            // Recorded before it is sent, because the answer may be faster than this thread.
            shared.log().sent.push(BootTime::now());
            if socket.send(&question).is_err() {
                let mut log = shared.log();
                log.sent.pop();
                log.not_sent += 1;
            }
        };
        let hear = move |shared: &Shared<Log>, frame: &Frame| {
            let (Some(asker), Some((from, mac))) = (frame.asker(), frame.claim()) else { return };
            if from != vip || matches!(frame.body, Body::Advertisement(na) if !na.checksum_ok) {
                return;
            }
            let mut log = shared.log();
            if let Some(question) = turns.latest(asker, log.sent.len()) {
                log.answers.push(Answer { question, at: frame.at, mac });
            }
        };
        Asking::start("prober", (ns, &interface, ethertype), pace, Log::default(), ask, hear).map(Self)
    }

    /// Waits for an answer to a question asked from now on; returns it.
    ///
    /// # Errors
    ///
    /// If none comes within `deadline`.
    pub fn wait_answer(&self, deadline: Duration) -> Result<Answer> {
        self.wait("an answer", deadline, |_| true)
    }

    /// Waits for an answer that gives `mac`, to a question asked from now on.
    ///
    /// # Errors
    ///
    /// If none comes within `deadline`.
    pub fn wait_answer_by(&self, mac: Mac, deadline: Duration) -> Result<Answer> {
        self.wait(&format!("an answer by {mac}"), deadline, |a| a.mac == mac)
    }

    /// Waits until `count` more questions have been answered.
    ///
    /// # Errors
    ///
    /// If there are fewer within `deadline`.
    pub fn wait_answers(&self, count: usize, deadline: Duration) -> Result<()> {
        let start = self.0.log().answers.len();
        wait_until(&format!("{count} answers"), deadline, || {
            (self.0.log().answers.len() >= start + count).then_some(())
        })
    }

    /// Waits until `count` more questions have been asked and nothing has been heard since before the first of them.
    ///
    /// # Errors
    ///
    /// If that does not come to be within `deadline`.
    pub fn wait_silence(&self, count: usize, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} questions without an answer"), deadline, || {
            let log = self.0.log();
            let first = log.sent.len().checked_sub(count)?;
            let heard = log.answers.last().map_or(BootTime::default(), |a| a.at);
            (heard < log.sent[first]).then_some(())
        })
    }

    fn wait(&self, what: &str, deadline: Duration, matches: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let (asked, mut seen) = {
            let log = self.0.log();
            (log.sent.len(), log.answers.len())
        };
        wait_until(what, deadline, || {
            let log = self.0.log();
            let news = &log.answers[seen..];
            seen = log.answers.len();
            news.iter().find(|a| a.question >= asked && matches(a)).copied()
        })
    }

    /// Stops asking, waits for late answers ([`GRACE`]) and reports.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames: then what looks unanswered may have been answered.
    pub fn stop(mut self) -> Result<Report> {
        let end = self.0.stop_asking()?;
        let all_answered = || {
            let log = self.0.log();
            if log.answers.len() < log.sent.len() {
                return None;
            }
            let answered: BTreeSet<usize> = log.answers.iter().map(|a| a.question).collect();
            (answered.len() == log.sent.len()).then_some(())
        };
        wait_until("an answer to each question", GRACE, all_answered).ok(); // the others are reported
        self.0.stop()?;
        let log = std::mem::take(&mut *self.0.log());
        Ok(Report::new(log.sent, log.not_sent, log.answers, end))
    }
}
