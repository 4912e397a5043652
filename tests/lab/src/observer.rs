//! Asking for many VIPs at a steady rate and noting who says that they are his, answered or announced.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;

use crate::{
    asking::{Asking, Pace, Shared},
    frames::Frame,
    mac::Mac,
    ns::NetNs,
    packet::{ALL, PacketSocket},
    prober::GRACE,
    question::Turns,
    sightings::{Account, Sighting},
    time::{BootTime, wait_until},
};

/// Rounds until a sender address is used again.
const TURNS: Turns = Turns(1 << 20);

#[derive(Default)]
struct Log {
    vips: Vec<IpAddr>,
    /// When each round began, in which each VIP is asked for once.
    rounds: Vec<BootTime>,
    seen: BTreeMap<IpAddr, Vec<Sighting>>,
}

impl Log {
    /// What was seen of `vip` since round `since` began; of questions, those before round `end`.
    fn account(&self, vip: IpAddr, since: usize, end: usize) -> Account {
        let begin = self.rounds.get(since).copied().unwrap_or_default();
        let seen = self.seen.get(&vip).map(Vec::as_slice).unwrap_or_default();
        let first = seen.partition_point(|seen| seen.at < begin);
        let rounds = self.rounds.get(since..end).unwrap_or_default().to_vec();
        Account { vip, first: since, rounds, seen: seen.get(first..).unwrap_or_default().to_vec() }
    }

    /// Whether the last question for each VIP was answered.
    fn is_answered(&self) -> bool {
        let last = self.rounds.len().checked_sub(1);
        let answered =
            |vip| self.seen.get(vip).and_then(|seen| seen.iter().rev().find_map(|seen| seen.round));
        self.vips.iter().all(|vip| answered(vip) == last)
    }
}

/// Asks and listens until it is stopped or dropped.
pub struct Observer(Asking<Log>);

