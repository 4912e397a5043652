//! Joining multicast groups beside the loop: ten thousand joins take a second, and the deadline does not wait.

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::net::groups::{GroupReport, Groups};

/// What the thread is asked.
enum Ask {
    /// Have exactly these groups, given as interface index and address.
    Want(BTreeSet<(u32, Ipv6Addr)>),
    /// The kernel has dropped this interface's groups.
    Forget(u32),
}

/// The thread that joins, as the agent sees it.
pub(super) struct Joiner {
    asks: Sender<Ask>,
    reports: UnboundedReceiver<GroupReport>,
}

impl Joiner {
    /// Starts the thread, in the network namespace of this one.
    pub(super) fn start() -> Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (report, reports) = unbounded_channel();
        thread::Builder::new()
            .name("groups".to_owned())
            .spawn(move || work(&asked, &report))
            .context("cannot start the thread that joins multicast groups")?;
        Ok(Self { asks, reports })
    }

    /// Asks for these groups and no others. What could not be joined is tried again with every set.
    pub(super) fn want(&self, groups: BTreeSet<(u32, Ipv6Addr)>) {
        self.asks.send(Ask::Want(groups)).ok(); // the thread lives as long as this sender
    }

    /// Tells that the kernel has dropped an interface's groups.
    pub(super) fn forget(&self, ifindex: u32) {
        self.asks.send(Ask::Forget(ifindex)).ok();
    }

    /// Waits for the next account of what is joined.
    pub(super) async fn report(&mut self) -> Option<GroupReport> {
        self.reports.recv().await
    }
}

fn work(asked: &Receiver<Ask>, report: &UnboundedSender<GroupReport>) {
    let mut groups = Groups::new();
    while let Ok(first) = asked.recv() {
        // Only the latest set counts.
        let mut wanted = None;
        for ask in std::iter::once(first).chain(asked.try_iter()) {
            match ask {
                Ask::Want(set) => wanted = Some(set),
                Ask::Forget(ifindex) => groups.forget(ifindex),
            }
        }
        if let Some(set) = wanted
            && report.send(groups.sync(&set)).is_err()
        {
            return;
        }
    }
}
