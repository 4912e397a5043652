//! Agents on the nodes of a cluster, and an observer of the VIPs of its Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use responder_lab::{
    Account, Cluster, ClusterAgent, ClusterBuilder, Mac, NAMESPACE, Observer, Service, wait_until,
};
use serde_json::Value;

use crate::leases::{CLAIMS, LEASES, record_of};

/// Between two questions for a VIP.
pub const STEP: Duration = Duration::from_millis(5);

/// How long a cluster may need until everything is answered again, however busy the machine.
pub const SETTLED: Duration = Duration::from_secs(40);

/// So many agents start at the same time.
const AT_ONCE: usize = 8;

/// `count` addresses on the segment, the first groups of which differ.
#[must_use]
pub fn vips(count: u8) -> Vec<IpAddr> {
    (0..count).map(|n| [192, 0, 2, 200 + n].into()).collect()
}

/// Agents, the cluster that they are in, and who watches them. Everything ends with it.
pub struct Fleet {
    /// Watches the VIPs from the client.
    pub observer: Observer,
    agents: BTreeMap<String, ClusterAgent>,
    /// The cluster.
    pub cluster: Cluster,
    vips: Vec<IpAddr>,
    options: Vec<String>,
    /// What agents wrote that have ended.
    logs: BTreeMap<String, String>,
    records: PathBuf,
    started: u32,
}

impl Fleet {
    /// A cluster with one Service for each VIP, which all nodes can serve, and an agent on each node. Returns when
    /// all VIPs are answered.
    ///
    /// # Errors
    ///
    /// If something does not come up.
    pub fn start(builder: ClusterBuilder, vips: &[IpAddr], options: &[&str]) -> Result<Self> {
        let cluster = builder.build()?;
        let services: Vec<Service> = vips
            .iter()
            .enumerate()
            .map(|(n, vip)| Service::new(&format!("web-{n}")).vips(&[*vip]).on(&["n1"]))
            .collect();
        cluster.services(&services)?;
        let records = cluster.dir().join("records");
        fs::create_dir_all(&records)?;
        let observer = Observer::start(cluster.host("c").ns(), "eth0", vips, STEP)?;
        let mut fleet = Self {
            observer,
            agents: BTreeMap::new(),
            cluster,
            vips: vips.to_vec(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            logs: BTreeMap::new(),
            records,
            started: 0,
        };
        // The verifier has its time for each: not all of many at once.
        for names in fleet.names().chunks(AT_ONCE) {
            names.iter().try_for_each(|name| fleet.run(name))?;
            names.iter().try_for_each(|name| fleet.agent(name).wait_ready())?;
        }
        fleet.settle()?;
        Ok(fleet)
    }

    /// The nodes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.cluster.nodes().map(|node| node.name().to_owned()).collect()
    }

    /// The VIPs that are watched.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Watches these VIPs from now on.
    pub fn watch(&mut self, vips: &[IpAddr]) {
        self.vips = vips.to_vec();
        self.observer.ask_for(vips);
    }

