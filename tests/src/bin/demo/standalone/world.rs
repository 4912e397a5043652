//! The demo's hosts, agents and servers.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use responder_lab::{Agent, Lab, Node, Process, StaticFile};

use crate::show::Show;

/// The IPv4 VIP.
pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The IPv6 VIP.
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Both.
pub(super) const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
/// How long an agent may be silent before its datapath is.
pub(super) const FENCE: Duration = Duration::from_secs(3);
/// Where the servers listen.
pub(super) const PORT: u16 = 80;

/// Everything that runs. Gone when dropped.
pub(crate) struct World {
    /// The owner at first.
    pub(super) agent_a: Agent,
    /// The other host's.
    pub(super) agent_b: Agent,
    servers: Vec<Process>,
    pub(super) lab: Lab,
}

/// Builds hosts, client and switch, with the VIPs on `lo` of both hosts.
pub(super) fn build(keep: bool) -> Result<Lab> {
    let lab = Lab::builder().keepable(keep).build()?;
    for host in ["a", "b"] {
        lab.node(host).add_to_lo(&VIPS)?;
    }
    Ok(lab)
}

impl World {
    /// Starts the agents (host a owns, host b stands by) and a server on each host.
    pub(super) fn start(lab: Lab, show: &Show) -> Result<Self> {
        let (a, b) = (lab.node("a"), lab.node("b"));
        let agent_a = start_agent(a, &owned())?;
        let agent_b = start_agent(b, &standby())?;
        for (node, agent) in [(a, &agent_a), (b, &agent_b)] {
            let file = fs::read_to_string(agent.commands().file()).context("reading the static file")?;
            show.command(&format!("host {}", node.name()), "cat vips.toml", &file);
        }
        let mut servers = Vec::new();
        for node in [a, b] {
            let mut command = Command::new(env::current_exe()?);
            command.args(["--serve", &format!("host {}", node.name())]);
            let mut server = node.ns().spawn(command)?;
            server.wait_line(Duration::from_secs(10), |line| line.contains("listening"))?;
            servers.push(server);
        }
        Ok(Self { agent_a, agent_b, servers, lab })
    }

    /// Process ids of the servers on host a and host b.
    pub(super) fn server_pids(&self) -> Vec<u32> {
        self.servers.iter().map(Process::pid).collect()
    }
}

/// The content of a file whose host owns the VIPs.
pub(super) fn owned() -> StaticFile {
    StaticFile::on(&["eth0"]).own(&VIPS)
}

/// The content of a file whose host knows that another owns them.
pub(super) fn standby() -> StaticFile {
    StaticFile::on(&["eth0"]).standby(&VIPS)
}

/// Starts an agent and waits until it is ready.
pub(super) fn start_agent(node: &Node, file: &StaticFile) -> Result<Agent> {
    Agent::start(node, file, &["--fence", &format!("{}s", FENCE.as_secs())])
}
