//! Where and how the agent's programs are attached, and what it does about programs of others.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_traces;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use agent_traces::Traces;
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, links::FdLink, tc::TcAttachOptions},
};
use responder_lab::{
    Agent, Lab, NetNs, Node, StaticFile, Status, XdpSeen, bpftool, paths, reference_program, root_or_skip,
    skip, tools, wait_until, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const VIPS: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

fn lab() -> Result<Lab> {
    Lab::builder().hosts(&["a"]).build()
}

fn file() -> StaticFile {
    StaticFile::on(&["eth0"]).own(&VIPS)
}

/// The client's tools get the address of `host` for both VIPs.
fn ensure_answered(client: &Node, host: &Node) -> Result<()> {
    let arp = tools::arping(client.ns(), "eth0", V4, &[])?.one()?;
    let ndp = tools::ndisc6(client.ns(), "eth0", V6, &[])?.one()?;
    ensure!(arp == host.mac() && ndp == host.mac(), "{arp} and {ndp}, not {}", host.mac());
    Ok(())
}

/// Whether the kernel has TCX. Without it the egress program is a clsact filter, however XDP is attached.
fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress).is_ok()
}

/// The program runs on eth0 of `host` in this way, says the agent, and so says the kernel.
fn ensure_attached(host: &Node, agent: &Agent, mode: &str, via: &str) -> Result<u64> {
    let status = Status::read(agent.commands())?;
    let link = status.agent_link("eth0");
    ensure!(link["xdp"] == format!("{mode} by {via}"), "{link}");
    let seen = xdp_on(host.ns(), "eth0")?.context("no program")?;
    ensure!(seen.mode == mode && link["prog_id"] == seen.id, "{seen:?}, {link}");
    ensure!(status.link("eth0")["prog_id"] == seen.id, "{status:?}");
    let traces = Traces::of(host)?;
    let by_tcx = via == "link" && has_tcx();
    let (egress, clsact) = if by_tcx { ("tcx", vec![]) } else { ("clsact", traces.xdp.clone()) };
    ensure!(link["egress"] == egress, "{link}");
    // Nothing is left of the other way.
    let (ours, other) = if by_tcx { (&traces.tcx, &traces.filters) } else { (&traces.filters, &traces.tcx) };
    // Those by TCX are looked for on eth0 alone.
    let count = if by_tcx { 1 } else { traces.xdp.len() };
    ensure!(ours.len() == count && other.is_empty(), "{traces:?}");
    ensure!(ours.iter().all(|name| name.starts_with("responder_tx")), "{traces:?}");
    ensure!(traces.clsact == clsact, "{traces:?}");
    let pinned = host.bpffs().join(format!("v3/links/xdp-{}", host.ns().ifindex("eth0")?)).exists();
    ensure!(pinned == (via == "link"), "a pinned link: {pinned}");
    Ok(seen.id)
}

/// Both families are answered, and `detach` leaves nothing.
fn answers_and_goes(mode: &str, via: &str) {
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = Agent::start(a, &file(), &["--xdp-mode", mode, "--attach", via]).unwrap();
    ensure_attached(a, &agent, mode, via).unwrap();
    ensure_answered(c, a).unwrap();
    let commands = agent.commands().clone();
    assert!(agent.terminate().unwrap().success());
    commands.output("detach", &[]).unwrap().ok().unwrap();
    wait_until("nothing left", SOON, || (Traces::of(a).unwrap() == Traces::none()).then_some(())).unwrap();
}

#[test]
fn native_by_link() {
    if root_or_skip("native_by_link") {
        answers_and_goes("native", "link");
    }
}

#[test]
fn native_by_netlink() {
    if root_or_skip("native_by_netlink") {
        answers_and_goes("native", "netlink");
    }
}

#[test]
fn generic_by_link() {
    if root_or_skip("generic_by_link") {
        answers_and_goes("generic", "link");
    }
}

#[test]
fn generic_by_netlink() {
    if root_or_skip("generic_by_netlink") {
        answers_and_goes("generic", "netlink");
    }
}