    /// Starts the agent of a node, after the end of the one before.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn run(&mut self, name: &str) -> Result<()> {
        self.bury(name);
        self.started += 1;
        let record = self.records.join(format!("{name}-{}.jsonl", self.started));
        let mut options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let record = record.to_string_lossy();
        options.extend(["--record", &record]);
        let agent = self.cluster.agent(name, &options)?;
        self.agents.insert(name.to_owned(), agent);
        Ok(())
    }

    /// The agent of a node; panics if there is none.
    ///
    /// # Panics
    ///
    /// If none runs there.
    pub fn agent(&mut self, name: &str) -> &mut ClusterAgent {
        self.agents.get_mut(name).unwrap_or_else(|| panic!("no agent runs on {name}"))
    }

    /// Puts another agent in the place of a node's, which has ended or is about to.
    pub fn replace(&mut self, name: &str, agent: ClusterAgent) {
        self.bury(name);
        self.agents.insert(name.to_owned(), agent);
    }

    /// Kills the agent of a node, if there is one, and keeps its log.
    pub fn bury(&mut self, name: &str) {
        if let Some(mut agent) = self.agents.remove(name) {
            agent.kill().ok(); // it may have ended
            let log = self.logs.entry(name.to_owned()).or_default();
            log.push_str(&agent.log());
            log.push_str("--- ended\n");
        }
    }

    /// What the agents of a node have written.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let mut log = self.logs.get(name).cloned().unwrap_or_default();
        if let Some(agent) = self.agents.get(name) {
            log.push_str(&agent.log());
        }
        log
    }

    /// The node with a hardware address.
    ///
    /// # Errors
    ///
    /// If no node has it.
    pub fn node_of(&self, mac: Mac) -> Result<String> {
        let found = self.names().into_iter().find(|name| self.cluster.host(name).mac() == mac);
        found.with_context(|| format!("{mac} is no node's"))
    }

    /// The hardware address of a node.
    #[must_use]
    pub fn mac(&self, name: &str) -> Mac {
        self.cluster.host(name).mac()
    }

    /// The node that answers for a VIP now.
    ///
    /// # Errors
    ///
    /// If none does.
    pub fn owner(&self, vip: IpAddr) -> Result<String> {
        self.node_of(self.observer.wait_answer(vip, SETTLED)?.mac)
    }

    /// Waits until a node answers for a VIP.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn wait_owner(&self, vip: IpAddr, name: &str) -> Result<()> {
        let found = self.observer.wait_by(vip, self.mac(name), SETTLED);
        found.map(|_| ()).with_context(|| self.diagnosis())
    }

    /// Waits until another node answers for a VIP, and says which.
    ///
    /// # Errors
    ///
    /// If none does.
    pub fn wait_other(&self, vip: IpAddr, name: &str) -> Result<String> {
        let found = self.observer.wait_other(vip, self.mac(name), SETTLED);
        self.node_of(found.with_context(|| self.diagnosis())?.mac)
    }

    /// All Leases of the agents, by name.
    ///
    /// # Errors
    ///
    /// If the API server does not answer.
    pub fn leases(&self) -> Result<BTreeMap<String, Value>> {
        let list = self.cluster.requests().get(LEASES)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let name = |lease: &Value| lease["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(items.into_iter().map(|lease| (name(&lease), lease)).collect())
    }

    /// The record of each claim's holder: `n1/1763733600000`, or empty.
    ///
    /// # Errors
    ///
    /// As [`Fleet::leases`].
    pub fn holders(&self) -> Result<BTreeMap<String, String>> {
        let claims = self.leases()?.into_iter().filter(|(name, _)| name.starts_with("claim-"));
        Ok(claims
            .map(|(name, lease)| (name, record_of(&lease)["holder"].as_str().unwrap_or_default().to_owned()))
            .collect())
    }

    /// Waits until each claim is held by the session of a node whose agent runs, each such agent has a session, and
    /// each VIP is answered.
    ///
    /// # Errors
    ///
    /// If that does not come to be, with what it hangs at.
    pub fn settle(&self) -> Result<()> {
        let mut missing = String::new();
        let settled = wait_until("everything held and answered", SETTLED, || match self.unsettled() {
            Ok(None) => Some(()),
            Ok(Some(what)) => {
                missing = what;
                None
            }
            Err(error) => {
                missing = format!("{error:#}");
                None
            }
        });
        settled.with_context(|| format!("{missing}\n{}", self.diagnosis()))?;
        for vip in &self.vips {
            self.observer.wait_answer(*vip, SETTLED).with_context(|| self.diagnosis())?;
        }
        Ok(())
    }

    fn unsettled(&self) -> Result<Option<String>> {
        let leases = self.leases()?;
        let mut sessions = BTreeSet::new();
        for name in self.agents.keys() {
            let record = leases.get(&format!("session-{name}")).map(record_of).unwrap_or_default();
            match record["session"].as_str() {
                Some(session) if record["state"] == "live" => drop(sessions.insert(session.to_owned())),
                _ => return Ok(Some(format!("{name} has no live session: {record}"))),
            }
        }
        let holders = self.holders()?;
        let claims = leases.get("cluster").and_then(|lease| record_of(lease)["claims"].as_u64());
        let claims = claims.unwrap_or_else(|| CLAIMS.get().into());
        let others = holders.keys().filter(|name| !name.starts_with(&format!("claim-{claims}-"))).count();
        if others > 0 || holders.len() as u64 != claims {
            return Ok(Some(format!("there are {} claims, {others} of another number", holders.len())));
        }
        let free = holders.iter().find(|(_, holder)| !sessions.contains(*holder));
        Ok(free.map(|(name, holder)| format!("{name} is held by {holder:?}")))
    }

    /// Undoes cuts, and has an agent run on each node, everything held and answered.
    ///
    /// # Errors
    ///
    /// If the cluster does not come to that.
    pub fn recover(&mut self) -> Result<()> {
        self.cluster.heal_all()?;
        for name in self.names() {
            let ended = match self.agents.get_mut(&name) {
                Some(agent) => agent.process().try_wait()?.is_some(),
                None => true,
            };
            if ended {
                self.run(&name)?;
                self.agent(&name).wait_ready()?;
            }
        }
        self.settle()
    }

    /// What was seen of each VIP since a round.
    #[must_use]
    pub fn accounts(&self, since: usize) -> Vec<Account> {
        self.vips.iter().map(|vip| self.observer.account(*vip, since)).collect()
    }

    /// What must not be in these accounts: two that answer one question; one who answers or announces after another
    /// has, unless it is in `back`.
    #[must_use]
    pub fn violations(&self, accounts: &[Account], returns: impl Fn(&Account) -> usize) -> Vec<String> {
        let mut found = Vec::new();
        for account in accounts {
            for (at, macs) in account.doubles() {
                let names: Vec<_> = macs.iter().map(|mac| self.node_of(*mac).unwrap_or_default()).collect();
                found.push(format!("{} answered for {} at {} ns", names.join(" and "), account.vip, at.0));
            }
            let allowed = returns(account);
            if account.returns() > allowed {
                found.push(format!(
                    "{}: {} came back after another had answered; at most {allowed} can be explained",
                    account.vip,
                    account.returns()
                ));
            }
        }
        found
    }

    /// Fails if what was seen since a round breaks the rule, with what was seen.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self, since: usize) -> Result<Vec<Account>> {
        let accounts = self.accounts(since);
        let violations = self.violations(&accounts, |_| 0);
        if violations.is_empty() {
            return Ok(accounts);
        }
        let seen: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        bail!("{}\n{}\n{}", violations.join("\n"), seen.join(""), self.diagnosis())
    }

    /// Fails if an agent has panicked or ended by itself.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check_health(&mut self) -> Result<()> {
        for name in self.names() {
            let log = self.log(&name);
            ensure!(!log.contains("panicked"), "the agent of {name} panicked:\n{log}");
            if let Some(agent) = self.agents.get_mut(&name)
                && let Some(status) = agent.process().try_wait()?
            {
                bail!("the agent of {name} has ended: {status}\n{log}");
            }
        }
        Ok(())
    }

    /// Leases and logs, for messages.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = self
            .cluster
            .kubectl(&["get", "leases", "-n", NAMESPACE, "--show-labels"])
            .unwrap_or_else(|error| format!("{error:#}\n"));
        for name in self.names() {
            let log = self.log(&name);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            text.push_str(&format!("--- {name}\n{}\n", last.join("\n")));
        }
        text
    }

    /// Writes what is known into a directory.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    pub fn save(&self, dir: &Path, accounts: &[Account]) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        for name in self.names() {
            fs::write(dir.join(format!("{name}.log")), self.log(&name))?;
        }
        for entry in fs::read_dir(&self.records)? {
            let entry = entry?;
            fs::copy(entry.path(), dir.join(entry.file_name()))?;
        }
        let seen: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        fs::write(dir.join("answers.txt"), seen.join(""))?;
        if let Ok(leases) = self.leases() {
            fs::write(dir.join("leases.json"), format!("{:#}\n", serde_json::to_value(leases)?))?;
        }
        Ok(())
    }
}
