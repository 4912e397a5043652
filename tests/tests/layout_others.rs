//! VIPs on a team, on a macvlan and below one, and below an ipvlan.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
mod layout_support;

use std::net::IpAddr;

use agent_support::{v4, v6, wait_status};
use layout_support::{Ears, PATIENT, add_nic, assert_delivered, kind_or_skip, ports, question, wait_link};
use responder_lab::{Agent, Lab, Mac, Node, StaticFile, root_or_skip, tools_or_skip};

const UPPER: Mac = Mac([2, 0, 0, 0, 9, 0x77]);

fn vips() -> [IpAddr; 2] {
    [v4(10), v6(0x10)]
}

fn lab_or_skip(test: &str, kind: &str) -> Option<Lab> {
    if !root_or_skip(test) || !tools_or_skip(test, &["ping"]) {
        return None;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    kind_or_skip(test, &lab, kind).then_some(lab)
}

fn asked(c: &Node, ears: &Ears<'_>, vips: &[IpAddr], mac: Mac) {
    for vip in vips {
        ears.assert_answer("eth0", &question(c, "eth0", *vip), *vip, &["eth0"], mac);
    }
}

#[test]
fn a_team_answers_as_one() {
    let test = "a_team_answers_as_one";
    let Some(lab) = lab_or_skip(test, "team") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    add_nic(&lab, a, "eth9", 0x52);
    a.ns()
        .ip(&format!(
            "addr flush dev eth0\nlink add team0 address {UPPER} type team\n\
             link set eth0 down\nlink set eth9 down"
        ))
        .unwrap();
    let file = StaticFile::on(&["team0"]).own(&vips()).standby(&[v4(20)]);
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    wait_link(agent.commands(), "team0", |link| ports(link) == ["team0 generic answers"]);
    // Frames pass only once a mode is chosen.
    if !tools_or_skip("a_team_answers_as_one: frames", &["teamnl"]) {
        return;
    }
    a.ns().check(&["teamnl", "team0", "setoption", "mode", "activebackup"]).unwrap();
    a.ns().ip("link set eth0 master team0\nlink set eth9 master team0\nlink set team0 up").unwrap();
    let port = a.ns().ifindex("eth9").unwrap().to_string();
    a.ns().check(&["teamnl", "team0", "setoption", "activeport", &port]).unwrap();
    a.ns().ip("addr add 192.0.2.1/24 dev team0\naddr add 2001:db8::1/64 dev team0 nodad").unwrap();
    a.add_to_lo(&[vips()[0], vips()[1], v4(20)]).unwrap();
    let ears = Ears::new(c.ns(), &["eth0"]);
    asked(c, &ears, &vips(), UPPER);
    assert_delivered(c, vips()[0]);
    let control = question(c, "eth0", vips()[0]);
    ears.assert_silence("eth0", &question(c, "eth0", v4(20)), v4(20), (&control, vips()[0]));
    let port = a.ns().ifindex("eth0").unwrap().to_string();
    a.ns().check(&["teamnl", "team0", "setoption", "activeport", &port]).unwrap();
    asked(c, &ears, &vips(), UPPER);
}

#[test]
fn on_a_macvlan_and_below_it() {
    let Some(lab) = lab_or_skip("on_a_macvlan_and_below_it", "macvlan") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.ns()
        .ip(&format!(
            "link add link eth0 name mv0 address {UPPER} type macvlan mode bridge\nlink set mv0 up\n\
             addr add 192.0.2.2/24 dev mv0"
        ))
        .unwrap();
    let other = [v4(30), v6(0x30)];
    let file = StaticFile::on(&["eth0"]).own(&vips()).standby(&[v4(20)]);
    let file = other.into_iter().fold(file, |file, vip| file.own_on(vip, &["mv0"]));
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    wait_link(agent.commands(), "mv0", |link| ports(link) == ["mv0 generic answers"]);
    wait_link(agent.commands(), "eth0", |link| ports(link) == ["eth0 native answers"]);
    let ears = Ears::new(c.ns(), &["eth0"]);
    asked(c, &ears, &vips(), a.mac());
    asked(c, &ears, &other, UPPER);
    a.add_to_lo(&[vips()[0], other[0]]).unwrap();
    assert_delivered(c, vips()[0]);
    assert_delivered(c, other[0]);
}

#[test]
fn below_an_ipvlan_and_not_on_it() {
    let Some(lab) = lab_or_skip("below_an_ipvlan_and_not_on_it", "ipvlan") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.ns()
        .ip("link add link eth0 name iv0 type ipvlan mode l2\nlink set iv0 up\naddr add 192.0.2.2/24 dev iv0")
        .unwrap();
    let file = StaticFile::on(&["eth0"]).own(&vips()).own_on(v4(30), &["iv0"]);
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    let status = wait_status(agent.commands(), "the refusal", |s| !s["agent"]["waiting"]["iv0"].is_null());
    let why = status["agent"]["waiting"]["iv0"].as_str().unwrap();
    assert!(why.contains("ipvlan") && why.ends_with("name eth0"), "{why}");
    let ears = Ears::new(c.ns(), &["eth0"]);
    asked(c, &ears, &vips(), a.mac());
    // What the ipvlan has itself it goes on answering for.
    asked(c, &ears, &[v4(2)], a.mac());
}
