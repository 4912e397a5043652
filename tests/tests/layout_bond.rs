//! VIPs on a bond: answered by the slaves that are in use.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
mod layout_support;

use std::net::IpAddr;

use agent_support::{SOON, Watch, v4, v6, wait_status};
use layout_support::{Ears, PATIENT, add_nic, assert_delivered, kind_or_skip, ports, question, wait_link};
use responder_lab::{Agent, Lab, Mac, Node, StaticFile, root_or_skip, tools_or_skip, wait_until};
use serde_json::Value;

const BOND: Mac = Mac([2, 0, 0, 0, 9, 0xb0]);

fn vips() -> [IpAddr; 2] {
    [v4(10), v6(0x10)]
}

/// Host `a` with `bond0` over `eth0` and `eth9`, which has the host's addresses and address [`BOND`].
fn bonded(test: &str, options: &str) -> Option<Lab> {
    if !root_or_skip(test) || !tools_or_skip(test, &["ping", "bridge"]) {
        return None;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    if !kind_or_skip(test, &lab, "bond") {
        return None;
    }
    let a = lab.node("a");
    add_nic(&lab, a, "eth9", 0x52);
    let nic = &a.nics()[0];
    a.ns()
        .ip(&format!(
            "addr flush dev eth0\n\
             link add bond0 address {BOND} type bond miimon 50 {options}\n\
             link set eth0 down\nlink set eth9 down\n\
             link set eth0 master bond0\nlink set eth9 master bond0\n\
             link set bond0 up\n\
             addr add {}/24 dev bond0\naddr add {}/64 dev bond0 nodad",
            nic.v4, nic.v6
        ))
        .unwrap();
    Some(lab)
}

fn asked(c: &Node, ears: &Ears<'_>) {
    for vip in vips() {
        ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], BOND);
    }
}

fn active(a: &Node) -> String {
    let shown = a.ns().ip_json("-d link show dev bond0").unwrap();
    shown[0]["linkinfo"]["info_data"]["active_slave"].as_str().unwrap_or_default().to_owned()
}

/// The switch's port where it has learnt the bond to be.
fn learnt(lab: &Lab) -> Vec<String> {
    let text = lab.switch().check(&["bridge", "-j", "fdb", "show", "br", "br0"]).unwrap();
    let entries: Value = serde_json::from_str(&text).unwrap();
    let of_bond = entries.as_array().unwrap().iter().filter(|e| e["mac"] == BOND.to_string().as_str());
    of_bond.map(|entry| entry["ifname"].as_str().unwrap().to_owned()).collect()
}

/// The ports of `bond0` when this one is in use and that one is not.
fn in_use(used: &str, other: &str) -> impl Fn(&Value) -> bool {
    let wanted = [format!("{used} native answers"), format!("{other} native backup")];
    move |link| {
        let ports = ports(link);
        ports.len() == 2 && wanted.iter().all(|port| ports.contains(port))
    }
}

