//! Answers a second over a veth pair, with everything on one CPU: the generator at one end (live frames of
//! `BPF_PROG_TEST_RUN`, which costs the least that Linux has), whoever answers at the other, and a program at the first
//! end again that counts and drops what comes back. All of it runs in the generator's system call, so the
//! generator's CPU time is that of all, and other processes do not count. A kernel that charges interrupts to
//! nobody (CONFIG_IRQ_TIME_ACCOUNTING) leaves only the clock on the wall.
//!
//! The pairs differ in what is at the other end: a program that drops (what the generator costs alone), one that
//! swaps and sends, the responder, and Linux itself.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use responder_common::layout::XDP_PROGRAM;
use responder_tests::{
    frames::{self, OWN, VIP4, VIP6},
    model::Host,
    run::{Kernel, object},
};
use serde_json::{Value, json};

use crate::{
    cost::{cpu_time, set_question},
    stats::Stats,
};

/// Frames in one flood.
const FLOOD: u32 = 200_000;
/// Frames that the generator makes at a time; a veth's ring has 256 places.
const BATCH: u32 = 64;

/// One line of the table.
pub(crate) struct Row {
    question: &'static str,
    by: &'static str,
    rate: Stats,
    /// ns for each answer, without what the generator takes.
    net_ns: Stats,
    answered: f64,
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        json!({
            "question": self.question,
            "answered_by": self.by,
            "per_second": self.rate.json(),
            "net_ns": self.net_ns.json(),
            "answered": self.answered,
        })
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { question, by, rate, net_ns, answered } = self;
        write!(f, "  {question:<13} {by:<15} {:<24} a second", rate.to_string())?;
        write!(f, " {:>6.0} ns each beyond the generator, {:.1} % answered", net_ns.median, answered * 100.0)
    }
}

/// Who is at the other end, in the order of the pairs.
const ENDS: [&str; 4] = ["(dropped)", "swap and send", "responder", "Linux"];

fn ip(arguments: &str) -> Result<()> {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip (iproute2)")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn attach(ebpf: &mut Ebpf, program: &str, interface: &str) -> Result<()> {
    let xdp: &mut Xdp =
        ebpf.program_mut(program).with_context(|| format!("no program {program}"))?.try_into()?;
    if xdp.fd().is_err() {
        xdp.load()?;
    }
    xdp.attach(interface, XdpMode::Driver)
        .with_context(|| format!("cannot attach {program} to {interface}"))?;
    Ok(())
}

/// What floods are timed by.
#[derive(Clone, Copy)]
enum Clock {
    Cpu,
    Wall(Instant),
}

impl Clock {
    fn choose() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let boot = format!("/boot/config-{}", release.trim());
        let wanted = ["-qs", "^CONFIG_IRQ_TIME_ACCOUNTING=y", "/proc/config.gz", &boot];
        match Command::new("zgrep").args(wanted).status() {
            Ok(status) if status.success() => Self::Wall(Instant::now()),
            _ => Self::Cpu,
        }
    }

    fn now(self) -> Result<Duration> {
        match self {
            Self::Cpu => cpu_time(),
            Self::Wall(start) => Ok(start.elapsed()),
        }
    }
}

/// The pairs, with their programs attached. They vanish with the process, whose namespace they are in.
struct Pairs {
    /// The generators, and `count` on the near ends.
    near: Ebpf,
    ifindexes: Vec<u32>,
    clock: Clock,
    /// Keeps their programs attached.
    _far: (Ebpf, Kernel),
}

