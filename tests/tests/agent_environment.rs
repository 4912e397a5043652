//! Hosts that are not fit, arguments and files that cannot be used, and the operator's commands without an agent:
//! one clear sentence each, an exit code, and nothing left behind.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    Agent, Commands, Lab, Node, Output, StaticFile, Status, bpftool, kernel, paths, reference_program,
    root_or_skip, skip, tools, tools_or_skip, xdp_on,
};
use serde_json::Value;

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

/// Runs `responder run` by another program (none: as it is), to its end.
fn run_by(host: &Node, runner: &[&str], options: &[&str]) -> Result<Output> {
    let commands = Commands::new(host)?;
    commands.write(&file().text())?;
    let mut command =
        if runner.is_empty() { commands.command("run") } else { commands.command_by(runner, "run") };
    command.arg("--static").arg(commands.file()).args(options);
    host.ns().spawn(command)?.finish(SOON)
}

/// It ended with `code` and one sentence with all `words` in it, and nothing is left of it.
fn ensure_refused(host: &Node, output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let error = &output.stderr;
    ensure!(output.code() == Some(code), "{}\n{error}", output.status);
    let said: Vec<_> = error.lines().filter(|line| line.starts_with("responder: ")).collect();
    let [said] = said[..] else { anyhow::bail!("not one sentence:\n{error}") };
    ensure!(error.ends_with(&format!("{said}\n")), "more than one sentence:\n{error}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in {said}");
    }
    ensure!(xdp_on(host.ns(), "eth0")?.is_none(), "a program is left");
    ensure!(!host.bpffs().exists(), "pins are left");
    ensure!(!host.dir().join("run/control.sock").exists(), "a socket is left");
    Ok(())
}

