//! Gratuitous ARP and unsolicited advertisements: what they look like, when they are sent and when not.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;
#[path = "agent_bursts/conflicts.rs"]
mod conflicts;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use agent_support::{SOON, Watch, count, one_host, v4, v6, wait_states, wait_status};
use nix::sys::signal::Signal;
use responder_lab::{
    Agent, BootTime, Capture, Lab, Mac, NeighbourWatch, StaticFile,
    frames::{Body, Frame},
    resolve, root_or_skip, wait_until,
};

/// The rounds of a burst come 1.1 s after each other, later on a busy machine.
const SECOND: Duration = Duration::from_secs(1);

/// Announcements of `vip`: in ARP the requests, of which each is followed by a reply.
fn announcements(frames: &[Frame], vip: IpAddr) -> Vec<Frame> {
    let first = |f: &&Frame| match f.body {
        Body::Arp(arp) => arp.op == 1,
        Body::Advertisement(_) | Body::Solicitation(_) => true,
    };
    frames.iter().filter(|f| f.is_gratuitous(vip)).filter(first).cloned().collect()
}

fn wait_rounds(capture: &Capture, vip: IpAddr, count: usize) -> Vec<Frame> {
    let found = wait_until(&format!("{count} announcements of {vip}"), SOON, || {
        let all = announcements(&capture.frames(), vip);
        (all.len() >= count).then_some(all)
    });
    found.unwrap_or_else(|e| panic!("{e}: {:?}", capture.frames()))
}

/// Whether each frame of a burst is what RFC 5227 and RFC 4861 say.
fn assert_form(frames: &[Frame], vip: IpAddr, mac: Mac, router: bool) {
    for frame in frames.iter().filter(|f| f.is_gratuitous(vip)) {
        assert_eq!((frame.src, frame.vlan), (mac, None));
        match frame.body {
            Body::Arp(arp) => {
                assert_eq!(frame.dst, Mac::BROADCAST);
                assert_eq!((arp.sha, arp.spa, arp.tpa), (mac, arp.tpa, arp.spa));
                assert_eq!(arp.tha, if arp.op == 1 { Mac::ZERO } else { mac }, "{arp:?}");
            }
            Body::Advertisement(na) => {
                assert_eq!(frame.dst, Mac([0x33, 0x33, 0, 0, 0, 1]));
                assert_eq!((IpAddr::V6(na.src), na.dst.to_string()), (vip, "ff02::1".to_owned()));
                assert_eq!(na.flags, if router { 0xa0 } else { 0x20 }, "override, not solicited, router");
                assert_eq!((na.lladdr, na.checksum_ok), (Some(mac), true));
                assert_eq!(frame.bytes[21], 255, "hop limit");
            }
            Body::Solicitation(_) => panic!("{frame:?}"),
        }
    }
}

#[test]
fn a_burst_on_every_link_and_then_silence() {
    if !root_or_skip("a_burst_on_every_link_and_then_silence") {
        return;
    }
    let lab = one_host(2);
    let (a, c) = (lab.node("a"), lab.node("c"));
    for router in [false, true] {
        a.set_ipv6_forwarding(router).unwrap();
        let captures = ["eth0", "eth1"].map(|nic| Capture::start(c.ns(), nic).unwrap());
        let own = [v4(10), v6(0x10)];
        let file = StaticFile::on(&["eth*"]).own(&own).standby(&[v4(11), v6(0x11)]);
        let agent = Agent::start(a, &file, &["--announce-interval", "0"]).unwrap();
        for capture in &captures {
            own.iter().for_each(|vip| drop(wait_rounds(capture, *vip, 3)));
        }
        // The whole burst of another address later, there is still no fourth.
        agent.write(&file.own(&[v4(12)])).unwrap();
        for (capture, nic) in captures.iter().zip(a.nics()) {
            wait_rounds(capture, v4(12), 3);
            let frames = capture.frames();
            for vip in own {
                let rounds = announcements(&frames, vip);
                assert_eq!(rounds.len(), 3, "{vip} on {}", nic.name);
                for pair in rounds.windows(2) {
                    let gap = pair[1].at.since(pair[0].at);
                    assert!(gap >= SECOND, "{vip} on {}: again after {gap:?}", nic.name);
                }
                assert_form(&frames, vip, nic.mac, router);
            }
            let replies = frames.iter().filter(|f| f.is_gratuitous(v4(10))).count();
            assert_eq!(replies, 6, "each request with its reply");
            for standby in [v4(11), v6(0x11)] {
                assert!(!frames.iter().any(|f| f.is_gratuitous(standby)), "{standby} is not owned here");
            }
        }
        let status = agent.commands().status().unwrap();
        assert_eq!(status["agent"]["burst_errors"], 0);
        assert!(status["agent"]["burst_frames"].as_u64().unwrap() >= 2 * (6 + 3 + 6));
        assert!(agent.terminate().unwrap().success());
    }
}

