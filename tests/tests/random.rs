//! A million frames like those of the acceptance list through the program in the kernel and the model.

use std::time::Instant;

use responder_common::outcome::{Outcome, Outcomes};
use responder_tests::{
    frames::{SLOT, Verdict},
    model::{Fence, Host, Part, expect},
    mutate::Mutator,
    run::{Kernel, Program},
    skip::is_root,
};

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v}: no number")))
}

#[test]
fn program_and_model_agree() {
    if !is_root("program_and_model_agree") {
        return;
    }
    let seed = from_env("RESPONDER_SEED", 0x5eed_2026);
    let total = from_env("RESPONDER_FRAMES", 1_000_000);
    println!("RESPONDER_SEED={seed} RESPONDER_FRAMES={total}");
    let mut frames = Mutator::new(seed);
    let started = Instant::now();
    let mut seen = Outcomes::default();
    // Most in the state in which most can go wrong.
    let states = [
        (Fence::Ahead, true, Part::Whole, 12),
        (Fence::Ahead, false, Part::Whole, 1),
        (Fence::Expired, true, Part::Whole, 2),
        (Fence::Abandoned, true, Part::Whole, 1),
        (Fence::Ahead, true, Part::Bridged, 1),
        (Fence::Expired, true, Part::Bridged, 1),
        (Fence::Ahead, true, Part::Backup, 1),
        (Fence::Abandoned, true, Part::Backup, 1),
    ];
    for (fence, owned, part, twentieths) in states {
        let owned = if owned { vec![SLOT] } else { vec![] };
        let host = Host { fence, owned, ..Host::listed() }.on(part);
        let kernel = Kernel::with(&host).unwrap();
        let mut before = kernel.outcomes().unwrap();
        for i in 0..total * twentieths / 20 {
            let frame = frames.frame();
            let expected = expect(&host, &frame);
            let (verdict, after) = kernel.receive(Program::Plain, &frame).unwrap();
            let counters = kernel.outcomes().unwrap();
            let mut moved = Outcome::ALL.iter().filter(|o| counters.get(**o) != before.get(**o));
            let outcome = moved.next().map(|o| o.name());
            assert!(
                (&verdict, outcome) == (&expected.verdict, expected.outcome) && moved.next().is_none(),
                "RESPONDER_SEED={seed}, frame {i} in {fence:?} on {part:?}: {verdict:?} {outcome:?}, not {expected:?}, \
                 for {frame:02x?}"
            );
            if !matches!(verdict, Verdict::Answer(_)) {
                assert_eq!(after, frame, "RESPONDER_SEED={seed}, frame {i}: changed without being answered");
            }
            before = counters;
        }
        seen.add(&before);
    }
    println!("{total} frames in {:.1} s", started.elapsed().as_secs_f64());
    for outcome in Outcome::ALL {
        let count = seen.get(*outcome);
        println!("{:>22} {count}", outcome.name());
        // `failed` is a map without a link, or a driver that cannot resize.
        assert!(count > 0 || *outcome == Outcome::Failed || total < 100_000, "{} never seen", outcome.name());
    }
}
