//! Random schedules.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use responder_sim::{How, Profile, Tally, run};

/// How many; the seeds are the first ones of `cargo xtask sim`.
const SCHEDULES: u64 = 10_000;

#[test]
fn ten_thousand_schedules() {
    let (next, total) = (AtomicU64::new(1), Mutex::<Tally>::default());
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SCHEDULES {
                return;
            }
            let report = run(seed, &Profile::ALL, How::default());
            if let Some(violation) = report.violation {
                panic!("seed {seed}: {violation}\nto see more: cargo xtask sim --trace --seed {seed}");
            }
            total.lock().unwrap().add(&report.tally);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap();
    println!("{total}");
    assert_eq!(total.missing(), Vec::<&str>::new(), "these have never happened");
}

#[test]
fn a_seed_is_one_schedule() {
    let profile = Profile::ALL;
    for seed in 1..20 {
        let [one, other] = [(); 2].map(|()| run(seed, &profile, How::default()));
        assert_eq!((one.simulated, one.tally.to_string()), (other.simulated, other.tally.to_string()));
    }
}
