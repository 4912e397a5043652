//! Addresses and interfaces that are not used, each for its own reason.

use std::{net::IpAddr, time::Instant};

use responder_lab::{Agent, Capture, StaticFile, root_or_skip};

use super::agent_support::{
    BY_EVENT, SOON, Watch, assert_answers, one_host, refusal, v4, v6, wait_states, wait_status,
};

#[test]
fn addresses_that_nobody_may_announce() {
    if !root_or_skip("addresses_that_nobody_may_announce") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let everywhere = [
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("224.0.0.5", "multicast"),
        ("ff02::5", "multicast"),
        ("255.255.255.255", "limited broadcast"),
        ("169.254.7.7", "link-local"),
        ("0.1.2.3", "0.0.0.0/8"),
        ("::ffff:192.0.2.99", "IPv4-mapped"),
    ];
    let on_link = [
        ("192.0.2.1", "is an address of eth0 itself"),
        ("2001:db8::1", "is an address of eth0 itself"),
        ("192.0.2.0", "network or broadcast address of 192.0.2.1/24"),
        ("192.0.2.255", "network or broadcast address of 192.0.2.1/24"),
    ];
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    let bad: Vec<IpAddr> = everywhere.iter().chain(&on_link).map(|(ip, _)| parse(ip)).collect();
    let file = StaticFile::on(&["eth0"]).own(&[v4(10)]).own(&bad).own(&[v6(0x10), v4(10)]);
    let agent = Agent::start(a, &file, &[]).unwrap();
    // The others go on.
    let status =
        wait_states(agent.commands(), &[(v4(10), "eth0", "answering"), (v6(0x10), "eth0", "answering")]);
    for (cases, link) in
        [(&everywhere[..], ""), (&on_link, "eth0"), (&[("192.0.2.10", "is in line 3 already")], "")]
    {
        for (ip, reason) in cases {
            let said = refusal(&status, parse(ip), link).unwrap_or_default();
            assert!(said.contains(reason), "{ip}: {said:?}, not {reason:?}");
        }
    }
    assert_eq!(status["agent"]["refused"].as_array().unwrap().len(), bad.len() + 1);
    assert_answers(c, "eth0", v4(10), a.mac());
    assert_answers(c, "eth0", v6(0x10), a.mac());
    // The host's own address is the kernel's to answer for, still.
    assert_answers(c, "eth0", v4(1), a.mac());
}

#[test]
fn an_address_that_the_host_gets_is_left_to_it_until_it_goes() {
    if !root_or_skip("an_address_that_the_host_gets_is_left_to_it_until_it_goes") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let vips = [v4(10), v6(0x10)];
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&vips), &[]).unwrap();
    let watch = Watch::start(a, &mut agent);
    let commands = agent.commands();
    wait_states(commands, &vips.map(|vip| (vip, "eth0", "answering")));
    vips.iter().for_each(|vip| a.ns().add_address("eth0", *vip).unwrap());
    wait_states(commands, &[]);
    for vip in vips {
        watch.wait_vip("lost", vip);
        let status = wait_status(commands, "the reason", |s| refusal(s, vip, "eth0").is_some());
        assert!(refusal(&status, vip, "eth0").unwrap().contains("remove it there"), "with the way out");
        assert_answers(c, "eth0", vip, a.mac()); // by the kernel
    }
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let start = Instant::now();
    a.ns().ip("addr del 192.0.2.10/32 dev eth0\naddr del 2001:db8::10/128 dev eth0").unwrap();
    for vip in vips {
        capture.wait_for("announcement", SOON, |f| f.is_gratuitous(vip)).unwrap();
    }
    println!("address removed to announced: {:?}", start.elapsed());
    assert!(start.elapsed() < BY_EVENT, "by an event, not by the inspection");
    wait_states(commands, &vips.map(|vip| (vip, "eth0", "answering")));
}

#[test]
fn interfaces_that_are_missing_or_unfit() {
    if !root_or_skip("interfaces_that_are_missing_or_unfit") {
        return;
    }
    let lab = one_host(2);
    let (a, c) = (lab.node("a"), lab.node("c"));
    lab.delete_nic(a, "eth1").unwrap();
    a.ns().ip("tuntap add tun0 mode tun\nlink set tun0 up").unwrap();
    let other = IpAddr::from([198, 51, 100, 20]);
    let file = StaticFile::on(&["lo", "tun0", "bond*", "eth1"]).own(&[other]).own_on(v4(10), &["eth0"]);
    let agent = Agent::start(a, &file, &[]).unwrap();
    let status = wait_states(agent.commands(), &[(v4(10), "eth0", "answering")]);
    let waiting = &status["agent"]["waiting"];
    for (name, reason) in [
        ("lo", "is the loopback interface"),
        ("tun0", "is no Ethernet interface"),
        ("bond*", "no interface matches yet"),
        ("eth1", "there is no such interface yet"),
    ] {
        assert!(waiting[name].as_str().unwrap_or_default().contains(reason), "{name}: {waiting}");
    }
    let shown = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(shown.contains("there is no such interface yet"), "{shown}");
    assert_answers(c, "eth0", v4(10), a.mac());
    // Used as soon as it is there.
    let nic = &a.nics()[1];
    let start = Instant::now();
    lab.connect(a, nic).unwrap();
    assert_answers(c, "eth1", other, nic.mac);
    println!("interface created to answered: {:?}", start.elapsed());
    assert!(start.elapsed() < BY_EVENT, "by an event, not by the inspection");
    let status =
        wait_states(agent.commands(), &[(v4(10), "eth0", "answering"), (other, "eth1", "answering")]);
    assert!(status["agent"]["waiting"]["eth1"].is_null());
}
