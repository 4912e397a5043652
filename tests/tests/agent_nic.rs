//! What links are like: frames larger than a page, few queues; and what a restart of the agent does to them.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{net::IpAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    Agent, Commands, Lab, Node, Process, StaticFile, Status, bpftool, paths, root_or_skip, tools,
    tools_or_skip, wait_until, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 10);

fn lab() -> Result<Lab> {
    Lab::builder().hosts(&["a"]).build()
}

fn file(link: &str) -> StaticFile {
    StaticFile::on(&[link]).own(&[IpAddr::V4(V4)])
}

/// What the kernel accepts of multi-buffer programs, as `check` says it.
fn has_multi_buffer(commands: &Commands) -> Result<bool> {
    let check = commands.output("check", &["lo"])?;
    let line = check.stdout.lines().find(|line| line.contains("multi-buffer XDP"));
    Ok(line.with_context(|| check.stdout.clone())?.starts_with("ok"))
}

#[test]
fn frames_larger_than_a_page() {
    if !root_or_skip("frames_larger_than_a_page") {
        return;
    }
    // The reference program on the switch's port, without which nothing arrives, limits its MTU.
    let lab = Lab::builder().hosts(&["a"]).native_ports(false).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let port = Lab::port(a, "eth0");
    let has_multi_buffer = has_multi_buffer(&Commands::new(a).unwrap()).unwrap();
    if has_multi_buffer {
        let object = paths::object("responder.o").unwrap();
        let what = ["xdpdrv", "object", object.to_str().unwrap(), "program", "responder_frags"];
        lab.switch().check(&[&["ip", "link", "set", "dev", &port][..], &what].concat()).unwrap();
    }
    lab.switch().ip(&format!("link set {port} mtu 9000")).unwrap();
    a.ns().ip("link set eth0 mtu 9000").unwrap();
    let mut agent = Agent::start(a, &file("eth0"), &[]).unwrap();
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link("eth0");
    if has_multi_buffer {
        assert_eq!(link["xdp"], "native by link", "{link}");
    } else {
        assert_eq!(link["xdp"], "generic by link", "{link}");
        let told =
            |text: &str| text.contains("Peer MTU is too large") && text.contains("lower its MTU to 3500");
        assert!(told(&link["tried"].to_string()), "{link}");
        agent.process().wait_line(SOON, told).unwrap();
    }
    let check = Commands::new(a).unwrap().output("check", &["eth0"]).unwrap();
    assert!(check.stdout.contains("MTU 9000"), "{}", check.stdout);
}

