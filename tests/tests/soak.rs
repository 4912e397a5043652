//! The short form of `cargo xtask soak`.

use std::{path::PathBuf, time::Duration};

use responder_lab::cluster_or_skip;
use responder_tests::{campaign::Kind, soak::Soak};

#[test]
fn nothing_grows() {
    if !cluster_or_skip("nothing_grows") {
        return;
    }
    let soaked = Soak {
        time: Duration::from_secs(10),
        seed: 2026,
        services: 5,
        flood: 10_000,
        kinds: vec![Kind::Api, Kind::Pause, Kind::Responses],
        keep: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak"),
    }
    .play()
    .unwrap();
    println!("{}", soaked.growth);
    assert!(soaked.rounds > 0 && soaked.frames >= 40_000);
    assert_eq!(soaked.faults.violations, [""; 0]);
    assert_eq!(soaked.grown, [""; 0]);
}
