//! What the client sees while something happens: who answers for each address, and what becomes of its requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use responder_lab::{
    Account, BootTime, Mac,
    traffic::{Conversation, Conversed},
};
use responder_tests::daemonset::{PORT, SETTLED, vips};

use super::world::{World, web};
use crate::show::{Show, millis};

/// Between two questions for one address.
const ASK: Duration = Duration::from_millis(2);
/// Between two requests on one connection.
const REQUEST: Duration = Duration::from_millis(5);

/// Questions for all addresses, and requests on an open connection to each address of `web`.
pub(super) struct Watch {
    talks: Vec<Conversation>,
}

impl Watch {
    /// Begins; returns when all addresses have been answered, and requests on the connections.
    pub(super) fn start(world: &mut World) -> Result<Self> {
        world.site.observe(ASK)?;
        let client = world.site.cluster.host("c").ns();
        let talk = |vip: IpAddr| Conversation::impatient(client, SocketAddr::new(vip, PORT), REQUEST);
        let watch = Self { talks: web().into_iter().map(talk).collect::<Result<_>>()? };
        watch.wait_answers(world, 1)?;
        watch.wait_requests(20)?;
        Ok(watch)
    }

    /// Waits until each connection has carried so many more requests.
    pub(super) fn wait_requests(&self, count: usize) -> Result<()> {
        self.talks.iter().try_for_each(|talk| talk.wait_answers(count, SETTLED))
    }

    /// Waits until each address has been asked for so many more times, and is answered.
    pub(super) fn wait_answers(&self, world: &World, count: usize) -> Result<()> {
        world.site.observer.wait_rounds(count, SETTLED)?;
        self.owners(world).map(|_| ())
    }

    /// Who answers now.
    pub(super) fn owners(&self, world: &World) -> Result<BTreeMap<IpAddr, Mac>> {
        let owner = |vip| Ok((vip, world.site.observer.wait_answer(vip, SETTLED)?.mac));
        vips().into_iter().map(owner).collect()
    }

    /// Waits until none of these addresses is answered by `mac` and all by somebody.
    pub(super) fn wait_moved(&self, world: &World, held: &BTreeSet<IpAddr>, mac: Mac) -> Result<()> {
        held.iter().try_for_each(|vip| world.site.observer.wait_other(*vip, mac, SETTLED).map(|_| ()))
    }

    /// Ends it.
    pub(super) fn stop(self, world: &mut World) -> Result<Seen> {
        let talks = self.talks.into_iter().map(Conversation::stop).collect();
        let accounts = world.site.observe(ASK)?.into_iter().map(|account| (account.vip, account)).collect();
        Ok(Seen { accounts, talks })
    }
}

/// A node and what it answers for.
pub(super) struct Holder {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) held: BTreeSet<IpAddr>,
}

impl Holder {
    /// The one that answers for `web`.
    pub(super) fn of_web(world: &World, watch: &Watch) -> Result<Self> {
        let owners = watch.owners(world)?;
        let mac = *owners.get(&web()[0]).context("nobody answers for web")?;
        let held = owners.iter().filter(|(_, owner)| **owner == mac).map(|(vip, _)| *vip).collect();
        Ok(Self { name: world.node_of(mac), mac, held })
    }
}

/// What was seen.
pub(super) struct Seen {
    pub(super) accounts: BTreeMap<IpAddr, Account>,
    talks: Vec<Conversed>,
}

impl Seen {
    /// Who answered for an address.
    pub(super) fn answerers(&self, vip: &IpAddr) -> BTreeSet<Mac> {
        let answers = self.accounts.get(vip).into_iter().flat_map(|account| &account.seen);
        answers.filter(|seen| seen.round.is_some()).map(|seen| seen.mac).collect()
    }

    /// For each of these addresses, how long nobody answered between the last answer by `mac` and the first by another;
    /// `None` if that came earlier.
    pub(super) fn pauses(&self, held: &BTreeSet<IpAddr>, mac: Mac) -> Vec<Option<Duration>> {
        let accounts = self.accounts.values().filter(|account| held.contains(&account.vip));
        let pauses = accounts.map(|account| {
            let answers = || account.seen.iter().filter(|seen| seen.round.is_some());
            let last: BootTime = answers().filter(|seen| seen.mac == mac).map(|seen| seen.at).max()?;
            let first = answers().filter(|seen| seen.mac != mac).map(|seen| seen.at).min()?;
            (first > last).then(|| first.since(last))
        });
        pauses.collect()
    }

    /// The longest silence of one of these addresses.
    pub(super) fn silence(&self, held: impl Fn(&IpAddr) -> bool) -> Duration {
        let accounts = self.accounts.values().filter(|account| held(&account.vip));
        accounts.map(|account| account.longest_silence().0).max().unwrap_or_default()
    }

    /// How many questions for one of these addresses nobody answered.
    pub(super) fn unanswered(&self, held: impl Fn(&IpAddr) -> bool) -> usize {
        let accounts = self.accounts.values().filter(|account| held(&account.vip));
        accounts.map(Account::unanswered).sum()
    }

    /// How many questions were asked.
    pub(super) fn asked(&self) -> usize {
        self.accounts.values().map(|account| account.rounds.len()).sum()
    }

    /// Claims that no question had two answers, and that nobody answered who had been followed by another.
    pub(super) fn claim_single(&self, show: &mut Show) {
        let accounts = self.accounts.values();
        let wrong: usize = accounts.map(|account| account.doubles().len() + account.returns()).sum();
        show.claim(
            "answers by two, or by the old one after the new",
            format!("{wrong} to {} questions", self.asked()),
            wrong == 0,
        );
        for account in self.accounts.values().filter(|a| a.doubles().len() + a.returns() > 0) {
            show.say(&account.to_string());
        }
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
    errors: BTreeSet<String>,
}

impl Requests {
    /// As a sentence.
    pub(super) fn told(&self) -> String {
        let Self { sent, lost, broken, longest, errors } = self;
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let why = if *lost > 0 { format!("; {}", errors.join(", ")) } else { String::new() };
        format!("{lost} of {sent}, {broken} connections broken, longest wait {}{why}", millis(*longest))
    }
}