#[test]
fn automatic_mode_takes_the_driver_and_else_says_why_not() {
    if !root_or_skip("automatic_mode_takes_the_driver_and_else_says_why_not") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.ns().ip("link add link eth0 name mv0 type macvlan mode bridge\nlink set mv0 up").unwrap();
    let other: IpAddr = "192.0.2.11".parse().unwrap();
    let both = StaticFile::on(&["eth0"]).own(&VIPS).own_on(other, &["mv0"]);
    let mut agent = Agent::start(a, &both, &[]).unwrap();
    ensure_attached(a, &agent, "native", "link").unwrap();

    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link("mv0");
    assert_eq!(link["xdp"], "generic by link", "{link}");
    assert_eq!(link["tried"][0]["what"], "native by link", "{link}");
    let words = "Underlying driver does not support XDP in native mode";
    let explained = |text: &str| text.contains("native by netlink") && text.contains(words);
    assert!(explained(&link["tried"].to_string()), "{link}");
    let screen = agent.commands().output("status", &[]).unwrap().ok().unwrap();
    assert!(explained(&screen.stdout), "{}", screen.stdout);
    agent.process().wait_line(SOON, explained).unwrap();
    let mac = a.ns().mac("mv0").unwrap();
    let IpAddr::V4(other) = other else { unreachable!() };
    assert_eq!(tools::arping(c.ns(), "eth0", other, &[]).unwrap().one().unwrap(), mac);

    // Who wants the driver only gets no program there, and hears why; the other link works.
    agent.terminate().unwrap();
    let agent = Agent::start(a, &both, &["--xdp-mode", "native"]).unwrap();
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link("mv0");
    assert!(link["xdp"].is_null() && link["error"].as_str().unwrap().contains(words), "{link}");
    assert_eq!(status.state(other.into()), "detached");
    assert_eq!(xdp_on(a.ns(), "mv0").unwrap(), None);
    ensure_answered(c, a).unwrap();
}

#[test]
fn mode_and_way_change_at_a_restart() {
    if !root_or_skip("mode_and_way_change_at_a_restart") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut before = None;
    for (mode, via) in [
        ("native", "link"),
        ("generic", "link"),
        ("generic", "netlink"),
        ("native", "netlink"),
        ("native", "link"),
        ("generic", "netlink"),
        ("native", "link"),
    ] {
        let agent = Agent::start(a, &file(), &["--xdp-mode", mode, "--attach", via]).unwrap();
        let id = ensure_attached(a, &agent, mode, via).unwrap();
        assert_ne!(before.replace(id), Some(id), "a program of the new agent");
        ensure_answered(c, a).unwrap();
        agent.kill().unwrap();
    }
    // Automatic: whatever is there goes on, only the program is replaced.
    let agent = Agent::start(a, &file(), &["--xdp-mode", "generic"]).unwrap();
    ensure_attached(a, &agent, "generic", "link").unwrap();
    agent.kill().unwrap();
    let agent = Agent::start(a, &file(), &[]).unwrap();
    ensure_attached(a, &agent, "generic", "link").unwrap();
}

