//! `cargo xtask demo`

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, anyhow};
use ebpf_build::{Request, Wanted};
use responder_lab::cleanup_kept;

use crate::{
    build::{self, workspace},
    cluster, ebpf, root,
    step::{say, step},
    tools::{Consent, install},
};

/// Debian packages of the tools that the demos run.
const PACKAGES: [&str; 5] = ["bpftool", "iproute2", "iputils-arping", "iputils-ping", "ndisc6"];

/// Show it all on this machine: a Kubernetes cluster of three real nodes, a client and a router on one Ethernet segment
///
/// Builds what is needed (etcd, Kubernetes and the agent's image from their sources, once), then shows and checks: what it is to
/// install the DaemonSet, and who announces the addresses of Services; what a client sees when a node dies, when one is drained,
/// when all agents are replaced, and when a node is cut off from the API server. Nodes have kubelet, containerd and kube-proxy
/// in namespaces of their own. Takes a minute and a half once built, needs root (or sudo), and removes everything it made, also
/// when interrupted.
///
/// Exits with 1 if anything that it claims did not hold.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Two hosts and a client without Kubernetes instead: the datapath, its fence and a hand-over by hand
    #[arg(long)]
    standalone: bool,
    /// Leave everything running at the end, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier --keep has left
    #[arg(long, conflicts_with = "keep")]
    cleanup: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.cleanup {
        root::ensure_root()?;
        println!("removed {} namespaces, control groups and directories", cleanup_kept().len());
        return Ok(ExitCode::SUCCESS);
    }
    let consent = match Consent::new(arguments.yes) {
        // Setting all up is what this command says it does.
        Consent::Withheld => Consent::Given,
        given @ (Consent::Given | Consent::Ask) => given,
    };
    step("tools", || install(&PACKAGES, consent))?;
    let mut command = match arguments.standalone {
        true => standalone(consent)?,
        false => cluster::program("demo", consent)
            .context("`cargo xtask demo --standalone` shows what there is without Kubernetes")?,
    };
    if arguments.keep {
        command.arg("--keep");
    }
    root::ensure_bpffs()?;
    if !root::is_root() {
        say("network namespaces and eBPF need root: going on through sudo");
    }
    // It has its own way of being interrupted.
    let error = command.exec();
    Err(anyhow!("cannot start the demo: {error}"))
}

/// The program that plays the demo of two hosts, as root, with all that it needs.
fn standalone(consent: Consent) -> Result<Command> {
    let request = Request::new(&workspace());
    ebpf::build(Wanted::Auto, consent, &request)?;
    let agent = step("agent", build::agent)?;
    let built =
        step("demo", || build::executables(&["build", "--package", "responder-tests", "--bin", "demo"]))?;
    let program =
        built.into_iter().find(|program| program.target == "demo").context("cargo built no demo")?;
    // Administrators' tools are not on everybody's path.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let environment: [(&str, OsString); 3] =
        [("RESPONDER_BPF_DIR", request.out.into()), ("RESPONDER_BIN", agent.into()), ("PATH", path)];
    root::command(&program.path, &environment.each_ref().map(|(name, value)| (*name, value.as_os_str())))
}
