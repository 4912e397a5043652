//! The core of the protocol in each mode and by each kind of attachment, and what must not be touched.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use responder_lab::{
    Agent, Lab, Mac, Node, StaticFile,
    frames::{self, Arp, Body},
    root_or_skip, send,
    site::{Site, State, VIP4, VIP6, VIPS},
    tools, tools_or_skip, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const MODES: [(&str, &str); 4] =
    [("native", "link"), ("native", "netlink"), ("generic", "link"), ("generic", "netlink")];
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x10);
const GROUP_MAC: Mac = Mac([0x33, 0x33, 0xff, 0, 0, 0x10]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A question and what its answer must be.
struct Question {
    name: &'static str,
    frame: Vec<u8>,
    /// Length of the answer without a tag, and whether it goes to all nodes; `None`: no answer.
    answer: Option<(usize, bool)>,
}

fn questions(owner: Mac, me: &Node) -> Vec<Question> {
    let (mac, my4, my6) = (me.mac(), me.nics()[0].v4, me.nics()[0].v6);
    let zero = std::net::Ipv4Addr::UNSPECIFIED;
    let any = Ipv6Addr::UNSPECIFIED;
    let request = frames::arp_request(mac, my4, VIP4);
    let poll = frames::arp(owner, Arp { op: 1, sha: mac, spa: my4, tha: Mac::ZERO, tpa: VIP4 });
    let slla = [&[1, 1], &mac.0[..]].concat();
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let solicitation = frames::solicitation(mac, my6, VIP6);
    let q = |name, frame, answer| Question { name, frame, answer };
    vec![
        q("request", request.clone(), Some((60, false))),
        q("probe", frames::arp_request(mac, zero, VIP4), Some((60, false))),
        q("unicast poll", poll, Some((60, false))),
        q("request with priority tag", frames::tagged(0, &request), Some((60, false))),
        q("request on VLAN 5", frames::tagged(5, &request), None),
        q("solicitation", solicitation.clone(), Some((86, false))),
        q("solicitation with priority tag", frames::tagged(0, &solicitation), Some((86, false))),
        q("solicitation on VLAN 5", frames::tagged(5, &solicitation), None),
        q(
            "unicast solicitation",
            frames::solicitation_to(owner, mac, my6, VIP6, VIP6, &slla),
            Some((86, false)),
        ),
        q(
            "unicast solicitation that grows",
            frames::solicitation_to(owner, mac, my6, VIP6, VIP6, &[]),
            Some((86, false)),
        ),
        q(
            "DAD probe that grows",
            frames::solicitation_to(GROUP_MAC, mac, any, GROUP, VIP6, &[]),
            Some((86, true)),
        ),
        q(
            "DAD probe with nonce",
            frames::solicitation_to(GROUP_MAC, mac, any, GROUP, VIP6, &nonce),
            Some((86, true)),
        ),
    ]
}

/// Sends each question and compares the answers; `owned`: whether there are to be any.
fn ask_all(site: &Site, mode: &str, owned: bool) {
    let owner = site.host().mac();
    for Question { name, frame, answer } in questions(owner, site.lab.node("c")) {
        let what = format!("{mode}: {name}, owned: {owned}");
        site.heard().clear();
        send(site.client(), "eth0", &frame).unwrap();
        let answers = site.answers_so_far().unwrap();
        site.expect(&what, &answers, usize::from(owned && answer.is_some())).unwrap();
        for (a, (len, to_all)) in answers.iter().zip(answer) {
            assert_eq!(a.bytes.len(), len, "{what}: {a:?}");
            let to = if to_all { Mac([0x33, 0x33, 0, 0, 0, 1]) } else { site.client_mac() };
            assert_eq!(a.dst, to, "{what}: {a:?}");
            if let Body::Advertisement(na) = a.body {
                let dst = if to_all { ALL_NODES } else { site.lab.node("c").nics()[0].v6 };
                let flags = if to_all { 0x20 } else { 0x60 };
                assert_eq!((na.dst, na.flags, na.lladdr), (dst, flags, Some(owner)), "{what}: {a:?}");
            }
        }
    }
}

#[test]
fn every_mode_and_attachment_answers_alike() {
    if !root_or_skip("every_mode_and_attachment_answers_alike") {
        return;
    }
    for (mode, attach) in MODES {
        let wanted = format!("{mode} by {attach}");
        let mut site = Site::new(State::Owned, &["--xdp-mode", mode, "--attach", attach]).unwrap();
        let status = site.commands().status().unwrap();
        assert_eq!(status.pointer("/agent/links/eth0/xdp").and_then(|x| x.as_str()), Some(wanted.as_str()));
        ask_all(&site, &wanted, true);
        // The same host as a standby.
        site.agent().write(&StaticFile::on(&["eth0"]).standby(&VIPS)).unwrap();
        for vip in VIPS {
            wait_until("standby", SOON, || (site.vip(vip).unwrap()?["state"] == "standby").then_some(()))
                .unwrap();
        }
        ask_all(&site, &wanted, false);
        assert_eq!(site.stopped().unwrap(), 0, "{wanted}: the host's kernel got to see a question");
    }
}

/// Frames that are none of the agent's business.
fn foreign(a: &Node, c: &Node) -> Vec<(&'static str, Vec<u8>)> {
    let (host, me) = (a.mac(), c.mac());
    let (a6, c6) = (a.nics()[0].v6, c.nics()[0].v6);
    let group = |last| Mac([0x33, 0x33, 0, 0, 0, last]);
    let eth = |dst: Mac, rest: &[u8]| [&dst.0[..], &me.0, rest].concat();
    let ipv4 = |dst: Mac, to: [u8; 4], flags: [u8; 2], payload: &[u8]| {
        let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let fixed = [0x45, 0, len[0], len[1], 0, 7, flags[0], flags[1], 64, 17, 0, 0, 192, 0, 2, 101];
        let mut header = [&fixed[..], &to].concat();
        let sum: u32 = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        eth(dst, &[&[8, 0], &header[..], payload].concat())
    };
    let dhcp = [&[0, 68, 0, 67, 1, 8, 0, 0][..], &[1; 256]].concat();
    let request = frames::arp_request(me, c.nics()[0].v4, VIP4);
    let solicitation = frames::solicitation(me, c6, "2001:db8::99".parse().unwrap());
    let fragment = [&[58, 0, 0, 1, 0, 0, 0, 1][..], &[128; 64]].concat();
    let reply = Arp { op: 2, sha: me, spa: c.nics()[0].v4, tha: host, tpa: a.nics()[0].v4 };
    vec![
        ("DHCP", ipv4(Mac::BROADCAST, [255; 4], [0, 0], &dhcp)),
        ("full-size datagram", ipv4(host, a.nics()[0].v4.octets(), [0x40, 0], &[7; 1480])),
        ("datagram to the VIP", ipv4(host, VIP4.octets(), [0x40, 0], &[7; 32])),
        ("first fragment", ipv4(host, VIP4.octets(), [0x20, 0], &[8; 64])),
        ("last fragment", ipv4(host, VIP4.octets(), [0, 8], &[9; 40])),
        ("IPv4 multicast", ipv4(Mac([1, 0, 0x5e, 0, 0, 0xfb]), [224, 0, 0, 251], [0, 0], &[5; 40])),
        ("ARP for another", frames::arp_request(me, c.nics()[0].v4, "192.0.2.99".parse().unwrap())),
        ("ARP reply for the host", frames::arp(host, reply)),
        ("RARP", eth(Mac::BROADCAST, &[&[0x80, 0x35], &request[14..]].concat())),
        ("VLAN 5, ARP for the VIP", frames::tagged(5, &request)),
        ("VLAN 5, datagram", frames::tagged(5, &ipv4(host, VIP4.octets(), [0, 0], &[3; 64]))),
        ("two tags", frames::tagged(7, &frames::tagged(5, &request))),
        ("solicitation for another", solicitation),
        ("advertisement of another", frames::advertisement(me, c6)),
        ("RS", frames::icmpv6(group(1), me, c6, ALL_NODES, vec![133, 0, 0, 0, 0, 0, 0, 0])),
        ("RA", frames::icmpv6(group(1), me, c6, ALL_NODES, [&[134, 0, 0, 0, 64, 0][..], &[0; 10]].concat())),
        ("MLD", frames::icmpv6(group(1), me, c6, ALL_NODES, [&[130, 0, 0, 0][..], &[0; 20]].concat())),
        ("IPv6 fragment", frames::ipv6(host, me, c6, a6, 44, &fragment)),
        ("IPv6 to the VIP", frames::ipv6(host, me, c6, VIP6, 17, &[2; 1400])),
        ("LLC", eth(Mac::BROADCAST, &[&[0, 40, 0xaa, 0xaa, 3, 0, 0, 0, 8, 6][..], &[1; 50]].concat())),
        ("unknown EtherType", eth(host, &[&[0x88, 0xb5][..], &[0x5a; 100]].concat())),
    ]
}

/// The frames that tcpdump printed with `-xx`.
fn frames_of(text: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        match line.trim().strip_prefix("0x").and_then(|l| l.split_once(':')) {
            Some((_, digits)) => {
                let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                found.last_mut().unwrap().extend(digits.chunks(2).map(byte));
            }
            None => found.push(Vec::new()),
        }
    }
    found
}

