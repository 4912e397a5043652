//! Links come, go and change; the agent follows by the kernel's events.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
#[path = "agent_links/refused.rs"]
mod refused;

use std::{net::IpAddr, time::Instant};

use agent_support::{
    BY_EVENT, SOON, Watch, assert_answers, one_host, states, v4, v6, wait_states, wait_status,
};
use responder_lab::{Agent, Capture, Commands, Lab, Mac, Node, StaticFile, root_or_skip, wait_until};
use serde_json::Value;

const VIPS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
];

/// A lab, and the agent of host `a` with both VIPs on these interfaces.
fn answering(interfaces: &[&str], options: &[&str]) -> (Lab, Agent) {
    let lab = one_host(1);
    let agent = Agent::start(lab.node("a"), &StaticFile::on(interfaces).own(&VIPS), options).unwrap();
    for vip in VIPS {
        assert_answers(lab.node("c"), "eth0", vip, lab.node("a").mac());
    }
    (lab, agent)
}

fn link(status: &Value, name: &str) -> Option<Value> {
    status["links"].as_array()?.iter().find(|l| l["name"] == name).cloned()
}

/// Waits for the announcement of both VIPs with `mac`, and says how long after `since` the last one came.
fn wait_announced(capture: &Capture, mac: Mac, what: &str, since: Instant) {
    for vip in VIPS {
        let found = capture.wait_for(&format!("announcement of {vip} by {mac} after {what}"), SOON, |f| {
            f.is_gratuitous(vip) && f.claim() == Some((vip, mac)) && f.src == mac
        });
        found.unwrap_or_else(|e| panic!("{e}: {:?}", capture.frames()));
    }
    println!("{what} to announcement: {:?}", since.elapsed());
    assert!(since.elapsed() < BY_EVENT, "{what}: by an event, not by the inspection");
}

/// Entries that `bpftool` sees in a pinned map.
fn entries(a: &Node, map: &str) -> usize {
    let pin = a.bpffs().join("v3").join(map);
    let text = a.ns().check(&["bpftool", "-j", "map", "dump", "pinned", pin.to_str().unwrap()]).unwrap();
    serde_json::from_str::<Vec<Value>>(&text).unwrap().len()
}

