//! `answer`: what one frame costs, under `BPF_PROG_TEST_RUN`.
//!
//! The kernel runs the program again and again over the same buffer. A program that answers would find its own
//! answer the second time; so the one measured here puts the question back, and is compared with one that puts it
//! back, too, but only exchanges the Ethernet addresses. Frames that are not answered stay as they are, and the
//! program is measured as it is.
//!
//! Everything takes turns within a round, and ratios are made within a round.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::Array,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use responder_common::layout::XDP_PROGRAM;
use responder_tests::{
    build::{Arp, Nd, ethernet},
    frames::{self, CLIENT, CLIENT4, CLIENT6, OWN, SLOT, STANDBY4, UNKNOWN4, UNKNOWN6, VIP4, VIP6},
    model::{Host, IFINDEX},
    run::{Kernel, object},
};
use serde_json::json;

use crate::{
    machine::cpu_time,
    report::{Report, Target},
    stats::Stats,
};

/// Frames in one call: some 10 ms.
const REPEAT: u32 = 100_000;
/// Numbers of known addresses, of each family. The least is what the list of frames needs.
pub(crate) const SIZES: [u32; 4] = [1, 100, 10_000, 65_536];
/// Questions that take turns.
const QUESTIONS: u32 = 65_536;

/// What the parts of an answer are compared with.
const NOTHING: &str = "nothing";

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

/// Where a program is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// `bench.o`, filled.
    Bench,
    /// `responder.o`, filled.
    Responder,
    /// `reference.o`.
    Reference,
}

/// A program and the frame that it is measured with.
struct Subject {
    what: &'static str,
    at: At,
    program: &'static str,
    frame: Vec<u8>,
    verdict: u32,
    /// A key of [`references`].
    against: &'static str,
    /// What the ratio is to be at most.
    target: Option<f64>,
}

fn frame(id: &str) -> Vec<u8> {
    frames::get(id).frame
}

/// What everything is compared with: name, where, program, frame, verdict.
fn references() -> [(&'static str, At, &'static str, Vec<u8>, u32); 7] {
    [
        ("swap and send", At::Bench, "swap_arp", frame("A01"), TX),
        ("swap and send 86", At::Bench, "swap_ns", frame("N01"), TX),
        ("swap and send, all", At::Bench, "turns_swap_arp", frame("A01"), TX),
        ("swap and send 86, all", At::Bench, "turns_swap_ns", frame("N01"), TX),
        ("pass", At::Reference, "pass", frame("A01"), PASS),
        ("drop", At::Reference, "drop", frame("A01"), DROP),
        (NOTHING, At::Bench, "step_key", frame("A01"), PASS),
    ]
}

fn subjects() -> Vec<Subject> {
    let subject = |what, at, program, frame, verdict, against, target| Subject {
        what,
        at,
        program,
        frame,
        verdict,
        against,
        target,
    };
    let request = |tpa| Arp::request(CLIENT, CLIENT4, tpa).bytes();
    let tcp = |ethertype, l3: &[u8]| ethernet(OWN, CLIENT, &[], ethertype, &[l3, &[0; 60]].concat());
    let mut v4 = [0; 20];
    (v4[0], v4[9]) = (0x45, 6);
    let mut v6 = [0; 40];
    (v6[0], v6[6], v6[7]) = (0x60, 6, 64);
    let (bench, real) = (At::Bench, At::Responder);
    let foreign = Nd::solicitation(CLIENT, CLIENT6, UNKNOWN6).bytes();
    vec![
        subject("ARP answered", bench, "bench_arp", frame("A01"), TX, "swap and send", Some(2.5)),
        subject("NS answered", bench, "bench_ns", frame("N01"), TX, "swap and send 86", Some(4.0)),
        subject(
            "ARP answered, all VIPs",
            bench,
            "turns_bench_arp",
            frame("A01"),
            TX,
            "swap and send, all",
            None,
        ),
        subject(
            "NS answered, all VIPs",
            bench,
            "turns_bench_ns",
            frame("N01"),
            TX,
            "swap and send 86, all",
            None,
        ),
        subject("ARP, no clock", bench, "unclocked_arp", frame("A01"), TX, "swap and send", None),
        subject("NS, no clock", bench, "unclocked_ns", frame("N01"), TX, "swap and send 86", None),
        subject("ARP suppressed", real, XDP_PROGRAM, request(STANDBY4), DROP, "drop", None),
        subject("ARP foreign", real, XDP_PROGRAM, request(UNKNOWN4), PASS, "pass", None),
        subject("NS foreign", real, XDP_PROGRAM, foreign, PASS, "pass", None),
        subject("IPv4 data", real, XDP_PROGRAM, tcp(0x0800, &v4), PASS, "pass", Some(1.3)),
        subject("IPv6 data", real, XDP_PROGRAM, tcp(0x86dd, &v6), PASS, "pass", Some(1.3)),
    ]
}

