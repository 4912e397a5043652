//! `cargo xtask soak`

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use ebpf_build::target_dir;

use crate::{build::workspace, faults, tools::Consent};

/// Let a cluster run for long, with everything that happens to one, and look for what grows
///
/// Services come and go, floods of ARP and Neighbor Discovery pass, and faults happen, one after the other, to three agents
/// with a real API server, while a client asks for VIPs every 5 ms. No answer may be wrong, and in the end no agent may have
/// grown: memory by its trend, file descriptors and pinned objects exactly. Needs root, and goes through sudo for it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long, in minutes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// The same events again [default: others each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_secs());
    let mut command = faults::program("soak", faults::Agent::Release, Consent::new(arguments.yes))?;
    command.args(["--seconds", &(60 * arguments.minutes).to_string(), "--seed", &seed.to_string()]);
    command.arg("--keep").arg(target_dir(&workspace()).join("soak"));
    faults::finish(command)
}