/// A veth wants as many receive queues as its other end has for sending.
#[test]
fn too_few_queues() {
    if !root_or_skip("too_few_queues") || !tools_or_skip("too_few_queues", &["ethtool"]) {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let pair = "link add q0 numrxqueues 1 numtxqueues 1 type veth peer name q1 numrxqueues 4 numtxqueues 4";
    let up = "link set q0 up\nlink set q1 up\naddr add 192.0.2.77/24 dev q0";
    a.ns().ip(&format!("{pair}\n{up}")).unwrap();

    let mut agent = Agent::start(a, &file("q0"), &[]).unwrap();
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link("q0");
    assert_eq!(link["xdp"], "generic by link", "{link}");
    let told = |text: &str| {
        text.contains("number of rx queues not less than peer tx queues")
            && text.contains("ethtool -L q0 rx N")
    };
    assert!(told(&link["tried"].to_string()), "{link}");
    agent.process().wait_line(SOON, told).unwrap();
    let commands = agent.commands().clone();
    agent.terminate().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();

    // Without netlink there are no words, only a number; it is understood as well.
    let agent = Agent::start(a, &file("q0"), &["--attach", "link"]).unwrap();
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link("q0");
    assert!(link["tried"].to_string().contains("ethtool -L q0 rx N"), "{link}");
    agent.terminate().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();

    // The way out is one; the queues of a veth can be changed since 5.15, before that pairs are made with them.
    if a.ns().check(&["ethtool", "-L", "q1", "tx", "1"]).is_err() {
        let more = pair.replace("numrxqueues 1", "numrxqueues 4");
        a.ns().ip(&format!("link del q0\n{more}\n{up}")).unwrap();
    }
    let agent = Agent::start(a, &file("q0"), &["--xdp-mode", "native"]).unwrap();
    let status = Status::read(agent.commands()).unwrap();
    assert_eq!(status.agent_link("q0")["xdp"], "native by link");
}

/// `ip monitor link`: what the kernel tells of links.
fn watch_links(node: &Node) -> Result<Process> {
    let mut command = Command::new("ip");
    command.args(["-o", "monitor", "link"]);
    node.ns().spawn(command)
}

/// What was told of eth0 so far, when it has told of something that happened after everything else: `lo` has another MTU.
fn told(node: &Node, monitor: &mut Process, mtu: u32) -> Result<Vec<String>> {
    let is_it = |line: &str| line.contains("lo: <LOOPBACK") && line.contains(&format!("mtu {mtu} "));
    // It may not watch yet.
    wait_until("a marker", SOON, || {
        node.ns().ip(&format!("link set lo mtu 1500\nlink set lo mtu {mtu}")).ok()?;
        monitor.stdout().lines().any(is_it).then_some(())
    })?;
    Ok(monitor.stdout().lines().filter(|line| line.contains("eth0")).map(str::to_owned).collect())
}

/// The id of the pinned link that runs the program.
fn link_id(node: &Node, pin: &Path) -> Result<String> {
    let shown = bpftool(node.ns(), &["link", "show", "pinned", pin.to_str().context("a path")?])?;
    Ok(shown["id"].to_string())
}

/// The link of a NIC may go down when a program comes or goes: at a restart and at an upgrade it does neither.
fn stays_through_restart_and_upgrade(via: &str) {
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let options = ["--attach", via, "--on-exit", "keep"];
    let agent = Agent::start(a, &file("eth0"), &options).unwrap();
    let pin = a.bpffs().join(format!("v3/links/xdp-{}", a.ns().ifindex("eth0").unwrap()));
    let link = (via == "link").then(|| link_id(a, &pin).unwrap());
    let mut programs = vec![xdp_on(a.ns(), "eth0").unwrap().unwrap().id];
    // Once everything that comes with a first start is over.
    let mut monitor = watch_links(a).unwrap();
    let before = told(a, &mut monitor, 2001).unwrap().len();

    agent.terminate().unwrap();
    let agent = Agent::start(a, &file("eth0"), &options).unwrap();
    programs.push(xdp_on(a.ns(), "eth0").unwrap().unwrap().id);
    // The next one begins before this one has ended.
    let mut next = Agent::spawn(a, &file("eth0"), &options).unwrap();
    next.process().wait_line(SOON, |line| line.contains("waiting for its end")).unwrap();
    agent.terminate().unwrap();
    next.wait_ready().unwrap();
    programs.push(xdp_on(a.ns(), "eth0").unwrap().unwrap().id);
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());

    let seen = told(a, &mut monitor, 2002).unwrap();
    let seen = &seen[before..];
    ensure_never_down(seen, &programs[1..], via).unwrap();
    assert_eq!((via == "link").then(|| link_id(a, &pin).unwrap()), link, "another link than before");
    programs.dedup();
    assert_eq!(programs.len(), 3, "each agent has a program of its own: {programs:?}");
}

fn ensure_never_down(seen: &[String], programs: &[u64], via: &str) -> Result<()> {
    if via == "link" {
        // An update of a link in place is told to nobody.
        ensure!(seen.is_empty(), "{seen:#?}");
        return Ok(());
    }
    for (line, id) in seen.iter().zip(programs) {
        let program = format!("xdp/id:{id} ");
        ensure!(line.contains("LOWER_UP") && line.contains("state UP") && line.contains(&program), "{line}");
    }
    ensure!(seen.len() == programs.len(), "a message for each replacement: {seen:#?}");
    Ok(())
}

#[test]
fn nothing_bounces_by_link() {
    if root_or_skip("nothing_bounces_by_link") {
        stays_through_restart_and_upgrade("link");
    }
}

#[test]
fn nothing_bounces_by_netlink() {
    if root_or_skip("nothing_bounces_by_netlink") {
        stays_through_restart_and_upgrade("netlink");
    }
}