/// The parts of an answer, each alone, beyond `step_key`.
fn steps() -> Vec<Subject> {
    let request = |tpa| Arp::request(CLIENT, CLIENT4, tpa).bytes();
    let step = |what, program, frame, verdict| Subject {
        what,
        at: At::Bench,
        program,
        frame,
        verdict,
        against: NOTHING,
        target: None,
    };
    vec![
        step("look a VIP up", "step_vip", request(VIP4), PASS),
        step("look up what is no VIP", "step_vip", request(UNKNOWN4), DROP),
        step("look a link up", "step_link", request(VIP4), PASS),
        step("read the clock", "step_clock", request(VIP4), PASS),
        step("read slot and fence", "step_fence", request(VIP4), PASS),
        step("count the frame", "step_count", request(VIP4), PASS),
        step("look a VIP up, count", "step_vip_count", request(VIP4), PASS),
    ]
}

/// Of each family, as many addresses as there are to be, those of the list of frames first.
fn addresses(count: u32) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let low = |i: u32| (i as u16, (i >> 16) as u16);
    let v4 = (1..count).map(|i| Ipv4Addr::from(0x0a00_0000 + i));
    let v6 = (1..count).map(|i| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, low(i).1, low(i).0));
    ([VIP4].into_iter().chain(v4).collect(), [VIP6].into_iter().chain(v6).collect())
}

/// The list's host with so many addresses of each family that are owned; a few more are known.
fn host(vips: u32) -> Host {
    let mut host = Host::listed();
    let (v4, v6) = addresses(vips);
    let all = v4.into_iter().map(IpAddr::from).chain(v6.into_iter().map(IpAddr::from));
    host.vips.extend(all.map(|ip| ((ip, (IFINDEX, 0)), SLOT)));
    host
}

/// Sets what bench.o puts back or sends.
pub(crate) fn set_question(ebpf: &mut Ebpf, frame: &[u8]) -> Result<()> {
    set_questions(ebpf, &[frame.to_vec()], 1)
}

/// The same with many that take turns, over and over up to `places`.
fn set_questions(ebpf: &mut Ebpf, frames: &[Vec<u8>], places: u32) -> Result<()> {
    let mut question: Array<_, [u8; 88]> = ebpf.map_mut("QUESTION").context("no map QUESTION")?.try_into()?;
    for (place, frame) in (0..places).zip(frames.iter().cycle()) {
        let mut padded = [0; 88];
        padded[..frame.len()].copy_from_slice(frame);
        question.set(place, padded, 0)?;
    }
    Ok(())
}

/// Questions for all of so many addresses, in an order that no prefetcher knows.
fn all_questions(vips: u32, v6: bool) -> Vec<Vec<u8>> {
    let (v4s, v6s) = addresses(vips);
    let mut questions: Vec<_> = match v6 {
        false => v4s.iter().map(|vip| padded(Arp::request(CLIENT, CLIENT4, *vip).bytes())).collect(),
        true => v6s.iter().map(|vip| Nd::solicitation(CLIENT, CLIENT6, *vip).bytes()).collect(),
    };
    questions.shuffle(&mut StdRng::seed_from_u64(1));
    questions
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Runs a program `REPEAT` times over a frame and returns the ns of one time.
fn run(ebpf: &Ebpf, program: &str, frame: &[u8], verdict: u32) -> Result<f64> {
    let xdp: &Xdp = ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
    let start = cpu_time()?;
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::new() };
    let result = xdp.test_run(options)?;
    let took = cpu_time()? - start;
    ensure!(result.return_value == verdict, "{program} returned {}", result.return_value);
    Ok(took.as_secs_f64() * 1e9 / f64::from(REPEAT))
}

/// The programs with so many addresses.
struct Loaded {
    bench: Kernel,
    responder: Kernel,
}

impl Loaded {
    fn new(vips: u32) -> Result<Self> {
        let answering = subjects().into_iter().chain(steps()).filter(|s| s.at == At::Bench);
        let mut names: Vec<_> = answering.map(|subject| subject.program).collect();
        names.extend(references().iter().filter(|r| r.1 == At::Bench).map(|r| r.2));
        names.sort_unstable();
        names.dedup();
        // Room for those of the list that are not owned; the hash is as wide as that of the default.
        let capacity = Some(vips.max(1000) + 16);
        let mut it =
            Self { bench: Kernel::open("bench.o", &names, capacity)?, responder: Kernel::load(capacity)? };
        let host = host(vips);
        it.bench.fill(&host)?;
        it.responder.fill(&host)?;
        Ok(it)
    }
}