/// The agent in one mode, or none.
fn agent(a: &Node, mode: Option<&str>) -> Option<Agent> {
    let file = StaticFile::on(&["eth0"]).own(&VIPS);
    let start = |mode| Agent::start(a, &file, &["--xdp-mode", mode, "--announce-interval", "0"]).unwrap();
    mode.map(start)
}

#[test]
fn other_frames_arrive_byte_by_byte() {
    let test = "other_frames_arrive_byte_by_byte";
    if !root_or_skip(test) || !tools_or_skip(test, &["tcpdump", "ethtool"]) {
        return;
    }
    for mode in [None, Some("native"), Some("generic")] {
        let lab = Lab::builder().hosts(&["a"]).build().unwrap();
        let (a, c) = (lab.node("a"), lab.node("c"));
        lab.switch().check(&["ethtool", "-K", &Lab::port(a, "eth0"), "txvlan", "off"]).unwrap();
        a.add_to_lo(&VIPS).unwrap();
        let _agent = agent(a, mode);
        let mut command = Command::new("tcpdump");
        command.args(["-i", "eth0", "-Q", "in", "-nn", "-xx", "-l", "-s", "0", "--immediate-mode"]);
        let mut tcpdump = a.ns().spawn(command).unwrap();
        tcpdump.wait_line(SOON, |l| l.contains("listening on")).unwrap();
        for (name, frame) in foreign(a, c) {
            send(c.ns(), "eth0", &frame).unwrap();
            wait_until(&format!("{mode:?}: {name}"), SOON, || {
                frames_of(&tcpdump.stdout()).contains(&frame).then_some(())
            })
            .unwrap();
        }
    }
}

