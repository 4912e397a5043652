//! VIPs on VLANs: answered on theirs, and on no other, whatever the NIC does with tags.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
mod layout_support;

use std::net::IpAddr;

use agent_support::{SOON, v4, v6, wait_status};
use layout_support::{
    Cable, Ears, PATIENT, assert_delivered, kind_or_skip, ports, question, wait_link, with_tags,
};
use responder_lab::{Agent, Lab, Mac, Node, StaticFile, root_or_skip, tools_or_skip};
use serde_json::Value;

/// A pair of NICs without VLAN offloads, and one with.
const PLAIN: [&str; 2] = ["02:00:00:00:0f:01", "02:00:00:00:0f:02"];
const STRIPPING: [&str; 2] = ["02:00:00:00:0e:01", "02:00:00:00:0e:02"];

/// Addresses of the NIC itself and of VLAN 100 on it.
const VLAN: Mac = Mac([2, 0, 0, 0, 0xe, 0x64]);
fn untagged() -> [IpAddr; 2] {
    [v4(10), v6(0x10)]
}
fn in_vlan() -> [IpAddr; 2] {
    ["198.18.0.10".parse().unwrap(), "2001:db8:100::10".parse().unwrap()]
}

/// Host `a` has VLANs 100 and, without any address of ours, 200 on `dev`; the client hears all three.
fn vlans(a: &Node, c: &Node, (dev, ear): (&str, &str)) {
    a.ns()
        .ip(&format!(
            "link add link {dev} name v100 address {VLAN} type vlan id 100\n\
             link add link {dev} name v200 type vlan id 200\n\
             link set v100 up\nlink set v200 up\n\
             addr add 198.18.0.1/24 dev v100\naddr add 2001:db8:100::1/64 dev v100 nodad"
        ))
        .unwrap();
    c.ns()
        .ip(&format!(
            "link add link {ear} name v100 type vlan id 100\nlink add link {ear} name v200 type vlan id 200\n\
             link set v100 up\nlink set v200 up\naddr add 198.18.0.101/24 dev v100"
        ))
        .unwrap();
}

fn file(dev: &str) -> StaticFile {
    let file = untagged().into_iter().fold(StaticFile::on(&[dev]), |file, vip| file.own_on(vip, &[dev]));
    in_vlan().into_iter().fold(file, |file, vip| file.own_on(vip, &["v100"]))
}

/// Asks for all addresses with all kinds of tags. `untagged_too`: the NIC's own addresses are answered.
fn asked_in_every_way(c: &Node, ear: &str, mac: Mac, untagged_too: bool) {
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    let ears = Ears::new(c.ns(), &[ear, "v100", "v200"]);
    let control = in_vlan()[0];
    let control = (&with_tags(&[(Q, 100)], &question(c, ear, control))[..], control);
    let ask = |vip: IpAddr, tags: &[(u16, u16)], at: &[&str], mac: Mac| {
        let frame = with_tags(tags, &question(c, ear, vip));
        match at {
            [] => ears.assert_silence(ear, &frame, vip, control),
            _ => ears.assert_answer(ear, &frame, vip, at, mac),
        }
    };
    for vip in in_vlan() {
        ask(vip, &[(Q, 100)], &[ear, "v100"], VLAN);
    }
    let own: &[&str] = if untagged_too { &[ear] } else { &[] };
    for (n, vip) in untagged().into_iter().enumerate() {
        ask(vip, &[], own, mac);
        ask(vip, &[(Q, 5 << 13)], own, mac); // with a priority alone
        ask(vip, &[(Q, 100)], &[], mac);
        ask(vip, &[(Q, 200)], &[], mac);
        if n == 0 {
            ask(vip, &[(AD, 7), (Q, 100)], &[], mac);
        }
    }
    for (n, vip) in in_vlan().into_iter().enumerate().rev() {
        let last = (&with_tags(&[(Q, 100)], &question(c, ear, in_vlan()[1 - n]))[..], in_vlan()[1 - n]);
        for tags in [&[][..], &[(Q, 200)], &[(Q, 7 << 13)], &[(Q, 200), (Q, 100)], &[(AD, 100), (Q, 100)]] {
            ears.assert_silence(ear, &with_tags(tags, &question(c, ear, vip)), vip, last);
        }
    }
}

fn offloads(a: &Node, dev: &str, rx: &str, tx: &str) -> [bool; 2] {
    for (what, switch) in [("rxvlan", rx), ("txvlan", tx)] {
        // A driver may not have it, or switch the other with it.
        a.ns().output(&["ethtool", "-K", dev, what, switch], SOON).unwrap();
    }
    let shown = a.ns().check(&["ethtool", "-k", dev]).unwrap();
    ["rx-vlan-offload: on", "tx-vlan-offload: on"].map(|line| shown.contains(line))
}

