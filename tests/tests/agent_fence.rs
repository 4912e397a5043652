//! An agent that is stopped, starved or gone: the datapath falls silent at the deadline, stays silent for what was
//! given away meanwhile, and lets the host be a host again at the end of suppression. And what a host says of
//! addresses that it does not own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    Agent, Capture, Lab, NeighbourWatch, Node, Prober, Probing, StaticFile, Status, frames::Body, neighbour,
    root_or_skip, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const VIPS: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

/// Hosts with the VIPs on their `lo`, where the kernel would answer for them, and a client.
fn lab(hosts: &[&str]) -> Result<Lab> {
    let lab = Lab::builder().hosts(hosts).build()?;
    for host in hosts {
        lab.node(host).add_to_lo(&VIPS)?;
    }
    Ok(lab)
}

fn own() -> StaticFile {
    StaticFile::on(&["eth0"]).own(&VIPS)
}

fn standby() -> StaticFile {
    StaticFile::on(&["eth0"]).standby(&VIPS)
}

/// The VIPs behind many others, in the file and in the order of the maps: whoever extended the deadline before the
/// maps are true would answer for them for long enough to be seen.
fn behind_many() -> Vec<IpAddr> {
    let many = (0..1000u32).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0ac8_0000 + n)));
    many.chain(VIPS).collect()
}

/// Questions for both VIPs, slow enough and from few enough senders for a kernel that answers.
fn probers(client: &Node) -> Result<Vec<Prober>> {
    let probing = |vip| Probing { senders: 100, ..Probing::new(vip, Duration::from_millis(4)) };
    VIPS.into_iter().map(|vip| Prober::start(client.ns(), probing(vip))).collect()
}

fn wait_answers(probers: &[Prober]) -> Result<()> {
    probers.iter().try_for_each(|prober| prober.wait_answers(20, SOON))
}

fn wait_silence(probers: &[Prober]) -> Result<()> {
    probers.iter().try_for_each(|prober| prober.wait_silence(100, SOON))
}

#[test]
fn a_stopped_agent_falls_silent_and_returns() {
    if !root_or_skip("a_stopped_agent_falls_silent_and_returns") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut agent = Agent::start(a, &own(), &["--fence", "1s"]).unwrap();
    let probers = probers(c).unwrap();
    for _ in 0..2 {
        wait_answers(&probers).unwrap();
        agent.freeze().unwrap();
        wait_silence(&probers).unwrap();
        agent.thaw().unwrap();
        for prober in &probers {
            prober.wait_answer_by(a.mac(), SOON).unwrap();
        }
        agent.process().wait_line(SOON, |line| line.contains("the deadline had passed")).unwrap();
    }
    let status = Status::read(agent.commands()).unwrap();
    assert!(status.count("received", "suppressed_expired") >= 400, "{status:?}");
    for prober in probers {
        assert_eq!(prober.stop().unwrap().silences.len(), 2, "one for each time, and no other");
    }
}

/// Asks from now on; ends with an error if there is a single answer until the agent has taken note of its file and
/// some time longer.
fn ensure_no_answer(client: &Node, act: impl FnOnce() -> Result<Agent>) -> Result<()> {
    let probers = probers(client)?;
    wait_silence(&probers)?;
    let agent = act()?;
    Status::wait(agent.commands(), "standby", SOON, |status| {
        status.0["agent"].is_object() && status.deadline_left_ms() > 0 && status.state(V4.into()) == "standby"
    })?;
    let suppressed = |status: &Status| status.count("received", "suppressed_standby");
    let seen = suppressed(&Status::read(agent.commands())?);
    let heard = |status: &Status| suppressed(status) > seen + 100;
    Status::wait(agent.commands(), "questions since", SOON, heard)?;
    for prober in probers {
        let answers = prober.stop()?.answers;
        ensure!(answers.is_empty(), "answered: {:?}", answers.first());
    }
    Ok(())
}

