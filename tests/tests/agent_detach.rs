//! Detaching, and pins that do not fit.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_traces;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use agent_traces::Traces;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use responder_lab::{
    Agent, Commands, Lab, Node, StaticFile, Status, bpftool, program_exists, reference_program, root_or_skip,
    tools, tools_or_skip, wait_until, xdp_on,
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

/// Ids of the programs that are pinned for `host`.
fn pinned_programs(host: &Node) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(host.bpffs().join("v3/progs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ids.push(name.rsplit('-').next().context("kind-ID")?.parse()?);
    }
    ensure!(ids.len() >= 2, "XDP and egress: {ids:?}");
    Ok(ids)
}

/// Detaches; then nothing must be left, in the kernel neither.
fn ensure_detached(host: &Node, commands: &Commands, programs: &[u64], before: &Traces) -> Result<()> {
    let output = commands.output("detach", &[])?.ok()?;
    ensure!(output.stderr.contains("detached from eth0"), "{}", output.stderr);
    ensure!(!commands.run_dir().exists(), "the run directory is left");
    // The kernel frees programs a little later.
    let left = || {
        let programs: Vec<_> =
            programs.iter().filter(|id| program_exists(host.ns(), **id).unwrap_or(true)).collect();
        let traces = Traces::of(host).ok()?;
        (programs.is_empty() && traces == *before).then_some(())
    };
    wait_until("nothing left", SOON, left)
        .with_context(|| format!("{:?}, before {before:?}", Traces::of(host)))?;
    let status = commands.output("status", &[])?;
    ensure!(status.code() == Some(5) && status.stderr.contains("nothing is pinned"), "{}", status.stderr);
    Ok(())
}

fn detaches_all(mode: &str, via: &str) {
    let lab = lab().unwrap();
    let a = lab.node("a");
    for killed in [true, false] {
        let agent = Agent::start(a, &file(), &["--xdp-mode", mode, "--attach", via]).unwrap();
        let programs = pinned_programs(a).unwrap();
        let commands = agent.commands().clone();
        if killed {
            agent.kill().unwrap();
        } else {
            agent.terminate().unwrap();
        }
        ensure_detached(a, &commands, &programs, &Traces::none()).unwrap();
    }
}

#[test]
fn detaches_native_by_link() {
    if root_or_skip("detaches_native_by_link") {
        detaches_all("native", "link");
    }
}

#[test]
fn detaches_native_by_netlink() {
    if root_or_skip("detaches_native_by_netlink") {
        detaches_all("native", "netlink");
    }
}

#[test]
fn detaches_generic_by_link() {
    if root_or_skip("detaches_generic_by_link") {
        detaches_all("generic", "link");
    }
}

#[test]
fn detaches_generic_by_netlink() {
    if root_or_skip("detaches_generic_by_netlink") {
        detaches_all("generic", "netlink");
    }
}

/// Also from a link where somebody else's XDP program was in the way of ours, but not of the egress program.
#[test]
fn detaches_beside_a_program_of_somebody_else() {
    if !root_or_skip("detaches_beside_a_program_of_somebody_else") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).segments(2).build().unwrap();
    let a = lab.node("a");
    reference_program(a.ns(), "eth1", "pass").unwrap();
    let before = Traces::of(a).unwrap();
    assert_eq!(before.xdp, ["eth1"]);
    for via in ["link", "netlink"] {
        let both = StaticFile::on(&["eth0", "eth1"]).own(&VIPS);
        let agent = Agent::start(a, &both, &["--attach", via]).unwrap();
        let programs = pinned_programs(a).unwrap();
        let commands = agent.commands().clone();
        agent.kill().unwrap();
        ensure_detached(a, &commands, &programs, &before).unwrap();
    }
}