#[test]
fn capabilities_that_are_missing_are_named() {
    let test = "capabilities_that_are_missing_are_named";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    for (dropped, missing, others) in [
        // CAP_SYS_ADMIN stands for CAP_BPF, too.
        ("-bpf,-sys_admin", "CAP_BPF", ["CAP_NET_ADMIN", "CAP_NET_RAW"]),
        ("-net_admin,-sys_admin", "CAP_NET_ADMIN", ["CAP_BPF", "CAP_NET_RAW"]),
        ("-net_raw", "CAP_NET_RAW", ["CAP_BPF", "CAP_NET_ADMIN"]),
    ] {
        let bounding = format!("--bounding-set={dropped}");
        let runner = ["setpriv", &bounding];
        let output = run_by(a, &runner, &[]).unwrap();
        ensure_refused(a, &output, 4, &[missing, "run as root or grant it"]).unwrap();
        assert!(!others.iter().any(|name| output.stderr.contains(name)), "{}", output.stderr);

        let commands = Commands::new(a).unwrap();
        let mut check = commands.command_by(&runner, "check");
        check.args(["--json", "eth0"]);
        let check = a.ns().spawn(check).unwrap().finish(SOON).unwrap();
        assert_eq!(check.code(), Some(4), "{}{}", check.stdout, check.stderr);
        let capabilities = finding(&check, "capabilities").unwrap();
        assert_eq!(capabilities["verdict"], "bad");
        assert!(capabilities["text"].as_str().unwrap().contains(missing), "{capabilities}");
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_needed() {
    let test = "an_ordinary_user_is_told_what_is_needed";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let lab = lab().unwrap();
    let a = lab.node("a");
    let binary = paths::responder().unwrap();
    let reachable = Command::new(nobody[0])
        .args(&nobody[1..])
        .args(["sh", "-c", "test -x \"$0\" && test -x \"$1\""])
        .args([&binary, a.dir()])
        .status();
    if !reachable.unwrap().success() {
        skip(test, &format!("{} or {} is closed to others", binary.display(), a.dir().display()));
        return;
    }
    let output = run_by(a, &nobody, &[]).unwrap();
    ensure_refused(a, &output, 4, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "run as root"]).unwrap();
    // And `check` does not take what he may not do for what the kernel cannot.
    let check = Commands::new(a).unwrap().command_by(&nobody, "check");
    let check = a.ns().spawn(check).unwrap().finish(SOON).unwrap().stdout;
    let memory = check.lines().find(|line| line.contains(" memory ")).unwrap();
    assert!(memory.contains("cannot be told"), "{memory}");
}

#[test]
fn pins_need_a_bpf_file_system() {
    if !root_or_skip("pins_need_a_bpf_file_system") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let ordinary = a.dir().join("pins");
    let ordinary = ordinary.to_str().unwrap();
    let output = run_by(a, &[], &["--bpffs", ordinary]).unwrap();
    let words = [ordinary, "is not on a BPF file system", "mount -t bpf", "--bpffs"];
    ensure_refused(a, &output, 4, &words).unwrap();
    assert!(!Path::new(ordinary).exists(), "a directory was made");
    let commands = Commands::new(a).unwrap();
    let check = commands.output("check", &["--json", "--bpffs", ordinary, "eth0"]).unwrap();
    assert_eq!(check.code(), Some(4));
    let found = finding(&check, "BPF file system").unwrap();
    assert!(found["verdict"] == "bad" && found["text"].as_str().unwrap().contains("mount -t bpf"), "{found}");
}

#[test]
fn static_files_that_cannot_be_used_are_named() {
    if !root_or_skip("static_files_that_cannot_be_used_are_named") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let path = a.dir().join("other.toml");
    let path = path.to_str().unwrap();
    let run = || {
        let mut command = Commands::new(a).unwrap().command("run");
        command.args(["--static", path]);
        a.ns().spawn(command).unwrap().finish(SOON).unwrap()
    };
    ensure_refused(a, &run(), 2, &[path, "No such file"]).unwrap();
    for (text, line, reason) in [
        ("vips = [\n  \"192.0.2.10\",\n  \"192.0.2.300\",\n]\n", 3, "\"192.0.2.300\" is no IPv4 or IPv6"),
        ("interfaces = [\"eth0\"]\n\nvip = []\n", 3, "unknown key \"vip\""),
        ("vips = [\n", 1, ""),
    ] {
        fs::write(path, text).unwrap();
        ensure_refused(a, &run(), 2, &[&format!("{path}:{line}: {reason}")]).unwrap();
    }
}

#[test]
fn a_run_directory_that_cannot_be_made() {
    if !root_or_skip("a_run_directory_that_cannot_be_made") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let blocked = a.dir().join("file");
    fs::write(&blocked, "").unwrap();
    let blocked = blocked.join("run");
    let blocked = blocked.to_str().unwrap();
    let output = run_by(a, &[], &["--run-dir", blocked]).unwrap();
    ensure_refused(a, &output, 1, &[blocked, "cannot listen", "Not a directory"]).unwrap();
}

#[test]
fn commands_without_an_agent() {
    if !root_or_skip("commands_without_an_agent") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let commands = Commands::new(a).unwrap();
    for command in ["status", "watch"] {
        let output = commands.output(command, &[]).unwrap();
        let words = ["responder run", if command == "status" { "--bpffs" } else { "--run-dir" }];
        ensure_refused(a, &output, 5, &words).unwrap();
    }
    Agent::start(a, &file(), &[]).unwrap().kill().unwrap();
    for _ in 0..3 {
        assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    }
    assert_eq!(tools::ndisc6(c.ns(), "eth0", V6, &[]).unwrap().one().unwrap(), a.mac());
    let output = commands.output("watch", &[]).unwrap();
    assert_eq!(output.code(), Some(5), "{}", output.stderr);
    let screen = commands.output("status", &[]).unwrap().ok().unwrap().stdout;
    for word in ["none answers", "eth0", "native", "192.0.2.10", "2001:db8::10", "answering"] {
        assert!(screen.contains(word), "{word} is not in {screen}");
    }
    ensure_equals_maps(a, &Status::read(&commands).unwrap()).unwrap();
}

/// The status tells what bpftool reads from the pins.
fn ensure_equals_maps(host: &Node, status: &Status) -> Result<()> {
    ensure!(status.0["agent"].is_null(), "{status:?}");
    let dump = |name: &str| -> Result<Value> {
        let pin = host.bpffs().join("v3").join(name);
        bpftool(host.ns(), &["map", "dump", "pinned", pin.to_str().context("UTF-8")?])
    };
    let index = host.ns().ifindex("eth0")?;
    for (map, vip) in [("VIPS4", IpAddr::V4(V4)), ("VIPS6", IpAddr::V6(V6))] {
        let entries = dump(map)?;
        let [entry] = &entries.as_array().context("no list")?[..] else {
            anyhow::bail!("one entry in {entries}")
        };
        let (key, value) = (&entry["formatted"]["key"], &entry["formatted"]["value"]);
        let told = status.vip(vip);
        ensure!(key["ifindex"] == index && key["vlan"] == 0, "{key}");
        for (told, held) in [
            (&told["answered"], &value["stats"]["answered"]),
            (&told["suppressed"], &value["stats"]["suppressed"]),
            (&told["slot"], &value["slot"]),
        ] {
            ensure!(told == held && told.is_u64(), "{told} and {held}: {status:?}, {value}");
        }
        ensure!(told["answered"].as_u64() > Some(0), "{told}");
    }
    let cpus = &dump("OUTCOMES")?[0]["formatted"]["values"];
    for (outcome, count) in status.0["received"].as_object().context("received")? {
        let per_cpu = cpus.as_array().into_iter().flatten().map(|cpu| cpu["value"][outcome].as_u64());
        let held: u64 = per_cpu.map(Option::unwrap_or_default).sum();
        // What has come since may be more.
        ensure!(Some(held) >= count.as_u64() && held > 0, "{outcome}: {count} and {held}: {cpus}");
    }
    let link = status.link("eth0");
    let mac = &dump("LINKS")?[0]["formatted"]["value"]["mac"];
    let mac: Vec<String> = mac
        .as_array()
        .into_iter()
        .flatten()
        .map(|byte| format!("{:02x}", byte.as_u64().unwrap_or_default()))
        .collect();
    ensure!(link["mac"] == mac.join(":") && link["ifindex"] == index, "{link}: {mac:?}");
    Ok(())
}

/// The first finding of `check --json` about something.
fn finding(output: &Output, about: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("{}: {}{}", output.command, output.stdout, output.stderr))?;
    let found = all.as_array().into_iter().flatten().find(|finding| finding["about"] == about);
    found.cloned().with_context(|| format!("nothing about {about} in {all}"))
}

