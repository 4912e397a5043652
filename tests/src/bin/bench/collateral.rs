//! `collateral`: what the program costs those who do not ask: TCP, small packets and latency through an interface
//! with and without it, alone and beside a million ARP frames a second, with everything on one CPU.
//!
//! Four veth pairs between a host and a client, which differ in what is on the host's end: nothing, a program that only
//! passes, the responder with its agent, and one that drops all ARP (what the flood's generator costs). A veth with any
//! native program copies each packet that Linux sends into it and takes no large ones; so what counts is the comparison with
//! the program that passes. Segmentation offloads are off on all of them.

mod traffic;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::XdpMode};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use responder_lab::{Agent, Lab, NetNs, StaticFile};
use responder_tests::{
    build::Arp,
    frames::{CLIENT, UNKNOWN4, VIP4},
};
use serde_json::json;

use crate::{
    answer::set_question,
    live::{self, attach, load, send},
    machine,
    report::{Report, Target},
    stats::Stats,
};

/// Frames a second in a flood, and how many come at once.
const RATE: u32 = 1_000_000;
const AT_ONCE: u32 = 1_000;
/// Threads that send them in turns.
const GENERATORS: u32 = 8;
/// What is so late is left out.
const LATE: Duration = Duration::from_millis(20);
/// How long each kind of traffic is measured at a time.
const TURN: Duration = Duration::from_millis(200);

/// What is on the host's end.
const ENDS: [&str; 4] = ["no program", "pass", "responder", "drop ARP"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flood {
    None,
    Owned,
    Foreign,
    Malformed,
}

impl Flood {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "no flood",
            Self::Owned => "for a VIP",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
        }
    }

    /// The frame, from a station on the pair's subnet.
    fn frame(self, pair: u8) -> Vec<u8> {
        let asker = Ipv4Addr::new(198, 51, 100 + pair, 193);
        let request = |tpa| Arp::request(CLIENT, asker, tpa);
        match self {
            Self::None | Self::Owned => request(VIP4).bytes(),
            Self::Foreign => request(UNKNOWN4).bytes(),
            Self::Malformed => Arp { hlen: 8, ..request(VIP4) }.bytes(),
        }
    }
}

/// What is measured: pair and flood. A veth without a program takes no frames from a generator.
const STATES: [(u8, Flood); 10] = [
    (0, Flood::None),
    (1, Flood::None),
    (2, Flood::None),
    (3, Flood::Owned),
    (1, Flood::Owned),
    (2, Flood::Owned),
    (1, Flood::Foreign),
    (2, Flood::Foreign),
    (1, Flood::Malformed),
    (2, Flood::Malformed),
];

/// What came out of one state in each round.
#[derive(Default)]
struct Series {
    gigabits: Vec<f64>,
    packets: Vec<f64>,
    latency_us: Vec<f64>,
    tail_us: Vec<f64>,
    flood: Vec<f64>,
    agent: Vec<f64>,
}

