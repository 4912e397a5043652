//! VIPs on a bridge that has the NIC as a port, and guests.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
mod layout_support;

use std::net::IpAddr;

use agent_support::{SOON, v4, v6, wait_states, wait_status};
use layout_support::{Cable, Ears, PATIENT, assert_delivered, kind_or_skip, ports, question, wait_link};
use responder_lab::{Agent, Lab, Mac, Node, StaticFile, root_or_skip, tools_or_skip, wait_until};

const BRIDGE: Mac = Mac([2, 0, 0, 0, 0xb, 1]);
const GUEST: Mac = Mac([2, 0, 0, 0, 0xb, 2]);

/// Host `a` with `br0`, which has the host's addresses, this port, and a port to the client `g`, its guest.
fn bridged(uplink: &str) -> Lab {
    let lab = Lab::builder().hosts(&["a"]).clients(&["c", "g"]).build().unwrap();
    let (a, g) = (lab.node("a"), lab.node("g"));
    let nic = &a.nics()[0];
    a.ns()
        .ip(&format!(
            "addr flush dev eth0\n\
             link add br0 address {BRIDGE} type bridge stp_state 0 forward_delay 0\n\
             link set br0 up\n\
             addr add {}/24 dev br0\naddr add {}/64 dev br0 nodad\n\
             link add guest type veth peer name in0 address {GUEST} netns {}\n\
             link set guest master br0\nlink set guest up",
            nic.v4,
            nic.v6,
            g.ns().name()
        ))
        .unwrap();
    g.ns().ip("link set eth0 down\nlink set in0 up\naddr add 192.0.2.77/24 dev in0").unwrap();
    if !uplink.is_empty() {
        a.ns().ip(&format!("link set {uplink} master br0")).unwrap();
    }
    lab
}

fn vips() -> [IpAddr; 2] {
    [v4(10), v6(0x10)]
}

/// Both sides get the bridge's address, and nobody gets an answer for what is owned elsewhere.
fn answered_on_both_sides(a: &Node, sides: [(&Node, &str); 2]) {
    a.add_to_lo(&[vips()[0], vips()[1], v4(20)]).unwrap();
    for (client, dev) in sides {
        let ears = Ears::new(client.ns(), &[dev]);
        for vip in vips() {
            ears.assert_answer(dev, &question(client, dev, vip), vip, &[dev], BRIDGE);
        }
        let control = question(client, dev, vips()[0]);
        ears.assert_silence(dev, &question(client, dev, v4(20)), v4(20), (&control, vips()[0]));
    }
}

#[test]
fn a_bridge_answers_to_both_sides() {
    let test = "a_bridge_answers_to_both_sides";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping"]) {
        return;
    }
    let lab = bridged("eth0");
    let (a, c, g) = (lab.node("a"), lab.node("c"), lab.node("g"));
    let ears = Ears::new(c.ns(), &["eth0"]);
    let file = StaticFile::on(&["br0"]).own(&vips()).standby(&[v4(20)]);
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    let link = wait_link(agent.commands(), "br0", |link| !link["mode"].is_null());
    assert_eq!(ports(&link), ["br0 generic answers"], "a veth is a guest's");
    answered_on_both_sides(a, [(c, "eth0"), (g, "in0")]);
    assert_delivered(c, vips()[0]);
    assert_delivered(g, vips()[0]);
    // The burst went out once: what was sent on the bridge, and nothing else, was heard.
    let heard = || vips().map(|vip| ears.bursts("eth0", vip)).iter().sum::<usize>() as u64;
    wait_until("a burst", 3 * SOON, || (heard() >= 6).then_some(())).unwrap();
    let heard = heard();
    let sent = agent.commands().status().unwrap()["agent"]["burst_frames"].as_u64().unwrap();
    assert!(heard <= sent, "{heard} heard of {sent}");

    // As `check` says it, which knows whom to name instead.
    let check = |link: &str| agent.commands().output("check", &[link]).unwrap();
    let output = check("br0");
    assert!(output.stdout.contains("the program runs on br0 in generic mode"), "{output:?}");
    let output = check("eth0");
    assert!(output.code() == Some(4) && output.stdout.contains("name br0"), "{output:?}");

    // Who owns the other address may be a guest.
    g.ns().ip("addr add 192.0.2.20/32 dev in0").unwrap();
    let ears = Ears::new(c.ns(), &["eth0"]);
    ears.assert_answer("eth0", &question(c, "eth0", v4(20)), v4(20), &["eth0"], GUEST);
}

