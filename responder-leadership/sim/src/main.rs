//! `cargo xtask sim`

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use responder_sim::{
    How, Profile, Tally, Violation,
    exhaustive::{self, Bounds},
    run,
};

/// Simulate the leadership protocol with everything that can go wrong
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", max_term_width = 100)]
struct Arguments {
    /// How many schedules are played
    #[arg(long, default_value_t = 1_000_000)]
    schedules: u64,
    /// The first schedule's seed; each next one has the next seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print everything that happens, in the schedule of the seed only
    #[arg(long)]
    trace: bool,
    /// How many threads are used; default: one for each CPU
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many violations
    #[arg(long, default_value_t = 1)]
    violations: usize,
    /// Instead look at every state of small clusters (takes a while)
    #[arg(long)]
    exhaustive: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let good = if arguments.exhaustive {
        explore(jobs)
    } else if arguments.trace {
        run(arguments.seed, &Profile::ALL, How::traced()).violation.is_none()
    } else {
        simulate(&arguments, jobs)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What all threads have found so far.
#[derive(Default)]
struct Total {
    tally: Tally,
    simulated: u64,
    schedules: u64,
    violations: Vec<(u64, Violation)>,
}

fn simulate(arguments: &Arguments, jobs: usize) -> bool {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::<Total>::default();
    let began = Instant::now();
    thread::scope(|scope| {
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= arguments.schedules {
                    break;
                }
                let seed = arguments.seed + n;
                let report = run(seed, &Profile::ALL, How::default());
                let Ok(mut total) = total.lock() else { return };
                total.tally.add(&report.tally);
                total.simulated += report.simulated;
                total.schedules += 1;
                if let Some(violation) = report.violation {
                    show(&format!("seed {seed}: {violation}"));
                    total.violations.push((seed, violation));
                    stop.fetch_or(total.violations.len() >= arguments.violations, Ordering::Relaxed);
                }
            }
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut told = Instant::now();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let done = next.load(Ordering::Relaxed).min(arguments.schedules);
                show(&format!(
                    "{done} of {} schedules in {} s",
                    arguments.schedules,
                    began.elapsed().as_secs()
                ));
            }
        }
    });
    let Ok(total) = total.into_inner() else { return false };
    show(&total.tally.to_string());
    show(&format!(
        "{} schedules, {} simulated hours, {:.0} s, {} violations",
        total.schedules,
        total.simulated / 3_600_000_000_000,
        began.elapsed().as_secs_f64(),
        total.violations.len()
    ));
    for (seed, _) in &total.violations {
        show(&format!("to see what happens: cargo xtask sim --trace --seed {seed}"));
    }
    // A few schedules cannot have everything.
    let missing = if total.schedules < 10_000 { Vec::new() } else { total.tally.missing() };
    for what in &missing {
        show(&format!("has never happened, so nothing is known about it: {what}"));
    }
    total.violations.is_empty() && missing.is_empty()
}

fn explore(jobs: usize) -> bool {
    let mut good = true;
    let longer = Duration::from_millis(2500);
    let bounds = [
        Bounds { horizon: longer, ..Bounds::of(2, 1, 2) },
        Bounds { horizon: longer, deletions: true, ..Bounds::of(2, 1, 2) },
        Bounds { horizon: longer * 2, cold: true, ..Bounds::of(2, 1, 2) },
        Bounds::of(2, 2, 2),
        Bounds { deletions: true, ..Bounds::of(3, 2, 1) },
        Bounds::of(3, 1, 2),
    ];
    for bounds in bounds {
        let began = Instant::now();
        let found = exhaustive::explore(bounds, jobs);
        show(&format!(
            "{bounds}: {} states, {} visits, {} steps at most, {:.1} s",
            found.states,
            found.visits,
            found.depth,
            began.elapsed().as_secs_f64()
        ));
        if let Some(violation) = &found.violation {
            show(violation);
        }
        for name in &found.unseen {
            show(&format!("never seen: {name}"));
        }
        good &= found.violation.is_none() && found.unseen.is_empty();
    }
    good
}

/// Whoever reads this may have seen enough (`| head`).
fn show(text: &str) {
    writeln!(io::stdout(), "{}", text.trim_end()).ok();
}