/// Starts an agent that must refuse because of the program `id`; it must name all `words`.
fn ensure_refused(host: &Node, seen: XdpSeen, words: &[&str]) -> Result<()> {
    let before = Traces::of(host)?;
    for via in ["link", "netlink"] {
        let mut agent = Agent::spawn(host, &file(), &["--attach", via])?;
        let status = agent.process().wait(SOON)?;
        let error = agent.process().stderr();
        ensure!(status.code() == Some(3), "{status}\n{error}");
        let last = error.lines().last().unwrap_or("");
        for word in words.iter().chain(&["eth0", "left alone", &format!("id {}", seen.id)]) {
            ensure!(last.contains(word), "{word} is not in {last}");
        }
        ensure!(xdp_on(host.ns(), "eth0")? == Some(seen), "the program was touched");
        let after = Traces::of(host)?;
        ensure!(after == before, "left behind: {after:?}");
    }
    Ok(())
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() {
    if !root_or_skip("a_program_of_somebody_else_is_named_and_left_alone") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let id = reference_program(a.ns(), "eth0", "pass").unwrap();
    let seen = xdp_on(a.ns(), "eth0").unwrap().unwrap();
    ensure_refused(a, seen, &["(pass)"]).unwrap();
    // The client's directory on bpffs is removed with the lab, too.
    std::fs::create_dir_all(c.bpffs()).unwrap();
    let pin = c.bpffs().join("somebody");
    let pin = pin.to_str().unwrap();
    bpftool(a.ns(), &["prog", "pin", "id", &id.to_string(), pin]).unwrap();
    ensure_refused(a, seen, &["(pass)", pin]).unwrap();
}

#[test]
fn a_link_of_somebody_else_is_named_and_left_alone() {
    if !root_or_skip("a_link_of_somebody_else_is_named_and_left_alone") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    std::fs::create_dir_all(c.bpffs()).unwrap();
    let pin = c.bpffs().join("link");
    pin_xdp_link(a.ns(), &pin).unwrap();
    let seen = xdp_on(a.ns(), "eth0").unwrap().unwrap();
    ensure_refused(a, seen, &["(pass)", pin.to_str().unwrap()]).unwrap();
}

fn pin_xdp_link(ns: &NetNs, pin: &Path) -> Result<()> {
    ns.run(|| {
        let mut object = Ebpf::load_file(paths::object("reference.o")?)?;
        let program: &mut Xdp = object.program_mut("pass").context("no program pass")?.try_into()?;
        program.load()?;
        let id = program.attach("eth0", XdpMode::Driver)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(pin)?;
        Ok(())
    })
}

#[test]
fn others_on_one_of_two_interfaces() {
    if !root_or_skip("others_on_one_of_two_interfaces") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).segments(2).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let id = reference_program(a.ns(), "eth1", "pass").unwrap();
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0", "eth1"]).own(&VIPS), &[]).unwrap();
    ensure_attached_somewhere(&agent, "eth0").unwrap();
    ensure_answered(c, a).unwrap();
    let named = |text: &str| text.contains(&format!("id {id} (pass)")) && text.contains("not ours");
    let status = Status::read(agent.commands()).unwrap();
    assert!(named(status.agent_link("eth1")["error"].as_str().unwrap()), "{status:?}");
    agent.process().wait_line(SOON, |line| line.contains("eth1") && named(line)).unwrap();
    assert_eq!(xdp_on(a.ns(), "eth1").unwrap().map(|x| x.id), Some(id));
    assert_eq!(tools::arping(c.ns(), "eth1", V4, &[]).unwrap().macs, []);

    // The place is taken as soon as it is free.
    a.ns().check(&["ip", "link", "set", "dev", "eth1", "xdp", "off"]).unwrap();
    wait_until("a program on eth1", SOON, || ensure_attached_somewhere(&agent, "eth1").ok()).unwrap();
    let mac = a.nics()[1].mac;
    assert_eq!(tools::arping(c.ns(), "eth1", V4, &[]).unwrap().one().unwrap(), mac);
    assert_eq!(tools::ndisc6(c.ns(), "eth1", V6, &[]).unwrap().one().unwrap(), mac);
}

fn ensure_attached_somewhere(agent: &Agent, link: &str) -> Result<()> {
    let status = Status::read(agent.commands())?;
    ensure!(status.agent_link(link)["xdp"].is_string(), "{status:?}");
    Ok(())
}

