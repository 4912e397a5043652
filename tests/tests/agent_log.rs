//! The log of an agent: levels that are changed while it runs, causes, and no line for a packet.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;

use std::net::IpAddr;

use agent_support::{SOON, assert_answers, one_host, question, v4};
use responder_lab::{
    Agent, Mac, StaticFile,
    frames::{Arp, arp},
    root_or_skip, send_all, wait_until,
};

/// Frames of each kind.
const FRAMES: usize = 2000;

#[test]
fn the_level_is_changed_while_the_agent_runs() {
    if !root_or_skip("the_level_is_changed_while_the_agent_runs") {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]);
    let mut agent = Agent::start(a, &file, &[]).unwrap();
    let commands = agent.commands().clone();
    let log = |level: &[&str]| {
        let mut command = commands.command("log");
        command.args(level);
        a.ns().spawn(command).unwrap().finish(SOON).unwrap()
    };
    assert_eq!(log(&[]).ok().unwrap().stdout.trim(), "info");
    assert_eq!(log(&["warn"]).ok().unwrap().stdout.trim(), "warn");
    agent
        .process()
        .wait_line(SOON, |line| line.contains("log level changed") && line.contains("warn"))
        .unwrap();
    agent.write(&file.clone().own(&[v4(11)])).unwrap();
    assert_answers(lab.node("c"), "eth0", v4(11), a.mac());
    assert!(!agent.process().stderr().contains("192.0.2.11"), "{}", agent.process().stderr());

    assert_eq!(
        log(&["info,responder_user::agent=trace"]).ok().unwrap().stdout.trim(),
        "info,responder_user::agent=trace"
    );
    agent.write(&file).unwrap();
    agent
        .process()
        .wait_line(SOON, |line| {
            line.contains("lost") && line.contains("the static file does not name it any more")
        })
        .unwrap();
    for bad in ["loud", "info,x=loud"] {
        let output = log(&[bad]);
        assert_eq!(output.code(), Some(2), "{output:?}");
        assert!(output.stderr.contains("is no level") && output.stderr.contains("debug"), "{output:?}");
    }
    assert_eq!(
        log(&[]).ok().unwrap().stdout.trim(),
        "info,responder_user::agent=trace",
        "what is wrong changes nothing"
    );
    agent.kill().unwrap();
    assert_eq!(log(&[]).code(), Some(5));
}

/// Questions, and claims of an address by another station, which are conflicts.
#[test]
fn there_is_no_line_for_a_packet() {
    if !root_or_skip("there_is_no_line_for_a_packet") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]).standby(&[v4(11)]);
    let mut agent = Agent::start(a, &file, &[]).unwrap();
    let commands = agent.commands().clone();
    commands_log(a, &commands, "debug");
    assert_answers(c, "eth0", v4(10), a.mac());
    let before = agent.process().stderr().lines().count();
    let IpAddr::V4(vip) = v4(10) else { panic!("an IPv4 address") };
    let foreign = Mac([2, 0, 0, 0, 0, 0xee]);
    let claim = arp(Mac::BROADCAST, Arp { op: 1, sha: foreign, spa: vip, tha: Mac::ZERO, tpa: vip });
    let three = [question(c, "eth0", v4(10)), question(c, "eth0", v4(11)), claim];
    let frames: Vec<_> = three.iter().cycle().take(FRAMES * three.len()).cloned().collect();
    send_all(c.ns(), "eth0", &frames).unwrap();
    wait_until("all frames counted", SOON, || {
        let status = commands.status().ok()?;
        let vips = status["vips"].as_array()?.clone();
        let sum = |key: &str| vips.iter().filter_map(|vip| vip[key].as_u64()).sum::<u64>();
        let least = FRAMES as u64;
        let all = sum("answered") >= least && sum("suppressed") >= least && sum("conflicts") >= least;
        if !all {
            // A veth of old kernels loses what comes too fast for a slow processor.
            send_all(c.ns(), "eth0", &frames[..three.len() * 10]).unwrap();
        }
        all.then_some(())
    })
    .unwrap();
    let log = agent.process().stderr();
    let lines: Vec<_> = log.lines().skip(before).collect();
    assert!(lines.iter().any(|line| line.contains("claims this address")), "{lines:?}");
    assert!(lines.len() < 60, "{} lines for {} frames: {lines:?}", lines.len(), frames.len());
}

fn commands_log(node: &responder_lab::Node, commands: &responder_lab::Commands, level: &str) {
    let mut command = commands.command("log");
    command.arg(level);
    node.ns().spawn(command).unwrap().finish(SOON).unwrap().ok().unwrap();
}