#[test]
fn a_nic_that_joins_a_bridge_and_leaves_it() {
    if !root_or_skip("a_nic_that_joins_a_bridge_and_leaves_it") {
        return;
    }
    let lab = bridged("");
    let (a, c) = (lab.node("a"), lab.node("c"));
    let file = StaticFile::on(&["eth*", "br0"]).own(&vips());
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    let commands = agent.commands();
    let ears = Ears::new(c.ns(), &["eth0"]);
    let asked = |mac| {
        for vip in vips() {
            ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], mac);
        }
    };
    asked(a.mac());
    for _ in 0..2 {
        a.ns().ip("link set eth0 master br0").unwrap();
        let status = wait_states(commands, &vips().map(|vip| (vip, "br0", "answering")));
        let why = status["agent"]["waiting"]["eth0"].as_str().unwrap();
        assert!(why.contains("is a port of the bridge br0") && why.contains("left out of \"eth*\""), "{why}");
        asked(BRIDGE);
        a.ns().ip("link set eth0 nomaster").unwrap();
        let both = vips().map(|vip| [(vip, "br0", "answering"), (vip, "eth0", "answering")]);
        let status = wait_states(commands, both.as_flattened());
        assert!(status["agent"]["waiting"]["eth0"].is_null());
        asked(a.mac());
    }
}

#[test]
fn a_port_is_refused_by_name_with_the_way_out() {
    if !root_or_skip("a_port_is_refused_by_name_with_the_way_out") {
        return;
    }
    let lab = bridged("eth0");
    let a = lab.node("a");
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips()), &PATIENT).unwrap();
    agent
        .process()
        .wait_line(SOON, |line| line.contains("cannot be used") && line.contains("name br0"))
        .unwrap();
    let status = wait_status(agent.commands(), "the refusal", |s| !s["agent"]["waiting"]["eth0"].is_null());
    assert!(status["agent"]["waiting"]["eth0"].as_str().unwrap().ends_with("name br0"), "{status:#}");
    assert_eq!(status["vips"].as_array().unwrap().len(), 0);
}

#[test]
fn only_in_the_driver_is_refused_on_a_bridge() {
    if !root_or_skip("only_in_the_driver_is_refused_on_a_bridge") {
        return;
    }
    let lab = bridged("eth0");
    let file = StaticFile::on(&["br0"]).own(&vips());
    let options = [&PATIENT[..], &["--xdp-mode", "native"]].concat();
    let agent = Agent::start(lab.node("a"), &file, &options).unwrap();
    let status =
        wait_status(agent.commands(), "the reason", |s| !s["agent"]["links"]["br0"]["error"].is_null());
    let error = status["agent"]["links"]["br0"]["error"].as_str().unwrap();
    assert!(error.contains("in the network stack only") && error.contains("--xdp-mode auto"), "{error}");
}

/// With a real NIC as uplink its questions are answered in the driver, and a guest may own what this host does not.
#[test]
fn the_uplink_answers_in_the_driver() {
    let test = "the_uplink_answers_in_the_driver";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping"]) {
        return;
    }
    let lab = bridged("");
    if !kind_or_skip(test, &lab, "bridge") {
        return;
    }
    let (a, c, g) = (lab.node("a"), lab.node("c"), lab.node("g"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, "02:00:00:00:0f:01"), (c, "02:00:00:00:0f:02")]) else {
        return;
    };
    c.ns().ip("link set eth0 down\naddr add 192.0.2.101/24 dev nic0").unwrap();
    let file = StaticFile::on(&["br0"]).own(&vips()).standby(&[v4(20)]);
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    wait_link(agent.commands(), "br0", |link| ports(link) == ["br0 generic answers"]);
    // It joins while the program is on the bridge, where the kernel would refuse one below it.
    a.ns().ip("link set nic0 master br0").unwrap();
    let wanted = ["nic0 native forwards", "br0 generic answers"];
    let in_any_order = |link: &serde_json::Value| {
        let ports = ports(link);
        ports.len() == 2 && wanted.iter().all(|port| ports.iter().any(|p| p == port))
    };
    wait_link(agent.commands(), "br0", in_any_order);
    answered_on_both_sides(a, [(c, "nic0"), (g, "in0")]);
    assert_delivered(c, vips()[0]);
    let status = agent.commands().status().unwrap();
    assert!(status["received"]["passed_forwarded"].as_u64() > Some(0), "{:#}", status["received"]);
    assert!(status["received"]["suppressed_standby"].as_u64() > Some(0), "{:#}", status["received"]);

    g.ns().ip("addr add 192.0.2.20/32 dev in0").unwrap();
    let ears = Ears::new(c.ns(), &["nic0"]);
    ears.assert_answer("nic0", &question(c, "nic0", v4(20)), v4(20), &["nic0"], GUEST);
    // It leaves again, and what runs on it leaves it, too.
    a.ns().ip("link set nic0 nomaster").unwrap();
    wait_link(agent.commands(), "br0", |link| ports(link) == ["br0 generic answers"]);
    let shown = a.ns().ip_json("link show dev nic0").unwrap();
    assert!(shown[0]["xdp"].is_null(), "{shown:#}");
}
