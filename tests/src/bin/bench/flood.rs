//! `flood`: what an answer costs over a veth pair, with everything on one CPU: the generator at one end, whoever answers
//! at the other, and a program at the first end again that counts and drops what comes back.
//!
//! Where the kernel answers, all of it runs in the generator's system call, so that the generator's CPU time is that of
//! all, and other processes do not count. Where a process answers, frames come in portions that its buffers hold, and its own CPU
//! time is added. A kernel that charges interrupts to nobody (CONFIG_IRQ_TIME_ACCOUNTING) leaves only the clock on the wall.

mod ends;

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::Lab;
use responder_tests::frames;
use serde_json::json;

use crate::{
    answer::set_question,
    flood::ends::{By, ENDS, End, Pair, Programs, pair},
    live::{counted, keep_at_hand, send},
    machine::cpu_time,
    report::{Report, Target},
    stats::Stats,
};

/// Frames in one flood that the kernel answers.
const FLOOD: u32 = 200_000;

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
        match Command::new("zgrep").args(wanted).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Self::Wall(Instant::now()),
            _ => Self::Cpu,
        }
    }

    fn now(self, pair: &Pair) -> Result<Duration> {
        match self {
            Self::Cpu => Ok(cpu_time()? + pair.cpu_time()?),
            Self::Wall(start) => Ok(start.elapsed()),
        }
    }
}

/// What one flood took.
struct Flooded {
    /// ns for each frame sent.
    ns: f64,
    /// The part that came back.
    part: f64,
}

/// Sends a flood into one pair.
fn flood(
    programs: &Programs,
    pair: &Pair,
    portions: Option<(u32, u32)>,
    question: &Question,
) -> Result<Flooded> {
    let &Question { clock, ref frame, .. } = question;
    let (frames, portion) = portions.unwrap_or((FLOOD, FLOOD));
    let program = if pair.end.generic { question.handed } else { question.through };
    let before = counted(&programs.near)?;
    let (mut sent, mut idle) = (0, Duration::ZERO);
    let start = clock.now(pair)?;
    while sent < frames {
        send(&programs.near, program, frame, pair.ifindex, portion)?;
        sent += portion;
        // Waiting is not work.
        let waiting = cpu_time()?;
        if pair.end.by != By::Nobody {
            settle(programs, before + u64::from(sent), portions.is_some())?;
        }
        idle += cpu_time()?.saturating_sub(waiting);
    }
    let mut took = clock.now(pair)?.saturating_sub(start);
    if matches!(clock, Clock::Cpu) {
        took = took.saturating_sub(idle);
    }
    let (seen, frames) = (counted(&programs.near)?.saturating_sub(before), f64::from(frames));
    Ok(Flooded { ns: took.as_secs_f64() * 1e9 / frames, part: seen as f64 / frames })
}