#[test]
fn after_the_burst_slowly_for_ever() {
    if !root_or_skip("after_the_burst_slowly_for_ever") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let file = StaticFile::on(&["eth0"]).own(&[v4(10), v6(0x10)]);
    let _agent = Agent::start(a, &file, &["--announce-interval", "2s"]).unwrap();
    for vip in [v4(10), v6(0x10)] {
        let rounds = wait_rounds(&capture, vip, 5);
        let gaps: Vec<_> = rounds.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
        assert!(gaps[..2].iter().all(|gap| *gap >= SECOND), "{vip}: {gaps:?}");
        // Rounds are due 2 s apart; one that was sent late is nearer to the next.
        assert!(gaps[2..].iter().all(|gap| *gap >= 2 * SECOND - SECOND / 4), "{vip}: {gaps:?}");
    }
}

/// 10.2.0.n.
fn many(count: u32) -> Vec<IpAddr> {
    (0..count).map(|n| IpAddr::V4((0x0a02_0001 + n).into())).collect()
}

#[test]
fn paced_fair_and_cancelled_at_once() {
    const RATE: u32 = 200;
    if !root_or_skip("paced_fair_and_cancelled_at_once") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let (stay, go) = (many(250), many(400).split_off(250));
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let file = StaticFile::on(&["eth0"]).own(&stay);
    let options = ["--announce-rate", &RATE.to_string(), "--fence", "30s"];
    let agent = Agent::start(a, &file.clone().own(&go), &options).unwrap();
    // In the middle of the first round a part is lost, after the first of them has been announced.
    wait_until("announcements", SOON, || (capture.frames().len() > 100).then_some(())).unwrap();
    agent.write(&file.clone().standby(&go).own(&[v4(10)])).unwrap();
    wait_status(agent.commands(), "the loss", |s| {
        let vips = s["vips"].as_array().unwrap();
        vips.iter().filter(|v| v["state"] == "standby").count() == go.len()
    });
    let lost = BootTime::now();
    // An address gained meanwhile does not wait for the others' second round.
    wait_rounds(&capture, v4(10), 1);
    wait_rounds(&capture, stay[249], 2);
    let frames = capture.stop().unwrap();

    let late: Vec<_> =
        frames.iter().filter(|f| f.at > lost && go.iter().any(|vip| f.is_gratuitous(*vip))).collect();
    assert!(late.is_empty(), "{} frames for what is lost", late.len());
    let never = go.iter().filter(|vip| announcements(&frames, **vip).is_empty()).count();
    assert!(never > 0, "the loss came after the round, so that nothing has been shown");

    let mut times = BTreeMap::<IpAddr, usize>::new();
    for frame in &frames {
        let Body::Arp(arp) = frame.body else { continue };
        if arp.op == 1 && arp.spa == arp.tpa && stay.contains(&IpAddr::V4(arp.spa)) {
            *times.entry(IpAddr::V4(arp.spa)).or_default() += 1;
            if times[&IpAddr::V4(arp.spa)] == 2 {
                assert_eq!(times.len(), stay.len(), "{} twice before all once", arp.spa);
            }
        }
    }
    // Over any time: what the bucket holds (a twentieth of a second) and what has come since, and some room
    // for frames that this machine was late to receive.
    let sent: Vec<_> = frames.iter().filter(|f| f.src == a.mac()).filter(|f| f.claim().is_some()).collect();
    let gratuitous: Vec<_> = sent
        .iter()
        .filter(|f| matches!(f.body, Body::Arp(arp) if arp.spa == arp.tpa))
        .map(|f| f.at)
        .collect();
    for (i, first) in gratuitous.iter().enumerate() {
        for (n, last) in gratuitous.iter().enumerate().skip(i + 50).step_by(50) {
            let allowed = 60.0 + last.since(*first).as_secs_f64() * f64::from(RATE) * 1.1;
            assert!((n - i) as f64 <= allowed, "{} frames in {:?}", n - i, last.since(*first));
        }
    }
    let span = gratuitous[gratuitous.len() - 1].since(gratuitous[0]);
    println!("{} frames in {span:?} at {RATE} per second", gratuitous.len());
}

