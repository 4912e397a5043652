//! Floods by a packet generator: answers go on, and the agent does not notice.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    fs,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use responder_lab::{
    Prober, Probing, root_or_skip,
    site::{Site, State, VIP4, VIPS},
    tools_or_skip,
};

const SOON: Duration = Duration::from_secs(20);
/// Frames of each flood.
const FRAMES: u64 = 100_000;

const MAUSEZAHN: &str = "mausezahn eth0 -q -c FRAMES -a 02:00:00:00:0f:01 -b bcast -t arp";
const TRAFGEN: &str = "trafgen -o eth0 -q -n FRAMES -P 1";

/// What is sent, the outcome that the host counts each frame as, who sends it, and the packet.
const FLOODS: [(&str, &str, &str, &str); 4] = [
    ("owned", "arp_answered", MAUSEZAHN, "request, targetip=VIP, senderip=192.0.2.101"),
    ("foreign", "arp_not_ours", MAUSEZAHN, "request, targetip=192.0.2.200, senderip=192.0.2.101"),
    // Hardware addresses of 8 bytes.
    (
        "malformed",
        "arp_format",
        TRAFGEN,
        "{ fill(0xff, 6), 2, 0, 0, 0, 15, 1, 8, 6, 0, 1, 8, 0, 8, 4, 0, 1, fill(0, 40) }",
    ),
    ("claims", "arp_conflict", MAUSEZAHN, "reply, targetip=VIP, senderip=VIP"),
];

/// CPU time that a process has had.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name in parentheses, which may have spaces in it: utime and stime are fields 14 and 15 of all.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    // USER_HZ is 100 on all that Linux runs on today.
    Duration::from_millis(10 * ticks.map(|t| t.parse::<u64>().unwrap()).sum::<u64>())
}

#[test]
fn floods_do_not_stop_answers_nor_reach_the_agent() {
    let test = "floods_do_not_stop_answers_nor_reach_the_agent";
    if !root_or_skip(test) || !tools_or_skip(test, &["mausezahn", "trafgen"]) {
        return;
    }
    for mode in ["native", "generic"] {
        let mut site = Site::new(State::Owned, &["--xdp-mode", mode]).unwrap();
        let pid = site.agent().process().pid();
        for (name, outcome, line, packet) in FLOODS {
            let before = site.received(outcome).unwrap();
            let (cpu, start) = (cpu_time(pid), Instant::now());
            let line = line.replace("FRAMES", &FRAMES.to_string());
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).arg(packet.replace("VIP", &VIP4.to_string()));
            let mut flood = site.client().spawn(command).unwrap();
            let probing = Probing::new(IpAddr::V4(VIP4), Duration::from_millis(5));
            let prober = Prober::start(site.client(), probing).unwrap();
            prober.wait_answers(20, SOON).unwrap();
            let status = flood.wait(Duration::from_secs(60)).unwrap();
            assert!(status.success(), "{}", flood.last_words());
            let took = start.elapsed();
            prober.wait_answers(20, SOON).unwrap();
            let report = prober.stop().unwrap();
            site.barrier().unwrap();
            let (counted, cpu) = (site.received(outcome).unwrap() - before, cpu_time(pid) - cpu);
            println!(
                "{mode}, {name}: {counted} frames of {FRAMES} in {took:?}; {} of {} probes answered; agent's CPU \
                 time {cpu:?}",
                report.answered(),
                report.sent.len()
            );
            // A generator on the same CPU overruns queues, which loses frames before anybody sees them.
            assert!(counted > FRAMES / 10, "{mode}, {name}: the flood has hardly arrived");
            assert!(report.answered() * 2 > report.sent.len(), "{mode}, {name}");
            assert_eq!(report.by_mac.keys().collect::<Vec<_>>(), [&site.host().mac()], "{mode}, {name}");
            assert_eq!(report.doubles, [], "{mode}, {name}");
            assert!(cpu < took / 2, "{mode}, {name}: the agent used {cpu:?} of {took:?}");
        }
        assert_eq!(site.agent().process().try_wait().unwrap(), None, "the agent has ended");
        for vip in VIPS {
            assert_eq!(site.vip(vip).unwrap().unwrap()["state"], "answering");
        }
        let status = site.commands().status().unwrap();
        println!("{mode}: events left out {}, lost {}", status["events_limited"], status["events_lost"]);
        assert!(
            status["events_limited"].as_u64().unwrap() > FRAMES / 20,
            "claims were not limited in the kernel"
        );
    }
}