/// Waits until so many have been counted, or nothing comes any more.
fn settle(programs: &Programs, wanted: u64, sleep: bool) -> Result<()> {
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(20) {
        let now = counted(&programs.near)?;
        if now >= wanted {
            return Ok(());
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if sleep { thread::sleep(Duration::from_micros(50)) } else { thread::yield_now() }
    }
    Ok(())
}

/// One line of the table.
struct Row {
    question: &'static str,
    end: End,
    ns: Vec<f64>,
    net: Vec<f64>,
    parts: Vec<f64>,
}

impl Row {
    fn new(question: &'static str, end: End) -> Self {
        Self { question, end, ns: vec![], net: vec![], parts: vec![] }
    }

    fn add(&mut self, one: &Flooded, alone: &Flooded) {
        let share = if self.end.by == By::Nobody { 1.0 } else { one.part.max(0.01) };
        self.ns.push(one.ns / share);
        self.net.push((one.ns - alone.ns) / share);
        self.parts.push(one.part);
    }

    fn answered(&self) -> f64 {
        Stats::of(self.parts.clone()).median
    }
}

/// What is asked, and the programs that send it and hand it over.
struct Question {
    name: &'static str,
    frame: Vec<u8>,
    through: &'static str,
    handed: &'static str,
    clock: Clock,
}

impl Question {
    fn new(v6: bool) -> Self {
        let (name, id) = if v6 { ("NS", "N01") } else { ("ARP", "A01") };
        let (through, handed) = if v6 { ("send_ns", "hand_ns") } else { ("send_arp", "hand_arp") };
        Self { name, frame: frames::get(id).frame, through, handed, clock: Clock::choose() }
    }
}

/// Measures one question at all ends, taking turns, each after its control with as many frames at once.
fn measure(pairs: &[Pair], programs: &mut Programs, v6: bool, rounds: u32) -> Result<Vec<Row>> {
    let question = Question::new(v6);
    set_question(&mut programs.near, &question.frame)?;
    let mut rows = vec![];
    for pair in pairs.iter().filter(|pair| pair.end.answers(v6)) {
        let control = pairs.iter().find(|other| other.end == pair.end.control()).context("no control")?;
        rows.push((pair, control, Row::new(question.name, pair.end)));
    }
    // The first round warms up.
    for round in 0..=rounds {
        for (pair, control, row) in &mut rows {
            let portions = pair.end.portions();
            let alone = flood(programs, control, portions, &question)?;
            let one = flood(programs, pair, portions, &question)?;
            if round > 0 {
                row.add(&one, &alone);
            }
        }
    }
    let rows: Vec<_> = rows.into_iter().map(|(_, _, row)| row).collect();
    for row in rows.iter().filter(|row| row.end.by != By::Nobody) {
        let part = row.answered() * 100.0;
        ensure!(part > 50.0, "{} has answered {part:.1} % of the {}", row.end.name, row.question);
    }
    Ok(rows)
}

/// Measures everything.
pub(crate) fn report(rounds: u32) -> Result<Report> {
    let lab = Lab::builder().hosts(&["a"]).clients(&[]).build()?;
    let ns = lab.node("a").ns().clone();
    // Each interface answers for its own addresses, which are the same.
    for (key, value) in [("arp_ignore", "1"), ("rp_filter", "0")] {
        for place in ["all", "default"] {
            ns.set_sysctl(&format!("ipv4/conf/{place}/{key}"), value)?;
        }
    }
    let mut report = Report::new("flood", "Answers on one CPU, over a veth pair");
    let rows = ns.run(|| {
        let mut programs = Programs::load()?;
        keep_at_hand(&ns, &mut programs.near, &["send_arp", "send_ns", "hand_arp", "hand_ns"])?;
        let mut pairs = vec![];
        for (i, end) in ENDS.into_iter().enumerate() {
            match end.tool().filter(|tool| !is_there(tool)) {
                Some(tool) => report.line(format!("{}: not measured, as there is no {tool}", end.name)),
                None => pairs.push(pair(&lab, &ns, &mut programs, i, end)?),
            }
        }
        let mut rows = measure(&pairs, &mut programs, false, rounds)?;
        rows.extend(measure(&pairs, &mut programs, true, rounds)?);
        Ok(rows)
    })?;
    show(&rows, &mut report);
    Ok(report)
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|dir| dir.join(tool).is_file())
}

fn show(rows: &[Row], report: &mut Report) {
    let mut table = vec![];
    for row in rows {
        let Row { question, end, ns, net, .. } = row;
        let rate = Stats::of(ns.iter().map(|ns| 1e9 / ns).collect());
        let net_ns = Stats::of(net.clone());
        let ours = rows.iter().find(|other| {
            let by = other.end.by == By::Responder && other.end.generic == end.generic;
            by && other.question == *question
        });
        let ratio = ours.map(|ours| Stats::ratio(net, &ours.net));
        let part = row.answered();
        let answered = part * 100.0;
        let times = match ratio {
            Some(ratio) if end.by != By::Nobody => format!("{:>6.2} x the responder", ratio.median),
            _ => String::new(),
        };
        report.line(format!(
            "{question:<4}{:<18} {:<24} a second, {:>6.0} ns each net, {answered:5.1} % {times}",
            end.name,
            rate.to_string(),
            net_ns.median,
        ));
        let least = match (end.by, end.generic) {
            (By::Linux, false) => Some(if *question == "NS" { 8.0 } else { 5.0 }),
            (By::Packet, _) => Some(20.0),
            _ => None,
        };
        if let (Some(least), Some(ratio)) = (least, ratio) {
            report.target(Target::at_least(format!("{question}: {} costs", end.name), least, ratio));
        }
        table.push(json!({
            "question": question,
            "by": end.name,
            "generic": end.generic,
            "per_second": rate.json(),
            "net_ns": net_ns.json(),
            "times_responder": ratio.map(|ratio| ratio.json()),
            "answered": part,
        }));
    }
    report.json("rows", json!(table));
}
