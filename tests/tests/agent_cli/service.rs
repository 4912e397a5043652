//! The systemd unit: right in itself, and the agent runs with what it grants.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use responder_lab::{Agent, Commands, StaticFile, kernel, paths, root_or_skip, tools_or_skip, wait_until};

use super::agent_support::{SOON, assert_answers, one_host, states, v4, v6};

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/responder.service")).unwrap()
}

/// The value of a setting that is there once.
fn setting(key: &str) -> String {
    let unit = unit();
    let values: Vec<_> = unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].to_owned()
}

#[test]
fn systemd_understands_the_unit() {
    if !tools_or_skip("systemd_understands_the_unit", &["systemd-analyze"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("responder.service");
    // The binary must exist for this to be content.
    let binary = paths::responder().unwrap();
    fs::write(&path, unit().replace("/usr/local/bin/responder", binary.to_str().unwrap())).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    // What it does not understand it only ignores. Other units of the machine are not ours to mend.
    assert!(!text.contains("responder.service"), "{text}");
}

#[test]
fn the_command_line_of_the_unit_is_understood() {
    let command = setting("ExecStart");
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/responder"));
    let output = Command::new(paths::responder().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // All is right but the file, which is not there.
    assert!(text.contains("cannot read /etc/responder/vips.toml"), "{text}");
}

#[test]
fn the_agent_runs_with_the_unit_s_capabilities_alone() {
    let test = "the_agent_runs_with_the_unit_s_capabilities_alone";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let names = setting("CapabilityBoundingSet");
    let granted: BTreeSet<_> = names.split_whitespace().collect();
    assert_eq!(granted, setting("AmbientCapabilities").split_whitespace().collect());
    let list = granted.iter().fold("-all".to_owned(), |list, name| {
        list + ",+" + &name.strip_prefix("CAP_").unwrap().to_lowercase()
    });
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let commands = Commands::new(a).unwrap();
    let vips = [v4(10), v6(0x10)];
    commands.write(&StaticFile::on(&["eth0"]).own(&vips).text()).unwrap();
    let run = commands.command("run");
    let mut command = Command::new("setpriv");
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.arg(format!("{set}={list}"));
    }
    command.arg("--no-new-privs").arg(run.get_program()).args(run.get_args());
    command.arg("--static").arg(commands.file());
    command.envs(run.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut process = a.ns().spawn(command).unwrap();
    let ready = wait_until("the agent", SOON, || {
        commands.status().ok().filter(|s| !s["agent"].is_null() && states(s).len() == 2)
    });
    let status = ready.unwrap_or_else(|e| panic!("{e}: {}", process.last_words()));
    let caps = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let effective = caps.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap().trim();
    let effective = u64::from_str_radix(effective, 16).unwrap();
    assert_eq!(effective.count_ones() as usize, granted.len(), "{effective:#x}");
    for vip in vips {
        assert_answers(c, "eth0", vip, a.mac());
    }
    let link = &status["agent"]["links"]["eth0"];
    // TCX came with 6.6.
    let egress = if kernel() >= (6, 6) { "tcx" } else { "clsact" };
    assert_eq!((&link["xdp"], &link["egress"]), (&"native by link".into(), &egress.into()), "{link}");
    assert!(!process.stderr().contains("WARN"), "{}", process.stderr());
    process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(process.wait(SOON).unwrap().success());

    // What it leaves, it takes over, and an agent with all capabilities takes over from it.
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips), &[]).unwrap();
    assert_answers(c, "eth0", v4(10), a.mac());
    assert!(agent.terminate().unwrap().success());
}
