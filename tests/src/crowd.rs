//! Clusters with many addresses.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{BootTime, Service, Sighting, wait_until};

use crate::{
    fleet::{Fleet, SETTLED},
    leases::CLAIMS,
};

/// Addresses of one Service, unless there would be more than [`SERVICES`].
const PER_SERVICE: usize = 4;

/// So many Services have the addresses at most.
const SERVICES: usize = 2_500;

/// So many of them are asked for all the time.
const SAMPLE: usize = 32;

/// How long the answers may take of which there are so many, however busy the machine.
const ALL_SETTLED: Duration = Duration::from_secs(120);

/// `count` addresses in 198.18.0.0/15, the network address left out; at most as many as [`Fleet::make_room`] leaves.
#[must_use]
pub fn addresses(count: u32) -> Vec<IpAddr> {
    let first = u32::from_be_bytes([198, 18, 0, 0]);
    (1..=count).map(|n| IpAddr::from((first + n).to_be_bytes())).collect()
}

/// After a crash of the node that held everything, from the first answer of another one.
#[derive(Clone, Copy, Debug)]
pub struct TakenOver {
    /// To the last first answer.
    pub answered: Duration,
    /// To the last first announcement.
    pub announced: Option<Duration>,
}

/// Services with these addresses.
#[must_use]
pub fn services(addresses: &[IpAddr]) -> Vec<Service> {
    let each = addresses.len().div_ceil(SERVICES).max(PER_SERVICE);
    let parts = addresses.chunks(each).enumerate();
    parts.map(|(n, part)| Service::new(&format!("many-{n}")).vips(part).on(&["n1"])).collect()
}

impl Fleet {
    /// Puts 198.18.0.0/15 on the segment as a node sees it, so that it announces addresses of it. A crash undoes it.
    ///
    /// # Errors
    ///
    /// If `ip` refuses, as it does the second time.
    pub fn make_room(&self, name: &str) -> Result<()> {
        let host = self.cluster.host(name);
        let address = host.nics().first().context("no link")?.v4.octets()[3];
        host.ns().ip(&format!("addr add 198.19.255.{address}/15 dev eth0"))
    }

    /// Makes Services with these addresses, waits until all are answered, and watches some of them from then on. Says how long the API server took for it.
    ///
    /// # Errors
    ///
    /// If that does not come to be.
    pub fn fill(&mut self, addresses: &[IpAddr]) -> Result<Duration> {
        let begin = BootTime::now();
        self.cluster.services(&services(addresses))?;
        let took = BootTime::now().since(begin);
        let step = addresses.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<IpAddr> = addresses.iter().step_by(step).copied().collect();
        self.watch(&sample);
        self.settle()?;
        self.sweep(addresses)?;
        Ok(took)
    }

    /// Asks for each of these addresses until all have been answered, and says how many were by the first questions.
    ///
    /// # Errors
    ///
    /// If some are not.
    pub fn sweep(&self, addresses: &[IpAddr]) -> Result<usize> {
        let begin = BootTime::now();
        self.observer.ask_for(addresses);
        let first = self.observer.round();
        let answered = wait_until("an answer for each address", ALL_SETTLED, || {
            let firsts = self.observer.firsts(begin, |seen| seen.round.is_some());
            addresses.iter().all(|address| firsts.contains_key(address)).then_some(())
        });
        self.observer.ask_for(self.vips());
        answered.with_context(|| self.diagnosis())?;
        let at_once = self.observer.firsts(begin, |seen| seen.round.is_some_and(|round| round <= first));
        Ok(addresses.iter().filter(|address| at_once.contains_key(address)).count())
    }

    /// Moves everything to one node, by planned hand-overs.
    ///
    /// # Errors
    ///
    /// If something stays elsewhere.
    pub fn gather(&mut self, name: &str) -> Result<()> {
        let others: Vec<String> = self.names().into_iter().filter(|other| other != name).collect();
        for other in &others {
            self.agent(other).terminate(SETTLED)?;
        }
        let all_here = |fleet: &Self| {
            fleet.holders().is_ok_and(|all| all.values().all(|of| of.starts_with(&format!("{name}/"))))
        };
        wait_until(&format!("everything held by {name}"), SETTLED, || all_here(self).then_some(()))
            .with_context(|| self.diagnosis())?;
        for other in &others {
            self.run(other)?;
            self.agent(other).wait_ready()?;
        }
        self.settle()
    }

    /// Switches the node off that holds everything, waits until others answer for all and, if asked to, have announced
    /// all within `announced`, and has it back.
    ///
    /// # Errors
    ///
    /// If that does not come to be, or took more writes of Leases than there are claims.
    pub fn take_over(&mut self, all: &[IpAddr], announced: Option<Duration>) -> Result<TakenOver> {
        let owner = self.owner(self.vips().first().copied().context("no VIP")?)?;
        self.gather(&owner)?;
        let mac = self.mac(&owner);
        self.observer.forget();
        let mark = self.cluster.audit().mark()?;
        let begin = BootTime::now();
        self.cluster.crash(&owner)?;
        let answered = wait_until("all answered by others", SETTLED, || {
            let firsts = self.observer.firsts(begin, |seen| seen.round.is_some() && seen.mac != mac);
            self.vips().iter().all(|vip| firsts.contains_key(vip)).then_some(firsts)
        });
        let answered = answered.with_context(|| self.diagnosis())?;
        let first = answered.values().min().copied().unwrap_or_default();
        let last = answered.values().max().copied().unwrap_or_default();
        let at_once = self.sweep(all)?;
        ensure!(
            at_once == all.len(),
            "{at_once} of {} were answered after the last of the sample",
            all.len()
        );
        let announced = announced
            .map(|limit| self.wait_announced(all, limit, |seen| seen.at >= begin && seen.mac != mac));
        let announced = announced.transpose()?;
        let writes = self.cluster.audit().count(mark, |r| {
            let own =
                r.node.as_ref().is_none_or(|node| *node == owner || r.name == format!("session-{node}"));
            r.resource == "leases" && r.is_write() && r.succeeded() && !own
        })?;
        let most = 1 + usize::from(CLAIMS.get());
        ensure!(writes <= most, "{writes} writes of Leases beside the renewals, at most {most}");
        self.bury(&owner);
        self.cluster.boot(&owner)?;
        self.make_room(&owner)?;
        self.run(&owner)?;
        self.agent(&owner).wait_ready()?;
        self.settle()?;
        Ok(TakenOver { answered: last.since(first), announced: announced.map(|last| last.since(first)) })
    }

    /// When the last of these was announced by a frame that is as wanted.
    fn wait_announced(
        &self,
        all: &[IpAddr],
        limit: Duration,
        wanted: impl Fn(&Sighting) -> bool,
    ) -> Result<BootTime> {
        let announced = wait_until("all announced by others", limit, || {
            let firsts =
                self.observer.firsts(BootTime::default(), |seen| seen.round.is_none() && wanted(seen));
            all.iter().map(|vip| firsts.get(vip).copied()).collect::<Option<Vec<_>>>()
        });
        Ok(announced.with_context(|| self.diagnosis())?.into_iter().max().unwrap_or_default())
    }
}
