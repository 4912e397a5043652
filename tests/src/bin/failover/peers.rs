//! The same faults with announcers that others use: keepalived and ucarp, which nothing fences.

use std::{
    collections::BTreeMap, fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::PathBuf,
    process::Command, thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use responder_lab::{Cluster, Observer, Process};
use responder_tests::fleet::{SETTLED, STEP, vips};

use super::{FROZEN, Fault, show};

/// The nodes that they run on.
const NODES: [&str; 2] = ["n1", "n2"];

/// An announcer, as it is set up.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    /// keepalived, VRRP version 3, with so many milliseconds between advertisements.
    Keepalived(u32),
    /// ucarp, with an advertisement each second, the least that it takes.
    Ucarp,
}

/// What is compared with.
const PEERS: [Peer; 4] = [Peer::Keepalived(1000), Peer::Keepalived(100), Peer::Keepalived(10), Peer::Ucarp];

impl Peer {
    fn name(self) -> String {
        match self {
            Self::Keepalived(advert) => format!("keepalived, {advert} ms"),
            Self::Ucarp => "ucarp, 1 s".to_owned(),
        }
    }

    /// What it says when it has seen that it is the second.
    fn stands_by(self) -> &'static str {
        match self {
            Self::Keepalived(_) => "Entering BACKUP STATE",
            Self::Ucarp => "Switching to state: BACKUP",
        }
    }

    fn command(self, pair: &Pair, node: &str) -> Result<Command> {
        let dir = pair.cluster.host(node).dir();
        match self {
            Self::Keepalived(advert) => keepalived(dir.join("keepalived.conf"), node, advert, pair.vip),
            Self::Ucarp => ucarp(pair, node),
        }
    }
}

fn keepalived(config: PathBuf, node: &str, advert: u32, vip: IpAddr) -> Result<Command> {
    let priority = if node == NODES[0] { 150 } else { 100 };
    let advert = f64::from(advert) / 1e3;
    let text = format!(
        "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance router {{\n state BACKUP\n nopreempt\n interface eth0\n \
         virtual_router_id 51\n priority {priority}\n advert_int {advert}\n virtual_ipaddress {{\n {vip}/24\n \
         }}\n}}\n"
    );
    fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]).arg(&config);
    command.arg("--pid").arg(config.with_extension("pid"));
    command.arg("--vrrp_pid").arg(config.with_extension("vrrp.pid"));
    Ok(command)
}

fn ucarp(pair: &Pair, node: &str) -> Result<Command> {
    let host = pair.cluster.host(node);
    let script = |what: &str| -> Result<PathBuf> {
        let path = host.dir().join(format!("ucarp-{what}"));
        fs::write(&path, format!("#!/bin/sh\nexec ip addr {what} {}/32 dev eth0\n", pair.vip))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let own = host.nics().first().context("no link")?.v4;
    let mut command = Command::new("ucarp");
    command.args(["--interface=eth0", &format!("--srcip={own}"), "--vhid=51", "--pass=lab"]);
    command.arg(format!("--addr={}", pair.vip)).args(["--advbase=1", "--neutral"]);
    command.arg(format!("--advskew={}", if node == NODES[0] { 0 } else { 20 }));
    command.arg(format!("--upscript={}", script("add")?.display()));
    command.arg(format!("--downscript={}", script("del")?.display()));
    Ok(command)
}

/// Two nodes and a client.
struct Pair {
    cluster: Cluster,
    observer: Observer,
    running: BTreeMap<String, Process>,
    peer: Peer,
    vip: IpAddr,
}

impl Pair {
    fn start(peer: Peer) -> Result<Self> {
        let cluster = Cluster::builder().nodes(2).build()?;
        let vips = vips(1);
        let vip = vips.first().copied().context("no VIP")?;
        let observer = Observer::start(cluster.host("c").ns(), "eth0", &vips, STEP)?;
        let mut pair = Self { cluster, observer, running: BTreeMap::new(), peer, vip };
        pair.run(NODES[0])?;
        pair.observer.wait_answer(vip, SETTLED)?;
        pair.run(NODES[1])?;
        pair.wait_standby(NODES[1])?;
        Ok(pair)
    }

    fn run(&mut self, node: &str) -> Result<()> {
        let process = self.cluster.node(node).spawn(self.peer.command(self, node)?)?;
        self.running.insert(node.to_owned(), process);
        Ok(())
    }

    fn process(&mut self, node: &str) -> Result<&mut Process> {
        self.running.get_mut(node).with_context(|| format!("nothing runs on {node}"))
    }

    fn wait_standby(&mut self, node: &str) -> Result<()> {
        let says = self.peer.stands_by();
        self.process(node)?.wait_line(SETTLED, |line| line.contains(says)).map(|_| ())
    }

    fn owner(&self) -> Result<&'static str> {
        let mac = self.observer.wait_answer(self.vip, SETTLED)?.mac;
        let found = NODES.into_iter().find(|node| self.cluster.host(node).mac() == mac);
        found.with_context(|| format!("{mac} is no node's"))
    }

    /// The owner's node loses power.
    fn crash(&mut self) -> Result<Fault> {
        let owner = self.owner()?;
        self.observer.forget();
        let since = self.observer.round();
        self.cluster.crash(owner)?;
        self.observer.wait_other(self.vip, self.cluster.host(owner).mac(), SETTLED)?;
        let fault = Fault::of(&[self.observer.account(self.vip, since)]);
        self.running.remove(owner);
        self.cluster.boot(owner)?;
        self.run(owner)?;
        self.wait_standby(owner)?;
        Ok(fault)
    }

    /// The owner's program stands still, as one that waits for memory or storage.
    fn frozen(&mut self) -> Result<Fault> {
        let owner = self.owner()?;
        let mac = self.cluster.host(owner).mac();
        let processes = family(self.process(owner)?.pid())?;
        let signal = |signal| processes.iter().try_for_each(|pid| kill(*pid, signal));
        self.observer.forget();
        let since = self.observer.round();
        signal(Signal::SIGSTOP)?;
        self.observer.wait_other(self.vip, mac, SETTLED)?;
        thread::sleep(FROZEN);
        let account = self.observer.account(self.vip, since);
        signal(Signal::SIGCONT)?;
        // Nobody is left half-way: what was frozen begins anew.
        self.cluster.crash(owner)?;
        self.cluster.boot(owner)?;
        self.run(owner)?;
        self.wait_standby(owner)?;
        Ok(Fault::of(&[account]))
    }
}

/// A process and those that it has started.
fn family(pid: u32) -> Result<Vec<Pid>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut all = vec![Pid::from_raw(pid.cast_signed())];
    for child in children.split_whitespace() {
        all.extend(family(child.parse()?)?);
    }
    Ok(all)
}

/// Measures them all.
pub(super) fn measure(rounds: u32) -> Result<()> {
    for peer in PEERS {
        let mut pair = Pair::start(peer)?;
        let crashes = (0..rounds).map(|_| pair.crash()).collect::<Result<Vec<_>>>()?;
        show(&format!("crash, {} (not fenced)", peer.name()), &crashes, "");
        let frozen = (0..rounds.div_ceil(5)).map(|_| pair.frozen()).collect::<Result<Vec<_>>>()?;
        show(&format!("frozen, {} (not fenced)", peer.name()), &frozen, "");
    }
    Ok(())
}
