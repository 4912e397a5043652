//! The agent in pods on real nodes, and what happens to them in their life. `cargo xtask cluster` builds and runs it.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use responder_tests::daemonset::{Installation, Row, SCENARIOS, Scenario, play};

/// Plays scenarios on real nodes.
#[derive(Parser)]
struct Arguments {
    /// Only these, besides the first; may be given several times
    #[arg(long, value_name = "SCENARIO", value_parser = SCENARIOS.map(|scenario| scenario.name))]
    only: Vec<String>,
    /// Leave it running, without the last
    #[arg(long)]
    keep: bool,
    /// The archive of the agent's image
    #[arg(long)]
    image: PathBuf,
    /// The directory of the objects to install
    #[arg(long)]
    deploy: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    say("three nodes with containerd, kubelet and kube-proxy, and a control plane");
    let mut site = Installation::prepare(&arguments.image, &arguments.deploy, "base", arguments.keep)?;
    let (first, last) = (SCENARIOS.first(), SCENARIOS.last());
    let wanted = |scenario: &Scenario| {
        let is = |other: Option<&Scenario>| other.is_some_and(|other| other.name == scenario.name);
        let asked = arguments.only.is_empty() || arguments.only.iter().any(|name| name == scenario.name);
        is(first) || asked && !(arguments.keep && is(last))
    };
    let tell = |row: &Row| {
        say(&row.to_string());
        if let Err(error) = &row.said {
            say(error);
        }
    };
    let played = play(&mut site, &wanted, &tell);
    say(&format!("\n{played}"));
    if arguments.keep {
        say(&format!("{}\nTo remove it all: cargo xtask cluster --cleanup", site.keep()?));
    }
    Ok(if played.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whoever reads may have gone (`| head`).
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}
