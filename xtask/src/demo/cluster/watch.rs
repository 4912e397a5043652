//! What the client sees while something happens: who answers for each address, and what becomes of its requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use responder_lab::{
    Mac, Prober, Probing, Report,
    traffic::{Conversation, Conversed},
};

use super::world::{PORT, World, vips, web};
use crate::demo::show::{Show, millis};

/// How long anything may take that takes milliseconds to seconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// Between two questions for one address.
const ASK: Duration = Duration::from_millis(2);
/// Between two requests on one connection.
const REQUEST: Duration = Duration::from_millis(5);

/// Questions for all addresses, and requests on an open connection to each address of `web`.
pub(super) struct Watch {
    probers: BTreeMap<IpAddr, Prober>,
    talks: Vec<Conversation>,
}

impl Watch {
    /// Begins; returns when all addresses have been answered, and requests on the connections.
    pub(super) fn start(world: &World) -> Result<Self> {
        let client = world.cluster.host("c").ns();
        let prober = |vip: IpAddr| Ok((vip, Prober::start(client, Probing::new(vip, ASK))?));
        let probers = vips().map(prober).collect::<Result<BTreeMap<_, _>>>()?;
        probers.values().try_for_each(|prober| prober.wait_answer(SOON).map(|_| ()))?;
        let talk = |vip: IpAddr| Conversation::start(client, SocketAddr::new(vip, PORT), REQUEST);
        let talks = web().into_iter().map(talk).collect::<Result<Vec<_>>>()?;
        let watch = Self { probers, talks };
        watch.wait_requests(20)?;
        Ok(watch)
    }

    /// Waits until each connection has carried so many more requests.
    pub(super) fn wait_requests(&self, count: usize) -> Result<()> {
        self.talks.iter().try_for_each(|talk| talk.wait_answers(count, SOON))
    }

    /// Waits until each address has been answered so many more times.
    pub(super) fn wait_answers(&self, count: usize) -> Result<()> {
        self.probers.values().try_for_each(|prober| prober.wait_answers(count, SOON))
    }

    /// Who answers now.
    pub(super) fn owners(&self) -> Result<BTreeMap<IpAddr, Mac>> {
        self.probers.iter().map(|(vip, prober)| Ok((*vip, prober.wait_answer(SOON)?.mac))).collect()
    }

    /// Waits until none of these addresses is answered by `mac` and all by somebody.
    pub(super) fn wait_moved(&self, held: &BTreeSet<IpAddr>, mac: Mac) -> Result<()> {
        for (_, prober) in self.probers.iter().filter(|(vip, _)| held.contains(vip)) {
            while prober.wait_answer(SOON)?.mac == mac {}
        }
        Ok(())
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<Seen> {
        let talks = self.talks.into_iter().map(Conversation::stop).collect();
        let stop = |(vip, prober): (IpAddr, Prober)| Ok((vip, prober.stop()?));
        Ok(Seen { reports: self.probers.into_iter().map(stop).collect::<Result<_>>()?, talks })
    }
}

/// What was seen.
pub(super) struct Seen {
    pub(super) reports: BTreeMap<IpAddr, Report>,
    pub(super) talks: Vec<Conversed>,
}

impl Seen {
    /// The longest silence of one of these addresses.
    pub(super) fn silence(&self, held: impl Fn(&IpAddr) -> bool) -> Duration {
        let reports = self.reports.iter().filter(|(vip, _)| held(vip));
        reports.map(|(_, report)| report.longest_silence()).max().unwrap_or_default()
    }

    /// How many questions for one of these addresses nobody answered.
    pub(super) fn unanswered(&self, held: impl Fn(&IpAddr) -> bool) -> usize {
        let reports = self.reports.iter().filter(|(vip, _)| held(vip));
        reports.map(|(_, report)| report.unanswered.len() + report.not_sent).sum()
    }

    /// How many questions were asked.
    pub(super) fn asked(&self) -> usize {
        self.reports.values().map(|report| report.sent.len()).sum()
    }

    /// Claims that no question had two answers, and that nobody answered who had been followed by another.
    pub(super) fn claim_single(&self, show: &mut Show) {
        let doubles: usize = self.reports.values().map(|report| report.doubles.len()).sum();
        let late: usize = self.reports.values().map(late_answers).sum();
        show.claim(
            "answers by two nodes, or by the old one after the new",
            format!("{} to {} questions", doubles + late, self.asked()),
            doubles + late == 0,
        );
    }

    /// What became of the requests.
    pub(super) fn requests(&self) -> Requests {
        let mut requests = Requests::default();
        for talk in &self.talks {
            let lost: Vec<bool> = talk.exchanges.iter().map(|exchange| exchange.answer.is_none()).collect();
            requests.sent += lost.len();
            requests.broken += talk.connections.saturating_sub(1);
            // Attempts to connect that failed, and requests that were not answered at the second attempt either.
            requests.lost += talk.errors.len().saturating_sub(talk.lost());
            requests.lost += lost.windows(2).filter(|pair| *pair == [true, true]).count();
            requests.lost += usize::from(lost.last() == Some(&true));
            requests.longest = requests.longest.max(talk.longest_gap());
            requests.errors.extend(talk.errors.iter().map(|(_, error)| error.clone()));
        }
        requests
    }
}

/// What became of requests. One whose connection breaks is repeated on a new one, as HTTP clients do.
#[derive(Default)]
pub(super) struct Requests {
    /// All.
    pub(super) sent: usize,
    /// Failed at the second attempt, too.
    pub(super) lost: usize,
    /// Connections that broke.
    pub(super) broken: usize,
    /// The longest time from one answer to the next.
    pub(super) longest: Duration,
    /// What happened to connections.
    errors: Vec<String>,
}

impl Requests {
    /// As a sentence.
    pub(super) fn told(&self) -> String {
        let Self { sent, lost, broken, longest, errors } = self;
        let why = if *lost > 0 { format!("; {}", errors.join(", ")) } else { String::new() };
        format!("{lost} of {sent}; connections broken: {broken}; longest wait {}{why}", millis(*longest))
    }
}

/// Answers by a station after the first answer of the one that followed it.
fn late_answers(report: &Report) -> usize {
    let mut before: Vec<Mac> = Vec::new();
    let mut late = 0;
    for answer in &report.answers {
        match before.iter().position(|mac| *mac == answer.mac) {
            None => before.push(answer.mac),
            Some(place) if place + 1 == before.len() => {}
            Some(_) => late += 1,
        }
    }
    late
}
