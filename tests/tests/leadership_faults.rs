//! The short form of `cargo xtask faults`.

use std::{env, path::PathBuf, time::Duration};

use responder_lab::cluster_or_skip;
use responder_tests::campaign::{Campaign, Kind};

#[test]
fn never_two_answer() {
    if !cluster_or_skip("never_two_answer") {
        return;
    }
    let seed = env::var("RESPONDER_SEED").map_or(2026, |seed| seed.parse().unwrap());
    let outcome = Campaign {
        runs: u32::try_from(Kind::ALL.len()).unwrap(),
        seed,
        only: Vec::new(),
        lease: Duration::from_secs(1),
        keep: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults"),
        spare: None,
    }
    .play()
    .unwrap();
    println!("{}", outcome.table);
    assert!(outcome.violations.is_empty(), "again with RESPONDER_SEED={seed}: {:#?}", outcome.violations);
}
