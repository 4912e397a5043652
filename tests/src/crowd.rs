//! Clusters with many addresses.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use responder_lab::{BootTime, Service, wait_until};

use crate::fleet::{Fleet, SETTLED};

/// Addresses of one Service.
const PER_SERVICE: usize = 4;

/// So many of them are asked for all the time.
const SAMPLE: usize = 32;

/// `count` addresses in 198.18.0.0/16, the network address left out.
#[must_use]
pub fn addresses(count: u16) -> Vec<IpAddr> {
    (1..=count).map(|n| [198, 18, (n >> 8) as u8, n as u8].into()).collect()
}

impl Fleet {
    /// Puts 198.18.0.0/16 on the segment as a node sees it, so that it announces addresses of it. A crash undoes it.
    ///
    /// # Errors
    ///
    /// If `ip` refuses, as it does the second time.
    pub fn make_room(&self, name: &str) -> Result<()> {
        let host = self.cluster.host(name);
        let address = host.nics().first().context("no link")?.v4.octets()[3];
        host.ns().ip(&format!("addr add 198.18.255.{address}/16 dev eth0"))
    }

    /// Makes Services with these addresses, four to each, waits until all are answered, and watches some of them from
    /// then on. Says how long the API server took for it.
    ///
    /// # Errors
    ///
    /// If that does not come to be.
    pub fn fill(&mut self, addresses: &[IpAddr]) -> Result<Duration> {
        let services: Vec<Service> = addresses
            .chunks(PER_SERVICE)
            .enumerate()
            .map(|(n, addresses)| Service::new(&format!("many-{n}")).vips(addresses).on(&["n1"]))
            .collect();
        let begin = BootTime::now();
        self.cluster.services(&services)?;
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
        let answered = wait_until("an answer for each address", SETTLED, || {
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
}
