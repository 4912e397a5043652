//! Other XDP programs on the same interface: the kernel runs one, so whoever comes second is refused, and who is in the way is
//! named. `xdp-loader` (libxdp) is that of Debian's xdp-tools.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_traces;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, id as own_pid},
    time::Duration,
};

use agent_traces::Traces;
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use responder_lab::{
    Agent, Commands, Lab, NetNs, Node, Output, StaticFile, XdpSeen, bpftool, paths, reference_program,
    root_or_skip, skip, tools, tools_or_skip, wait_until, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn lab() -> Result<Lab> {
    Lab::builder().hosts(&["a"]).build()
}

fn file() -> StaticFile {
    StaticFile::on(&["eth0"]).own(&[IpAddr::V4(VIP)])
}

fn ensure_answered(lab: &Lab) -> Result<()> {
    let (a, c) = (lab.node("a"), lab.node("c"));
    ensure!(tools::arping(c.ns(), "eth0", VIP, &[])?.one()? == a.mac());
    Ok(())
}

/// Agents are refused, in whatever way and mode, and so says `check`; all `words` are said, and nothing is touched.
fn ensure_refused(host: &Node, words: &[&str]) -> Result<()> {
    let before = (xdp_on(host.ns(), "eth0")?, Traces::of(host)?);
    for options in [["--attach", "link"], ["--attach", "netlink"], ["--xdp-mode", "generic"]] {
        let mut agent = Agent::spawn(host, &file(), &options)?;
        let status = agent.process().wait(SOON)?;
        let error = agent.process().stderr();
        ensure!(status.code() == Some(3), "{options:?}: {status}\n{error}");
        ensure_names(error.lines().last().unwrap_or(""), words)?;
        ensure!(
            (xdp_on(host.ns(), "eth0")?, Traces::of(host)?) == before,
            "{options:?}: touched or left behind"
        );
    }
    let check = Commands::new(host)?.output("check", &["eth0"])?;
    ensure!(check.code() == Some(4), "{}", check.stdout);
    let line = check.stdout.lines().find(|line| line.starts_with("BAD"));
    ensure_names(line.context("check finds nothing bad")?, words)
}

fn ensure_names(text: &str, words: &[&str]) -> Result<()> {
    words.iter().try_for_each(|word| {
        ensure!(text.contains(word), "{word} is not in {text}");
        Ok(())
    })
}

/// `xdp-loader WORDS` on a host, with pins that go with the lab.
fn xdp_loader(lab: &Lab, words: &[&str]) -> Result<Output> {
    let bpffs = lab.node("c").bpffs();
    std::fs::create_dir_all(bpffs)?;
    let mut command = Command::new("xdp-loader");
    command.env("LIBXDP_BPFFS", bpffs).args(words);
    lab.node("a").ns().spawn(command)?.finish(SOON)
}

fn load_with_libxdp(lab: &Lab) -> Result<Output> {
    let object = paths::object("reference.o")?;
    let object = object.to_str().context("a path that is no UTF-8")?;
    xdp_loader(lab, &["load", "-m", "native", "-n", "pass", "eth0", object])
}

#[test]
fn who_comes_after_xdp_loader_is_refused() {
    let test = "who_comes_after_xdp_loader_is_refused";
    if !root_or_skip(test) || !tools_or_skip(test, &["xdp-loader"]) {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    load_with_libxdp(&lab).unwrap().ok().unwrap();
    let name = bpftool(a.ns(), &["prog", "show", "id", &seen(a).id.to_string()]).unwrap()["name"].clone();
    // Where the kernel does not let programs be replaced by others (BPF_PROG_TYPE_EXT), libxdp attaches them themselves.
    if name == "xdp_dispatcher" {
        ensure_refused(a, &["(xdp_dispatcher) with programs pass"]).unwrap();
    } else {
        skip(test, "libxdp makes no dispatcher on this kernel; only the plain program is tested");
        ensure_refused(a, &["(pass)"]).unwrap();
    }

    xdp_loader(&lab, &["unload", "--all", "eth0"]).unwrap().ok().unwrap();
    let _agent = Agent::start(a, &file(), &[]).unwrap();
    ensure_answered(&lab).unwrap();
}

fn seen(host: &Node) -> XdpSeen {
    xdp_on(host.ns(), "eth0").unwrap().unwrap()
}

#[test]
fn xdp_loader_is_refused_by_who_came_first() {
    let test = "xdp_loader_is_refused_by_who_came_first";
    if !root_or_skip(test) || !tools_or_skip(test, &["xdp-loader"]) {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        let before = seen(a);
        let output = load_with_libxdp(&lab).unwrap();
        assert_ne!(output.code(), Some(0), "{via}: {}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains("Device or resource busy"), "{via}: {}", output.stderr);
        assert_eq!(seen(a), before, "{via}");
        ensure_answered(&lab).unwrap();
        let commands = agent.commands().clone();
        agent.terminate().unwrap();
        commands.output("detach", &[]).unwrap().ok().unwrap();
    }
}

/// A dispatcher with its pins as libxdp leaves them, also where libxdp itself makes none.
#[test]
fn a_dispatcher_is_named_with_its_programs() {
    let test = "a_dispatcher_is_named_with_its_programs";
    if !root_or_skip(test) {
        return;
    }
    let Some(object) = dispatcher() else {
        skip(test, "needs xdp-dispatcher.o of libxdp (Debian: xdp-tools)");
        return;
    };
    let lab = lab().unwrap();
    let (a, pins) = (lab.node("a"), lab.node("c").bpffs());
    std::fs::create_dir_all(pins).unwrap();
    let pin = pins.join("dispatcher");
    let [object, pin] = [&object, &pin].map(|path| path.to_str().unwrap());
    a.ns().check(&["bpftool", "prog", "load", object, pin, "type", "xdp"]).unwrap();
    a.ns().check(&["ip", "link", "set", "dev", "eth0", "xdpdrv", "pinned", pin]).unwrap();
    std::fs::remove_file(pin).unwrap();
    let id = seen(a).id;
    ensure_refused(a, &[&format!("id {id} (xdp_dispatcher) is attached")]).unwrap();

    let of_it = pins.join(format!("xdp/dispatch-{}-{id}", a.ns().ifindex("eth0").unwrap()));
    std::fs::create_dir_all(&of_it).unwrap();
    for (place, name) in [(0, "pass"), (1, "drop")] {
        pin_reference(name, &of_it.join(format!("prog{place}-prog"))).unwrap();
    }
    ensure_refused(a, &[&format!("id {id} (xdp_dispatcher) with programs pass, drop")]).unwrap();
}

fn dispatcher() -> Option<PathBuf> {
    let places = ["/usr/lib", "/usr/lib64"].into_iter().flat_map(|dir| {
        let arches = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        arches.chain([PathBuf::from(dir)]).collect::<Vec<_>>()
    });
    places.map(|dir| dir.join("bpf/xdp-dispatcher.o")).find(|object| object.exists())
}

fn pin_reference(name: &str, pin: &Path) -> Result<()> {
    let mut object = Ebpf::load_file(paths::object("reference.o")?)?;
    let program: &mut Xdp = object.program_mut(name).context("no such program")?.try_into()?;
    program.load()?;
    program.pin(pin)?;
    Ok(())
}

/// A link that is not pinned goes with the process that holds it, so that one is named.
#[test]
fn the_process_that_holds_a_link_is_named() {
    if !root_or_skip("the_process_that_holds_a_link_is_named") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let held = hold_link(a.ns()).unwrap();
    let links = bpftool(a.ns(), &["link", "show"]).unwrap();
    let id = seen(a).id;
    let link = links.as_array().unwrap().iter().find(|link| link["prog_id"] == id).unwrap();
    ensure_refused(a, &[&format!("(pass) by link id {}", link["id"])]).unwrap();
    // The agent takes little time for looking into other processes.
    let check = Commands::new(a).unwrap().output("check", &["eth0"]).unwrap();
    let held_by = format!("(pid {})", own_pid());
    assert!(check.stdout.contains(&held_by), "{held_by} is not in {}", check.stdout);

    drop(held);
    wait_until("no trace", SOON, || (Traces::of(a).unwrap() == Traces::none()).then_some(())).unwrap();
    let _agent = Agent::start(a, &file(), &[]).unwrap();
    ensure_answered(&lab).unwrap();
}

fn hold_link(ns: &NetNs) -> Result<Ebpf> {
    ns.run(|| {
        let mut object = Ebpf::load_file(paths::object("reference.o")?)?;
        let program: &mut Xdp = object.program_mut("pass").context("no program pass")?.try_into()?;
        program.load()?;
        program.attach("eth0", XdpMode::Driver)?;
        Ok(object)
    })
}

/// Generic mode is no way around a program in the driver: the kernel runs one of the two.
#[test]
fn generic_beside_native() {
    if !root_or_skip("generic_beside_native") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let id = reference_program(a.ns(), "eth0", "pass").unwrap();
    let object = paths::object("reference.o").unwrap();
    let generic = |object: &str| {
        let argv = ["ip", "link", "set", "dev", "eth0", "xdpgeneric", "object", object, "program", "drop"];
        a.ns().check(&argv).unwrap_err().to_string()
    };
    let words = "Native and generic XDP can't be active at the same time";
    let said = generic(object.to_str().unwrap());
    assert!(said.contains(words), "{said}");
    ensure_refused(a, &[&format!("id {id} (pass)"), "not ours"]).unwrap();

    // Nor is there a way around ours.
    a.ns().check(&["ip", "link", "set", "dev", "eth0", "xdp", "off"]).unwrap();
    let _agent = Agent::start(a, &file(), &[]).unwrap();
    let before = seen(a);
    let said = generic(object.to_str().unwrap());
    assert!(said.contains(words), "{said}");
    assert_eq!(seen(a), before);
    ensure_answered(&lab).unwrap();
}
