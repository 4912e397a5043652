//! What one frame costs, under `BPF_PROG_TEST_RUN`.
//!
//! The kernel runs the program again and again over the same buffer. A program that answers would find its own
//! answer the second time; so the one measured here puts the question back, and is compared with one that puts it
//! back, too, but only exchanges the Ethernet addresses. Frames that are not answered stay as they are, and the
//! program is measured as it is.

use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::Array,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use nix::time::{ClockId, clock_gettime};
use responder_common::layout::XDP_PROGRAM;
use responder_tests::{
    build::{Arp, ethernet},
    frames::{self, CLIENT, CLIENT4, OWN, SLOT, STANDBY4, UNKNOWN4},
    model::{Host, IFINDEX},
    run::{Kernel, object},
};
use serde_json::{Value, json};

use crate::stats::Stats;

/// Frames in one call: some 10 ms.
const REPEAT: u32 = 100_000;
/// Numbers of known addresses, of each family.
const SIZES: [u32; 2] = [1, 10_000];

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

/// One line of the table.
pub(crate) struct Row {
    what: &'static str,
    vips: u32,
    ns: Stats,
    against: &'static str,
    reference_ns: Stats,
    ratio: Stats,
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "vips": self.vips,
            "ns": self.ns.json(),
            "reference": self.against,
            "reference_ns": self.reference_ns.json(),
            "ratio": self.ratio.json(),
        })
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, vips, ns, against, reference_ns, ratio } = self;
        write!(f, "  {what:<24} {vips:>6} VIPs {:<22}", ns.to_string())?;
        write!(f, " {:.2} x {against}, {:.1}", ratio.median, reference_ns.median)
    }
}

/// A program and the frame that it is measured with.
struct Subject {
    what: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    verdict: u32,
    /// Name in the table, and place among the references.
    against: (&'static str, usize),
}

fn subjects(answering: bool) -> Vec<Subject> {
    let subject = |what, program, frame, verdict, against| Subject { what, program, frame, verdict, against };
    let frame = |id: &str| frames::get(id).frame;
    if answering {
        return vec![
            subject("ARP request answered", "bench_arp", frame("A01"), TX, ("swap and send", 0)),
            subject("solicitation answered", "bench_ns", frame("N01"), TX, ("swap and send", 1)),
        ];
    }
    let request = |tpa| Arp::request(CLIENT, CLIENT4, tpa).bytes();
    let tcp = |ethertype, l3: &[u8]| ethernet(OWN, CLIENT, &[], ethertype, &[l3, &[0; 60]].concat());
    let mut v4 = [0; 20];
    (v4[0], v4[9]) = (0x45, 6);
    let mut v6 = [0; 40];
    (v6[0], v6[6], v6[7]) = (0x60, 6, 64);
    let responder = XDP_PROGRAM;
    vec![
        subject("ARP request suppressed", responder, request(STANDBY4), DROP, ("drop", 3)),
        subject("ARP request for others", responder, request(UNKNOWN4), PASS, ("pass", 2)),
        subject("IPv4 data", responder, tcp(0x0800, &v4), PASS, ("pass", 2)),
        subject("IPv6 data", responder, tcp(0x86dd, &v6), PASS, ("pass", 2)),
    ]
}

/// The list's addresses and, among them, so many of each family in all.
fn host(vips: u32) -> Host {
    let mut host = Host::listed();
    for i in 1..vips {
        let place = (IFINDEX, 0);
        host.vips.insert((IpAddr::from(Ipv4Addr::from(0x0a00_0000 + i)), place), SLOT);
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, (i >> 16) as u16, i as u16);
        host.vips.insert((IpAddr::from(ip), place), SLOT);
    }
    host
}

/// Sets what bench.o puts back or sends.
pub(crate) fn set_question(ebpf: &mut Ebpf, frame: &[u8]) -> Result<()> {
    let mut question: Array<_, [u8; 88]> = ebpf.map_mut("QUESTION").context("no map QUESTION")?.try_into()?;
    let mut padded = [0; 88];
    padded[..frame.len()].copy_from_slice(frame);
    Ok(question.set(0, padded, 0)?)
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

/// What this thread has had of its CPU: others that want it do not count.
pub(crate) fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What everything is compared with: program, frame, verdict.
fn references() -> [(&'static str, Vec<u8>, u32); 4] {
    let frame = |id: &str| frames::get(id).frame;
    [
        ("swap_arp", frame("A01"), TX),
        ("swap_ns", frame("N01"), TX),
        ("pass", frame("A01"), PASS),
        ("drop", frame("A01"), DROP),
    ]
}

/// Loads the programs with so many addresses, twice: those that put questions back, and the real one.
fn kernels(vips: u32) -> Result<[Kernel; 2]> {
    let mut answering = Kernel::open("bench.o", &["bench_arp", "bench_ns", "swap_arp", "swap_ns"], None)?;
    let mut plain = Kernel::load(None)?;
    answering.fill(&host(vips))?;
    plain.fill(&host(vips))?;
    Ok([answering, plain])
}

/// Measures everything in `rounds` rounds.
pub(crate) fn measure(rounds: u32) -> Result<Vec<Row>> {
    let mut sizes = vec![];
    for vips in SIZES {
        sizes.push((vips, kernels(vips)?));
    }
    let mut least = Ebpf::load(&object("reference.o")?)?;
    for name in ["pass", "drop"] {
        let program: &mut Xdp = least.program_mut(name).context("reference.o")?.try_into()?;
        program.load()?;
    }
    let references = references();
    let mut reference_ns: [Vec<f64>; 4] = Default::default();
    let all = [subjects(true), subjects(false)];
    let mut ns: Vec<Vec<f64>> = vec![vec![]; SIZES.len() * (all[0].len() + all[1].len())];
    for _ in 0..rounds {
        for (i, (program, frame, verdict)) in references.iter().enumerate() {
            let ebpf = if i < 2 { sizes[0].1[0].ebpf() } else { &mut least };
            if i < 2 {
                set_question(ebpf, frame)?;
            }
            reference_ns[i].push(run(ebpf, program, frame, *verdict)?);
        }
        let mut series = ns.iter_mut();
        for (_, kernels) in &mut sizes {
            for (kernel, subjects) in kernels.iter_mut().zip(&all) {
                for subject in subjects {
                    let ebpf = kernel.ebpf();
                    if subject.verdict == TX {
                        set_question(ebpf, &subject.frame)?;
                    }
                    let took = run(ebpf, subject.program, &subject.frame, subject.verdict)
                        .with_context(|| subject.what)?;
                    series.next().context("fewer series than subjects")?.push(took);
                }
            }
        }
    }
    let mut series = ns.into_iter();
    let mut rows = vec![];
    for (vips, _) in &sizes {
        for subject in all.iter().flatten() {
            let ns = series.next().context("fewer series than subjects")?;
            let (against, reference) = subject.against;
            let reference = &reference_ns[reference];
            rows.push(Row {
                what: subject.what,
                vips: *vips,
                ratio: Stats::ratio(&ns, reference),
                ns: Stats::of(ns),
                against,
                reference_ns: Stats::of(reference.clone()),
            });
        }
    }
    Ok(rows)
}
