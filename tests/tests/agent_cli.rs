//! The commands as an operator meets them: help, messages, exit codes, output for people and for programs.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
#[path = "agent_cli/service.rs"]
mod service;

use std::{
    fs,
    io::pipe,
    process::{Command, Output},
    time::Duration,
};

use agent_support::{SOON, assert_answers, one_host, question, v4, v6, wait_states};
use responder_lab::{
    Agent, Commands, Lab, Mac, Prober, Probing, StaticFile,
    frames::{Arp, arp},
    paths, root_or_skip, send_all, tools_or_skip, wait_until,
};
use serde_json::Value;

/// Runs `responder ARGS` where no namespace is needed.
fn responder(args: &[&str]) -> Output {
    let mut command = Command::new(paths::responder().unwrap());
    command.args(args).env("COLUMNS", "100").output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = responder(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that `responder --help` lists.
fn subcommands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let first = |l: &str| !l.starts_with("   "); // others go on with the line before
    list.lines().filter(|l| first(l)).filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_examples_and_every_flag_a_variable() {
    let commands = subcommands();
    for wanted in [
        "run",
        "status",
        "watch",
        "why",
        "drain",
        "rebalance",
        "claims",
        "check",
        "log",
        "detach",
        "completions",
    ] {
        assert!(commands.contains(&wanted.to_owned()), "{commands:?}");
    }
    let help = stdout(&["--help"]);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    for command in commands.iter().filter(|c| *c != "help") {
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Example"), "{command}: {help}");
        let options = help.split("Options:\n").nth(1).unwrap().split("\nExample").next().unwrap();
        let is_option = |line: &str| line.trim_start().starts_with('-') && line.contains("--");
        let mut option = String::new();
        let mut all = Vec::new();
        for line in options.lines() {
            if is_option(line) && !line.trim_start().starts_with("- ") {
                all.push(std::mem::take(&mut option));
            }
            option += line.trim(); // however it is wrapped
            option.push(' ');
        }
        all.push(option);
        for option in all.iter().filter(|o| !o.trim().is_empty() && !o.contains("--help")) {
            assert!(option.contains("[env: RESPONDER_"), "{command}: {option}");
        }
    }
    assert_eq!(stdout(&["--version"]).trim(), concat!("responder ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn variables_stand_for_flags() {
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(paths::responder().unwrap());
        let output = command.args(args).envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let file = ("RESPONDER_STATIC", "none.toml");
    for (variable, value, message) in [
        ("RESPONDER_FENCE", "10ms", "too short"),
        ("RESPONDER_ANNOUNCE_RATE", "0", "0 is not in 1.."),
        ("RESPONDER_XDP_MODE", "foo", "possible values: auto, native, generic"),
        ("RESPONDER_ATTACH", "foo", "possible values: auto, link, netlink"),
        ("RESPONDER_EBPF_LOG", "perhaps", "value was not a boolean"),
        ("RESPONDER_SET_VLAN_OFFLOAD", "perhaps", "value was not a boolean"),
        ("RESPONDER_SUPPRESS", "1s", "--suppress 1s is shorter than --fence 10s"),
        // Right ones: only the file is missing.
        ("RESPONDER_EBPF_LOG", "1", "cannot read none.toml"),
        ("RESPONDER_EBPF_LOG", "no", "cannot read none.toml"),
        ("RESPONDER_FENCE", "3s", "cannot read none.toml"),
    ] {
        let (code, text) = run(&[file, (variable, value)], &["run"]);
        assert!(text.contains(message), "{variable}={value}: {text}");
        assert_eq!(code, Some(2), "{variable}={value}: {text}");
    }
}

#[test]
fn wrong_arguments_say_what_would_be_right() {
    for (args, message) in [
        (&["--fence", "10ms"][..], "200ms is the least"),
        (&["--fence", "soon"], "write a time like 500ms, 10s or 1h"),
        (&["--announce-rate", "0"], "0 is not in 1.."),
        (&["--announce-interval", "3x"], "write a time like 500ms, 10s or 1h"),
        (&["--suppress", "5s", "--fence", "6s"], "make it at least as long"),
        (&["--xdp-mode", "foo"], "possible values: auto, native, generic"),
        (&["--on-exit", "stay"], "possible values: keep, withdraw"),
        (&["--log-format", "xml"], "possible values: text, json"),
        (&["--capacity", "0"], "0 is not in 1.."),
        (&["--frence", "1s"], "unexpected argument '--frence'"),
        (&[], "cannot read none.toml: No such file or directory"),
    ] {
        let output = responder(&[&["run", "--static", "none.toml"], args].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(message), "{args:?}: {text}");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
    }
    let output = responder(&["run", "--lease-duration", "1ms"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("--lease-duration 1ms is not within"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn without_an_agent_status_and_watch_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for (command, message) in
        [("status", "nothing is pinned at"), ("watch", "no agent answers in"), ("log", "no agent answers in")]
    {
        let output = responder(&[command, "--bpffs", &format!("{dir}/none"), "--run-dir", dir]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(message) && text.contains("responder run"), "{text}");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), &b""[..]));
    }
}

fn completions_parse(test: &str, shell: &str, options: &[&str]) {
    if !tools_or_skip(test, &[shell]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("responder");
    let script = stdout(&["completions", shell]);
    assert!(script.contains("announce-rate"), "{script}");
    fs::write(&path, script).unwrap();
    let output = Command::new(shell).args(options).arg(&path).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn completions_for_bash() {
    completions_parse("completions_for_bash", "bash", &["-n"]);
}

#[test]
fn completions_for_zsh() {
    completions_parse("completions_for_zsh", "zsh", &["-n"]);
}

#[test]
fn completions_for_fish() {
    completions_parse("completions_for_fish", "fish", &["--no-execute"]);
}

/// Runs a command whose output nobody reads any more.
fn unread(lab: &Lab, mut command: Command) -> Output {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    lab.node("a").ns().run(|| Ok(command.stdout(writer).output()?)).unwrap()
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    if !root_or_skip("output_that_nobody_reads_is_no_error") {
        return;
    }
    let lab = one_host(1);
    let agent = Agent::start(lab.node("a"), &StaticFile::on(&["eth0"]).own(&[v4(10)]), &[]).unwrap();
    let commands = agent.commands();
    let mut completions = commands.command("completions");
    completions.arg("bash");
    let mut json = commands.command("status");
    json.arg("--json");
    for command in [completions, json, commands.command("status"), commands.command("check")] {
        let shown = format!("{command:?}");
        let output = unread(&lab, command);
        let text = String::from_utf8(output.stderr).unwrap();
        // `check` may have found something bad.
        assert!(matches!(output.status.code(), Some(0 | 4)) && text.is_empty(), "{shown}: {text}");
    }
    // A watching client learns of it at the next event.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut watch = lab.node("a").ns().run(|| Ok(commands.command("watch").stdout(writer).spawn()?)).unwrap();
    let mut n = 20;
    let ended = wait_until("the end of watch", SOON, || {
        n = if n == 20 { 21 } else { 20 };
        agent.write(&StaticFile::on(&["eth0"]).own(&[v4(10), v4(n)])).unwrap();
        watch.try_wait().unwrap()
    });
    assert!(ended.unwrap().success());
}

#[test]
fn colours_only_on_a_terminal_that_wants_them() {
    let test = "colours_only_on_a_terminal_that_wants_them";
    if !root_or_skip(test) || !tools_or_skip(test, &["script"]) {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &[]).unwrap();
    let commands = agent.commands().clone();
    let binary = paths::responder().unwrap();
    let environment =
        format!("RESPONDER_BPFFS={} RESPONDER_RUN_DIR={}", a.bpffs().display(), commands.run_dir().display());
    for (variable, coloured) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let line = format!("env {variable} {environment} {} status", binary.display());
        let shown = a.ns().check(&["script", "-qec", &line, "/dev/null"]).unwrap();
        assert!(shown.contains("answering"), "{shown}");
        assert_eq!(shown.contains("\x1b["), coloured, "{variable}: {shown:?}");
    }
    let mut command = commands.command("status");
    command.env_remove("NO_COLOR");
    let shown = a.ns().spawn(command).unwrap().finish(SOON).unwrap().ok().unwrap().stdout;
    assert!(shown.contains("answering") && !shown.contains('\x1b'), "not a terminal: {shown:?}");
    assert!(!agent.process().stderr().contains('\x1b'));
}

#[test]
fn the_log_as_json_to_the_last_word() {
    if !root_or_skip("the_log_as_json_to_the_last_word") {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]);
    let mut agent = Agent::start(a, &file, &["--log-format", "json"]).unwrap();
    agent.commands().write("vips = [").unwrap();
    agent.process().wait_line(SOON, |l| l.contains("static file rejected")).unwrap();
    agent.write(&file.clone().own(&[v6(0x10)])).unwrap();
    agent.process().wait_line(SOON, |l| l.contains("2001:db8::10")).unwrap();
    agent.process().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(agent.process().wait(SOON).unwrap().success());
    let json = |text: &str| {
        let lines =
            text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
        lines.collect::<Vec<_>>()
    };
    let lines = json(&agent.process().stderr());
    assert!(
        lines.iter().any(|l| l["level"] == "ERROR" && l["reason"].to_string().contains(":1: ")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|l| l["message"] == "gained" && l["vip"] == "2001:db8::10"), "{lines:?}");
    // One that cannot start says why in the same way.
    let output = responder(&["run", "--static", "none.toml", "--log-format", "json"]);
    let lines = json(&String::from_utf8(output.stderr).unwrap());
    assert!(
        lines.last().unwrap()["message"].as_str().unwrap().contains("cannot read none.toml"),
        "{lines:?}"
    );
    assert_eq!((lines.last().unwrap()["exit_code"].as_u64(), output.status.code()), (Some(2), Some(2)));
}

#[test]
fn watch_for_people_and_for_programs() {
    if !root_or_skip("watch_for_people_and_for_programs") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]);
    let mut agent = Agent::start(a, &file, &[]).unwrap();
    let programs = agent_support::Watch::start(a, &mut agent);
    let mut people = a.ns().spawn(agent.commands().command("watch")).unwrap();
    // Until it is connected, events pass it by.
    let mut n = 30;
    wait_until("the first event", SOON, || {
        n = if n == 30 { 31 } else { 30 };
        agent.write(&file.clone().own(&[v4(n)])).unwrap();
        people.stdout().contains("configured").then_some(())
    })
    .unwrap();
    agent.write(&file.clone().own(&[v4(40)])).unwrap();
    people.wait_line(SOON, |l| l == "configured    2 addresses, 0 refused").unwrap();
    let gained = "gained        192.0.2.40 on eth0: the static file names it, and the link is ready";
    people.wait_line(SOON, |l| l == gained).unwrap();
    people.wait_line(SOON, |l| l == "announced     192.0.2.40 on eth0 at 02:00:00:00:00:51").unwrap();
    agent.write(&file).unwrap();
    let lost = "lost          192.0.2.40 on eth0: the static file does not name it any more";
    people.wait_line(SOON, |l| l == lost).unwrap();
    agent.commands().write("vips = [7]").unwrap();
    people.wait_line(SOON, |l| l.starts_with("rejected ") && l.contains("static.toml:1: a VIP is")).unwrap();
    let foreign = Mac([2, 0, 0, 0, 0, 0xee]);
    let std::net::IpAddr::V4(vip) = v4(10) else { panic!("an IPv4 address") };
    let claim = arp(Mac::BROADCAST, Arp { op: 1, sha: foreign, spa: vip, tha: Mac::ZERO, tpa: vip });
    send_all(c.ns(), "eth0", &[claim]).unwrap();
    people
        .wait_line(SOON, |l| {
            l == format!("conflict      192.0.2.10 on eth0 claimed by {foreign} (arp, 1 so far)")
        })
        .unwrap();
    programs.wait_vip("conflict", v4(10));
    let told: std::collections::BTreeSet<_> =
        programs.events().iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
    for kind in ["configured", "gained", "announced", "lost", "config_rejected", "conflict"] {
        assert!(told.contains(kind), "{told:?}");
    }
    // It ends with the agent.
    agent.kill().unwrap();
    assert!(people.wait(SOON).unwrap().success());
}

#[test]
fn frames_are_logged_only_on_request_and_switching_it_on_is_hitless() {
    if !root_or_skip("frames_are_logged_only_on_request_and_switching_it_on_is_hitless") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]).standby(&[v4(11)]);
    let mut agent = Agent::start(a, &file, &[]).unwrap();
    assert_answers(c, "eth0", v4(10), a.mac());
    assert!(!agent.process().stderr().contains("outcome"), "{}", agent.process().stderr());
    let prober = Prober::start(c.ns(), Probing::new(v4(10), Duration::from_millis(2))).unwrap();
    prober.wait_answer_by(a.mac(), SOON).unwrap();
    agent.kill().unwrap();
    let mut agent = Agent::start(a, &file, &["--ebpf-log"]).unwrap();
    prober.wait_answers(20, SOON).unwrap();
    let report = prober.stop().unwrap();
    assert!(report.unanswered.is_empty(), "{:?}", report.silences);
    let index = format!("ifindex={}", a.ns().ifindex("eth0").unwrap());
    agent.process().wait_line(SOON, |l| l.contains(&index) && l.contains("\"arp_answered\"")).unwrap();
    send_all(c.ns(), "eth0", &[question(c, "eth0", v4(11)), question(c, "eth0", v6(0x99))]).unwrap();
    for outcome in ["\"suppressed_standby\"", "\"ns_not_ours\""] {
        agent.process().wait_line(SOON, |l| l.contains(&index) && l.contains(outcome)).unwrap();
    }
    wait_states(agent.commands(), &[(v4(10), "eth0", "answering"), (v4(11), "eth0", "standby")]);
    assert!(Commands::new(a).unwrap().status().unwrap()["received"]["arp_answered"].as_u64().unwrap() > 0);
}

#[test]
fn the_agent_is_found_by_its_maps_whatever_its_directory_is_called() {
    let test = "the_agent_is_found_by_its_maps_whatever_its_directory_is_called";
    if !root_or_skip(test) || !tools_or_skip(test, &["mount", "unshare"]) {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &[]).unwrap();
    // As in a pod's mount namespace and the host's.
    let elsewhere = lab.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let places = [a.bpffs(), &elsewhere].map(|path| path.to_str().unwrap());
    let runner = ["unshare", "--mount", "sh", "-c", script, places[0], places[1]];
    let mut command = agent.commands().command_by(&runner, "status");
    command.args(["--json", "--bpffs", places[1]]);
    let output = a.ns().spawn(command).unwrap().finish(SOON).unwrap().ok().unwrap();
    let seen: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!([&seen["bpffs"], &seen["agent"]["bpffs"]], [places[1], places[0]], "{seen}");
    assert_eq!(seen["vips"][0]["state"], "answering", "{seen}");
}
