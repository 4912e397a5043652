//! Kinds of faults, and how each is inflicted and ended.

use std::{fmt, str::FromStr, thread, time::Duration};

use anyhow::{Result, bail};
use rand::{Rng as _, rngs::StdRng};
use responder_lab::Cut;

use crate::{
    fleet::{Fleet, SETTLED},
    leases::{CLAIMS, change_claims},
};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// SIGKILL of the agent, and a new one after a while: the datapath stays.
    Kill,
    /// The node loses power, and comes back.
    Crash,
    /// SIGSTOP of the agent, and SIGCONT.
    Pause,
    /// The node's link loses its carrier.
    Link,
    /// Nothing passes between the node and the API server.
    Api,
    /// What the node's agent asks the API server for does not arrive.
    Requests,
    /// What it asks for is done, but it does not hear of it.
    Responses,
    /// The API server ends, and comes back.
    Server,
    /// The API server stops, and goes on.
    Freeze,
    /// etcd ends, and comes back.
    Etcd,
    /// What passes between the node and the API server takes up to twice the lease.
    Slow,
    /// All agents are replaced, one after the other.
    Rolling,
    /// The number of claims is changed and changed back, while a node is cut from the API server.
    Claims,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Pause,
        Self::Responses,
        Self::Slow,
        Self::Link,
        Self::Api,
        Self::Rolling,
        Self::Freeze,
        Self::Requests,
        Self::Crash,
        Self::Server,
        Self::Etcd,
        Self::Claims,
    ];

    /// Whether others can take over meanwhile.
    pub(super) const fn is_of_one_node(self) -> bool {
        match self {
            Self::Kill
            | Self::Crash
            | Self::Pause
            | Self::Link
            | Self::Api
            | Self::Requests
            | Self::Responses
            | Self::Slow
            | Self::Rolling => true,
            Self::Server | Self::Freeze | Self::Etcd | Self::Claims => false,
        }
    }

    /// Whether agents end by it, other ones beginning in their place.
    pub(crate) const fn ends_agents(self) -> bool {
        matches!(self, Self::Kill | Self::Crash | Self::Rolling)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Link => "link",
            Self::Api => "api",
            Self::Requests => "requests",
            Self::Responses => "responses",
            Self::Server => "server",
            Self::Freeze => "freeze",
            Self::Etcd => "etcd",
            Self::Slow => "slow",
            Self::Rolling => "rolling",
            Self::Claims => "claims",
        }
    }

    /// Does it to a node or to the cluster, waits a random time, and undoes it. Returns what that was.
    pub(super) fn inflict(
        self,
        fleet: &mut Fleet,
        victim: &str,
        lease: Duration,
        random: &mut StdRng,
    ) -> Result<String> {
        // The length of the fault: from what nobody notices to what all notice.
        let time = lease.mul_f64(random.random_range(0.05..2.5));
        let within = |cut: Cut, fleet: &Fleet| {
            fleet.cluster.cut(cut.clone())?;
            thread::sleep(time);
            fleet.cluster.heal(&cut)
        };
        let what = format!("for {} ms", time.as_millis());
        match self {
            Self::Kill => {
                fleet.bury(victim);
                thread::sleep(time);
                fleet.run(victim)?;
            }
            Self::Crash => {
                fleet.cluster.crash(victim)?;
                fleet.bury(victim);
                thread::sleep(time);
                fleet.cluster.boot(victim)?;
                fleet.run(victim)?;
            }
            Self::Pause => {
                fleet.agent(victim).freeze()?;
                thread::sleep(time);
                fleet.agent(victim).thaw()?;
            }
            Self::Link => within(Cut::segment(victim), fleet)?,
            Self::Api => within(Cut::api(victim), fleet)?,
            Self::Requests => within(Cut::requests(victim), fleet)?,
            Self::Responses => within(Cut::responses(victim), fleet)?,
            Self::Server => {
                fleet.cluster.api().kill()?;
                thread::sleep(time);
                fleet.cluster.api().start()?;
            }
            Self::Freeze => {
                fleet.cluster.api().freeze()?;
                thread::sleep(time);
                fleet.cluster.api().thaw()?;
            }
            Self::Etcd => {
                fleet.cluster.etcd().kill()?;
                thread::sleep(time);
                fleet.cluster.etcd().start()?;
            }
            Self::Slow => return slow(fleet, victim, lease, time * 2, random),
            Self::Rolling => return rolling(fleet, random),
            Self::Claims => {
                let changed = change_claims(&fleet.cluster, random.random_range(1..=32))?;
                within(Cut::api(victim), fleet)?;
                changed.finish(SETTLED)?.ok()?;
                fleet.settle()?;
                change_claims(&fleet.cluster, CLAIMS.get())?.finish(SETTLED)?.ok()?;
            }
        }
        Ok(what)
    }
}

fn slow(fleet: &Fleet, victim: &str, lease: Duration, time: Duration, random: &mut StdRng) -> Result<String> {
    let mut part = || lease.mul_f64(random.random_range(0.0..1.0));
    let (there, back) = (part(), part());
    fleet.cluster.delay(victim, there, back)?;
    thread::sleep(time);
    fleet.cluster.delay(victim, Duration::ZERO, Duration::ZERO)?;
    let (there, back, time) = (there.as_millis(), back.as_millis(), time.as_millis());
    Ok(format!("{there} ms there, {back} ms back, for {time} ms"))
}

fn rolling(fleet: &mut Fleet, random: &mut StdRng) -> Result<String> {
    let surge = random.random_bool(0.5);
    for name in fleet.names() {
        if surge {
            let successor = fleet.agent(&name).successor()?;
            thread::sleep(Duration::from_millis(random.random_range(0..1500)));
            fleet.agent(&name).terminate(SETTLED)?;
            fleet.replace(&name, successor);
        } else {
            fleet.agent(&name).terminate(SETTLED)?;
            fleet.run(&name)?;
        }
        fleet.agent(&name).wait_ready()?;
    }
    Ok(if surge { "successors wait" } else { "one ends, then the next begins" }.to_owned())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == text) {
            Some(kind) => Ok(kind),
            None => bail!("no kind of fault: {text:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}
