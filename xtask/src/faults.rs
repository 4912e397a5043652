//! `cargo xtask faults`, `cargo xtask bench failover` and `… scale`: programs that do things to a cluster.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
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
    Ok(if succeeds(command)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `cargo xtask bench failover`: so many crashes for each lease duration. False if it failed.
///
/// # Errors
///
/// Something could not be built or started.
pub(crate) fn failover(rounds: u32, consent: Consent) -> Result<bool> {
    step("what is compared with", || install(&PEERS, consent))?;
    let mut command = program("failover", Agent::Release, consent)?;
    command.args(["--rounds", &rounds.to_string()]);
    succeeds(command)
}

/// Runs `cargo xtask bench scale`: so many crashes for each number, figures into `out`. False if it failed.
///
/// # Errors
///
/// Something could not be built or started.
pub(crate) fn scale(rounds: u32, out: &Path, consent: Consent) -> Result<bool> {
    let mut command = program("scale", Agent::Image, consent)?;
    command.args(["--rounds", &rounds.to_string()]);
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    command.arg("--json").arg(out.join("scale.json"));
    succeeds(command)
}

/// Which build of the agent is looked at.
#[derive(Clone, Copy)]
enum Agent {
    /// That of tests.
    Debug,
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
fn program(name: &str, agent: Agent, consent: Consent) -> Result<Command> {
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

fn succeeds(mut command: Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(status.success())
}
