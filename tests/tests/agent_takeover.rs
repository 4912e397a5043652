//! Agents that end and agents that follow them: without a gap where one follows, silent where none does.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use responder_lab::{
    Agent, BootTime, Lab, Node, Prober, Probing, Report, StaticFile, Status, bpftool, root_or_skip, tools,
    tools_or_skip, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const VIPS: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

/// A host with the VIPs on its `lo`, where the kernel would answer for them, and a client.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().hosts(&["a"]).build()?;
    lab.node("a").add_to_lo(&VIPS)?;
    Ok(lab)
}

fn file() -> StaticFile {
    StaticFile::on(&["eth0"]).own(&VIPS)
}

/// Questions for both VIPs, one a millisecond each.
struct Flood(Vec<Prober>);

impl Flood {
    fn start(client: &Node) -> Result<Self> {
        let start = |vip| Prober::start(client.ns(), Probing::new(vip, Duration::from_millis(1)));
        Ok(Self(VIPS.into_iter().map(start).collect::<Result<_>>()?))
    }

    fn wait_answers(&self, count: usize) -> Result<()> {
        self.0.iter().try_for_each(|prober| prober.wait_answers(count, SOON))
    }

    fn wait_silence(&self, count: usize) -> Result<()> {
        self.0.iter().try_for_each(|prober| prober.wait_silence(count, SOON))
    }

    fn stop(self) -> Result<Vec<Report>> {
        self.0.into_iter().map(Prober::stop).collect()
    }

    /// Ends it; every question must have been answered by `host`, and by nobody else.
    fn ensure_no_gap(self, host: &Node) -> Result<usize> {
        let mut questions = 0;
        for report in self.stop()? {
            let silences = &report.silences;
            ensure!(
                report.unanswered.is_empty() && report.not_sent == 0,
                "{} of {} unanswered: {silences:?}",
                report.unanswered.len(),
                report.sent.len()
            );
            ensure!(report.by_mac.keys().eq([&host.mac()]), "{:?}", report.by_mac);
            questions += report.sent.len();
        }
        Ok(questions)
    }
}

/// Answers counted per VIP, and per outcome.
fn counters(status: &Status) -> ([u64; 2], [u64; 2]) {
    let answered = VIPS.map(|vip| status.vip(vip)["answered"].as_u64().unwrap_or(0));
    (answered, ["arp_answered", "ns_answered"].map(|outcome| status.count("received", outcome)))
}

/// The kernel's id of the pinned XDP link.
fn link_id(host: &Node) -> Result<u64> {
    let pin = host.bpffs().join(format!("v3/links/xdp-{}", host.ns().ifindex("eth0")?));
    let link = bpftool(host.ns(), &["link", "show", "pinned", pin.to_str().context("UTF-8")?])?;
    link["id"].as_u64().with_context(|| format!("no id in {link}"))
}

/// Kills agents under a flood and starts others: no question is unanswered, and counters go on.
fn killed_and_followed(via: &str) {
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
    let link = (via == "link").then(|| link_id(a).unwrap());
    let mut program = xdp_on(a.ns(), "eth0").unwrap().unwrap();
    let flood = Flood::start(c).unwrap();
    flood.wait_answers(100).unwrap();
    for _ in 0..2 {
        agent.kill().unwrap();
        flood.wait_answers(100).unwrap();
        agent = Agent::start(a, &file(), &["--attach", via]).unwrap();
        let (old, new) = (program, xdp_on(a.ns(), "eth0").unwrap().unwrap());
        assert_ne!(old.id, new.id, "the new agent's program runs");
        assert_eq!(old.mode, new.mode);
        program = new;
        agent.process().wait_line(SOON, |line| line.contains("taken over")).unwrap();
        agent.process().wait_line(SOON, |l| l.contains("kept") && l.contains("192.0.2.10")).unwrap();
        flood.wait_answers(100).unwrap();
    }
    assert_eq!(link, (via == "link").then(|| link_id(a).unwrap()), "one and the same link");
    let questions = flood.ensure_no_gap(a).unwrap();
    let (vips, outcomes) = counters(&Status::read(agent.commands()).unwrap());
    println!("{via}: {questions} questions, answered by VIP {vips:?}, by kind {outcomes:?}");
    // Every answer since the beginning is in the counters of the last agent. (Clients may have asked, too.)
    for counts in [vips, outcomes] {
        assert!(counts.iter().sum::<u64>() >= questions as u64 && !counts.contains(&0), "{counts:?}");
    }
}

#[test]
fn killed_and_followed_by_link() {
    if root_or_skip("killed_and_followed_by_link") {
        killed_and_followed("link");
    }
}

#[test]
fn killed_and_followed_by_netlink() {
    if root_or_skip("killed_and_followed_by_netlink") {
        killed_and_followed("netlink");
    }
}

