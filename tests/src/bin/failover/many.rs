//! A node crashes that holds everything: when the last of many VIPs is answered and announced by the others.

use std::time::Duration;

use anyhow::Result;
use responder_lab::Cluster;
use responder_tests::{
    crowd::addresses,
    fleet::{Fleet, vips},
};

use super::quantile;

/// Numbers of VIPs.
const COUNTS: [u32; 3] = [1, 100, 10_000];

/// The lease duration does not matter: times count from the first answer.
const OPTIONS: [&str; 2] = ["--lease-duration", "1s"];

/// By then the last of the first announcements has been sent, at the rate that is the default.
const ANNOUNCED: Duration = Duration::from_secs(120);

pub(super) fn measure(rounds: u32) -> Result<()> {
    println!(
        "\nAfter a crash of the node that holds everything, from the first answer to the last VIP, in ms:\n"
    );
    println!("{:<26} {:>5} {:>8} {:>8} {:>8}  to reach", "", "runs", "p50", "p99", "max");
    let mut fleet = Fleet::start(Cluster::builder(), &vips(1), &OPTIONS)?;
    fleet.names().iter().try_for_each(|name| fleet.make_room(name))?;
    for count in COUNTS {
        let all = addresses(count);
        let took = fleet.fill(&all)?;
        if count > 1000 {
            println!("(the API server took {:.1} s for the Services)", took.as_secs_f64());
        }
        let times =
            (0..rounds).map(|_| fleet.take_over(&all, Some(ANNOUNCED))).collect::<Result<Vec<_>>>()?;
        let answered: Vec<Duration> = times.iter().map(|times| times.answered).collect();
        let announced: Vec<Duration> = times.iter().filter_map(|times| times.announced).collect();
        show(&format!("answered, {count} VIPs"), &answered, "100 ms");
        show(&format!("announced, {count} VIPs"), &announced, "paced");
        let [now, peak] = fleet.memory()?.map(|bytes| bytes as f64 / f64::from(1 << 20));
        let memory = format!("{now:.1} MiB of the largest agent; {peak:.1} MiB at the most");
        println!("{:<26} {memory}", format!("memory, {count} VIPs"));
    }
    Ok(())
}

fn show(what: &str, times: &[Duration], goal: &str) {
    let [p50, p99, max] = [50, 99, 100].map(|part| quantile(times, part));
    println!("{what:<26} {:>5} {p50:>8.1} {p99:>8.1} {max:>8.1}  {goal}", times.len());
}