#[test]
fn what_was_given_away_while_the_agent_was_stopped_is_not_answered_again() {
    if !root_or_skip("what_was_given_away_while_the_agent_was_stopped_is_not_answered_again") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let own = StaticFile::on(&["eth0"]).own(&behind_many());
    let standby = StaticFile::on(&["eth0"]).standby(&behind_many());
    let agent = Agent::start(a, &own, &["--fence", "1s"]).unwrap();
    agent.freeze().unwrap();
    Status::wait(agent.commands(), "the deadline", SOON, |s| s.deadline_left_ms() < 0).unwrap();
    let capture = Capture::start(c.ns(), "eth0").unwrap();
    ensure_no_answer(c, || {
        agent.write(&standby)?;
        agent.thaw()?;
        Ok(agent)
    })
    .unwrap();
    let announced = |vip| capture.frames().iter().any(|frame| frame.is_gratuitous(vip));
    assert!(!VIPS.into_iter().any(announced), "announced what is not owned any more");
}

#[test]
fn what_was_given_away_while_no_agent_ran_is_not_answered_again() {
    if !root_or_skip("what_was_given_away_while_no_agent_ran_is_not_answered_again") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let own = StaticFile::on(&["eth0"]).own(&behind_many());
    let standby = StaticFile::on(&["eth0"]).standby(&behind_many());
    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &own, &["--fence", "1s", "--attach", via]).unwrap();
        let commands = agent.commands().clone();
        agent.kill().unwrap();
        Status::wait(&commands, "the deadline", SOON, |s| s.deadline_left_ms() < 0).unwrap();
        ensure_no_answer(c, || Agent::start(a, &standby, &["--attach", via])).unwrap();
    }
}

/// Given away with the deadline still ahead: the new agent's first act is to stop answering, and from the moment
/// at which it says so nothing is answered.
#[test]
fn a_restart_gives_away_before_the_deadline() {
    if !root_or_skip("a_restart_gives_away_before_the_deadline") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    Agent::start(a, &own(), &[]).unwrap().kill().unwrap();
    let probers = probers(c).unwrap();
    wait_answers(&probers).unwrap();
    let agent = Agent::start(a, &standby(), &[]).unwrap();
    wait_silence(&probers).unwrap();
    for prober in probers {
        assert_eq!(prober.stop().unwrap().silences.len(), 1);
    }
    let status = Status::read(agent.commands()).unwrap();
    assert!(VIPS.into_iter().all(|vip| status.state(vip) == "standby"), "{status:?}");
}

#[test]
fn suppression_ends_when_the_agent_is_gone_for_good() {
    if !root_or_skip("suppression_ends_when_the_agent_is_gone_for_good") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = Agent::start(a, &own(), &["--fence", "1s", "--suppress", "3s"]).unwrap();
    let commands = agent.commands().clone();
    let probers = probers(c).unwrap();
    wait_answers(&probers).unwrap();
    agent.kill().unwrap();
    // Linux answers for an IPv4 address on any link, but for an IPv6 address only on its own.
    a.ns().ip(&format!("addr del {V6}/128 dev lo")).unwrap();
    a.ns().add_address("eth0", V6.into()).unwrap();
    wait_silence(&probers).unwrap();
    let dropped = Status::read(&commands).unwrap();
    assert!(dropped.count("received", "suppressed_expired") > 0, "{dropped:?}");
    assert_eq!(dropped.count("received", "passed_abandoned"), 0, "{dropped:?}");
    // The kernel answers, to which these are addresses like others.
    for prober in &probers {
        prober.wait_answer_by(a.mac(), SOON).unwrap();
    }
    let status = Status::read(&commands).unwrap();
    assert!(VIPS.into_iter().all(|vip| status.state(vip) == "abandoned"), "{status:?}");
    assert!(status.count("received", "passed_abandoned") >= 2, "{status:?}");
    for prober in probers {
        let report = prober.stop().unwrap();
        assert_eq!(report.silences.len(), 1, "{:?}", report.silences);
        println!("silent for {:?}", report.longest_silence());
    }
}

#[test]
fn suppression_must_not_end_before_the_fence() {
    let test = "suppression_must_not_end_before_the_fence";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let a = lab.node("a");
    let mut agent = Agent::spawn(a, &own(), &["--fence", "5s", "--suppress", "3s"]).unwrap();
    assert_eq!(agent.process().wait(SOON).unwrap().code(), Some(2));
    let error = agent.process().stderr();
    assert!(error.contains("--suppress 3s is shorter than --fence 5s"), "{error}");
    assert!(!a.bpffs().exists());
}