/// An upgrade: the new agent waits, the old one is told to end, whatever it does at its end without a successor.
#[test]
fn a_waiting_agent_takes_over_without_a_gap() {
    if !root_or_skip("a_waiting_agent_takes_over_without_a_gap") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut first = Agent::start(a, &file(), &["--on-exit", "withdraw"]).unwrap();
    let flood = Flood::start(c).unwrap();
    flood.wait_answers(100).unwrap();
    for _ in 0..2 {
        let before = xdp_on(a.ns(), "eth0").unwrap().unwrap();
        let mut second = Agent::spawn(a, &file(), &[]).unwrap();
        second.process().wait_line(SOON, |line| line.contains("another agent runs here")).unwrap();
        // It does nothing yet.
        assert_eq!(xdp_on(a.ns(), "eth0").unwrap(), Some(before));
        let status = Status::read(first.commands()).unwrap();
        assert_eq!(status.0["agent"]["pid"], first.process().pid());
        // But what takes long is done.
        let loaded = programs_of(second.process().pid()).unwrap();
        assert_eq!(loaded.len(), 2, "an XDP and an egress program: {loaded:?}");
        first.process().signal(Signal::SIGTERM).unwrap();
        second.wait_ready().unwrap();
        assert!(first.process().wait(SOON).unwrap().success());
        let log = first.process().stderr();
        assert!(log.contains("the agent that waits takes over"), "{log}");
        let after = xdp_on(a.ns(), "eth0").unwrap().unwrap();
        assert!(after.id != before.id && loaded.contains(&after.id), "{after:?} of {loaded:?}");
        first = second;
        flood.wait_answers(100).unwrap();
    }
    flood.ensure_no_gap(a).unwrap();
}

/// The kernel's ids of the programs that a process has open.
fn programs_of(pid: u32) -> Result<BTreeSet<u64>> {
    let mut ids = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(file?.path()).unwrap_or_default(); // closed meanwhile
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.map(|id| id.trim().parse::<u64>()).transpose()?);
    }
    Ok(ids)
}

/// An upgrade to an agent that cannot work here: it says so at once, and the one that works goes on.
#[test]
fn one_that_is_not_fit_does_not_wait() {
    let test = "one_that_is_not_fit_does_not_wait";
    if !root_or_skip(test) || !tools_or_skip(test, &["setpriv"]) {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut first = Agent::start(a, &file(), &["--on-exit", "withdraw"]).unwrap();
    let flood = Flood::start(c).unwrap();
    flood.wait_answers(100).unwrap();
    let unfit = ["setpriv", "--bounding-set=-bpf,-sys_admin"];
    let mut run = first.commands().command_by(&unfit, "run");
    run.arg("--static").arg(first.commands().file());
    let output = a.ns().spawn(run).unwrap().finish(SOON).unwrap();
    assert_eq!(output.code(), Some(4), "{}", output.stderr);
    assert!(output.stderr.contains("CAP_BPF"), "{}", output.stderr);
    flood.wait_answers(100).unwrap();
    flood.ensure_no_gap(a).unwrap();
    let status = Status::read(first.commands()).unwrap();
    assert_eq!(status.0["agent"]["pid"], first.process().pid());
}

/// The file that counts is that of the take-over, not that of the start.
#[test]
fn a_waiting_agent_does_not_take_over_what_was_given_away() {
    if !root_or_skip("a_waiting_agent_does_not_take_over_what_was_given_away") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let first = Agent::start(a, &file(), &[]).unwrap();
    let mut second = Agent::spawn(a, &file(), &[]).unwrap();
    second.process().wait_line(SOON, |line| line.contains("another agent runs here")).unwrap();
    let commands = first.commands().clone();
    first.write(&StaticFile::on(&["eth0"]).standby(&VIPS)).unwrap();
    Status::wait(&commands, "standby", SOON, |s| s.state(V6.into()) == "standby").unwrap();
    let flood = Flood::start(c).unwrap();
    flood.wait_silence(100).unwrap();
    first.terminate().unwrap();
    second.wait_ready().unwrap();
    assert_eq!(Status::read(&commands).unwrap().state(V4.into()), "standby");
    flood.wait_silence(100).unwrap();
    for report in flood.stop().unwrap() {
        assert_eq!(report.answers, [], "answered what was given away");
    }
    let log = second.process().stderr();
    assert!(!log.contains("gained") && !log.contains("kept"), "{log}");
}

#[test]
fn a_waiting_agent_can_be_told_to_end() {
    if !root_or_skip("a_waiting_agent_can_be_told_to_end") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut first = Agent::start(a, &file(), &[]).unwrap();
    let flood = Flood::start(c).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut second = Agent::spawn(a, &file(), &[]).unwrap();
        second.process().wait_line(SOON, |line| line.contains("another agent runs here")).unwrap();
        second.process().signal(signal).unwrap();
        assert!(second.process().wait(SOON).unwrap().success());
    }
    flood.wait_answers(100).unwrap();
    flood.ensure_no_gap(a).unwrap();
    let status = Status::read(first.commands()).unwrap();
    assert_eq!(status.0["agent"]["pid"], first.process().pid());
    // Nobody waits any more: the end is an end.
    let commands = first.commands().clone();
    assert!(first.terminate().unwrap().success());
    assert_eq!(Status::read(&commands).unwrap().state(V4.into()), "standby");
}

