//! Linux itself as the client: neighbour table, unreachability detection, duplicate address detection.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use responder_lab::{
    Capture, Lab, Mac, NeighbourWatch, NetNs, Prober, Probing, StaticFile,
    frames::{Body, Frame},
    neighbours, resolve, root_or_skip,
    site::{Site, State, VIP6, VIPS},
    tools, traffic, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const STATES: [State; 4] = [State::Owned, State::Standby, State::Expired, State::Unknown];

/// A datagram to `vip`, which makes the kernel use, and so check, its neighbour entry.
fn knock(ns: &NetNs, vip: IpAddr) {
    ns.run(|| {
        let any: SocketAddr = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
        // Refusals of earlier datagrams are reported here, and change nothing.
        UdpSocket::bind(any)?.send_to(b"", (vip, 9)).ok();
        Ok(())
    })
    .unwrap();
}

/// Address and states of an entry.
fn entry(ns: &NetNs, vip: IpAddr) -> (Option<Mac>, Vec<String>) {
    let found = neighbours(ns).unwrap().into_iter().find(|n| n.ip == vip);
    found.map_or((None, Vec::new()), |n| (n.mac, n.states))
}

fn wait_state(ns: &NetNs, vip: IpAddr, state: &str) -> Option<Mac> {
    wait_until(&format!("{vip} {state}"), SOON, || {
        let (mac, states) = entry(ns, vip);
        states.iter().any(|s| s == state).then_some(mac)
    })
    .unwrap_or_else(|e| panic!("{e}; it is {:?}", entry(ns, vip)))
}

/// True for a question about `vip` by the kernel.
fn asks(frame: &Frame, vip: IpAddr) -> bool {
    match frame.body {
        Body::Arp(arp) => arp.op == 1 && vip == IpAddr::V4(arp.tpa),
        Body::Solicitation(ns) => vip == IpAddr::V6(ns.target),
        Body::Advertisement(_) => false,
    }
}

#[test]
fn the_neighbour_table_learns_owners_alone() {
    if !root_or_skip("the_neighbour_table_learns_owners_alone") {
        return;
    }
    for state in STATES {
        let site = Site::new(state, &[]).unwrap();
        for vip in VIPS {
            // Linux answers ARP, but not solicitations, for an address of `lo` that the agent does not know.
            if state == State::Owned || (state == State::Unknown && vip.is_ipv4()) {
                assert_eq!(resolve(site.client(), vip, SOON).unwrap(), site.host().mac());
            } else {
                knock(site.client(), vip);
                assert_eq!(wait_state(site.client(), vip, "FAILED"), None);
            }
        }
        if state == State::Owned {
            // Data goes to the host's kernel, whose socket answers from the VIP.
            for vip in VIPS {
                let at = SocketAddr::new(vip, 7000);
                let _server = traffic::Server::udp(site.host().ns(), "a", at).unwrap();
                assert_eq!(traffic::ask_udp(site.client(), at, SOON).unwrap(), "a");
                assert!(tools::ping(site.client(), vip).unwrap());
            }
        }
    }
}

#[test]
fn unreachability_detection_is_satisfied_by_unicast_polls() {
    if !root_or_skip("unreachability_detection_is_satisfied_by_unicast_polls") {
        return;
    }
    let site = Site::new(State::Owned, &[]).unwrap();
    let (client, owner) = (site.client(), site.host().mac());
    for (family, vip) in ["ipv4", "ipv6"].into_iter().zip(VIPS) {
        for (key, value) in [("base_reachable_time_ms", "300"), ("delay_first_probe_time", "1")] {
            client.set_sysctl(&format!("{family}/neigh/eth0/{key}"), value).unwrap();
        }
        assert_eq!(resolve(client, vip, SOON).unwrap(), owner);
        // Only the switch's port hears what the client asks and the host answers in its driver.
        let asked = Capture::start(site.lab.switch(), &Lab::port(site.lab.node("c"), "eth0")).unwrap();
        let answered = || site.vip(vip).unwrap().unwrap()["answered"].as_u64().unwrap();
        let polls = || asked.frames().into_iter().filter(|f| asks(f, vip)).collect::<Vec<_>>();
        let before = answered();
        // Data goes on and nothing comes back that would confirm the entry, so it is verified again and again.
        let mut states = BTreeSet::new();
        wait_until("three polls", SOON, || {
            knock(client, vip);
            let (mac, now) = entry(client, vip);
            assert_eq!(mac, Some(owner), "{now:?}");
            states.extend(now);
            (polls().len() >= 3).then_some(())
        })
        .unwrap();
        wait_until("the answer to the last", SOON, || {
            (answered() == before + polls().len() as u64).then_some(())
        })
        .unwrap();
        assert!(polls().iter().all(|f| f.dst == owner), "{:?}", polls());
        assert!(states.contains("REACHABLE") && states.contains("DELAY"), "{states:?}");
        assert!(!states.contains("FAILED"), "{states:?}");
    }
}

