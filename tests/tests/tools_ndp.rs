//! Neighbor Discovery tools as clients, and as attackers, of the running agent.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{process::Command, time::Duration};

use responder_lab::{
    Agent, Process,
    frames::{self, Body, Frame},
    root_or_skip, send,
    site::{Site, State, VIP4, VIP6, VIPS},
    tools, tools_or_skip, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const STATES: [State; 4] = [State::Owned, State::Standby, State::Expired, State::Unknown];
/// The solicited-node group of the VIP.
const GROUP: &str = "ff02::1:ff00:10";

/// Command lines and how many answers an owner gives. `VIP`, `GROUP`, `OWNER`, `ME` (hardware address) and `MY6` are
/// replaced. Linux answers none of them for an address of `lo`.
const STEPS: &[(&str, usize)] = &[
    ("ndisc6 -n -1 -r 1 -w 300 VIP eth0", 1),
    ("ndisc6 -n -m -r 1 -w 300 VIP eth0", 1),
    ("ns6 -i eth0 -S ME -s :: -d GROUP -t VIP", 1),
    ("ns6 -i eth0 -S ME -s :: -d GROUP -t VIP -e", 0),
    ("ns6 -i eth0 -S ME -s :: -d ff02::1 -t VIP", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d VIP -D OWNER -t VIP -e", 1),
    ("ns6 -i eth0 -S ME -s MY6 -d VIP -D OWNER -t VIP", 1),
    ("ns6 -i eth0 -S ME -s MY6 -d VIP -D 02:00:00:00:00:99 -t VIP -e", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -e", 1),
    ("ns6 -i eth0 -S ME -s fd99::1 -d GROUP -t VIP -e", 1),
    ("ns6 -i eth0 -S ME -s MY6 -d ff02::1 -t VIP -e", 1),
    ("ns6 -i eth0 -S ME -s MY6 -d ff02::2 -t VIP -e", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -e -y 24", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -e -u 8", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -e -H 8", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t ff02::1 -e", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -E 33:33:00:00:00:01", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -E ff:ff:ff:ff:ff:ff", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -E 00:00:00:00:00:00", 0),
    ("ns6 -i eth0 -S ME -s MY6 -d GROUP -t VIP -E OWNER", 0),
];

fn words(site: &Site, line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| match word {
            "VIP" => VIP6.to_string(),
            "GROUP" => GROUP.to_owned(),
            "OWNER" => site.host().mac().to_string(),
            "ME" => site.client_mac().to_string(),
            "MY6" => site.lab.node("c").nics()[0].v6.to_string(),
            word => word.to_owned(),
        })
        .collect()
}

/// Runs a tool and returns what it printed and the answers.
fn run(site: &Site, line: &str) -> (String, Vec<Frame>) {
    let words = words(site, line);
    let argv: Vec<&str> = words.iter().map(String::as_str).collect();
    let (output, answers) = site.answers(&argv).unwrap();
    (format!("{}: {}\n{}{}", output.command, output.status, output.stdout, output.stderr), answers)
}

/// The host's answers go on being right: one per question, for both VIPs.
fn assert_sound(site: &Site) {
    let (what, answers) = run(site, "ndisc6 -n -m -r 1 -w 300 VIP eth0");
    site.expect(&what, &answers, 1).unwrap();
    let (what, answers) = run(site, &format!("arping -c 1 -I eth0 {VIP4}"));
    site.expect(&what, &answers, 1).unwrap();
}

/// True for an answer to a forged source. (ns6 also makes the kernel ask from its own address then.)
fn is_to_forged(answer: &Frame) -> bool {
    matches!(answer.body, Body::Advertisement(na) if na.dst.segments()[0] == 0xfd99)
}

#[test]
fn solicitations_by_tools_are_answered_as_they_should_be() {
    let test = "solicitations_by_tools_are_answered_as_they_should_be";
    if !root_or_skip(test) || !tools_or_skip(test, &["ndisc6", "ns6"]) {
        return;
    }
    for state in STATES {
        let site = Site::new(state, &[]).unwrap();
        let mut heard = 0;
        for (line, owned) in STEPS {
            let (what, mut answers) = run(&site, line);
            heard += answers.len();
            if line.contains("fd99::1") {
                answers.retain(is_to_forged);
            }
            let count = if state == State::Owned { *owned } else { 0 };
            site.expect(&format!("{state:?}: {what}"), &answers, count).unwrap();
            for answer in answers {
                let Body::Advertisement(na) = answer.body else { panic!("{what}{answer:?}") };
                let is_dad = line.contains("-s ::");
                let (to, solicited) = (na.dst.is_multicast(), na.flags & 0x40 != 0);
                assert_eq!((to, solicited, na.lladdr), (is_dad, !is_dad, Some(site.host().mac())), "{what}");
                assert!(is_dad || answer.dst == site.client_mac(), "{what}{answer:?}");
                assert_eq!(answer.bytes.len(), 86, "{what}{answer:?}");
            }
        }
        let vip = site.vip(VIPS[1]).unwrap();
        let count = |key| vip.as_ref().and_then(|v| v.get(key)?.as_u64()).unwrap_or(0);
        match state {
            State::Owned => assert_eq!(count("answered"), heard as u64),
            State::Standby | State::Expired => {
                let questions: usize = STEPS.iter().map(|(_, n)| n).sum();
                assert!(count("suppressed") >= questions as u64 && count("answered") == 0, "{vip:?}");
            }
            State::Unknown => assert_eq!(vip, None),
        }
    }
}

#[test]
fn a_thousand_sources_get_a_thousand_answers() {
    let test = "a_thousand_sources_get_a_thousand_answers";
    if !root_or_skip(test) || !tools_or_skip(test, &["ns6", "ndisc6", "arping"]) {
        return;
    }
    let site = Site::new(State::Owned, &[]).unwrap();
    // Not the loop of ns6 (-l), which does not end.
    let (what, mut answers) = run(&site, "ns6 -i eth0 -S ME -s fd99::/64 -d GROUP -t VIP -e -F 1000");
    assert_eq!(site.received("ns_answered").unwrap(), answers.len() as u64);
    answers.retain(is_to_forged);
    site.expect(&what, &answers, 1000).unwrap();
    assert_sound(&site);
}

/// `responder watch` in the host.
fn watch(site: &mut Site) -> Process {
    let command = site.commands().command("watch");
    let ns = site.host().ns().clone();
    let mut watch = ns.spawn(command).unwrap();
    // It is known to listen when it shows something: the file is spoilt until it does.
    let agent: &Agent = site.agent();
    let text = std::fs::read_to_string(agent.commands().file()).unwrap();
    let mut number = 0;
    wait_until("the watch listens", SOON, || {
        number += 1;
        agent.commands().write(&format!("{text}# {number}\n[\n")).unwrap();
        (watch.stdout().contains("rejected") || watch.try_wait().unwrap().is_some()).then_some(())
    })
    .unwrap();
    agent.commands().write(&text).unwrap();
    watch
}

#[test]
fn claims_by_others_are_reported_and_not_answered() {
    let test = "claims_by_others_are_reported_and_not_answered";
    let needed = ["na6", "ns6", "atk6-fake_advertise6", "arp-scan", "mausezahn"];
    if !root_or_skip(test) || !tools_or_skip(test, &needed) {
        return;
    }
    let claims = [
        (VIPS[1], "na", "na6 -i eth0 -S 02:00:00:00:0b:01 -s VIP -d ff02::1 -t VIP -E 02:00:00:00:0b:01 -o"),
        (
            VIPS[1],
            "na",
            "atk6-fake_advertise6 -n 1 -w 1 -m 02:00:00:00:0b:02 eth0 VIP ff02::1 02:00:00:00:0b:02",
        ),
        (VIPS[1], "ns", "ns6 -i eth0 -S 02:00:00:00:0b:03 -s VIP -d GROUP -t VIP -E 02:00:00:00:0b:03"),
        (
            VIPS[0],
            "arp",
            "arp-scan -I eth0 -N -r 1 -t 50 --arpspa=dest --arpsha=02:00:00:00:0b:04 --srcaddr=02:00:00:00:0b:04 VIP4",
        ),
        (
            VIPS[0],
            "arp",
            "mausezahn eth0 -c 1 -a 02:00:00:00:0b:05 -b bcast -t arp \
             reply,sendermac=02:00:00:00:0b:05,senderip=VIP4,targetmac=ff:ff:ff:ff:ff:ff,targetip=VIP4",
        ),
    ];
    for (number, (vip, by, line)) in (1..).zip(claims) {
        for state in [State::Owned, State::Standby] {
            let mut site = Site::new(state, &[]).unwrap();
            let mut watch = watch(&mut site);
            let line = line.replace("VIP4", &VIP4.to_string());
            let words = words(&site, &line);
            let argv: Vec<&str> = words.iter().map(String::as_str).collect();
            site.heard().clear();
            let output = tools::run(site.client(), &argv).unwrap();
            site.barrier().unwrap();
            let conflicts = || site.vip(vip).unwrap().unwrap().get("conflicts").unwrap().as_u64().unwrap();
            if state == State::Standby {
                assert_eq!(conflicts(), 0, "{output:?}");
                assert!(!watch.stdout().contains("conflict"), "{}", watch.stdout());
                continue;
            }
            let wanted = format!("{vip} on eth0 claimed by 02:00:00:00:0b:0{number} ({by}, 1 so far)");
            watch.wait_line(SOON, |l| l.contains(&wanted)).unwrap();
            assert_eq!(conflicts(), 1, "{output:?}");
            // What is heard is the one defence, not an answer to the claimer.
            let defence = site.heard().wait_for("a defence", SOON, |f| f.is_gratuitous(vip)).unwrap();
            assert_eq!(defence.claim(), Some((vip, site.host().mac())));
            let to_claimer = |f: &&Frame| f.dst.to_string().starts_with("02:00:00:00:0b");
            assert_eq!(site.heard().frames().iter().filter(to_claimer).count(), 0);
        }
    }
}

/// Runs an attack that does not end by itself until the host has seen `frames` more frames.
fn attack(site: &Site, line: &str, frames: u64) {
    let words = words(site, line);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let seen = || -> u64 {
        let status = site.commands().status().unwrap();
        status["received"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum()
    };
    let before = seen();
    let mut process = site.client().spawn(command).unwrap();
    wait_until(line, Duration::from_secs(60), || {
        (seen() >= before + frames || process.try_wait().unwrap().is_some()).then_some(())
    })
    .unwrap();
    process.kill().unwrap();
    assert!(seen() > before, "{}", process.last_words());
    println!("{line}: {:?}", site.commands().status().unwrap()["received"]);
}

#[test]
fn attacks_change_nothing() {
    let test = "attacks_change_nothing";
    let needed = [
        "atk6-fuzz_ip6",
        "atk6-fake_solicitate6",
        "atk6-flood_solicitate6",
        "atk6-flood_advertise6",
        "ndisc6",
        "arping",
    ];
    if !root_or_skip(test) || !tools_or_skip(test, &needed) {
        return;
    }
    let mut site = Site::new(State::Owned, &[]).unwrap();
    for (line, frames) in [
        ("atk6-fuzz_ip6 -2 -a eth0 VIP VIP", 3000),
        ("atk6-fuzz_ip6 -2 -a eth0 GROUP VIP", 3000),
        ("atk6-fuzz_ip6 -2 -I -a eth0 VIP VIP", 3000),
        ("atk6-fuzz_ip6 -3 -a eth0 VIP VIP", 3000),
        ("atk6-flood_solicitate6 -k eth0 GROUP VIP", 3000),
        ("atk6-flood_solicitate6 -a eth0 GROUP VIP", 3000),
        ("atk6-flood_advertise6 -k eth0", 3000),
        ("atk6-fake_solicitate6 eth0 VIP GROUP", 1),
    ] {
        site.heard().clear();
        attack(&site, line, frames);
        site.barrier().unwrap();
        let (host, mut answers) = (site.host().mac(), 0);
        for frame in site.heard().frames() {
            if let (Body::Advertisement(na), Some((ip, mac))) = (frame.body, frame.claim())
                && ip == VIPS[1]
                && frame.src == host
            {
                assert_eq!(
                    (mac, na.checksum_ok, na.src, frame.bytes.len()),
                    (host, true, VIP6, 86),
                    "{line}"
                );
                assert!(frame.dst.0[0] & 1 == 0 || na.dst.is_multicast(), "{line}: {frame:?}");
                answers += 1;
            }
        }
        println!("{line}: {answers} answers");
        assert_sound(&site);
    }
    assert_eq!(site.agent().process().try_wait().unwrap(), None, "the agent has ended");
    let vip = site.vip(VIPS[1]).unwrap().unwrap();
    assert_eq!(vip["state"], "answering");
    // A plain question after all that, to see that the record of it works at all.
    let (me, my6) = (site.client_mac(), site.lab.node("c").nics()[0].v6);
    site.heard().clear();
    send(site.client(), "eth0", &frames::solicitation(me, my6, VIP6)).unwrap();
    let answers = site.answers_so_far().unwrap();
    site.expect("a plain solicitation", &answers, 1).unwrap();
}
