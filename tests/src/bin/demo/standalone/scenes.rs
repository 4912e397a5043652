//! The scenes in which nothing breaks: who answers, where the data goes, what the maps say.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{Lab, Mac, NetNs, Prober, Probing, Report, resolve, tools, traffic};

use super::world::{PORT, VIP4, VIP6, VIPS, World};
use crate::show::Show;

/// How long anything may take that takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// The addresses are everywhere, and so the kernels' answers are, too.
pub(super) fn without_agent(lab: &Lab, show: &mut Show) -> Result<()> {
    show.scene("The problem: both hosts have the address, so both kernels answer for it");
    let mut untouched = true;
    for host in ["a", "b"] {
        let ns = lab.node(host).ns();
        let shown = ns.check(&["ip", "-brief", "address", "show", "lo"])?;
        show.command(&format!("host {host}"), "ip -brief address show lo", &shown);
        let ignore = [ns.sysctl("ipv4/conf/all/arp_ignore")?, ns.sysctl("ipv4/conf/eth0/arp_ignore")?];
        untouched &= ignore == ["0", "0"];
    }
    show.claim("arp_ignore is at its default on both hosts", "0", untouched);
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    let mut probing = Probing::new(IpAddr::V4(VIP4), Duration::from_millis(5));
    probing.senders = 200;
    let prober = Prober::start(c.ns(), probing)?;
    let both = [a, b].map(|host| prober.wait_answer_by(host.mac(), SOON));
    let report = prober.stop()?;
    show.claim(
        "without the agent, one question gets two answers",
        format!("{} of {} questions", report.doubles.len(), report.sent.len()),
        both.iter().all(Result::is_ok) && !report.doubles.is_empty(),
    );
    Ok(())
}

/// The client's tools, its kernel, and a few hundred questions.
pub(super) fn resolution(world: &World, show: &mut Show) -> Result<()> {
    let (a, c) = (world.lab.node("a"), world.lab.node("c"));
    let owner = a.mac();
    let status = world.agent_a.commands().output("status", &[])?.ok()?;
    show.command("host a", "responder status", &status.stdout);

    let arping = tools::arping(c.ns(), "eth0", VIP4, &[])?;
    show.command("client", &arping.output.command, &arping.output.stdout);
    let ndisc6 = tools::ndisc6(c.ns(), "eth0", VIP6, &[])?;
    show.command("client", &ndisc6.output.command, &ndisc6.output.stdout);
    let kernel = VIPS.map(|vip| resolve(c.ns(), vip, SOON));
    neighbours(&world.lab, show)?;
    let named = |mac: Result<Mac>| mac.is_ok_and(|mac| mac == owner);
    show.claim(
        "arping and ndisc6 are given host a's address",
        owner.to_string(),
        named(arping.one()) && named(ndisc6.one()),
    );
    show.claim(
        "so is the client's kernel, for IPv4 and IPv6",
        owner.to_string(),
        kernel.into_iter().all(named),
    );
    let reports = probe(world, Duration::from_millis(1), |probers| {
        probers.iter().try_for_each(|p| p.wait_answers(300, SOON))
    })?;
    let sent: usize = reports.iter().map(|r| r.sent.len()).sum();
    let by_owner: usize = reports.iter().map(|r| r.by_mac.get(&owner).copied().unwrap_or(0)).sum();
    show.claim(
        "only the owner answers",
        format!("{by_owner} of {sent} questions by host a, 0 by host b"),
        reports.iter().all(|r| r.by_mac.keys().eq([&owner]) && r.unanswered.is_empty()),
    );
    Ok(())
}

/// Shows the client's entries for the VIPs.
pub(super) fn neighbours(lab: &Lab, show: &Show) -> Result<()> {
    let table = lab.node("c").ns().check(&["ip", "neigh", "show", "dev", "eth0"])?;
    let ours = |line: &&str| VIPS.iter().any(|vip| line.split(' ').next() == Some(&vip.to_string()));
    let lines = table.lines().filter(ours).collect::<Vec<_>>().join("\n");
    show.command("client", "ip neigh show dev eth0", &lines);
    Ok(())
}

/// Asks for both VIPs from the client while `work` runs, and reports on IPv4 and IPv6.
pub(super) fn probe(
    world: &World,
    interval: Duration,
    work: impl FnOnce(&[Prober; 2]) -> Result<()>,
) -> Result<[Report; 2]> {
    probe_from(world.lab.node("c").ns(), interval, work)
}

/// Like [`probe`], where the world is being changed.
pub(super) fn probe_from(
    c: &NetNs,
    interval: Duration,
    work: impl FnOnce(&[Prober; 2]) -> Result<()>,
) -> Result<[Report; 2]> {
    let probers = [
        Prober::start(c, Probing::new(VIPS[0], interval))?,
        Prober::start(c, Probing::new(VIPS[1], interval))?,
    ];
    work(&probers)?;
    let [v4, v6] = probers;
    Ok([v4.stop()?, v6.stop()?])
}

/// TCP to the VIPs reaches the server on the owner.
pub(super) fn data(world: &World, show: &mut Show, owner: &str) -> Result<()> {
    let c = world.lab.node("c").ns();
    let mut reached = Vec::new();
    for vip in VIPS {
        let server = SocketAddr::new(vip, PORT);
        let said = traffic::ask(c, server, SOON)?;
        show.command("client", &format!("connect to {server}"), &said);
        reached.push(said);
    }
    show.claim(
        &format!("TCP to both VIPs reaches the server on {owner}"),
        format!("{} of 2 connections", reached.iter().filter(|said| *said == owner).count()),
        reached.iter().all(|said| said == owner),
    );
    Ok(())
}

/// An operator's look at the maps, with nothing but bpftool.
pub(super) fn maps(world: &World, show: &mut Show) -> Result<()> {
    show.scene("The maps are readable without the agent");
    let map = pinned(world.lab.node("a").bpffs(), "VIPS4")?;
    let map = map.to_str().context("the path of a pinned map is not UTF-8")?;
    let text = bpftool(&["map", "dump", "pinned", map])?;
    show.command("host a", &format!("bpftool map dump pinned {map}"), &text);
    let named = ["addr", "ifindex", "vlan", "slot", "answered", "suppressed", "conflicts"];
    let missing: Vec<_> = named.iter().filter(|field| !text.contains(&format!("\"{field}\""))).collect();
    let [a, b, c, d] = VIP4.octets();
    show.claim(
        "bpftool names address, link, slot and counters",
        if missing.is_empty() { "all there".to_owned() } else { format!("missing: {missing:?}") },
        missing.is_empty() && text.contains(&format!("[{a},{b},{c},{d}")),
    );
    Ok(())
}

/// The file of a pinned map, below the version's directory.
pub(super) fn pinned(bpffs: &Path, map: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(bpffs).with_context(|| format!("reading {}", bpffs.display()))?;
    let mut found =
        versions.filter_map(|entry| Some(entry.ok()?.path().join(map))).filter(|path| path.exists());
    found.next().with_context(|| format!("no {map} below {}", bpffs.display()))
}

/// Runs bpftool.
pub(super) fn bpftool(args: &[&str]) -> Result<String> {
    let output = Command::new("bpftool").args(args).output().context("starting bpftool")?;
    ensure!(
        output.status.success(),
        "bpftool {}: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
