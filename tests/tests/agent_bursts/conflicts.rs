//! Another station claims an address that is owned here.

use std::{fs, net::IpAddr};

use responder_lab::{
    Agent, BootTime, Capture, Mac, StaticFile,
    frames::{Arp, advertisement, arp, solicitation},
    root_or_skip, send_all,
};

use super::{
    agent_support::{Watch, count, one_host, v4, v6, wait_status},
    announcements, wait_rounds,
};

const FOREIGN: Mac = Mac([2, 0, 0, 0, 0, 0xee]);

fn claim(vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => {
            arp(Mac::BROADCAST, Arp { op: 1, sha: FOREIGN, spa: vip, tha: Mac::ZERO, tpa: vip })
        }
        IpAddr::V6(vip) => advertisement(FOREIGN, vip),
    }
}

/// CPU time that a process has used, in clock ticks (10 ms).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_conflict_is_told_and_answered_by_one_defence() {
    if !root_or_skip("a_conflict_is_told_and_answered_by_one_defence") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let vips = [v4(10), v6(0x10), v6(0x11)];
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let file = StaticFile::on(&["eth0"]).own(&vips);
    let mut agent = Agent::start(a, &file, &["--announce-interval", "0"]).unwrap();
    let commands = agent.commands().clone();
    let watch = Watch::start(a, &mut agent);
    // During the burst itself no defence is needed.
    vips.iter().for_each(|vip| drop(wait_rounds(&capture, *vip, 3)));

    let IpAddr::V6(duplicate) = vips[2] else { panic!("an IPv6 address") };
    let claims = [claim(vips[0]), claim(vips[1]), solicitation(FOREIGN, duplicate, duplicate)];
    for ((vip, frame), by) in vips.iter().zip(claims).zip(["arp", "na", "ns"]) {
        send_all(c.ns(), "eth0", &[frame]).unwrap();
        let event = watch.wait_vip("conflict", *vip);
        assert_eq!((&event["claimer"], &event["by"]), (&FOREIGN.to_string().into(), &by.into()));
        assert_eq!(event["link"], "eth0");
        wait_rounds(&capture, *vip, 4);
        let status = wait_status(&commands, "a counted conflict", |s| count(s, *vip, "conflicts") == 1);
        assert_eq!(status["events_limited"], 0);
    }
    let log = agent.process().stderr();
    let warned =
        |l: &str| l.contains("WARN") && l.contains("claims this address") && l.contains("192.0.2.10");
    assert!(log.lines().any(|l| warned(l) && l.contains(&FOREIGN.to_string())), "{log}");

    // A flood costs nothing and is not answered by another: one defence in ten seconds.
    let (start, before) = (BootTime::now(), ticks(agent.process().pid()));
    let told = watch.events().iter().filter(|e| e["event"] == "conflict").count();
    let defence = announcements(&capture.frames(), vips[0])[3].at;
    send_all(c.ns(), "eth0", &vec![claim(vips[0]); 1000]).unwrap();
    let status = wait_status(&commands, "a counted flood", |s| {
        // What a full queue on the way has dropped is nobody's fault.
        count(s, vips[0], "conflicts") > 500 && s["events_limited"].as_u64().unwrap() > 450
    });
    let (end, after) = (BootTime::now(), ticks(agent.process().pid()));
    let events = watch.events().iter().filter(|e| e["event"] == "conflict").count() - told;
    println!(
        "flood: {} claims, {events} events, {} ms of CPU",
        status["vips"][0]["conflicts"],
        (after - before) * 10
    );
    let seconds = end.since(start).as_secs() as usize;
    assert!(events <= seconds + 2, "{events} events in {seconds} s");
    let defences = announcements(&capture.frames(), vips[0]);
    let soon = defences.iter().filter(|f| f.at > defence && f.at.since(defence).as_secs() < 10).count();
    assert_eq!(soon, 0, "defended again within ten seconds");
}