impl Pairs {
    fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let mut near = Ebpf::load(&object("bench.o")?)?;
        let mut reference = Ebpf::load(&object("reference.o")?)?;
        let mut responder = Kernel::load(None)?;
        let mac = OWN.map(|b| format!("{b:02x}")).join(":");
        let mut ifindexes = vec![];
        for (i, end) in ENDS.iter().enumerate() {
            ip(&format!("link add near{i} type veth peer name far{i}"))?;
            ip(&format!("link set far{i} address {mac}"))?;
            if *end == "Linux" {
                ip(&format!("addr add {VIP4}/24 dev far{i}"))?;
                ip(&format!("addr add {VIP6}/64 dev far{i} nodad"))?;
            }
            for link in ["near", "far"] {
                ip(&format!("link set {link}{i} up"))?;
            }
            attach(&mut near, "count", &format!("near{i}"))?;
            let far = format!("far{i}");
            match *end {
                "responder" => {
                    let ifindex = if_nametoindex(far.as_str())?;
                    let listed = Host::listed();
                    let move_to = |(_, vlan)| (ifindex, vlan);
                    let host = Host {
                        vips: listed
                            .vips
                            .iter()
                            .map(|((ip, at), slot)| ((*ip, move_to(*at)), *slot))
                            .collect(),
                        links: listed.links.iter().map(|(at, link)| (move_to(*at), *link)).collect(),
                        ..listed
                    };
                    responder.fill(&host)?;
                    attach(responder.ebpf(), XDP_PROGRAM, &far)?;
                }
                // A veth takes frames from a program only if it has one, or GRO, itself.
                "Linux" => attach(&mut reference, "pass", &far)?,
                "swap and send" => attach(&mut reference, "swap", &far)?,
                _ => attach(&mut reference, "drop", &far)?,
            }
            ifindexes.push(if_nametoindex(format!("near{i}").as_str())?);
        }
        for name in ["send_arp", "send_ns"] {
            let send: &mut Xdp = near.program_mut(name).context(name)?.try_into()?;
            send.load()?;
        }
        Ok(Self { near, ifindexes, clock: Clock::choose(), _far: (reference, responder) })
    }

    fn count(&self) -> Result<u64> {
        let map = self.near.map("COUNT").context("no map COUNT")?;
        let count: PerCpuArray<_, u64> = map.try_into()?;
        Ok(count.get(&0, 0)?.iter().sum())
    }

    /// Sends a flood into one pair: ns for each frame sent, and the part that came back.
    fn flood(&self, pair: usize, program: &'static str, frame: &[u8]) -> Result<(f64, f64)> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, u32::try_from(frame.len())?, 0, self.ifindexes[pair], 0, 0];
        let context: Vec<u8> = context.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let send: &Xdp = self.near.program(program).context(program)?.try_into()?;
        let before = self.count()?;
        let start = self.clock.now()?;
        send.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: FLOOD,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })
        .context("live frames need kernel 5.18 or later")?;
        let took = self.clock.now()?.saturating_sub(start);
        // What is still on its way, if the kernel has put it off: a ring's worth.
        let mut seen = self.count()? - before;
        let mut idle = Instant::now();
        while seen < u64::from(FLOOD) && idle.elapsed() < Duration::from_millis(10) {
            std::thread::yield_now();
            let now = self.count()? - before;
            if now != seen {
                (seen, idle) = (now, Instant::now());
            }
        }
        let flood = f64::from(FLOOD);
        Ok((took.as_secs_f64() * 1e9 / flood, seen as f64 / flood))
    }
}

/// Measures everything in `rounds` rounds.
pub(crate) fn measure(rounds: u32) -> Result<Vec<Row>> {
    let mut pairs = Pairs::new()?;
    let mut rows = vec![];
    for (question, id, send) in [("ARP requests", "A01", "send_arp"), ("solicitations", "N01", "send_ns")] {
        let frame = frames::get(id).frame;
        set_question(&mut pairs.near, &frame)?;
        let mut ns = vec![vec![]; ENDS.len()];
        let mut answered = vec![vec![]; ENDS.len()];
        for _ in 0..rounds {
            for pair in 0..ENDS.len() {
                let (took, part) = pairs.flood(pair, send, &frame)?;
                ns[pair].push(took);
                answered[pair].push(part);
            }
        }
        for (pair, &by) in ENDS.iter().enumerate() {
            let part = Stats::of(answered[pair].clone()).median;
            ensure!(pair == 0 || part > 0.5, "{by} has answered {:.1} % of the {question}", part * 100.0);
            let share = if pair == 0 { 1.0 } else { part };
            let net = |(all, generator): (&f64, &f64)| (all - generator) / share;
            rows.push(Row {
                question,
                by,
                rate: Stats::of(ns[pair].iter().map(|ns| share * 1e9 / ns).collect()),
                net_ns: Stats::of(ns[pair].iter().zip(&ns[0]).map(net).collect()),
                answered: part,
            });
        }
    }
    Ok(rows)
}
