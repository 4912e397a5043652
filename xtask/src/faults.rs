//! `cargo xtask faults`, `cargo xtask bench failover` and `… scale`: programs that do things to a cluster.

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ebpf_build::{Request, Wanted, target_dir};

use crate::{
    build::{self, workspace},
    ebpf, image, kubernetes, root,
    step::step,
    tools::{Consent, install},
};

/// What clusters are built with, as Debian's packages.
const PACKAGES: [&str; 3] = ["iproute2", "nftables", "openssl"];

/// Play random faults in a cluster of namespaces, and check that never two nodes answer for one VIP
///
/// Three agents, a real API server and etcd; a client asks for VIPs every 5 ms and notes who answers. Agents are
/// killed, stopped and replaced, nodes crash, links and ways to the API server are cut, in both directions or one, slow
/// or gone, the number of claims changes. Prints each run, and the gaps by kind of fault. What is known of a run that breaks a rule is kept below
/// target/faults. Needs root, and goes through sudo for it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many faults
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The same faults again [default: others each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults of this kind; may be given several times
    #[arg(long, value_name = "KIND")]
    only: Vec<String>,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// What is compared with.
const PEERS: [&str; 2] = ["keepalived", "ucarp"];

/// Measure how long VIPs are silent when a node crashes, when its agent stands still, and when they are moved
///
/// Seen by a client that asks every 5 ms, with leases of 500 ms, of 1 s and of 3 s, in a cluster of namespaces with a
/// real API server and etcd; beside it keepalived, with advertisements every 1 s, 100 ms and 10 ms, and ucarp. Also says
/// in how many of the runs two answered at the same time. Needs root, and goes through sudo for it.
#[derive(clap::Args)]
pub(crate) struct Failover {
    /// Crashes for each duration
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Measure what many VIPs and many agents cost, and how long they take
///
/// Up to 65,536 VIPs of 2,500 Services in a cluster of three nodes: memory, processor time, requests, start, churn,
/// failover. Up to 200 agents at one API server: its processor time, what watches are sent, renewals. With the agent as
/// it is shipped, in namespaces, with a real API server and etcd. Writes target/bench/scale.json. Needs root, and goes
/// through sudo for it.
#[derive(clap::Args)]
pub(crate) struct Scale {
    /// Numbers of VIPs, separated by commas
    #[arg(long, default_value = "10,1000,10000,65536")]
    vips: String,
    /// Numbers of agents, separated by commas
    #[arg(long, default_value = "3,10,50,200")]
    agents: String,
    /// Only one part: vips or agents
    #[arg(long)]
    only: Option<String>,
    /// How often a node crashes, for each number
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs `cargo xtask faults`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_secs());
    let mut command = program("faults", Agent::Debug, Consent::new(arguments.yes))?;
    command.args(["--runs", &arguments.runs.to_string(), "--seed", &seed.to_string()]);
    command.arg("--keep").arg(target_dir(&workspace()).join("faults"));
    for kind in &arguments.only {
        command.args(["--only", kind]);
    }
    finish(command)
}

/// Runs `cargo xtask bench failover`.
pub(crate) fn failover(arguments: &Failover) -> Result<ExitCode> {
    let consent = Consent::new(arguments.yes);
    step("what is compared with", || install(&PEERS, consent))?;
    let mut command = program("failover", Agent::Release, consent)?;
    command.args(["--rounds", &arguments.rounds.to_string()]);
    finish(command)
}

/// Runs `cargo xtask bench scale`.
pub(crate) fn scale(arguments: &Scale) -> Result<ExitCode> {
    let mut command = program("scale", Agent::Image, Consent::new(arguments.yes))?;
    command.args(["--vips", &arguments.vips, "--agents", &arguments.agents]);
    command.args(["--rounds", &arguments.rounds.to_string()]);
    if let Some(part) = &arguments.only {
        command.args(["--only", part]);
    }
    let out = target_dir(&workspace()).join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    command.arg("--json").arg(out.join("scale.json"));
    finish(command)
}

/// Which build of the agent is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Agent {
    /// That of tests.
    Debug,
    /// Optimised.
    Release,
    /// That of the image: static, as it is shipped.
    Image,
}

impl Agent {
    fn build(self, consent: Consent) -> Result<PathBuf> {
        let more: &[&str] = match self {
            Self::Image => {
                image::ensure(consent)?;
                return image::program();
            }
            Self::Debug => &[],
            Self::Release => &["--release"],
        };
        let build = [&["build", "--package", "responder-user", "--bin", "responder"], more].concat();
        let built = step("agent", || build::executables(&build))?;
        Ok(built.into_iter().next().context("cargo built no agent")?.path)
    }
}

/// A program of the tests, as root, with what clusters need.
///
/// # Errors
///
/// Something is missing and may not or cannot be installed, or a build fails.
pub(crate) fn program(name: &str, agent: Agent, consent: Consent) -> Result<Command> {
    step("tools", || install(&PACKAGES, consent))?;
    let programs = step("control plane", || kubernetes::ensure(consent))?;
    let request = Request::new(&workspace());
    ebpf::build(Wanted::Auto, consent, &request)?;
    let agent = agent.build(consent)?;
    let built = step(name, || build::executables(&["build", "--package", "responder-tests", "--bin", name]))?;
    let built = built.into_iter().find(|program| program.target == name);
    let environment: [(&str, OsString); 4] = [
        ("RESPONDER_BPF_DIR", request.out.into()),
        ("RESPONDER_BIN", agent.into()),
        (kubernetes::VARIABLE, programs.into()),
        ("CARGO_MANIFEST_DIR", workspace().join("tests").into()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_os_str()));
    root::command(&built.with_context(|| format!("cargo built no {name}"))?.path, &environment)
}

/// Runs a command; its end is ours.
///
/// # Errors
///
/// It cannot be run.
pub(crate) fn finish(mut command: Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