/// Sends `data` to `server` and returns what comes back. The server echoes.
fn through_tcp(lab: &Lab, server: SocketAddr, data: &[u8]) -> Vec<u8> {
    let listener = lab.node("a").ns().run(|| Ok(TcpListener::bind(server)?)).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        lab.node("c")
            .ns()
            .run(|| {
                let mut stream = TcpStream::connect_timeout(&server, SOON)?;
                stream.set_read_timeout(Some(SOON))?;
                stream.write_all(data)?;
                stream.shutdown(std::net::Shutdown::Write)?;
                let mut back = Vec::new();
                stream.read_to_end(&mut back)?;
                Ok(back)
            })
            .unwrap()
    })
}

#[test]
fn data_flows_as_without_the_agent() {
    let test = "data_flows_as_without_the_agent";
    if !root_or_skip(test) || !tools_or_skip(test, &["ping", "arping"]) {
        return;
    }
    for mode in ["native", "generic"] {
        let lab = Lab::builder().hosts(&["a"]).build().unwrap();
        let (a, c) = (lab.node("a"), lab.node("c"));
        a.add_to_lo(&VIPS).unwrap();
        let agent = agent(a, Some(mode)).unwrap();
        let own = [IpAddr::V4(a.nics()[0].v4), IpAddr::V6(a.nics()[0].v6)];
        let data: Vec<u8> = (0..4 << 20).map(|n: u32| n.to_le_bytes()[(n % 3) as usize]).collect();
        for address in own.into_iter().chain(VIPS) {
            assert!(tools::ping(c.ns(), address).unwrap(), "{mode}: {address}");
            assert!(through_tcp(&lab, SocketAddr::new(address, 7001), &data) == data, "{mode}: {address}");
            // Larger than a frame: fragments.
            let large = ["ping", "-n", "-c", "1", "-W", "5", "-s", "8000", &address.to_string()];
            c.ns().check(&large).unwrap();
        }
        // From the host, which resolves the client by itself.
        assert!(tools::ping(a.ns(), c.nics()[0].v4.into()).unwrap());
        assert!(tools::ping(a.ns(), c.nics()[0].v6.into()).unwrap());
        assert_eq!(tools::arping(c.ns(), "eth0", a.nics()[0].v4, &[]).unwrap().macs, [a.mac()]);
        let status = agent.commands().status().unwrap();
        assert_eq!(status["links"][0]["mode"], mode);
    }
}