/// The agent that was waited for removed all its pins at its end, as one does that failed to start.
#[test]
fn a_waiting_agent_finds_the_directory_gone() {
    if !root_or_skip("a_waiting_agent_finds_the_directory_gone") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    fs::create_dir(a.bpffs()).unwrap();
    let directory = fs::File::open(a.bpffs()).unwrap();
    let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock).unwrap();
    let mut agent = Agent::spawn(a, &file(), &[]).unwrap();
    agent.process().wait_line(SOON, |line| line.contains("another agent runs here")).unwrap();
    fs::remove_dir_all(a.bpffs()).unwrap();
    drop(lock);
    agent.wait_ready().unwrap();
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    // The lock is on what is there now.
    let output = agent.commands().output("detach", &[]).unwrap();
    assert!(output.stderr.contains("another agent runs on"), "{}", output.stderr);
}

/// Told to end by `signal`: silent from then on, the kernel with the VIPs on its `lo`, too.
fn withdraws_at(signal: Signal) {
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let mut agent = Agent::start(a, &file(), &[]).unwrap();
    let flood = Flood::start(c).unwrap();
    flood.wait_answers(100).unwrap();
    agent.process().signal(signal).unwrap();
    assert!(agent.process().wait(SOON).unwrap().success());
    let ended = BootTime::now();
    flood.wait_silence(300).unwrap();
    for report in flood.stop().unwrap() {
        let last = report.last_answer_by(a.mac()).unwrap();
        let asked = report.answers.iter().map(|answer| report.sent[answer.question]).max().unwrap();
        assert!(asked < ended, "asked after the agent's end and answered at {last:?}");
    }
    let commands = agent.commands().clone();
    let status = Status::read(&commands).unwrap();
    assert!(status.0["agent"].is_null(), "{status:?}");
    assert!(VIPS.iter().all(|vip| status.state(*vip) == "standby"), "{status:?}");
    assert!(status.count("received", "suppressed_standby") >= 300, "{status:?}");
    let screen = commands.output("status", &[]).unwrap().ok().unwrap().stdout;
    assert!(screen.contains("none answers") && screen.contains("standby"), "{screen}");

    // The next one answers again.
    let _agent = Agent::start(a, &file(), &[]).unwrap();
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    assert_eq!(tools::ndisc6(c.ns(), "eth0", V6, &[]).unwrap().one().unwrap(), a.mac());
}

#[test]
fn sigterm_withdraws() {
    if root_or_skip("sigterm_withdraws") {
        withdraws_at(Signal::SIGTERM);
    }
}

#[test]
fn sigint_withdraws() {
    if root_or_skip("sigint_withdraws") {
        withdraws_at(Signal::SIGINT);
    }
}

#[test]
fn what_is_kept_ends_with_the_deadline() {
    if !root_or_skip("what_is_kept_ends_with_the_deadline") {
        return;
    }
    let lab = lab().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = Agent::start(a, &file(), &["--on-exit", "keep", "--fence", "4s"]).unwrap();
    let commands = agent.commands().clone();
    let flood = Flood::start(c).unwrap();
    flood.wait_answers(100).unwrap();
    assert!(agent.terminate().unwrap().success());
    let ended = BootTime::now();
    let status = Status::read(&commands).unwrap();
    assert_eq!(status.state(V4.into()), "answering");
    let left = Duration::from_millis(status.deadline_left_ms().try_into().unwrap());
    // At the latest: `left` was told in whole milliseconds, and before this instant.
    let deadline = BootTime::now() + left + Duration::from_millis(1);
    flood.wait_silence(300).unwrap();
    for report in flood.stop().unwrap() {
        let last = report.last_answer_by(a.mac()).unwrap();
        assert_eq!(report.silences.len(), 1, "from the deadline on, and not before: {:?}", report.silences);
        let kept = last.since(ended);
        println!("answered for another {kept:?}; {left:?} were left");
        assert!(last > ended && last < deadline);
        // What was still asked until the deadline was answered: nearly all of the time that was left.
        assert!(kept + Duration::from_secs(1) > left, "{kept:?} of {left:?}");
    }
    let status = Status::read(&commands).unwrap();
    assert_eq!(status.state(V6.into()), "expired");
    let _agent = Agent::start(a, &file(), &[]).unwrap();
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
}