#[test]
fn the_active_slave_answers_and_failover_is_followed() {
    let Some(lab) = bonded("the_active_slave_answers_and_failover_is_followed", "mode active-backup") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.add_to_lo(&[vips()[0], vips()[1], v4(20)]).unwrap();
    let ears = Ears::new(c.ns(), &["eth0"]);
    let file = StaticFile::on(&["bond0"]).own(&vips()).standby(&[v4(20)]);
    let options = [&PATIENT[..], &["--announce-interval", "0s"]].concat();
    let mut agent = Agent::start(a, &file, &options).unwrap();
    let watch = Watch::start(a, &mut agent);
    let commands = agent.commands();
    let heard = || vips().map(|vip| ears.bursts("eth0", vip)).iter().sum::<usize>() as u64;
    wait_until("a burst", 3 * SOON, || (heard() >= 6).then_some(())).unwrap();
    let heard = heard();
    let sent = commands.status().unwrap()["agent"]["burst_frames"].as_u64().unwrap();
    assert!(heard <= sent, "{heard} heard of {sent}: once for each, though there are two slaves");

    for _ in 0..3 {
        let used = active(a);
        let other = if used == "eth0" { "eth9" } else { "eth0" };
        wait_link(commands, "bond0", in_use(&used, other));
        asked(c, &ears);
        assert_delivered(c, vips()[0]);
        let control = question(c, "eth0", vips()[0]);
        ears.assert_silence("eth0", &question(c, "eth0", v4(20)), v4(20), (&control, vips()[0]));
        assert_eq!(learnt(&lab), [Lab::port(a, &used)], "answers come from the slave in use");
        // One question, one answer.
        ears.clear();
        responder_lab::send_all(c.ns(), "eth0", &[control]).unwrap();
        wait_until("it", 3 * SOON, || (ears.count("eth0", vips()[0]) > 0).then_some(())).unwrap();
        asked(c, &ears); // by now a second one would have come
        assert!(learnt(&lab) == [Lab::port(a, &used)]);

        lab.unplug(a, &used).unwrap();
        wait_until("a failover", 3 * SOON, || (active(a) == other).then_some(())).unwrap();
        wait_link(commands, "bond0", in_use(other, &used));
        asked(c, &ears);
        lab.plug(a, &used).unwrap();
    }
    // Nobody has lost anything.
    let told: Vec<_> = watch.events().into_iter().filter(|e| e["event"] == "lost").collect();
    assert!(told.is_empty(), "{told:?}");
    let shown = commands.output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(shown.contains("bond0 (eth0 native") && shown.contains(", backup"), "{shown}");
    let received = commands.status().unwrap()["received"].clone();
    assert!(received["backup_port"].as_u64() > Some(0), "{received:#}");
}

#[test]
fn slaves_come_and_go() {
    let Some(lab) = bonded("slaves_come_and_go", "mode active-backup") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    let ears = Ears::new(c.ns(), &["eth0"]);
    let agent = Agent::start(a, &StaticFile::on(&["bond0"]).own(&vips()), &PATIENT).unwrap();
    let commands = agent.commands();
    asked(c, &ears);
    a.ns().ip("link set eth0 nomaster\nlink set eth0 down").unwrap();
    wait_link(commands, "bond0", |link| ports(link) == ["eth9 native answers"]);
    asked(c, &ears);
    a.ns().ip("link set eth0 master bond0").unwrap();
    wait_link(commands, "bond0", in_use("eth9", "eth0"));
    a.ns().ip("link set eth9 nomaster\nlink set eth9 down").unwrap();
    wait_link(commands, "bond0", |link| ports(link) == ["eth0 native answers"]);
    asked(c, &ears);
    a.ns().ip("link set eth0 nomaster\nlink set eth0 down").unwrap();
    let status = wait_status(commands, "a bond without slaves", |s| {
        s["agent"]["links"]["bond0"]["error"] == "it has no slave yet"
    });
    assert!(status["agent"]["links"]["bond0"]["xdp"].is_null());
    a.ns().ip("link set eth9 master bond0").unwrap();
    wait_link(commands, "bond0", |link| ports(link) == ["eth9 native answers"]);
    // A bond without slaves has given its address up, and takes that of the next one.
    let mac = a.ns().mac("bond0").unwrap();
    for vip in vips() {
        ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], mac);
    }
}

#[test]
fn a_slave_is_refused_by_name_with_the_way_out() {
    let Some(lab) = bonded("a_slave_is_refused_by_name_with_the_way_out", "mode active-backup") else {
        return;
    };
    let a = lab.node("a");
    let agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips()), &PATIENT).unwrap();
    let status = wait_status(agent.commands(), "the refusal", |s| !s["agent"]["waiting"]["eth0"].is_null());
    let why = status["agent"]["waiting"]["eth0"].as_str().unwrap();
    assert!(why.contains("is a port of the bond bond0") && why.ends_with("name bond0"), "{why}");
}