/// A clsact filter and a TCX program that are not ours stay through run, restart and detach.
#[test]
fn tc_programs_of_somebody_else_are_left_alone() {
    let test = "tc_programs_of_somebody_else_are_left_alone";
    if !root_or_skip(test) {
        return;
    }
    if !has_tcx() {
        skip(test, "needs a kernel with TCX");
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    std::fs::create_dir_all(c.bpffs()).unwrap();
    a.ns().check(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]).unwrap();
    let filter = ["tc", "filter", "add", "dev", "eth0", "egress", "prio", "7", "protocol", "all", "bpf"];
    let pass = ["bytecode", "1,6 0 0 0", "flowid", "1:1"];
    a.ns().check(&[&filter[..], &pass[..]].concat()).unwrap();
    let pinned = c.bpffs().join("tcx");
    pin_tcx(a.ns(), &pinned).unwrap();
    let others = || {
        let filters = a.ns().check(&["tc", "filter", "show", "dev", "eth0", "egress", "prio", "7"]).unwrap();
        assert!(filters.contains("flowid 1:1"), "{filters}");
        let link = bpftool(a.ns(), &["link", "show", "pinned", pinned.to_str().unwrap()]).unwrap();
        (filters, link)
    };
    let before = (others(), Traces::of(a).unwrap());
    for via in ["link", "netlink", "link"] {
        let agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        ensure_answered(c, a).unwrap();
        let traces = Traces::of(a).unwrap();
        let count = |traces: &Traces| (traces.tcx.len(), traces.filters.len());
        let (tcx, filters) = count(&before.1);
        let expected = if via == "link" { (tcx + 1, filters) } else { (tcx, filters + 1) };
        assert_eq!(count(&traces), expected, "{traces:?}");
        assert_eq!(others(), before.0);
        agent.kill().unwrap();
    }
    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        let commands = agent.commands().clone();
        agent.terminate().unwrap();
        commands.output("detach", &[]).unwrap().ok().unwrap();
        assert_eq!((others(), Traces::of(a).unwrap()), before);
    }
}

fn pin_tcx(ns: &NetNs, pin: &Path) -> Result<()> {
    ns.run(|| {
        let mut object = Ebpf::load_file(paths::object("responder.o")?)?;
        // Ours by its code, but not by its maps: somebody else's.
        let program = object.program_mut("responder_tx").context("no program responder_tx")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options("eth0", TcAttachType::Egress, options)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(pin)?;
        Ok(())
    })
}

/// A filter that is not ours at the very place of ours.
#[test]
fn a_filter_of_somebody_else_in_our_place() {
    if !root_or_skip("a_filter_of_somebody_else_in_our_place") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.ns().check(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]).unwrap();
    let filter = ["tc", "filter", "add", "dev", "eth0", "egress", "prio", "49000", "handle", "0x7e5"];
    let pass = ["protocol", "all", "bpf", "bytecode", "1,6 0 0 0", "flowid", "1:1"];
    a.ns().check(&[&filter[..], &pass[..]].concat()).unwrap();
    let show = || a.ns().check(&["tc", "filter", "show", "dev", "eth0", "egress"]).unwrap();
    let before = show();
    assert!(before.contains("0x7e5") && before.contains("flowid 1:1"), "{before}");
    for (via, egress) in [("auto", if has_tcx() { "tcx" } else { "" }), ("netlink", "")] {
        let mut agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        ensure_answered(c, a).unwrap();
        let status = Status::read(agent.commands()).unwrap();
        let link = status.agent_link("eth0");
        assert_eq!(link["egress"].as_str().unwrap_or(""), egress, "{link}");
        if egress.is_empty() {
            let named = |text: &str| text.contains("egress by clsact") && text.contains("left alone");
            assert!(named(&link["tried"].to_string()), "{link}");
            agent.process().wait_line(SOON, named).unwrap();
        }
        let commands = agent.commands().clone();
        agent.terminate().unwrap();
        commands.output("detach", &[]).unwrap().ok().unwrap();
        assert_eq!(show(), before);
    }
}

/// What an agent that was killed had attached to a link that the next one's file does not name.
#[test]
fn a_link_left_out_at_a_restart_is_left_clean() {
    if !root_or_skip("a_link_left_out_at_a_restart_is_left_clean") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).segments(2).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    for via in ["link", "netlink"] {
        let both = StaticFile::on(&["eth0", "eth1"]).own(&VIPS);
        let agent = Agent::start(a, &both, &["--attach", via]).unwrap();
        let mac = a.nics()[1].mac;
        assert_eq!(tools::arping(c.ns(), "eth1", V4, &[]).unwrap().one().unwrap(), mac);
        agent.kill().unwrap();
        let agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        ensure_attached(a, &agent, "native", via).unwrap();
        ensure_answered(c, a).unwrap();
        assert_eq!(Traces::of(a).unwrap().xdp, ["eth0"], "{via}");
        assert_eq!(tools::arping(c.ns(), "eth1", V4, &[]).unwrap().macs, []);
        agent.terminate().unwrap();
    }
}
