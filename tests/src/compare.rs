//! The programs in the kernel against the model: frames like those of the acceptance list, and then not, on the list's
//! host in all its states and on hosts that know other things.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use anyhow::{Context as _, Result, bail, ensure};
use responder_common::{
    egress::{EgressOutcome, EgressOutcomes},
    outcome::{Outcome, Outcomes},
};

use crate::{
    frames::{SLOT, Verdict},
    hosts,
    model::{Counted, Expected, Fence, Host, IFINDEX, Part, Place, expect, expect_sent},
    mutate::Mutator,
    run::{Kernel, Program},
};

/// Counters are read after so many frames: reading them costs more than running a program.
const BATCH: usize = 64;
/// One frame in so many is sent, too.
const SENT: u64 = 8;
/// The verdict of the egress program for what leaves: other programs and filters decide.
const UNSPECIFIED: i32 = -1;

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Where frames and hosts come from.
    pub seed: u64,
    /// How many frames.
    pub frames: u64,
    /// How many of them on one host.
    pub per_host: u64,
}

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Received frames.
    pub received: u64,
    /// Sent frames.
    pub sent: u64,
    /// Hosts.
    pub hosts: u64,
    /// Outcomes of what was received.
    pub outcomes: Outcomes,
    /// Outcomes of what was sent.
    pub egress: EgressOutcomes,
}

/// Answered, suppressed and claims by address.
type Counts = BTreeMap<(IpAddr, Place), [u64; 3]>;

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, sent, hosts, outcomes, egress } = self;
        writeln!(f, "{received} received and {sent} sent frames on {hosts} hosts: no difference")?;
        let ignored = received - Outcome::ALL.iter().map(|o| outcomes.get(*o)).sum::<u64>();
        writeln!(f, "{:>22} {ignored}", "not looked at")?;
        for outcome in Outcome::ALL {
            writeln!(f, "{:>22} {}", outcome.name(), outcomes.get(*outcome))?;
        }
        for outcome in EgressOutcome::ALL {
            writeln!(f, "{:>22} {}", format!("sent: {}", outcome.name()), egress.get(*outcome))?;
        }
        Ok(())
    }
}

impl Comparison {
    /// Compares until the end or the first difference. `progress` is called after each host.
    ///
    /// # Errors
    ///
    /// A difference, with the seed that leads to it at once; or the kernel does not run the programs.
    pub fn run(&self, mut progress: impl FnMut(&Compared)) -> Result<Compared> {
        ensure!(self.per_host > 0, "0 frames for each host compare nothing");
        let mut compared = Compared::default();
        while compared.received < self.frames {
            let seed = self.seed.wrapping_add(compared.hosts);
            let count = self.per_host.min(self.frames - compared.received);
            one_host(seed, count, &mut compared).with_context(|| {
                format!("again: --seed {seed} --kernel-frames {count} --per-host {count}")
            })?;
            progress(&compared);
        }
        Ok(compared)
    }
}

/// The host of a seed: every other one is the list's.
#[must_use]
pub fn host(seed: u64) -> Host {
    if seed % 2 == 1 {
        return hosts::host(seed);
    }
    let (fence, owned, part) = match seed / 2 % 10 {
        1 => (Fence::Expired, true, Part::Whole),
        2 => (Fence::Ahead, false, Part::Whole),
        3 => (Fence::Abandoned, true, Part::Whole),
        4 => (Fence::Ahead, true, Part::Bridged),
        5 => (Fence::Expired, true, Part::Bridged),
        6 => (Fence::Ahead, true, Part::Backup),
        7 => (Fence::Abandoned, true, Part::Backup),
        // The state in which most can go wrong.
        _ => (Fence::Ahead, true, Part::Whole),
    };
    let owned = if owned { vec![SLOT] } else { vec![] };
    Host { fence, owned, ..Host::listed() }.on(part)
}