/// What a driver that sees tags does: the program is on the NIC, for all of its VLANs.
#[test]
fn on_a_nic_that_leaves_tags_in_frames() {
    let test = "on_a_nic_that_leaves_tags_in_frames";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping"]) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    if !kind_or_skip(test, &lab, "vlan") {
        return;
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, PLAIN[0]), (c, PLAIN[1])]) else {
        return;
    };
    vlans(a, c, ("nic0", "nic0"));
    let agent = Agent::start(a, &file("nic0"), &PATIENT).unwrap();
    wait_link(agent.commands(), "v100", |link| ports(link) == ["nic0 vlan 100 native answers"]);
    wait_link(agent.commands(), "nic0", |link| ports(link) == ["nic0 native answers"]);
    let shown = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(shown.contains("v100 (nic0 vlan 100 native)"), "{shown}");
    asked_in_every_way(c, "nic0", PLAIN[0].parse().unwrap(), true);
    a.add_to_lo(&in_vlan()).unwrap();
    assert_delivered(c, in_vlan()[0]);
    // Without the agent the maps say the same.
    agent.kill().unwrap();
    let status = responder_lab::Commands::new(a).unwrap().status().unwrap();
    let states = agent_support::states(&status);
    assert_eq!(states.len(), 4, "{states:?}");
    assert!(states.values().all(|state| state == "answering"), "{states:?}");
}

/// The burst goes out on the VLAN, once.
#[test]
fn the_burst_is_on_the_vlan_alone() {
    let test = "the_burst_is_on_the_vlan_alone";
    if !root_or_skip(test) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    if !kind_or_skip(test, &lab, "vlan") {
        return;
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    vlans(a, c, ("eth0", "eth0"));
    let ears = Ears::new(c.ns(), &["eth0", "v100", "v200"]);
    let vips = in_vlan();
    let file = StaticFile::on(&["v100"]).own(&vips);
    let options = [&PATIENT[..], &["--announce-interval", "0s"]].concat();
    let agent = Agent::start(a, &file, &options).unwrap();
    let heard = |dev| vips.map(|vip| ears.bursts(dev, vip)).iter().sum::<usize>() as u64;
    responder_lab::wait_until("a burst", 3 * SOON, || (heard("v100") >= 6).then_some(())).unwrap();
    let heard = ["v100", "eth0", "v200"].map(heard);
    let sent = agent.commands().status().unwrap()["agent"]["burst_frames"].as_u64().unwrap();
    assert!(heard[0] <= heard[1] && heard[1] <= sent && heard[2] == 0, "{sent} sent, heard {heard:?}");
}

/// A veth hands tags on beside frames: whatever its two ends are told, answers stay on their VLAN.
#[test]
fn on_a_veth_with_all_offloads() {
    let test = "on_a_veth_with_all_offloads";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping", "ethtool"]) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    if !kind_or_skip(test, &lab, "vlan") {
        return;
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    vlans(a, c, ("eth0", "eth0"));
    let agent = Agent::start(a, &file("eth0"), &PATIENT).unwrap();
    wait_link(agent.commands(), "v100", |link| ports(link) == ["v100 generic answers"]);
    let status =
        wait_status(agent.commands(), "the reason", |s| !s["agent"]["links"]["eth0"]["error"].is_null());
    let error = status["agent"]["links"]["eth0"]["error"].as_str().unwrap();
    assert!(error.contains("v100, v200 is on it") && error.contains("a VLAN of their own"), "{error}");
    let far_end = Lab::port(a, "eth0");
    for (rx, tx) in [("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")] {
        offloads(a, "eth0", rx, tx);
        // This decides what the host sees.
        lab.switch().check(&["ethtool", "-K", &far_end, "txvlan", tx]).unwrap();
        asked_in_every_way(c, "eth0", a.mac(), false);
    }
}

/// Where the NIC takes tags off, the VLAN itself answers, and the NIC's own addresses wait for consent.
#[test]
fn on_a_nic_that_takes_tags_off() {
    let test = "on_a_nic_that_takes_tags_off";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping", "ethtool"]) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    if !kind_or_skip(test, &lab, "vlan") {
        return;
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, STRIPPING[0]), (c, STRIPPING[1])]) else {
        return;
    };
    vlans(a, c, ("nic0", "nic0"));
    let own = STRIPPING[0].parse().unwrap();
    let mut agent = Agent::start(a, &file("nic0"), &PATIENT).unwrap();
    for (rx, tx) in [("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")] {
        let [strips, _] = offloads(a, "nic0", rx, tx);
        println!("rxvlan {rx}, txvlan {tx}: the NIC {} tags", if strips { "takes off" } else { "leaves" });
        let below = |link: &Value| ports(link)[0].starts_with("nic0 vlan 100");
        wait_link(agent.commands(), "v100", |link| below(link) != strips);
        wait_status(agent.commands(), "the reason or none", |s| {
            s["agent"]["links"]["nic0"]["error"].is_null() != strips
        });
        asked_in_every_way(c, "nic0", own, !strips);
    }
    // With consent.
    let [strips, _] = offloads(a, "nic0", "on", "on");
    assert!(strips, "this NIC takes tags off when it is told to");
    agent.process().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.process().wait(SOON).unwrap();
    let options = [&PATIENT[..], &["--set-vlan-offload"]].concat();
    let agent = Agent::start(a, &file("nic0"), &options).unwrap();
    wait_link(agent.commands(), "v100", |link| ports(link)[0].starts_with("nic0 vlan 100"));
    asked_in_every_way(c, "nic0", own, true);
    assert!(a.ns().check(&["ethtool", "-k", "nic0"]).unwrap().contains("rx-vlan-offload: off"));
}