/// Two agents in one namespace, each with its own link and pins: what is the other's is somebody else's.
#[test]
fn detaches_beside_another_agent() {
    if !root_or_skip("detaches_beside_another_agent") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).segments(2).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    for via in ["link", "netlink"] {
        let first = Agent::start(a, &file(), &["--attach", via]).unwrap();
        // The client's directory on bpffs is removed with the lab, too.
        let bpffs = c.bpffs().join("second");
        let run_dir = c.dir().join("run");
        let path = c.dir().join("static.toml");
        fs::write(&path, StaticFile::on(&["eth1"]).own(&VIPS).text()).unwrap();
        let commands = first.commands().clone();
        let words = |subcommand: &str| {
            let mut command = commands.command(subcommand);
            command.env("RESPONDER_BPFFS", &bpffs).env("RESPONDER_RUN_DIR", &run_dir);
            command
        };
        let mut command = words("run");
        command.arg("--static").arg(&path).args(["--attach", via]);
        let mut second = a.ns().spawn(command).unwrap();
        second.wait_line(SOON, |line| line.contains("ready")).unwrap();
        let asked = tools::arping(c.ns(), "eth1", V4, &[]).unwrap().one().unwrap();
        assert_eq!(asked, a.nics()[1].mac);
        assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
        second.kill().unwrap();

        // A new first agent has nothing to do with eth1, nor has detaching it.
        let both = Traces::of(a).unwrap();
        first.kill().unwrap();
        let first = Agent::start(a, &file(), &["--attach", via]).unwrap();
        assert_eq!(Traces::of(a).unwrap(), both, "{via}");
        first.terminate().unwrap();
        commands.output("detach", &[]).unwrap().ok().unwrap();
        let left = Traces::of(a).unwrap();
        assert_eq!(left.xdp, ["eth1"], "{via}");
        assert_eq!(left.filters.len() + left.tcx.len(), 1, "{via}: {left:?}");

        let detached = a.ns().spawn(words("detach")).unwrap().finish(SOON).unwrap().ok().unwrap();
        assert!(detached.stderr.contains("detached from eth1"), "{}", detached.stderr);
        wait_until("nothing left", SOON, || (Traces::of(a).ok()? == Traces::none()).then_some(())).unwrap();
    }
}

#[test]
fn detach_refuses_while_an_agent_runs() {
    if !root_or_skip("detach_refuses_while_an_agent_runs") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = Agent::start(a, &file(), &[]).unwrap();
    let before = xdp_on(a.ns(), "eth0").unwrap();
    let output = agent.commands().output("detach", &[]).unwrap();
    assert_eq!(output.code(), Some(1));
    assert!(output.stderr.contains("another agent runs on"), "{}", output.stderr);
    assert!(output.stderr.contains(a.bpffs().to_str().unwrap()), "{}", output.stderr);
    assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), before);
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
}

/// As a pod of deploy/uninstall does it: with two capabilities, and without an end.
#[test]
fn detaches_with_few_capabilities_and_stays() {
    let test = "detaches_with_few_capabilities_and_stays";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let uninstaller = ["setpriv", "--bounding-set=-all,+bpf,+net_admin"];
    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        let commands = agent.commands().clone();
        let start = || {
            let mut command = commands.command_by(&uninstaller, "detach");
            command.arg("--stay");
            a.ns().spawn(command).unwrap()
        };
        let refused = start().finish(SOON).unwrap();
        assert!(refused.code() == Some(1) && refused.stderr.contains("another agent runs on"), "{refused:?}");
        agent.terminate().unwrap();
        let mut detach = start();
        detach.wait_line(SOON, |line| line.contains("waiting for a signal")).unwrap();
        wait_until("nothing left", SOON, || (Traces::of(a).ok()? == Traces::none()).then_some(())).unwrap();
        assert!(detach.try_wait().unwrap().is_none(), "it has ended");
        detach.signal(Signal::SIGTERM).unwrap();
        assert!(detach.wait(SOON).unwrap().success());
    }
}

#[test]
fn detach_where_nothing_is() {
    if !root_or_skip("detach_where_nothing_is") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let commands = Commands::new(a).unwrap();
    let output = commands.output("detach", &[]).unwrap().ok().unwrap();
    assert!(output.stderr.contains("nothing is pinned at"), "{}", output.stderr);
    // Twice is once.
    let agent = Agent::start(a, &file(), &[]).unwrap();
    agent.terminate().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    assert_eq!(Traces::of(a).unwrap(), Traces::none());
}

#[test]
fn another_layout_is_refused() {
    if !root_or_skip("another_layout_is_refused") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    for found in ["v2", "v4"] {
        let other = a.bpffs().join(found);
        fs::create_dir_all(&other).unwrap();
        let mut agent = Agent::spawn(a, &file(), &[]).unwrap();
        assert!(!agent.process().wait(SOON).unwrap().success());
        let commands = agent.commands().clone();
        let mut errors = vec![agent.process().stderr()];
        for command in ["status", "detach"] {
            let output = commands.output(command, &[]).unwrap();
            assert_eq!(output.code(), Some(1), "{command}");
            errors.push(output.stderr);
        }
        for error in errors {
            for word in [found, "v3", "responder detach", "--bpffs", a.bpffs().to_str().unwrap()] {
                assert!(error.contains(word), "{word} is not in {error}");
            }
        }
        let check = commands.output("check", &["eth0"]).unwrap();
        assert_eq!(check.code(), Some(4));
        assert!(check.stdout.contains(&format!("layout {found}")), "{}", check.stdout);
        assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), None);
        let names: Vec<_> = fs::read_dir(a.bpffs()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [found], "nothing was added");
        fs::remove_dir(other).unwrap();
    }
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    if !root_or_skip("a_pinned_map_of_another_shape_is_refused") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    fs::create_dir_all(a.bpffs().join("v3")).unwrap();
    let pin = a.bpffs().join("v3/VIPS4");
    let shape = ["type", "hash", "key", "12", "value", "56", "entries", "16", "name", "VIPS4"];
    let create = ["bpftool", "map", "create", pin.to_str().unwrap()];
    a.ns().check(&[&create[..], &shape[..]].concat()).unwrap();
    let mut agent = Agent::spawn(a, &file(), &[]).unwrap();
    assert_eq!(agent.process().wait(SOON).unwrap().code(), Some(1));
    let error = agent.process().stderr();
    for word in [pin.to_str().unwrap(), "value size", "56", "48", "responder detach"] {
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), None);
    // The way out that it names is one.
    let commands = agent.commands().clone();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    Agent::start(a, &file(), &[]).unwrap();
}