/// The namespaces and what is in them.
struct Bench {
    host: NetNs,
    client: NetNs,
    agent_pid: u32,
    /// The generator, in the client's namespace.
    near: Ebpf,
    _far: (Ebpf, Ebpf),
    _agent: Agent,
    _lab: Lab,
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::builder().hosts(&["a"]).build()?;
        let (a, c) = (lab.node("a"), lab.node("c"));
        let (host, client) = (a.ns().clone(), c.ns().clone());
        for place in ["all", "default"] {
            host.set_sysctl(&format!("ipv4/conf/{place}/rp_filter"), "0")?;
        }
        // Linux answers for it, too, where the program lets it.
        a.add_to_lo(&[IpAddr::from(VIP4)])?;
        for pair in 0..4_u8 {
            let name = format!("bench{pair}");
            host.ip(&format!("link add {name} type veth peer name {name} netns {}", client.name()))?;
            let net = 100 + pair;
            let mac = |end: u8| format!("02:00:00:00:{net:02x}:{end:02x}");
            for (ns, own, other) in [(&host, 1, 2), (&client, 2, 1)] {
                // Known to each other, as the client's program drops ARP.
                ns.ip(&format!(
                    "link set {name} address {} up\naddr add 198.51.{net}.{own}/24 dev {name}\n\
                     neigh replace 198.51.{net}.{other} lladdr {} dev {name} nud permanent",
                    mac(own),
                    mac(other)
                ))?;
                ns.check(&["ethtool", "-K", &name, "tso", "off", "gso", "off", "gro", "off"])?;
            }
        }
        let far = host.run(|| {
            let mut far = load("bench.o", &["no_arp"])?;
            let mut reference = load("reference.o", &["pass"])?;
            attach(&mut far, "no_arp", "bench3", XdpMode::Driver)?;
            attach(&mut reference, "pass", "bench1", XdpMode::Driver)?;
            Ok((far, reference))
        })?;
        let near = client.run(|| {
            let mut near = load("bench.o", &["send_arp", "no_arp"])?;
            live::keep_at_hand(&client, &mut near, &["send_arp"])?;
            // Takes what the host's program sends, and keeps answers out of the client's way.
            for pair in 0..4 {
                attach(&mut near, "no_arp", &format!("bench{pair}"), XdpMode::Driver)?;
            }
            Ok(near)
        })?;
        let file = StaticFile::on(&["bench2"]).own(&[VIP4.into()]);
        let options = ["--announce-interval", "0", "--fence", "1m", "--xdp-mode", "native"];
        let mut agent = Agent::start(a, &file, &options)?;
        let agent_pid = agent.process().pid();
        Ok(Self { host, client, agent_pid, near, _far: far, _agent: agent, _lab: lab })
    }

    fn agent_time(&self) -> Result<Duration> {
        let pid = Pid::from_raw(self.agent_pid.cast_signed());
        Ok(clock_gettime(clock_getcpuclockid(pid)?)?.into())
    }

    /// Measures one state once.
    fn state(&mut self, pair: u8, flood: Flood, series: &mut Series) -> Result<()> {
        let frame = flood.frame(pair);
        set_question(&mut self.near, &frame)?;
        let ifindex = self.client.ifindex(&format!("bench{pair}"))?;
        let (stop, sent) = (AtomicBool::new(flood == Flood::None), AtomicU64::new(0));
        let this: &Self = self;
        thread::scope(|scope| {
            let generator =
                scope.spawn(|| this.client.run(|| generate(&this.near, &frame, ifindex, &stop, &sent)));
            let measured = this.beside(pair, &sent, series);
            stop.store(true, Ordering::Relaxed);
            let generated = generator.join().ok().context("the generator has panicked")?;
            measured.and(generated)
        })
    }

    /// Measures while the generator works.
    fn beside(&self, pair: u8, sent: &AtomicU64, series: &mut Series) -> Result<()> {
        let (start, agent) = (Instant::now(), self.agent_time()?);
        self.traffic(pair, series)?;
        let (took, agent) = (start.elapsed().as_secs_f64(), self.agent_time()?.saturating_sub(agent));
        series.flood.push(sent.load(Ordering::Relaxed) as f64 / took);
        series.agent.push(100.0 * agent.as_secs_f64() / took);
        Ok(())
    }

    fn traffic(&self, pair: u8, series: &mut Series) -> Result<()> {
        let server = Ipv4Addr::new(198, 51, 100 + pair, 1);
        series.gigabits.push(traffic::tcp(&self.host, &self.client, server, TURN)? * 8.0 / 1e9);
        series.packets.push(traffic::packets(&self.host, &self.client, server, TURN)?);
        let mut trips = traffic::round_trips(&self.host, &self.client, server, TURN)?;
        trips.sort_by(f64::total_cmp);
        let at = |part: f64| trips.get((trips.len() as f64 * part) as usize).copied();
        series.latency_us.push(at(0.5).context("no packet came back")?);
        series.tail_us.push(at(0.99).context("no packet came back")?);
        Ok(())
    }
}

