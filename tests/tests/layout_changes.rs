//! Layouts that change under a running agent.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
mod layout_support;

use std::{net::IpAddr, thread, time::Duration};

use agent_support::{SOON, v4, v6, wait_status};
use layout_support::{Cable, Ears, PATIENT, add_nic, kind_or_skip, ports, question, wait_link, with_tags};
use responder_lab::{Agent, Lab, Mac, Node, StaticFile, root_or_skip, send_all};

const PLAIN: [&str; 2] = ["02:00:00:00:0f:01", "02:00:00:00:0f:02"];
const STRIPPING: [&str; 2] = ["02:00:00:00:0e:01", "02:00:00:00:0e:02"];
const Q: u16 = 0x8100;

fn vips() -> [IpAddr; 2] {
    [v4(10), v6(0x10)]
}

fn lab_or_skip(test: &str, kind: &str) -> Option<Lab> {
    if !root_or_skip(test) {
        return None;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    kind_or_skip(test, &lab, kind).then_some(lab)
}

/// The program runs nowhere, and nothing of the agent is left.
fn nothing_is_left(agent: Agent, a: &Node) {
    agent.kill().unwrap();
    let commands = responder_lab::Commands::new(a).unwrap();
    commands.output("detach", &[]).unwrap().ok().unwrap();
    let shown = a.ns().ip_json("link show").unwrap();
    for link in shown.as_array().unwrap() {
        assert!(link["xdp"].is_null(), "{link:#}");
    }
    assert!(!a.bpffs().exists() || std::fs::read_dir(a.bpffs()).unwrap().next().is_none());
}

/// A VLAN that is down receives nothing, though the NIC below it does.
#[test]
fn a_vlan_that_is_down_is_silent() {
    let test = "a_vlan_that_is_down_is_silent";
    let Some(lab) = lab_or_skip(test, "vlan") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, PLAIN[0]), (c, PLAIN[1])]) else {
        return;
    };
    a.ns().ip("link add link nic0 name v100 type vlan id 100\nlink set v100 up").unwrap();
    let file = StaticFile::on(&["v100"]).own(&vips()).own_on(v4(30), &["nic0"]);
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    let mac = PLAIN[0].parse().unwrap();
    let ears = Ears::new(c.ns(), &["nic0"]);
    let tagged = |vip| with_tags(&[(Q, 100)], &question(c, "nic0", vip));
    let control = question(c, "nic0", v4(30));
    for _ in 0..2 {
        for vip in vips() {
            ears.assert_answer("nic0", &tagged(vip), vip, &["nic0"], mac);
        }
        a.ns().ip("link set v100 down").unwrap();
        wait_status(agent.commands(), "the link to be down", |s| {
            s["agent"]["links"]["v100"]["running"] == false
        });
        for vip in vips() {
            ears.assert_silence("nic0", &tagged(vip), vip, (&control, v4(30)));
        }
        a.ns().ip("link set v100 up").unwrap();
    }
    nothing_is_left(agent, a);
}

/// Another VLAN under the same name.
#[test]
fn a_vlan_made_anew_with_another_id() {
    let test = "a_vlan_made_anew_with_another_id";
    let Some(lab) = lab_or_skip(test, "vlan") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, PLAIN[0]), (c, PLAIN[1])]) else {
        return;
    };
    a.ns().ip("link add link nic0 name v0 type vlan id 100\nlink set v0 up").unwrap();
    let file = StaticFile::on(&["v0"]).own(&vips());
    let agent = Agent::start(a, &file, &PATIENT).unwrap();
    let mac = PLAIN[0].parse().unwrap();
    let ears = Ears::new(c.ns(), &["nic0"]);
    let tagged = |id, vip| with_tags(&[(Q, id)], &question(c, "nic0", vip));
    for (old, new) in [(100, 200), (200, 100)] {
        for vip in vips() {
            ears.assert_answer("nic0", &tagged(old, vip), vip, &["nic0"], mac);
        }
        a.ns()
            .ip(&format!("link del v0\nlink add link nic0 name v0 type vlan id {new}\nlink set v0 up"))
            .unwrap();
        wait_link(agent.commands(), "v0", |link| ports(link) == [format!("nic0 vlan {new} native answers")]);
        let control = tagged(new, v4(10));
        ears.assert_silence("nic0", &tagged(old, v6(0x10)), v6(0x10), (&control, v4(10)));
    }
    nothing_is_left(agent, a);
}