fn one_host(seed: u64, count: u64, compared: &mut Compared) -> Result<()> {
    let host = host(seed);
    let kernel = Kernel::with(&host)?;
    let programs = Program::of_this_kernel();
    let mut frames = Mutator::new(seed, &host);
    let mut counts = Counts::new();
    let mut batch = Vec::with_capacity(BATCH);
    let (mut before, mut sent_before) = (kernel.outcomes()?, kernel.egress()?);
    for number in 0..count {
        let frame = frames.frame();
        let named = || format!("frame {number}: {frame:02x?}");
        if number % SENT == 0 && is_sent(&frame) {
            send(&kernel, &host, &frame, &mut sent_before).with_context(named)?;
            compared.sent += 1;
        }
        let expected = expect(&host, &frame);
        let program = programs[number as usize % programs.len()];
        receive(&kernel, program, &frame, &expected.verdict).with_context(named)?;
        count_expected(&expected, &mut counts);
        batch.push(Received { number, program, frame, outcome: expected.outcome });
        if batch.len() == BATCH {
            check(&kernel, &mut batch, &mut before)?;
        }
    }
    check(&kernel, &mut batch, &mut before)?;
    for (&(ip, place), expected) in &counts {
        let stats = kernel.stats(ip, place)?;
        let seen = [stats.answered, stats.suppressed, stats.conflicts];
        ensure!(seen == *expected, "{ip} at {place:?} counts {seen:?}, not {expected:?}");
    }
    compared.received += count;
    compared.hosts += 1;
    compared.outcomes.add(&before);
    compared.egress.add(&sent_before);
    Ok(())
}

/// A frame whose verdict is right, and the counter that must have moved.
struct Received {
    number: u64,
    program: Program,
    frame: Vec<u8>,
    outcome: Option<&'static str>,
}

fn receive(kernel: &Kernel, program: Program, frame: &[u8], expected: &Verdict) -> Result<()> {
    let (verdict, after) = kernel.receive(program, frame)?;
    ensure!(verdict == *expected, "received by {program:?}: {verdict:02x?}, not {expected:02x?}");
    ensure!(matches!(verdict, Verdict::Answer(_)) || after == frame, "changed without being answered");
    Ok(())
}

fn count_expected(expected: &Expected, counts: &mut Counts) {
    if let Some((ip, place, what)) = expected.counted {
        counts.entry((ip, place)).or_default()[if what == Counted::Answered { 0 } else { 1 }] += 1;
    }
    if let Some(claim) = expected.claim {
        counts.entry((claim.vip, (IFINDEX, claim.vlan))).or_default()[2] += 1;
    }
}

/// Compares the counters with what a batch of frames must have moved; if they differ, finds the frame.
fn check(kernel: &Kernel, batch: &mut Vec<Received>, before: &mut Outcomes) -> Result<()> {
    let counters = kernel.outcomes()?;
    let wanted = |o: &Outcome| batch.iter().filter(|frame| frame.outcome == Some(o.name())).count() as u64;
    let right = |o: &Outcome| counters.get(*o) == before.get(*o) + wanted(o);
    let wrong = Outcome::ALL.iter().find(|o| !right(o));
    let Some(wrong) = wrong else {
        *before = counters;
        batch.clear();
        return Ok(());
    };
    let mut before = counters;
    for Received { number, program, frame, outcome } in batch {
        kernel.receive(*program, frame)?;
        let after = kernel.outcomes()?;
        let moved = Outcome::ALL.iter().filter(|o| after.get(**o) != before.get(**o));
        let moved: Vec<_> = moved.map(|o| o.name()).collect();
        ensure!(
            moved == Vec::from_iter(*outcome),
            "frame {number}, received by {program:?}, moved {moved:?}, not {outcome:?}: {frame:02x?}"
        );
        before = after;
    }
    bail!("{} is not what the frames must have moved, and each of them alone does", wrong.name())
}

/// Whether `BPF_PROG_TEST_RUN` takes a frame as one to be sent: with the whole header that its EtherType promises.
fn is_sent(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x86, 0xdd]) => frame.len() >= 14 + 40,
        Some([0x08, 0x00]) => frame.len() >= 14 + 20,
        Some(_) => frame.len() > 14,
        None => false,
    }
}

fn send(kernel: &Kernel, host: &Host, frame: &[u8], before: &mut EgressOutcomes) -> Result<()> {
    let expected = expect_sent(host, frame);
    let (verdict, after) = kernel.transmit(frame)?;
    let counters = kernel.egress()?;
    let mut moved =
        EgressOutcome::ALL.iter().filter(|o| counters.get(**o) != before.get(**o)).map(|o| o.name());
    let outcome = moved.next();
    ensure!(
        (verdict == UNSPECIFIED, outcome) == (expected.leaves, expected.outcome) && moved.next().is_none(),
        "sent: verdict {verdict} {outcome:?}, not {expected:02x?}"
    );
    ensure!(after == expected.frame, "sent as {after:02x?}, not {expected:02x?}");
    *before = counters;
    Ok(())
}