/// The address of the bond is that of the slave in use: it moves with a failover, and is announced.
#[test]
fn an_address_that_follows_the_active_slave() {
    let test = "an_address_that_follows_the_active_slave";
    let Some(lab) = bonded(test, "mode active-backup fail_over_mac active") else {
        return;
    };
    let (a, c) = (lab.node("a"), lab.node("c"));
    let ears = Ears::new(c.ns(), &["eth0"]);
    let agent = Agent::start(a, &StaticFile::on(&["bond0"]).own(&vips()), &PATIENT).unwrap();
    for _ in 0..2 {
        let used = active(a);
        let mac = a.ns().mac("bond0").unwrap();
        for vip in vips() {
            ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], mac);
        }
        ears.clear();
        lab.unplug(a, &used).unwrap();
        wait_until("another address", 3 * SOON, || (a.ns().mac("bond0").unwrap() != mac).then_some(()))
            .unwrap();
        let now = a.ns().mac("bond0").unwrap();
        for vip in vips() {
            wait_until("an announcement", 3 * SOON, || (ears.bursts("eth0", vip) > 0).then_some(())).unwrap();
            ears.assert_answer("eth0", &question(c, "eth0", vip), vip, &["eth0"], now);
        }
        lab.plug(a, &used).unwrap();
        wait_link(agent.commands(), "bond0", |link| ports(link).len() == 2);
    }
}

/// Two bonds against each other: all slaves answer.
#[test]
fn in_balancing_modes_all_slaves_answer() {
    let test = "in_balancing_modes_all_slaves_answer";
    for mode in ["802.3ad lacp_rate fast", "balance-xor", "balance-rr"] {
        let Some(lab) = bonded(test, &format!("mode {mode}")) else {
            return;
        };
        let (a, c) = (lab.node("a"), lab.node("c"));
        let far = [Lab::port(a, "eth0"), Lab::port(a, "eth9")];
        let switch = lab.switch();
        switch.ip(&format!("link add bond1 type bond miimon 50 mode {mode}")).unwrap();
        for port in &far {
            switch.ip(&format!("link set {port} down\nlink set {port} master bond1")).unwrap();
        }
        switch.ip("link set bond1 master br0\nlink set bond1 up").unwrap();
        let ears = Ears::new(c.ns(), &["eth0"]);
        let agent = Agent::start(a, &StaticFile::on(&["bond0"]).own(&vips()), &PATIENT).unwrap();
        let both = ["eth0 native answers", "eth9 native answers"];
        wait_link(agent.commands(), "bond0", |link| ports(link) == both);
        asked(c, &ears);
        // Whichever slave the question comes by.
        for port in &far {
            switch.ip(&format!("link set {port} down")).unwrap();
            asked(c, &ears);
            switch.ip(&format!("link set {port} up")).unwrap();
            wait_link(agent.commands(), "bond0", |link| ports(link) == both);
        }
        println!("{mode}: answered");
    }
}

/// A VLAN on a bond of veths is answered on the VLAN itself, as veths hide tags.
#[test]
fn a_vlan_on_a_bond() {
    let test = "a_vlan_on_a_bond";
    let Some(lab) = bonded(test, "mode active-backup") else {
        return;
    };
    if !kind_or_skip(test, &lab, "vlan") {
        return;
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    a.ns().ip("link add link bond0 name bond0.100 type vlan id 100\nlink set bond0.100 up\naddr add 198.18.0.1/24 dev bond0.100").unwrap();
    c.ns().ip("link add link eth0 name v100 type vlan id 100\nlink set v100 up").unwrap();
    let vip: IpAddr = "198.18.0.10".parse().unwrap();
    let ears = Ears::new(c.ns(), &["eth0", "v100"]);
    let agent = Agent::start(a, &StaticFile::on(&["bond0.100"]).own(&[vip]), &PATIENT).unwrap();
    wait_link(agent.commands(), "bond0.100", |link| ports(link) == ["bond0.100 generic answers"]);
    let frame = responder_lab::frames::tagged(100, &question(c, "eth0", vip));
    ears.assert_answer("eth0", &frame, vip, &["eth0", "v100"], BOND);
    let used = active(a);
    lab.unplug(a, &used).unwrap();
    wait_until("a failover", 3 * SOON, || (active(a) != used).then_some(())).unwrap();
    ears.assert_answer("eth0", &frame, vip, &["eth0", "v100"], BOND);
}