#[test]
fn announced_anew_after_a_lapse() {
    if !root_or_skip("announced_anew_after_a_lapse") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let file = StaticFile::on(&["eth0"]).own(&[v4(10), v6(0x10)]);
    let options = ["--announce-interval", "0", "--fence", "1s"];
    let mut agent = Agent::start(a, &file, &options).unwrap();
    let commands = agent.commands().clone();
    [v4(10), v6(0x10)].iter().for_each(|vip| drop(wait_rounds(&capture, *vip, 3)));
    let watch = Watch::start(a, &mut agent);
    agent.process().signal(Signal::SIGSTOP).unwrap();
    wait_until("the deadline to pass", SOON, || {
        let status = commands.status().ok()?;
        (status["fence"]["deadline_left_ms"].as_i64()? < -100).then_some(())
    })
    .unwrap();
    capture.clear();
    agent.process().signal(Signal::SIGCONT).unwrap();
    for vip in [v4(10), v6(0x10)] {
        wait_rounds(&capture, vip, 1);
    }
    let lapsed = watch.wait("lapsed", |_| true);
    assert!(lapsed["silent_ms"].as_u64().unwrap() >= 100, "{lapsed}");
}

#[test]
fn what_cannot_be_sent_is_tried_again_and_counted() {
    if !root_or_skip("what_cannot_be_sent_is_tried_again_and_counted") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    // A queue that takes nothing: ENOBUFS. Answers of the program do not go through it.
    let tc = |what: &[&str]| {
        let argv = [&["tc", "qdisc", what[0], "dev", "eth0", "root"], &what[1..]].concat();
        a.ns().check(&argv).unwrap();
    };
    tc(&["add", "pfifo", "limit", "0"]);
    let file = StaticFile::on(&["eth0"]).own(&[v4(10), v6(0x10)]);
    let agent = Agent::start(a, &file, &["--announce-interval", "0"]).unwrap();
    let errors = |s: &serde_json::Value| s["agent"]["burst_errors"].as_u64().unwrap_or(0);
    let status = wait_status(agent.commands(), "failures", |s| errors(s) >= 6);
    assert_eq!(status["agent"]["burst_frames"], 0);
    assert!(!capture.frames().iter().any(|f| f.is_gratuitous(v4(10)) || f.is_gratuitous(v6(0x10))));
    tc(&["del"]);
    for vip in [v4(10), v6(0x10)] {
        wait_rounds(&capture, vip, 3);
    }
    let shown = agent.commands().output("status", &[]).unwrap().ok().unwrap().stdout;
    let line = shown.lines().find(|l| l.starts_with("Bursts")).unwrap();
    assert!(!line.contains(" 0 errors"), "{line}");
}

#[test]
fn a_linux_neighbour_follows_at_once_even_within_its_locktime() {
    if !root_or_skip("a_linux_neighbour_follows_at_once_even_within_its_locktime") {
        return;
    }
    let lab = Lab::builder().build().unwrap();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    let vips = [v4(10), v6(0x10)];
    let (own, standby) = (StaticFile::on(&["eth0"]).own(&vips), StaticFile::on(&["eth0"]).standby(&vips));
    let (at_a, at_b) = (Agent::start(a, &own, &[]).unwrap(), Agent::start(b, &standby, &[]).unwrap());
    let answering = vips.map(|vip| (vip, "eth0", "answering"));
    wait_states(at_a.commands(), &answering);
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    let watch = NeighbourWatch::start(c.ns()).unwrap();
    for vip in vips {
        assert_eq!(resolve(c.ns(), vip, SOON).unwrap(), a.mac());
    }
    let confirmed = BootTime::now();
    at_a.write(&standby).unwrap();
    at_b.write(&own).unwrap();
    for vip in vips {
        let change = watch.wait_for(vip, b.mac(), SOON).unwrap();
        println!("{vip}: neighbour entry changed {:?} after it was confirmed", change.at.since(confirmed));
        // By the first round already: the second is not there yet, or came later.
        let by_b = announcements(&capture.frames(), vip).into_iter().filter(|f| f.src == b.mac());
        let second = by_b.map(|f| f.at).nth(1);
        assert!(second.is_none_or(|second| change.at < second), "{vip}: only the second round was believed");
    }
    let status = wait_states(at_b.commands(), &answering);
    assert_eq!(count(&status, v4(10), "conflicts"), 0);
}
