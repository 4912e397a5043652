//! `cargo xtask sim`

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use responder_sim::{How, Profile, Tally, Violation, run};

/// Simulate the leadership protocol, with everything that can go wrong
#[derive(Parser)]
struct Arguments {
    /// How many schedules
    #[arg(long, default_value_t = 1_000_000)]
    schedules: u64,
    /// The first seed; with --trace the only one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print everything that happens in one schedule
    #[arg(long)]
    trace: bool,
    /// How many threads
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after the first violation, up to this many
    #[arg(long, default_value_t = 1)]
    violations: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        let report = run(arguments.seed, &Profile::ALL, How { trace: true, ..How::default() });
        return if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total: Mutex<(Tally, u64, Vec<(u64, Violation)>)> = Mutex::default();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= arguments.schedules {
                        break;
                    }
                    let seed = arguments.seed + n;
                    let report = run(seed, &Profile::ALL, How::default());
                    let Ok(mut total) = total.lock() else { return };
                    total.0.add(&report.tally);
                    total.1 += report.simulated;
                    if let Some(violation) = report.violation {
                        println!("seed {seed}: {violation}");
                        total.2.push((seed, violation));
                        if total.2.len() >= arguments.violations {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let mut told = Instant::now();
        while !stop.load(Ordering::Relaxed) && next.load(Ordering::Relaxed) < arguments.schedules {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let done = next.load(Ordering::Relaxed);
                eprintln!("{done} schedules, {} s", began.elapsed().as_secs());
            }
        }
    });
    let Ok(total) = total.into_inner() else { return ExitCode::FAILURE };
    print!("{}", total.0);
    let done = next.load(Ordering::Relaxed).min(arguments.schedules);
    println!(
        "{done} schedules, {} simulated hours, {:.1} s, {} violations",
        total.1 / 3_600_000_000_000,
        began.elapsed().as_secs_f64(),
        total.2.len()
    );
    for what in total.0.missing() {
        println!("never: {what}");
    }
    if total.2.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