#[test]
fn a_full_map_leaves_out_some_and_names_them() {
    if !root_or_skip("a_full_map_leaves_out_some_and_names_them") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let v4: Vec<Ipv4Addr> = (10..16).map(|n| Ipv4Addr::new(192, 0, 2, n)).collect();
    let all: Vec<IpAddr> = v4.iter().map(|ip| IpAddr::V4(*ip)).chain([V6.into()]).collect();
    let six = StaticFile::on(&["eth0"]).own(&all);
    let mut agent = Agent::start(a, &six, &["--capacity", "4"]).unwrap();
    let answered = tools::arp_scan(c.ns(), "eth0", &v4).unwrap();
    assert_eq!(answered.iter().map(|(ip, _)| *ip).collect::<Vec<_>>(), v4[..4]);
    assert_eq!(tools::ndisc6(c.ns(), "eth0", V6, &[]).unwrap().one().unwrap(), a.mac());
    let status = Status::read(agent.commands()).unwrap();
    let refused = status.0["agent"]["refused"].as_array().unwrap();
    let names: Vec<_> = refused.iter().map(|r| r[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["192.0.2.14", "192.0.2.15"]);
    let way_out = |text: &str| text.contains("room for 4") && text.contains("--capacity");
    assert!(refused.iter().all(|r| way_out(r[2].as_str().unwrap())), "{refused:?}");
    for name in &names {
        agent.process().wait_line(SOON, |line| line.contains(name) && way_out(line)).unwrap();
    }
    let screen = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(names.iter().all(|n| screen.contains(&format!("refused {n}"))), "{screen}");

    // Where there is room again, one of the others is taken.
    agent.write(&StaticFile::on(&["eth0"]).own(&all[1..])).unwrap();
    Status::wait(agent.commands(), "192.0.2.14", SOON, |s| s.state(all[4]) == "answering").unwrap();
    assert_eq!(tools::arping(c.ns(), "eth0", v4[4], &[]).unwrap().one().unwrap(), a.mac());

    // Maps keep their size at a restart, and the agent says so; the way out is one.
    agent.kill().unwrap();
    let mut agent = Agent::start(a, &six, &["--capacity", "16"]).unwrap();
    let kept = |line: &str| line.contains("keep their size") && line.contains("responder detach");
    agent.process().wait_line(SOON, kept).unwrap();
    let commands = agent.commands().clone();
    agent.terminate().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    let _agent = Agent::start(a, &six, &["--capacity", "16"]).unwrap();
    assert_eq!(tools::arp_scan(c.ns(), "eth0", &v4).unwrap().len(), v4.len());
    let map = bpftool(a.ns(), &["map", "show", "pinned", a.bpffs().join("v3/VIPS4").to_str().unwrap()]);
    assert_eq!(map.unwrap()["max_entries"], 16);
}

/// Somebody removes the pins by hand: the agent ends and says why, and nothing of it is left in the way of the next.
#[test]
fn pins_removed_under_an_agent() {
    if !root_or_skip("pins_removed_under_an_agent") {
        return;
    }
    for via in ["link", "netlink"] {
        let lab = lab().unwrap();
        let a = lab.node("a");
        let mut agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        fs::remove_dir_all(a.bpffs().join("v3")).unwrap();
        let status = agent.process().wait(SOON).unwrap();
        assert_eq!(status.code(), Some(1), "{via}");
        let said = agent.process().stderr();
        assert!(said.contains("removed under the agent") && said.contains("start it again"), "{said}");
        drop(agent);
        let gone = || xdp_on(a.ns(), "eth0").ok()?.is_none().then_some(());
        wait_until("no program on eth0", SOON, gone).unwrap();
        let next = Agent::start(a, &file(), &["--attach", via]).unwrap();
        next.terminate().unwrap();
    }
}