/// A VLAN appears on a NIC that takes tags off, while addresses of the NIC itself are answered: they are not any more, and
/// that is said once.
#[test]
fn a_vlan_made_on_a_nic_that_takes_tags_off() {
    let test = "a_vlan_made_on_a_nic_that_takes_tags_off";
    let Some(lab) = lab_or_skip(test, "vlan") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    let Some(_cable) = Cable::plug_or_skip(test, [(a, STRIPPING[0]), (c, STRIPPING[1])]) else {
        return;
    };
    a.ns().output(&["ethtool", "-K", "nic0", "rxvlan", "on"], SOON).unwrap();
    let mut agent = Agent::start(a, &StaticFile::on(&["nic0"]).own(&vips()), &PATIENT).unwrap();
    let (mac, vip) = (STRIPPING[0].parse().unwrap(), v4(10));
    let ears = Ears::new(c.ns(), &["nic0"]);
    ears.assert_answer("nic0", &question(c, "nic0", vip), vip, &["nic0"], mac);
    let wrong = with_tags(&[(Q, 100)], &question(c, "nic0", vip));
    a.ns().ip("link add link nic0 name v100 type vlan id 100\nlink set v100 up").unwrap();
    let refused = |s: &serde_json::Value| !s["agent"]["links"]["nic0"]["error"].is_null();
    let asked = std::cell::Cell::new(0);
    wait_status(agent.commands(), "the reason", |status| {
        asked.set(asked.get() + 1);
        send_all(c.ns(), "nic0", std::slice::from_ref(&wrong)).unwrap();
        refused(status)
    });
    println!("asked {} times until the refusal, and answered {}", asked.get(), ears.count("nic0", vip));
    ears.clear();
    // Each of these is a reason to look again.
    for n in 1..=5 {
        a.ns().ip(&format!("addr add 198.18.0.{n}/24 dev v100")).unwrap();
        send_all(c.ns(), "nic0", &[wrong.clone(), question(c, "nic0", vip)]).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(ears.count("nic0", vip), 0, "no VLAN is the right one");
    let log = agent.process().stdout() + &agent.process().stderr();
    assert_eq!(log.matches("not attached").count(), 1, "{log}");
    a.ns().ip("link del v100").unwrap();
    ears.assert_answer("nic0", &question(c, "nic0", vip), vip, &["nic0"], mac);
    nothing_is_left(agent, a);
}

/// `bond0` over two NICs of the lab.
fn make_bond(a: &Node, mac: Mac) {
    a.ns()
        .ip(&format!(
            "link add bond0 address {mac} type bond miimon 50 mode active-backup\n\
             link set eth0 down\nlink set eth9 down\nlink set eth0 master bond0\nlink set eth9 master bond0\n\
             link set bond0 up"
        ))
        .unwrap();
}

#[test]
fn a_bond_made_anew_and_one_that_is_down() {
    let Some(lab) = lab_or_skip("a_bond_made_anew_and_one_that_is_down", "bond") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    add_nic(&lab, a, "eth9", 0x52);
    a.ns().ip("addr flush dev eth0").unwrap();
    let agent = Agent::start(a, &StaticFile::on(&["bond0"]).own(&vips()), &PATIENT).unwrap();
    let ears = Ears::new(c.ns(), &["eth0"]);
    for last in [1, 2] {
        let mac = Mac([2, 0, 0, 0, 0xb0, last]);
        make_bond(a, mac);
        for vip in vips() {
            ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], mac);
        }
        a.ns().ip("link set bond0 down\nlink set eth0 up\nlink set eth9 up").unwrap();
        wait_status(agent.commands(), "the link to be down", |s| {
            s["agent"]["links"]["bond0"]["running"] == false
        });
        for vip in vips() {
            ears.clear();
            for _ in 0..5 {
                send_all(c.ns(), "eth0", &[question(c, "eth0", vip)]).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(ears.count("eth0", vip), 0, "{vip}");
        }
        a.ns().ip("link set bond0 up").unwrap();
        for vip in vips() {
            ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], mac);
        }
        a.ns().ip("link del bond0").unwrap();
        wait_status(agent.commands(), "no bond", |s| !s["agent"]["waiting"]["bond0"].is_null());
    }
    nothing_is_left(agent, a);
}
