//! The lab itself, tried with the Linux kernel as the owner of addresses.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use responder_lab::{
    Capture, Lab, Mac, NeighbourWatch, Prober, Probing, frames, namespaces, neighbour, paths, resolve,
    root_or_skip, skip, tools, tools_or_skip, traffic, wait_until,
};

const SOON: Duration = Duration::from_secs(10);
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const VIPS: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

/// A lab with VIPs on `eth0` of host a, so that a's kernel answers for them.
fn lab_with_owner() -> anyhow::Result<Lab> {
    let lab = Lab::builder().build()?;
    for vip in VIPS {
        lab.node("a").ns().add_address("eth0", vip)?;
    }
    Ok(lab)
}

#[test]
fn clients_tools_name_the_owner() {
    let test = "clients_tools_name_the_owner";
    if !root_or_skip(test) || !tools_or_skip(test, &["arping", "arp-scan", "ndisc6", "ping"]) {
        return;
    }
    let lab = lab_with_owner().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    assert_eq!(a.mac().to_string(), "02:00:00:00:00:51");
    assert_eq!(tools::arping(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    let probe = tools::arping(c.ns(), "eth0", V4, &["-D"]).unwrap();
    assert_eq!((probe.one().unwrap(), probe.output.code()), (a.mac(), Some(1)));
    let other = Ipv4Addr::new(192, 0, 2, 99);
    let probe = tools::arping(c.ns(), "eth0", other, &["-D"]).unwrap();
    assert_eq!((probe.macs, probe.output.code()), (vec![], Some(0)));
    let nobody = tools::arping(c.ns(), "eth0", other, &[]).unwrap();
    assert_eq!(nobody.macs, []);
    assert!(nobody.one().is_err());
    assert_eq!(tools::arp_scan(c.ns(), "eth0", &[V4, other]).unwrap(), [(V4, a.mac())]);
    assert_eq!(tools::ndisc6(c.ns(), "eth0", V6, &[]).unwrap().one().unwrap(), a.mac());
    for vip in VIPS {
        assert!(tools::ping(c.ns(), vip).unwrap());
        assert_eq!(neighbour(c.ns(), vip).unwrap(), Some(a.mac()));
    }
    assert!(!tools::ping(c.ns(), IpAddr::V4(other)).unwrap());
    assert!(tools::kernel_dad_fails(c.ns(), "eth0", V6).unwrap());
    let free = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
    assert!(!tools::kernel_dad_fails(c.ns(), "eth0", free).unwrap());
}

#[test]
fn the_other_arping_names_the_owner() {
    let test = "the_other_arping_names_the_owner";
    if !root_or_skip(test) {
        return;
    }
    if tools::habets().is_none() {
        skip(test, "needs Habets's arping in RESPONDER_ARPING_HABETS");
        return;
    }
    let lab = lab_with_owner().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    assert_eq!(tools::arping_habets(c.ns(), "eth0", V4, &[]).unwrap().one().unwrap(), a.mac());
    let nobody = tools::arping_habets(c.ns(), "eth0", Ipv4Addr::new(192, 0, 2, 99), &[]).unwrap();
    assert_eq!(nobody.macs, []);
}

#[test]
fn data_flows_to_the_owner() {
    if !root_or_skip("data_flows_to_the_owner") {
        return;
    }
    let lab = lab_with_owner().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let _tcp = traffic::Server::tcp(a.ns(), "host a", 80).unwrap();
    for vip in VIPS {
        let server = SocketAddr::new(vip, 80);
        let _udp = traffic::Server::udp(a.ns(), "host a", server).unwrap();
        assert_eq!(traffic::ask(c.ns(), server, SOON).unwrap(), "host a");
        assert_eq!(traffic::ask_udp(c.ns(), server, SOON).unwrap(), "host a");
        assert!(traffic::ask(c.ns(), SocketAddr::new(vip, 81), SOON).is_err());
    }
}

#[test]
fn the_prober_measures_silence_and_double_answers() {
    if !root_or_skip("the_prober_measures_silence_and_double_answers") {
        return;
    }
    let lab = lab_with_owner().unwrap();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    for vip in VIPS {
        let mut probing = Probing::new(vip, Duration::from_millis(1));
        probing.senders = 100;
        let prober = Prober::start(c.ns(), probing.clone()).unwrap();
        prober.wait_answer_by(a.mac(), SOON).unwrap();
        lab.unplug(a, "eth0").unwrap();
        prober.wait_silence(100, SOON).unwrap();
        lab.plug(a, "eth0").unwrap();
        prober.wait_answer_by(a.mac(), SOON).unwrap();
        let report = prober.stop().unwrap();
        assert!(report.longest_silence() >= Duration::from_millis(95), "{:?}", report.silences);
        assert!(report.unanswered.len() >= 100);
        assert_eq!(report.answered() + report.unanswered.len(), report.sent.len());
        assert_eq!(report.doubles, []);
        assert_eq!(report.by_mac.keys().collect::<Vec<_>>(), [&a.mac()]);

        b.ns().add_address("eth0", vip).unwrap();
        let prober = Prober::start(c.ns(), probing).unwrap();
        prober.wait_answer_by(a.mac(), SOON).unwrap();
        prober.wait_answer_by(b.mac(), SOON).unwrap();
        let report = prober.stop().unwrap();
        assert!(!report.doubles.is_empty());
        assert_eq!(report.doubles[0].macs, BTreeSet::from([a.mac(), b.mac()]));
    }
}

#[test]
fn neighbour_changes_and_announcements_are_seen() {
    if !root_or_skip("neighbour_changes_and_announcements_are_seen") {
        return;
    }
    let lab = lab_with_owner().unwrap();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    for vip in VIPS {
        assert_eq!(resolve(c.ns(), vip, SOON).unwrap(), a.mac());
    }
    let (watch, capture) = (NeighbourWatch::start(c.ns()).unwrap(), Capture::start(c.ns(), "eth0").unwrap());
    // Past the second in which Linux ignores a change of what it has just learnt, b announces the addresses.
    for (vip, frame) in [
        (
            VIPS[0],
            frames::arp(
                Mac::BROADCAST,
                frames::Arp { op: 1, sha: b.mac(), spa: V4, tha: Mac::ZERO, tpa: V4 },
            ),
        ),
        (VIPS[1], frames::advertisement(b.mac(), V6)),
    ] {
        let sent = responder_lab::send(b.ns(), "eth0", &frame).unwrap();
        let seen = capture.wait_for("announcement", SOON, |f| f.is_gratuitous(vip)).unwrap();
        assert_eq!((seen.claim(), seen.src), (Some((vip, b.mac())), b.mac()));
        assert!(seen.at >= sent);
        let change = watch.wait_for(vip, b.mac(), SOON).unwrap();
        assert!(change.at >= sent && !change.deleted);
        assert_eq!(neighbour(c.ns(), vip).unwrap(), Some(b.mac()));
    }
    assert!(!capture.stop().unwrap().is_empty());
}

#[test]
fn native_transmission_needs_a_program_at_the_port() {
    if !root_or_skip("native_transmission_needs_a_program_at_the_port") {
        return;
    }
    for native in [true, false] {
        let lab = Lab::builder().hosts(&["a"]).native_ports(native).build().unwrap();
        let (a, c) = (lab.node("a"), lab.node("c"));
        let object = paths::object("reference.o").unwrap();
        let object = object.to_str().unwrap();
        a.ns().check(&["ip", "link", "set", "eth0", "xdpdrv", "object", object, "program", "swap"]).unwrap();
        let capture = Capture::start(c.ns(), "eth0").unwrap();
        // To host a alone, whose program sends it back with the addresses swapped.
        let question =
            frames::arp(a.mac(), frames::Arp { op: 1, sha: c.mac(), spa: V4, tha: Mac::ZERO, tpa: V4 });
        responder_lab::send(c.ns(), "eth0", &question).unwrap();
        let deadline = if native { SOON } else { Duration::from_millis(300) };
        let back = capture.wait_for("the frame", deadline, |f| (f.src, f.dst) == (a.mac(), c.mac()));
        assert_eq!(back.is_ok(), native, "{back:?}");
    }
}

#[test]
fn links_move_and_come_back() {
    if !root_or_skip("links_move_and_come_back") {
        return;
    }
    let lab = Lab::builder().segments(2).hosts(&["a"]).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    let nic = &a.nics()[1];
    assert_eq!((nic.name.as_str(), nic.v4.to_string()), ("eth1", "198.51.100.1".to_owned()));
    assert_eq!(resolve(c.ns(), IpAddr::V4(nic.v4), SOON).unwrap(), nic.mac);
    assert_eq!(resolve(c.ns(), IpAddr::V6(nic.v6), SOON).unwrap(), nic.mac);
    let before = a.ns().ifindex("eth1").unwrap();
    lab.delete_nic(a, "eth1").unwrap();
    assert!(a.ns().ifindex("eth1").is_err());
    lab.connect(a, nic).unwrap();
    assert_ne!(a.ns().ifindex("eth1").unwrap(), before);
    wait_until("ping", SOON, || tools::ping(c.ns(), IpAddr::V4(nic.v4)).unwrap().then_some(())).unwrap();
    a.ns()
        .ip("link set eth1 down\nlink set eth1 name wan address 02:00:00:00:01:99\nlink set wan up")
        .unwrap();
    assert_eq!(a.ns().mac("wan").unwrap(), "02:0:0:0:1:99".parse().unwrap());
    a.set_ipv6_forwarding(true).unwrap();
    assert_eq!(a.ns().sysctl("ipv6/conf/all/forwarding").unwrap(), "1");
}

#[test]
fn programs_are_heard_and_end_with_their_handle() {
    if !root_or_skip("programs_are_heard_and_end_with_their_handle") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).clients(&[]).build().unwrap();
    let ns = lab.node("a").ns();
    let mut command = Command::new("sh");
    command.args(["-c", "ip -o link; ls -d /sys/fs/bpf; echo done >&2; exec sleep 1000"]);
    let mut process = ns.spawn(command).unwrap();
    let line = process.wait_line(SOON, |l| l.contains("eth0")).unwrap();
    assert!(line.contains("02:00:00:00:00:51"), "{line}");
    process.wait_line(SOON, |l| l == "done").unwrap();
    let pid = process.pid();
    drop(process);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    let failed = ns.check(&["sh", "-c", "echo why >&2; exit 3"]).unwrap_err().to_string();
    assert!(failed.contains("exit status: 3") && failed.contains("why"), "{failed}");
}

/// True if the process is gone, or waits only for its parent to take notice.
fn ended(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn nothing_is_left_when_killed() {
    if !root_or_skip("nothing_is_left_when_killed") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).clients(&[]).build().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let command = Command::new(env!("CARGO_BIN_EXE_responder-lab"));
        let mut child = lab.node("a").ns().spawn(command).unwrap();
        let ready = child.wait_line(SOON, |l| l.starts_with("ready ")).unwrap();
        let words: Vec<&str> = ready.split([' ', ';']).collect();
        let (name, pid) = (words[1], words[2]);
        let bpffs = format!("/sys/fs/bpf/{name}-a");
        fs::create_dir(&bpffs).unwrap();
        let ours = || namespaces().unwrap().into_iter().filter(|ns| ns.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(ours().len(), 4);
        child.signal(signal).unwrap();
        child.wait(SOON).unwrap();
        wait_until("the end of the child's child", SOON, || ended(pid).then_some(())).unwrap();
        if signal == Signal::SIGKILL {
            responder_lab::cleanup_stale();
        }
        let left = ours().len() + usize::from(fs::exists(&bpffs).unwrap());
        assert_eq!(left, 0, "after {signal}");
    }
    // A living process's lab is nobody's to remove.
    assert!(namespaces().unwrap().contains(&lab.switch().name().to_owned()));
}