#[test]
fn duplicate_address_detection_finds_owners_alone() {
    if !root_or_skip("duplicate_address_detection_finds_owners_alone") {
        return;
    }
    for state in STATES {
        let site = Site::new(state, &[]).unwrap();
        let asked = Capture::start(site.lab.switch(), &Lab::port(site.lab.node("c"), "eth0")).unwrap();
        let found = tools::kernel_dad_fails(site.client(), "eth0", VIP6).unwrap();
        assert_eq!(found, state == State::Owned, "{state:?}");
        // Linux puts a nonce (RFC 7527) into its probes, so that the answer fits without growing.
        let probe = asked.wait_for("the probe", SOON, |f| asks(f, VIPS[1])).unwrap();
        assert_eq!(probe.bytes.len(), 86, "{probe:?}");
        assert_eq!(site.received("dad_answered").unwrap(), u64::from(state == State::Owned));
    }
}

/// Hosts a and b, one of which owns both VIPs, handed back and forth by editing their files.
#[test]
fn twenty_handovers_never_show_two_owners() {
    if !root_or_skip("twenty_handovers_never_show_two_owners") {
        return;
    }
    let lab = Lab::builder().build().unwrap();
    let (a, b, client) = (lab.node("a"), lab.node("b"), lab.node("c").ns());
    a.add_to_lo(&VIPS).unwrap();
    b.add_to_lo(&VIPS).unwrap();
    let own = StaticFile::on(&["eth0"]).own(&VIPS);
    let standby = StaticFile::on(&["eth0"]).standby(&VIPS);
    let agents = [
        responder_lab::Agent::start(a, &own, &["--fence", "30s"]).unwrap(),
        responder_lab::Agent::start(b, &standby, &["--fence", "30s"]).unwrap(),
    ];
    let macs = [a.mac(), b.mac()];
    for vip in VIPS {
        assert_eq!(resolve(client, vip, SOON).unwrap(), macs[0]);
    }
    let probers = VIPS.map(|vip| Prober::start(client, Probing::new(vip, Duration::from_millis(2))).unwrap());
    for prober in &probers {
        prober.wait_answer_by(macs[0], SOON).unwrap();
    }
    let state = |agent: &responder_lab::Agent| -> Vec<String> {
        let status = agent.commands().status().unwrap();
        let vips = status["vips"].as_array().unwrap();
        vips.iter().map(|v| v["state"].as_str().unwrap().to_owned()).collect()
    };
    for handover in 0..20 {
        let (from, to) = (handover % 2, 1 - handover % 2);
        let learnt = NeighbourWatch::start(client).unwrap();
        agents[from].write(&standby).unwrap();
        wait_until("the old owner is standby", SOON, || {
            (state(&agents[from]) == ["standby", "standby"]).then_some(())
        })
        .unwrap();
        for prober in &probers {
            prober.wait_silence(5, SOON).unwrap();
        }
        agents[to].write(&own).unwrap();
        for prober in &probers {
            prober.wait_answer_by(macs[to], SOON).unwrap();
        }
        // A Linux client follows the announcement.
        for vip in VIPS {
            learnt.wait_for(vip, macs[to], SOON).unwrap();
            assert_eq!(entry(client, vip).0, Some(macs[to]), "hand-over {handover}");
        }
        if handover % 5 == 0 {
            let vip4 = responder_lab::site::VIP4;
            assert_eq!(tools::arping(client, "eth0", vip4, &["-b"]).unwrap().macs, [macs[to]]);
            assert_eq!(tools::ndisc6(client, "eth0", VIP6, &["-m"]).unwrap().macs, [macs[to]]);
            if tools::habets().is_some() {
                let answers = tools::arping_habets(client, "eth0", vip4, &["-d"]).unwrap();
                assert_eq!((answers.macs.as_slice(), answers.output.code()), (&macs[to..=to], Some(0)));
            }
        }
    }
    for prober in probers {
        let report = prober.stop().unwrap();
        println!(
            "{} questions, {} answers, longest silence {:?}",
            report.sent.len(),
            report.answers.len(),
            report.longest_silence()
        );
        assert_eq!(report.doubles, []);
        assert_eq!(report.answers.len(), report.answered(), "a question was answered twice");
        // Whoever answered, the other had stopped: the answers' owners change exactly as often as handed over.
        let mut owners: Vec<Mac> = report.answers.iter().map(|a| a.mac).collect();
        owners.dedup();
        assert_eq!(owners.len(), 21);
        assert_eq!(report.silences.len(), 20, "{:?}", report.silences);
    }
}
