//! `cargo xtask bench`

mod plots;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use ebpf_build::{Request, Wanted, target_dir};

use crate::{
    build::{self, workspace},
    ebpf, faults, root,
    step::step,
    tools::{Consent, install},
};

/// What is measured beside, or used to measure, as Debian's packages.
const PACKAGES: [&str; 4] = ["ethtool", "iproute2", "keepalived", "ndppd"];

/// Measure what the responder costs, beside what else answers, in this machine's kernel
///
/// Without a name: answer, flood and collateral (some minutes). Prints tables with medians, quartiles and the
/// targets, and writes them to target/bench/NAME.json. What is compared takes turns in the same run. Needs root,
/// and goes through sudo for it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// How often everything is measured; medians count [default: 21; failover: 100 crashes for each duration]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Draw the figures in target/bench into docs/benchmarks-NAME.svg; without a name, only that
    #[arg(long)]
    plots: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// ns for one frame under BPF_PROG_TEST_RUN, with 1 to 65,536 VIPs, beside programs that do the least possible
    Answer,
    /// Answers over a veth pair on one CPU, beside Linux, keepalived, ndppd and a responder in user space
    Flood,
    /// Others' TCP, packets and latency beside the program, and in floods of a million ARP frames a second
    Collateral,
    /// Silence of a VIP when a node crashes, when its agent stands still and when it is moved, at three lease durations, in a
    /// cluster of namespaces with a real API server, beside keepalived and ucarp: an hour
    Failover,
    /// What up to 65,536 VIPs, and up to 200 agents at one API server, cost and how long they take: half an hour
    Scale,
    /// What the tests check: the verifier's counts and the ratios of answer, against 2 × those of tests/floor.json
    Floor,
}

impl Name {
    const fn word(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Flood => "flood",
            Self::Collateral => "collateral",
            Self::Failover => "failover",
            Self::Scale => "scale",
            Self::Floor => "floor",
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let out = target_dir(&workspace()).join("bench");
    let mut names = arguments.names.clone();
    if names.is_empty() && !arguments.plots {
        names = vec![Name::Answer, Name::Flood, Name::Collateral];
    }
    let consent = Consent::new(arguments.yes);
    let mut good = true;
    let in_kernel: Vec<_> =
        names.iter().filter(|name| !matches!(name, Name::Failover | Name::Scale)).collect();
    if !in_kernel.is_empty() {
        step("tools", || install(&PACKAGES, consent))?;
        let request = Request::new(&workspace());
        ebpf::build(Wanted::Auto, consent, &request)?;
        let mut environment = vec![("RESPONDER_BPF_DIR", OsString::from(&request.out))];
        if in_kernel.contains(&&Name::Collateral) {
            environment.push(("RESPONDER_BIN", agent()?.into()));
        }
        let mut command = measuring(&environment, &out)?;
        command.args(in_kernel.iter().map(|name| name.word()));
        if let Some(rounds) = arguments.rounds {
            command.arg("--rounds").arg(rounds.max(3).to_string());
        }
        good &= succeeds(&mut command)?;
    }
    if names.contains(&Name::Failover) {
        good &= faults::failover(arguments.rounds.unwrap_or(100), consent)?;
    }
    if names.contains(&Name::Scale) {
        good &= faults::scale(arguments.rounds.unwrap_or(3), &out, consent)?;
    }
    if arguments.plots {
        step("plots", || plots::draw(&out, &workspace().join("docs")))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The floor as a test, with the objects that are built: `None`, or why it was skipped.
///
/// # Errors
///
/// It does not hold, or cannot be built or run.
pub(crate) fn floor() -> Result<Option<String>> {
    if !root::is_possible() {
        return Ok(Some("needs root".to_owned()));
    }
    let environment = [("RESPONDER_BPF_DIR", OsString::from(Request::new(&workspace()).out))];
    let out = target_dir(&workspace()).join("bench");
    let holds = succeeds(measuring(&environment, &out)?.arg(Name::Floor.word()))?;
    ensure!(holds, "something costs more than twice what tests/floor.json says");
    Ok(None)
}

/// The program that measures, as root. What is measured runs in the kernel: how cargo builds it makes no difference.
fn measuring(environment: &[(&str, OsString)], out: &Path) -> Result<Command> {
    let build = ["build", "--package", "responder-tests", "--bin", "bench"];
    let built = step("measuring program", || build::executables(&build))?;
    let program =
        built.into_iter().find(|program| program.target == "bench").context("cargo built no bench")?;
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    let mut command = root::command(&program.path, &environment)?;
    command.arg("--out").arg(out);
    Ok(command)
}

/// The agent as users have it.
fn agent() -> Result<PathBuf> {
    let build = ["build", "--release", "--package", "responder-user", "--bin", "responder"];
    let built = step("agent", || build::executables(&build))?;
    Ok(built.into_iter().next().context("cargo built no agent")?.path)
}

fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(status.success())
}
