//! Scenarios that share a cluster, one after the other.

use std::{env, time::Instant};

use anyhow::Result;

use crate::fleet::Fleet;

/// A scenario: something that is done to the cluster, with what must be true then.
pub type Scenario = (&'static str, fn(&mut Fleet) -> Result<()>);

/// Plays scenarios one after the other; before each, and at the end, everything is held and answered. With
/// `RESPONDER_SCENARIOS` in the environment, only those whose names contain that.
///
/// # Panics
///
/// If one fails, after all have been played as far as the cluster recovers, with all that failed.
pub fn play(mut fleet: Fleet, scenarios: &[Scenario]) {
    let mut failed = Vec::new();
    let only = env::var("RESPONDER_SCENARIOS").unwrap_or_default();
    for (name, scenario) in scenarios.iter().filter(|(name, _)| name.contains(&only)) {
        let begin = Instant::now();
        fleet.observer.forget();
        let result = scenario(&mut fleet).and_then(|()| fleet.check_health());
        let result = result.map_err(|error| format!("{error:#}\n{}", fleet.diagnosis()));
        let recovered = fleet.recover();
        println!(
            "scenario {name}: {}, {:.1} s",
            if result.is_ok() { "ok" } else { "FAILED" },
            begin.elapsed().as_secs_f64()
        );
        if let Err(error) = result {
            failed.push(format!("{name}: {error}"));
        }
        if let Err(error) = recovered {
            failed.push(format!("after {name}, the cluster does not recover: {error:#}"));
            break;
        }
    }
    assert!(failed.is_empty(), "{} scenarios failed:\n{}", failed.len(), failed.join("\n\n"));
}