/// Sends the flood at its rate, before all else, as frames from a wire come, until it is told to stop. What could not be
/// sent in time is not made up for.
///
/// In turns of several threads, as a call may wait in the kernel when it has sent.
fn generate(near: &Ebpf, frame: &[u8], ifindex: u32, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let every = Duration::from_secs(1) * AT_ONCE / RATE;
    let (start, turns) = (Instant::now(), AtomicU32::new(0));
    let take_turns = || -> Result<()> {
        machine::before_others()?;
        while !stop.load(Ordering::Relaxed) {
            let due = start + every * turns.fetch_add(1, Ordering::Relaxed);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if due.elapsed() < LATE {
                send(near, "send_arp", frame, ifindex, AT_ONCE)?;
                sent.fetch_add(u64::from(AT_ONCE), Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..GENERATORS).map(|_| scope.spawn(take_turns)).collect();
        let ends =
            threads.into_iter().map(|thread| thread.join().ok().context("a generator has panicked")?);
        ends.collect()
    })
}

/// Measures everything.
pub(crate) fn report(rounds: u32) -> Result<Report> {
    let mut bench = Bench::new()?;
    let mut all: Vec<Series> = STATES.iter().map(|_state| Series::default()).collect();
    for _ in 0..rounds {
        for ((pair, flood), series) in STATES.iter().zip(&mut all) {
            bench.state(*pair, *flood, series)?;
        }
    }
    let mut report =
        Report::new("collateral", "Others' traffic through the interface, everything on one CPU");
    show(&all, &mut report);
    Ok(report)
}

fn show(all: &[Series], report: &mut Report) {
    let place = |end: u8, flood: Flood| STATES.iter().position(|state| *state == (end, flood));
    let of = |end, flood| place(end, flood).and_then(|place| all.get(place));
    let mut table = vec![];
    for ((pair, flood), series) in STATES.iter().zip(all) {
        let (name, flood_name) = (ENDS[usize::from(*pair)], flood.name());
        let stats = |values: &Vec<f64>| Stats::of(values.clone());
        let (tcp, packets) = (stats(&series.gigabits), stats(&series.packets));
        let (latency, tail) = (stats(&series.latency_us), stats(&series.tail_us));
        let (rate, agent) = (stats(&series.flood), stats(&series.agent));
        report.line(format!(
            "{name:<11}{flood_name:<10} TCP {:5.2} Gbit/s, {:4.0} k packets/s, round trip {:5.1} µs (99 %: {:5.0}); flood \
             {:4.2} M/s, agent {:.2} %",
            tcp.median,
            packets.median / 1e3,
            latency.median,
            tail.median,
            rate.median / 1e6,
            agent.median,
        ));
        table.push(json!({
            "on_the_interface": name,
            "flood": flood_name,
            "tcp_gigabits": tcp.json(),
            "small_packets": packets.json(),
            "round_trip_us": latency.json(),
            "round_trip_us_99": tail.json(),
            "flood_per_second": rate.json(),
            "agent_percent": agent.json(),
        }));
    }
    for flood in [Flood::None, Flood::Owned, Flood::Foreign, Flood::Malformed] {
        let (Some(on), Some(pass)) = (of(2, flood), of(1, flood)) else { continue };
        let ratio = Stats::ratio(&on.gigabits, &pass.gigabits);
        let packets = Stats::ratio(&on.packets, &pass.packets);
        let latency = Stats::ratio(&on.latency_us, &pass.latency_us);
        report.line(format!(
            "responder / pass, {:<10} TCP {:.2}, small packets {:.2}, round trip {:.2}",
            flood.name(),
            ratio.median,
            packets.median,
            latency.median
        ));
    }
    if let (Some(idle), Some(flooded)) = (of(2, Flood::None), of(2, Flood::Foreign)) {
        let more = flooded.agent.iter().zip(&idle.agent).map(|(a, b)| a - b).collect();
        report.target(Target::at_most("agent's CPU in a foreign flood beyond idle, %", 0.1, Stats::of(more)));
    }
    report.json("rows", json!(table));
}