impl Observer {
    /// Begins to ask for `vips` from `interface`, for each once per `interval`.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub fn start(ns: &NetNs, interface: &str, vips: &[IpAddr], interval: Duration) -> Result<Self> {
        let log = Log { vips: vips.to_vec(), ..Log::default() };
        let pace = Pace { interval, catch_up: 8 };
        Asking::start("observer", (ns, interface, ALL), pace, log, ask, hear).map(Self)
    }

    /// From now on, asks for these VIPs.
    pub fn ask_for(&self, vips: &[IpAddr]) {
        self.0.log().vips = vips.to_vec();
    }

    /// The number of the next round.
    #[must_use]
    pub fn round(&self) -> usize {
        self.0.log().rounds.len()
    }

    /// Who answers a question for `vip` that is asked from now on.
    ///
    /// # Errors
    ///
    /// If nobody does within `deadline`.
    pub fn wait_answer(&self, vip: IpAddr, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip}"), vip, deadline, |_| true)
    }

    /// Waits for an answer that gives another hardware address than `mac`.
    ///
    /// # Errors
    ///
    /// If there is none within `deadline`.
    pub fn wait_other(&self, vip: IpAddr, mac: Mac, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip} not by {mac}"), vip, deadline, |seen| seen.mac != mac)
    }

    /// Waits for an answer that gives `mac`.
    ///
    /// # Errors
    ///
    /// If there is none within `deadline`.
    pub fn wait_by(&self, vip: IpAddr, mac: Mac, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip} by {mac}"), vip, deadline, |seen| seen.mac == mac)
    }

    fn wait(
        &self,
        what: &str,
        vip: IpAddr,
        deadline: Duration,
        wanted: impl Fn(&Sighting) -> bool,
    ) -> Result<Sighting> {
        let since = self.round();
        wait_until(what, deadline, || {
            let log = self.0.log();
            let news = log.seen.get(&vip)?.iter().rev();
            news.take_while(|seen| seen.round.is_none_or(|round| round >= since))
                .filter(|seen| seen.round.is_some() && wanted(seen))
                .last()
                .copied()
        })
    }

    /// Waits until `count` rounds in a row have gone by in which nobody answered for `vip`.
    ///
    /// # Errors
    ///
    /// If that does not come to be within `deadline`.
    pub fn wait_silence(&self, vip: IpAddr, count: usize, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} questions for {vip} without an answer"), deadline, || {
            let log = self.0.log();
            let first = log.rounds.len().checked_sub(count)?;
            let last = log.seen.get(&vip).and_then(|seen| seen.iter().rev().find_map(|seen| seen.round));
            last.is_none_or(|last| last < first).then_some(())
        })
    }

    /// What was seen of `vip` since a round began. Answers need a moment: this waits for it.
    #[must_use]
    pub fn account(&self, vip: IpAddr, since: usize) -> Account {
        let end = self.round();
        // Answers to what was asked before are in the queue at most.
        wait_until("further rounds", Duration::from_secs(1), || (self.round() >= end + 4).then_some(())).ok();
        self.0.log().account(vip, since, end)
    }

    /// Waits for `count` further rounds.
    ///
    /// # Errors
    ///
    /// If there are fewer within `deadline`.
    pub fn wait_rounds(&self, count: usize, deadline: Duration) -> Result<()> {
        let goal = self.round() + count;
        wait_until(&format!("{count} rounds of questions"), deadline, || (self.round() >= goal).then_some(()))
    }

    /// All VIPs that anybody has claimed, asked for or not.
    #[must_use]
    pub fn claimed(&self) -> BTreeSet<IpAddr> {
        self.0.log().seen.keys().copied().collect()
    }

    /// Of each VIP, asked for or not, when the first sighting since then arrived that is as wanted.
    #[must_use]
    pub fn firsts(&self, since: BootTime, wanted: impl Fn(&Sighting) -> bool) -> BTreeMap<IpAddr, BootTime> {
        let log = self.0.log();
        let first = |seen: &[Sighting]| {
            seen.iter()
                .skip(seen.partition_point(|seen| seen.at < since))
                .find(|seen| wanted(seen))
                .map(|seen| seen.at)
        };
        log.seen.iter().filter_map(|(vip, seen)| Some((*vip, first(seen)?))).collect()
    }

    /// Forgets what was seen so far. The next round counts on.
    pub fn forget(&self) {
        for seen in self.0.log().seen.values_mut() {
            seen.clear();
        }
    }

    /// Ends.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames: then a second answerer may not have been seen.
    pub fn stop(mut self) -> Result<()> {
        self.0.stop()
    }

    /// Asks no more, waits for the answers to the last questions ([`GRACE`]), and says what was seen of each VIP that was
    /// asked for.
    ///
    /// # Errors
    ///
    /// As [`Observer::stop`].
    pub fn finish(&mut self) -> Result<Vec<Account>> {
        self.0.stop_asking()?;
        wait_until("answers to the last questions", GRACE, || self.0.log().is_answered().then_some(())).ok(); // seen in the accounts
        self.0.stop()?;
        let log = self.0.log();
        let end = log.rounds.len();
        Ok(log.vips.iter().map(|vip| log.account(*vip, 0, end)).collect())
    }
}

/// A round.
fn ask(shared: &Shared<Log>, socket: &PacketSocket, mac: Mac) {
    let (round, vips) = {
        let mut log = shared.log();
        // Noted before it is sent: the answer may be faster than this thread.
        log.rounds.push(BootTime::now());
        (log.rounds.len() - 1, log.vips.clone())
    };
    for vip in vips {
        // What is not sent is not answered, and shows as a silence.
        socket.send(&TURNS.question(mac, vip, round)).ok();
    }
}

fn hear(shared: &Shared<Log>, frame: &Frame) {
    let Some((vip, mac)) = frame.claim() else { return };
    let announced = frame.is_gratuitous(vip);
    let mut log = shared.log();
    let round = frame.asker().and_then(|asker| TURNS.latest(asker, log.rounds.len()));
    if announced || round.is_some() {
        let sighting = Sighting { at: frame.at, mac, round: round.filter(|_| !announced) };
        log.seen.entry(vip).or_default().push(sighting);
    }
}
