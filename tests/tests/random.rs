//! A million frames like those of the acceptance list through the programs in the kernel and the model. `cargo xtask fuzz
//! --kernel-frames` is the long form.

use responder_common::{egress::EgressOutcome, outcome::Outcome};
use responder_tests::{compare::Comparison, skip::is_root};

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v}: no number")))
}

#[test]
fn program_and_model_agree() {
    if !is_root("program_and_model_agree") {
        return;
    }
    let seed = from_env("RESPONDER_SEED", 0x5eed_2026);
    let frames = from_env("RESPONDER_FRAMES", 1_000_000);
    println!("RESPONDER_SEED={seed} RESPONDER_FRAMES={frames}");
    let compared = Comparison { seed, frames, per_host: frames.div_ceil(40).max(1) }.run(|_| ()).unwrap();
    println!("{compared}");
    if frames < 100_000 {
        return;
    }
    for outcome in Outcome::ALL {
        assert!(compared.outcomes.get(*outcome) > 0, "{} never seen", outcome.name());
    }
    for outcome in EgressOutcome::ALL {
        assert!(compared.egress.get(*outcome) > 0, "{} of what is sent never seen", outcome.name());
    }
}