/// Lets `host`, which has the VIP on its `lo`, send a datagram from the VIP to the client, which it must ask for
/// first. Returns when the datagram has arrived.
fn send_from_vip(host: &Node, client: &Node) -> Result<()> {
    let to = client.nics()[0].v4;
    let sink = client.ns().run(|| Ok(UdpSocket::bind((to, 0))?))?;
    sink.set_read_timeout(Some(SOON))?;
    host.ns().ip("neigh flush dev eth0 nud all")?;
    ensure!(neighbour(host.ns(), to.into())?.is_none(), "the client is still known");
    host.ns().run(|| {
        let socket = UdpSocket::bind((V4, 0))?;
        socket.send_to(b"from the VIP", sink.local_addr()?)?;
        Ok(())
    })?;
    let (_, from) = sink.recv_from(&mut [0; 64]).context("the datagram did not arrive")?;
    ensure!(from.ip() == V4, "it came from {from}");
    Ok(())
}

/// The client believes that the VIP is at host b, and believes whom it hears without delay.
fn teach(client: &Node, owner: &Node) -> Result<()> {
    client.ns().set_sysctl("ipv4/neigh/eth0/locktime", "0")?;
    client.ns().ip(&format!("neigh replace {V4} dev eth0 lladdr {} nud stale", owner.mac()))
}

#[test]
fn own_requests_do_not_spoil_caches() {
    if !root_or_skip("own_requests_do_not_spoil_caches") {
        return;
    }
    let lab = lab(&["a", "b"]).unwrap();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    assert_eq!(a.ns().sysctl("ipv4/conf/eth0/arp_announce").unwrap(), "0");
    let _owner = Agent::start(b, &own(), &[]).unwrap();

    // Without us: one datagram is enough.
    teach(c, b).unwrap();
    let watch = NeighbourWatch::start(c.ns()).unwrap();
    send_from_vip(a, c).unwrap();
    watch.wait_for(V4.into(), a.mac(), SOON).unwrap();
    assert_eq!(neighbour(c.ns(), V4.into()).unwrap(), Some(a.mac()), "spoilt");

    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &standby(), &["--attach", via]).unwrap();
        let corrected = |status: &Status| status.count("sent", "request_corrected");
        let before = corrected(&Status::read(agent.commands()).unwrap());
        teach(c, b).unwrap();
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        send_from_vip(a, c).unwrap();
        // The datagram came, so the client has heard and answered the request.
        let request = capture.wait_for("a's request", SOON, |f| f.src == a.mac()).unwrap();
        let Body::Arp(arp) = request.body else { panic!("{request:?}") };
        assert_eq!((arp.op, arp.spa, arp.sha), (1, a.nics()[0].v4, a.mac()), "{via}");
        assert_eq!(neighbour(c.ns(), V4.into()).unwrap(), Some(b.mac()), "{via}");
        let status = Status::read(agent.commands()).unwrap();
        assert!(corrected(&status) > before, "{via}: {status:?}");
        assert_eq!(a.ns().sysctl("ipv4/conf/eth0/arp_announce").unwrap(), "0", "left as it is");
        assert!(agent.terminate().unwrap().success());
        // A former owner goes on forwarding without an agent, too.
        send_from_vip(a, c).unwrap();
        assert_eq!(neighbour(c.ns(), V4.into()).unwrap(), Some(b.mac()), "{via}: after the end");
    }
}

#[test]
fn an_owner_asks_in_the_name_of_its_address() {
    if !root_or_skip("an_owner_asks_in_the_name_of_its_address") {
        return;
    }
    let lab = lab(&["a"]).unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    for via in ["link", "netlink"] {
        let agent = Agent::start(a, &standby(), &["--attach", via]).unwrap();
        agent.write(&own()).unwrap();
        Status::wait(agent.commands(), "ownership", SOON, |s| s.state(V4.into()) == "answering").unwrap();
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        send_from_vip(a, c).unwrap();
        let asks = |body| matches!(body, Body::Arp(arp) if arp.spa == V4 && arp.tpa == c.nics()[0].v4);
        let request = capture.wait_for("a's request", SOON, |f| f.src == a.mac() && asks(f.body)).unwrap();
        println!("{via}: {request:?}");
        wait_until("the counter", SOON, || {
            let status = Status::read(agent.commands()).ok()?;
            (status.count("sent", "owned") > 0).then_some(())
        })
        .unwrap();
        let status = Status::read(agent.commands()).unwrap();
        assert_eq!(status.count("sent", "request_corrected"), 0, "{status:?}");
        agent.kill().unwrap();
    }
}