#[test]
fn check_says_what_works_and_what_not() {
    if !root_or_skip("check_says_what_works_and_what_not") {
        return;
    }
    let lab = lab().unwrap();
    let a = lab.node("a");
    let commands = Commands::new(a).unwrap();
    let check = commands.output("check", &["--json"]).unwrap();
    assert_eq!(check.code(), Some(0), "{}{}", check.stdout, check.stderr);
    // Frames in several buffers came with 5.18.
    let whole = if kernel() < (5, 18) { "limited" } else { "ok" };
    for (about, verdict, words) in [
        ("kernel", "ok", ""),
        ("multi-buffer XDP", whole, ""),
        ("capabilities", "ok", "CAP_NET_RAW"),
        ("BPF file system", "ok", "can be made"),
        ("load", "ok", "responder_tx"),
        ("eth0", "ok", "veth"),
    ] {
        let found = finding(&check, about).unwrap();
        assert_eq!(found["verdict"], verdict, "{found}");
        assert!(found["text"].as_str().unwrap().contains(words), "{found}");
    }
    assert!(!a.bpffs().exists(), "it only looks");

    let check = commands.output("check", &["eth0", "eth7"]).unwrap();
    assert_eq!(check.code(), Some(4));
    let line = check.stdout.lines().find(|line| line.contains("eth7")).unwrap();
    assert!(line.starts_with("BAD") && line.contains("there is no such interface"), "{line}");

    // A device without native XDP works, with a limit.
    a.ns().ip("link add br7 type bridge\nlink set br7 up").unwrap();
    let check = commands.output("check", &["br7"]).unwrap();
    assert_eq!(check.code(), Some(0), "{}", check.stdout);
    assert!(
        check.stdout.lines().any(|l| l.starts_with("limited") && l.contains("generic")),
        "{}",
        check.stdout
    );

    let agent = Agent::start(a, &file(), &[]).unwrap();
    let id = xdp_on(a.ns(), "eth0").unwrap().unwrap().id;
    let check = commands.output("check", &["eth0"]).unwrap();
    assert_eq!(check.code(), Some(0), "{}", check.stdout);
    assert!(check.stdout.contains(&format!("our program id {id} runs")), "{}", check.stdout);
    agent.terminate().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();

    let id = reference_program(a.ns(), "eth0", "pass").unwrap();
    let check = commands.output("check", &["eth0"]).unwrap();
    assert_eq!(check.code(), Some(4));
    let named = format!("id {id} (pass)");
    assert!(check.stdout.lines().any(|l| l.starts_with("BAD") && l.contains(&named)), "{}", check.stdout);
}

#[test]
fn two_agents_on_one_kernel_do_not_meet() {
    if !root_or_skip("two_agents_on_one_kernel_do_not_meet") {
        return;
    }
    let lab = Lab::builder().hosts(&["a", "b"]).build().unwrap();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    // The index of eth0 may well be the same in both namespaces.
    let first = Agent::start(a, &StaticFile::on(&["eth0"]).own(&VIPS[..1]), &["--fence", "2s"]).unwrap();
    let second = Agent::start(b, &StaticFile::on(&["eth0"]).own(&VIPS[1..]), &[]).unwrap();
    let v4 = || tools::arping(c.ns(), "eth0", V4, &[]).unwrap().macs;
    let v6 = || tools::ndisc6(c.ns(), "eth0", V6, &[]).unwrap().macs;
    assert_eq!((v4(), v6()), (vec![a.mac()], vec![b.mac()]));
    let before = xdp_on(b.ns(), "eth0").unwrap();

    // Each command is about its own.
    let commands = first.commands().clone();
    assert!(Status::read(&commands).unwrap().vip(V6.into()).is_null());
    assert!(Status::read(second.commands()).unwrap().vip(V4.into()).is_null());
    first.kill().unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    assert_eq!((v4(), v6()), (vec![], vec![b.mac()]));
    assert_eq!(xdp_on(b.ns(), "eth0").unwrap(), before);
    assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), None);
    let status = Status::read(second.commands()).unwrap();
    assert_eq!(status.state(V6.into()), "answering");

    // One run directory for both would confuse status and watch: refused.
    let run_dir = second.commands().run_dir().to_str().unwrap().to_owned();
    let output = run_by(a, &[], &["--run-dir", &run_dir]).unwrap();
    ensure_refused(a, &output, 1, &[&run_dir, "another agent listens there", "--run-dir"]).unwrap();
    assert_eq!(Status::read(second.commands()).unwrap().0["agent"]["pid"], status.0["agent"]["pid"]);
}
