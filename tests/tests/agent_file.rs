//! The static file: what it can say, and how edits of it take effect.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
#[path = "agent_file/edits.rs"]
mod edits;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use agent_support::{
    BY_EVENT, SOON, answer_for, assert_answers, assert_silent, one_host, question, v4, v6, wait_states,
    wait_status,
};
use responder_lab::{Agent, Capture, Lab, Node, StaticFile, root_or_skip, send_all, wait_until};

/// Starts the agent of `a` with this text as its static file.
pub(crate) fn start_with(a: &Node, text: &str, options: &[&str]) -> Agent {
    let mut agent = Agent::spawn(a, &StaticFile::on(&["none"]), options).unwrap();
    agent.commands().write(text).unwrap();
    agent.wait_ready().unwrap();
    agent
}

#[test]
fn both_forms_patterns_and_interfaces_of_one_address() {
    if !root_or_skip("both_forms_patterns_and_interfaces_of_one_address") {
        return;
    }
    let lab = one_host(2);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let (mac0, mac1) = (a.nics()[0].mac, a.nics()[1].mac);
    let other = IpAddr::from([198, 51, 100, 20]);
    let text = "interfaces = ['eth0']\nvips = [\n  '192.0.2.10',\n  { address = '2001:db8::10', interfaces = \
                ['e?h*'] },\n  { address = '198.51.100.20', interfaces = ['eth1'] },\n  { address = \
                '192.0.2.11', standby = true },\n]\n";
    let agent = start_with(a, text, &[]);
    wait_states(
        agent.commands(),
        &[
            (v4(10), "eth0", "answering"),
            (v6(0x10), "eth0", "answering"),
            (v6(0x10), "eth1", "answering"),
            (other, "eth1", "answering"),
            (v4(11), "eth0", "standby"),
        ],
    );
    assert_answers(c, "eth0", v4(10), mac0);
    assert_answers(c, "eth0", v6(0x10), mac0);
    assert_answers(c, "eth1", v6(0x10), mac1);
    assert_answers(c, "eth1", other, mac1);
    assert_silent(c, "eth0", v4(11), (v4(10), mac0));
    assert_silent(c, "eth0", other, (v4(10), mac0));
    assert_silent(c, "eth1", v4(10), (other, mac1));
}

#[test]
fn without_interfaces_that_of_the_default_route() {
    if !root_or_skip("without_interfaces_that_of_the_default_route") {
        return;
    }
    let lab = one_host(2);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = start_with(a, "vips = ['192.0.2.10']\n", &[]);
    let commands = agent.commands();
    wait_status(commands, "the missing default route", |s| {
        s["agent"]["waiting"].to_string().contains("there is no default route")
    });
    let start = Instant::now();
    a.ns().ip("route add default via 192.0.2.101").unwrap();
    assert_answers(c, "eth0", v4(10), a.nics()[0].mac);
    println!("default route to answer: {:?}", start.elapsed());
    assert!(start.elapsed() < BY_EVENT, "by an event, not by the inspection: {:?}", start.elapsed());
    a.ns().ip("route replace default via 198.51.100.101").unwrap();
    assert_answers(c, "eth1", v4(10), a.nics()[1].mac);
    wait_states(commands, &[(v4(10), "eth1", "answering")]);
}

/// 10.1.x.y and 2001:db8:1::n.
fn many(count: u32) -> Vec<IpAddr> {
    let v4 = (0..count / 2).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0001 + n)));
    let first = u128::from_be_bytes([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let v6 = (0..count / 2).map(|n| IpAddr::V6(Ipv6Addr::from_bits(first + u128::from(n))));
    v4.chain(v6).collect()
}

/// Asks for all until each has been answered by host `a`; returns those that never were.
fn unanswered(lab: &Lab, vips: &[IpAddr]) -> BTreeSet<IpAddr> {
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut left: BTreeSet<IpAddr> = vips.iter().copied().collect();
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    // Twice more for what a full queue on the way has dropped.
    for _ in 0..3 {
        // In parts, for the same reason.
        for part in left.clone().into_iter().collect::<Vec<_>>().chunks(500) {
            let questions: Vec<_> = part.iter().map(|vip| question(c, "eth0", *vip)).collect();
            send_all(c.ns(), "eth0", &questions).unwrap();
            let heard = wait_until("the answers", Duration::from_secs(1), || {
                for frame in capture.frames() {
                    if let Some((vip, _)) = frame.claim()
                        && answer_for(&frame, vip) == Some(a.mac())
                    {
                        left.remove(&vip);
                    }
                }
                capture.clear();
                part.iter().all(|vip| !left.contains(vip)).then_some(())
            });
            drop(heard); // what is missing is asked for again
        }
    }
    left
}

#[test]
fn ten_thousand_addresses_of_both_families() {
    if !root_or_skip("ten_thousand_addresses_of_both_families") {
        return;
    }
    let lab = one_host(1);
    let a = lab.node("a");
    let vips = many(10_000);
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]), &["--announce-rate", "1000"]).unwrap();
    let start = Instant::now();
    agent.write(&StaticFile::on(&["eth0"]).own(&vips)).unwrap();
    wait_status(agent.commands(), "all 10,000", |s| {
        s["vips"].as_array().is_some_and(|v| v.len() == 10_000 && v.iter().all(|v| v["state"] == "answering"))
    });
    println!("10,000 addresses from edit to answering: {:?}", start.elapsed());
    assert_eq!(unanswered(&lab, &vips), BTreeSet::new());

    // For people it stays on one screen, and says how many there are.
    let shown = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(shown.lines().count() <= 50, "{shown}");
    assert!(shown.contains("10000") && shown.contains("--json"), "{shown}");

    // The same from the start on.
    agent.process().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.process().wait(SOON).unwrap();
    let start = Instant::now();
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips), &[]).unwrap();
    println!("10,000 addresses from start to ready: {:?}", start.elapsed());
    assert_eq!(unanswered(&lab, &vips), BTreeSet::new());

    // And away again.
    agent.write(&StaticFile::on(&["eth0"])).unwrap();
    wait_states(agent.commands(), &[]);
}

#[test]
fn what_the_map_has_no_room_for_is_named() {
    if !root_or_skip("what_the_map_has_no_room_for_is_named") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut text = String::from("interfaces = ['eth0']\nvips = [");
    (10..14).for_each(|n| write!(text, "'192.0.2.{n}', ").unwrap());
    let agent = start_with(a, &(text + "'2001:db8::10']\n"), &["--capacity", "3"]);
    let status = wait_status(agent.commands(), "one address without room", |s| {
        s["agent"]["refused"].as_array().is_some_and(|r| r.len() == 1)
    });
    let refused = &status["agent"]["refused"][0];
    assert!(refused[2].as_str().unwrap().contains("room for 3 addresses"), "{refused}");
    let without: IpAddr = refused[0].as_str().unwrap().parse().unwrap();
    for vip in (10..14).map(v4).chain([v6(0x10)]).filter(|vip| *vip != without) {
        assert_answers(c, "eth0", vip, a.mac());
    }
}