#[test]
fn deleted_and_created_again_with_another_index() {
    if !root_or_skip("deleted_and_created_again_with_another_index") {
        return;
    }
    let (lab, mut agent) = answering(&["eth0"], &[]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let watch = Watch::start(a, &mut agent);
    let commands = agent.commands();
    let old = a.ns().ifindex("eth0").unwrap();
    lab.delete_nic(a, "eth0").unwrap();
    for vip in VIPS {
        // By its name, though the link is gone.
        assert_eq!(watch.wait_vip("lost", vip)["link"], "eth0");
    }
    let status = wait_states(commands, &[]);
    assert_eq!(status["links"].as_array().unwrap().len(), 0);
    assert!(status["agent"]["waiting"]["eth0"].as_str().unwrap().contains("no such interface yet"));

    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let start = Instant::now();
    lab.connect(a, &a.nics()[0]).unwrap();
    wait_announced(&capture, a.mac(), "creation", start);
    let new = a.ns().ifindex("eth0").unwrap();
    assert_ne!(new, old);
    for vip in VIPS {
        assert_answers(c, "eth0", vip, a.mac());
    }
    let status = wait_states(commands, &VIPS.map(|vip| (vip, "eth0", "answering")));
    assert_eq!(link(&status, "eth0").unwrap()["ifindex"], new);
    for (map, count) in [("VIPS4", 1), ("VIPS6", 1), ("LINKS", 1)] {
        assert_eq!(entries(a, map), count, "nothing of the old index is left in {map}");
    }
}

#[test]
fn a_new_hardware_address_is_answered_and_announced() {
    if !root_or_skip("a_new_hardware_address_is_answered_and_announced") {
        return;
    }
    let (lab, agent) = answering(&["eth0"], &[]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let mac: Mac = "02:00:00:00:00:99".parse().unwrap();
    let start = Instant::now();
    a.ns().ip(&format!("link set eth0 address {mac}")).unwrap();
    wait_announced(&capture, mac, "new hardware address", start);
    for vip in VIPS {
        assert_answers(c, "eth0", vip, mac);
    }
    let status = agent.commands().status().unwrap();
    assert_eq!(link(&status, "eth0").unwrap()["mac"], mac.to_string());
    // Nothing more in the old one's name.
    let first = capture.frames().iter().position(|f| f.src == mac).unwrap();
    let stale = capture.frames()[first..].iter().filter(|f| f.src == a.mac()).count();
    assert_eq!(stale, 0);
}

#[test]
fn down_and_up_and_without_carrier_and_back() {
    if !root_or_skip("down_and_up_and_without_carrier_and_back") {
        return;
    }
    let (lab, agent) = answering(&["eth0"], &[]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let commands = agent.commands();
    let running = |yes: bool| move |s: &Value| s["agent"]["links"]["eth0"]["running"] == yes;
    let set = |command: &str| a.ns().ip(command).unwrap();
    for what in ["up", "carrier"] {
        if what == "up" {
            set("link set eth0 down")
        } else {
            lab.unplug(a, "eth0").unwrap()
        }
        wait_status(commands, "the link's end in the status", running(false));
        let shown = commands.output("status", &[]).unwrap().ok().unwrap().stdout;
        assert!(shown.contains("down or without carrier"), "{shown}");
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        let start = Instant::now();
        if what == "up" {
            set("link set eth0 up")
        } else {
            lab.plug(a, "eth0").unwrap()
        }
        wait_announced(&capture, a.mac(), what, start);
        wait_status(commands, "the link's return in the status", running(true));
        for vip in VIPS {
            assert_answers(c, "eth0", vip, a.mac());
        }
    }
}

#[test]
fn renamed_away_and_back_and_into_a_pattern() {
    if !root_or_skip("renamed_away_and_back_and_into_a_pattern") {
        return;
    }
    let (lab, agent) = answering(&["eth0", "wan*"], &[]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let commands = agent.commands();
    let rename = |from: &str, to: &str| a.ns().ip(&format!("link set {from} name {to}")).unwrap();
    let attached = |name: &str| {
        let links = a.ns().ip_json(&format!("link show dev {name}")).unwrap();
        !links[0]["xdp"].is_null()
    };
    rename("eth0", "other");
    wait_states(commands, &[]);
    wait_until("the program to be detached", SOON, || (!attached("other")).then_some(())).unwrap();
    for (from, to) in [("other", "eth0"), ("eth0", "wan7")] {
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        let start = Instant::now();
        rename(from, to);
        wait_states(commands, &VIPS.map(|vip| (vip, to, "answering")));
        if to == "eth0" {
            wait_announced(&capture, a.mac(), "renaming", start);
        }
        for vip in VIPS {
            assert_answers(c, "eth0", vip, a.mac());
        }
        assert!(attached(to));
    }
}

#[test]
fn moved_to_another_namespace_and_back() {
    if !root_or_skip("moved_to_another_namespace_and_back") {
        return;
    }
    for attach in ["link", "netlink"] {
        let (lab, agent) = answering(&["eth0"], &["--attach", attach]);
        let (a, c) = (lab.node("a"), lab.node("c"));
        let commands = agent.commands();
        let (here, there) = (a.ns(), lab.switch());
        here.ip(&format!("link set eth0 netns {}", there.name())).unwrap();
        wait_states(commands, &[]);
        // There it is anybody's, and none of ours answers.
        there.ip("link set eth0 up").unwrap();
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        there.ip(&format!("link set eth0 netns {}", here.name())).unwrap();
        let nic = &a.nics()[0];
        let start = Instant::now();
        here.ip(&format!("addr add {}/24 dev eth0\nlink set eth0 up", nic.v4)).unwrap();
        wait_announced(&capture, a.mac(), "return", start);
        wait_states(commands, &VIPS.map(|vip| (vip, "eth0", "answering")));
        for vip in VIPS {
            assert_answers(c, "eth0", vip, a.mac());
        }
    }
}

#[test]
fn the_link_s_addresses_are_followed() {
    if !root_or_skip("the_link_s_addresses_are_followed") {
        return;
    }
    let (lab, _agent) = answering(&["eth0"], &[]);
    let a = lab.node("a");
    let pin = a.bpffs().join("v3/LINKS");
    let prefixes = || {
        let dump = a.ns().check(&["bpftool", "-j", "map", "dump", "pinned", pin.to_str().unwrap()]).unwrap();
        let dump: Value = serde_json::from_str(&dump).unwrap();
        dump[0]["formatted"]["value"]["prefixes"].to_string().replace("\"addr\":", "")
    };
    let has = |address: [u8; 4]| prefixes().contains(&format!("{address:?}").replace(' ', ""));
    wait_until("the link's own address", SOON, || has([192, 0, 2, 1]).then_some(())).unwrap();
    a.ns().ip("addr add 203.0.113.7/25 dev eth0").unwrap();
    wait_until("a new address", BY_EVENT, || has([203, 0, 113, 7]).then_some(())).unwrap();
    assert!(prefixes().contains("255,255,255,128"), "{}", prefixes());
    a.ns().ip("addr del 203.0.113.7/25 dev eth0").unwrap();
    wait_until("its end", BY_EVENT, || (!has([203, 0, 113, 7])).then_some(())).unwrap();
    assert!(has([192, 0, 2, 1]));
}

#[test]
fn a_flapping_link_ends_in_the_right_state() {
    if !root_or_skip("a_flapping_link_ends_in_the_right_state") {
        return;
    }
    let (lab, agent) = answering(&["eth0"], &["--fence", "30s"]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let commands = agent.commands();
    let flaps = "link set eth0 down\nlink set eth0 up\n".repeat(50);
    a.ns().ip(&flaps).unwrap();
    wait_status(commands, "a running link", |s| s["agent"]["links"]["eth0"]["running"] == true);
    for vip in VIPS {
        assert_answers(c, "eth0", vip, a.mac());
    }
    // And the other way round: gone and back and gone, by name.
    a.ns().ip(&"link set eth0 name x\nlink set x name eth0\n".repeat(50)).unwrap();
    wait_states(commands, &VIPS.map(|vip| (vip, "eth0", "answering")));
    for vip in VIPS {
        assert_answers(c, "eth0", vip, a.mac());
    }
    a.ns().ip("link set eth0 down").unwrap();
    wait_status(commands, "a link that is down", |s| s["agent"]["links"]["eth0"]["running"] == false);
}

#[test]
fn what_somebody_detaches_is_attached_again() {
    if !root_or_skip("what_somebody_detaches_is_attached_again") {
        return;
    }
    let (lab, mut agent) = answering(&["eth0"], &["--attach", "netlink"]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let start = Instant::now();
    a.ns().ip("link set dev eth0 xdp off").unwrap();
    agent.process().wait_line(SOON, |l| l.contains("detached by somebody else")).unwrap();
    for vip in VIPS {
        assert_answers(c, "eth0", vip, a.mac());
    }
    println!("detached to attached again: {:?}", start.elapsed());
    assert!(start.elapsed() < BY_EVENT, "by the kernel's report, not by the inspection");
    let status = wait_states(agent.commands(), &VIPS.map(|vip| (vip, "eth0", "answering")));
    assert_eq!(states(&status).len(), 2);
}

/// Not ours is not touched: an address that was never named stays with the host, whatever happens to the link.
#[test]
fn the_host_s_own_addresses_are_answered_by_the_host() {
    if !root_or_skip("the_host_s_own_addresses_are_answered_by_the_host") {
        return;
    }
    let (lab, _agent) = answering(&["eth0"], &[]);
    let (a, c) = (lab.node("a"), lab.node("c"));
    assert_answers(c, "eth0", v4(1), a.mac());
    assert_answers(c, "eth0", v6(1), a.mac());
    let commands = Commands::new(a).unwrap();
    wait_states(&commands, &VIPS.map(|vip| (vip, "eth0", "answering")));
}
