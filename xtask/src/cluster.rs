//! `cargo xtask cluster`: the DaemonSet on real nodes.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use ebpf_build::{Request, Wanted};
use responder_lab::cleanup_kept;

use crate::{
    build::{self, workspace},
    ebpf, image, kubernetes, root,
    step::step,
    tools::{Consent, install},
};

/// What clusters are built with, as Debian's packages, besides what runs pods.
const PACKAGES: [&str; 6] = ["conntrack", "iproute2", "iptables", "iputils-arping", "nftables", "openssl"];

/// Install the DaemonSet in a cluster of three real nodes on this machine, and play what happens in its life
///
/// Each node has kubelet, containerd, runc and kube-proxy in namespaces, control groups and a BPF file system of its own; the
/// control plane is real, too. deploy/ is applied, and a client asks for the VIPs of Services all the time: install,
/// rolling-update, node-drain, pod-eviction, oom-kill, kubelet-stop, node-crash, uninstall. Ends with a table: the longest
/// time without an answer, and whether two ever answered. Takes two minutes once built, needs root (or sudo), and removes
/// everything it made, also when interrupted.
///
/// Exits with 1 if something did not go as it must.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this scenario, after the installation; may be given several times
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// Leave the cluster running at the end with the agent installed, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier --keep has left
    #[arg(long, conflicts_with_all = ["keep", "only"])]
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
    let mut command = program("cluster", Consent::new(arguments.yes))?;
    for name in &arguments.only {
        command.args(["--only", name]);
    }
    if arguments.keep {
        command.arg("--keep");
    }
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A program of responder-tests that plays with real nodes, as root, with all that it needs.
///
/// # Errors
///
/// With what cannot be had or built.
pub(crate) fn program(name: &str, consent: Consent) -> Result<Command> {
    step("tools", || install(&PACKAGES, consent).and_then(|()| kubernetes::ensure_runtime(consent)))?;
    let programs = step("control plane and nodes", || kubernetes::ensure(consent))?;
    let request = Request::new(&workspace());
    ebpf::build(Wanted::Auto, consent, &request)?;
    let image = step("image", || image::ensure(consent))?;
    let arguments = ["build", "--package", "responder-lab", "--package", "responder-tests", "--bin"];
    let wanted = ["responder-lab", "--bin", name];
    let built = step(name, || build::executables(&[&arguments[..], &wanted].concat()))?;
    let program = built.into_iter().find(|program| program.target == name);
    let program = program.with_context(|| format!("cargo built no {name}"))?;
    // Administrators' tools are not on everybody's path.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let environment: [(&str, OsString); 4] = [
        ("RESPONDER_BPF_DIR", request.out.into()),
        ("RESPONDER_BIN", image::program()?.into()),
        (kubernetes::VARIABLE, programs.into()),
        ("PATH", path),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_os_str()));
    let mut command = root::command(&program.path, &environment)?;
    command.arg("--image").arg(image).arg("--deploy").arg(workspace().join("deploy"));
    Ok(command)
}