fn reference() -> Result<Ebpf> {
    let mut least = Ebpf::load(&object("reference.o")?)?;
    for name in ["pass", "drop"] {
        let program: &mut Xdp = least.program_mut(name).context("reference.o")?.try_into()?;
        program.load()?;
    }
    Ok(least)
}

/// The ns of each round, by what was measured.
type Series = BTreeMap<&'static str, Vec<f64>>;

/// Measures at one number of addresses: everything in each round, the references among it.
fn measure(vips: u32, rounds: u32) -> Result<Series> {
    let mut loaded = Loaded::new(vips)?;
    let mut least = reference()?;
    let mut series = Series::new();
    for family in [false, true] {
        let all = all_questions(vips, family);
        set_questions(loaded.bench.ebpf(), &all, QUESTIONS)?;
        let is_v6 = |frame: &[u8]| frame[12..14] == [0x86, 0xdd];
        // What is not answered needs no questions: all of it beside the same references, once.
        let is_due = |frame: &[u8], verdict| if verdict == TX { is_v6(frame) == family } else { !family };
        let references = references().into_iter();
        let measured = subjects().into_iter().chain(steps());
        let measured = measured.map(|s| (s.what, s.at, s.program, s.frame, s.verdict));
        let all_programs: Vec<_> =
            references.chain(measured).filter(|(_, _, _, frame, verdict)| is_due(frame, *verdict)).collect();
        for _ in 0..rounds {
            for (what, at, program, frame, verdict) in &all_programs {
                let ebpf: &mut Ebpf = match at {
                    At::Bench => loaded.bench.ebpf(),
                    At::Responder => loaded.responder.ebpf(),
                    At::Reference => &mut least,
                };
                // The first question is also the one of the programs without turns.
                if *verdict == TX && !program.starts_with("turns_") {
                    set_question(ebpf, frame)?;
                }
                let took = run(ebpf, program, frame, *verdict).with_context(|| (*what).to_owned())?;
                series.entry(what).or_default().push(took);
            }
        }
    }
    Ok(series)
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    ns: Stats,
    against: &'static str,
    reference_ns: Stats,
    pub(crate) ratio: Stats,
    target: Option<f64>,
}

impl Row {
    /// Whether it is a part of an answer, not a whole one.
    pub(crate) fn is_step(&self) -> bool {
        self.against == NOTHING
    }
}

/// All rows at one number of addresses.
pub(crate) fn rows(vips: u32, rounds: u32) -> Result<Vec<Row>> {
    let series = measure(vips, rounds)?;
    let of = |key: &str| series.get(key).with_context(|| format!("{key} was not measured"));
    let row = |subject: &Subject| -> Result<Row> {
        let (ns, reference) = (of(subject.what)?, of(subject.against)?);
        Ok(Row {
            what: subject.what,
            ns: Stats::of(ns.clone()),
            against: subject.against,
            reference_ns: Stats::of(reference.clone()),
            ratio: Stats::ratio(ns, reference),
            target: subject.target,
        })
    };
    subjects().iter().chain(&steps()).map(row).collect()
}

/// Measures everything.
pub(crate) fn report(rounds: u32) -> Result<Report> {
    let mut report = Report::new("answer", "ns for one frame, under BPF_PROG_TEST_RUN");
    let mut table = vec![];
    for vips in SIZES {
        for row in rows(vips, rounds)? {
            let is_step = row.is_step();
            if is_step && vips != SIZES[2] {
                continue;
            }
            let (what, ns, against) = (row.what, row.ns, row.against);
            let line = match is_step {
                false => format!("{:.2} x {against} ({:.1})", row.ratio.median, row.reference_ns.median),
                true => format!("{:+.1} of an answer", ns.median - row.reference_ns.median),
            };
            report.line(format!("{what:<24}{vips:>6} VIPs {:<22} {line}", ns.to_string()));
            if let Some(most) = row.target {
                report.target(Target::at_most(format!("{what}, {vips} VIPs"), most, row.ratio));
            }
            table.push(json!({
                "what": what,
                "vips": vips,
                "ns": ns.json(),
                "reference": against,
                "reference_ns": row.reference_ns.json(),
                "ratio": row.ratio.json(),
            }));
        }
    }
    report.json("rows", json!(table));
    Ok(report)
}
