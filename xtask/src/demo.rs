//! `cargo xtask demo`

mod cluster;
mod show;
mod standalone;

use std::{env, ffi::OsStr, os::unix::process::CommandExt as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use ebpf_build::{Request, Wanted};
use responder_lab::cleanup_kept;

use self::show::Show;
use crate::{
    build::{self, workspace},
    ebpf, kubernetes, root,
    step::{say, step},
    tools::{Consent, install},
};

/// Debian packages of the tools that the demos run.
const PACKAGES: [&str; 9] = [
    "bpftool",
    "conntrack",
    "iproute2",
    "iptables",
    "iputils-arping",
    "iputils-ping",
    "ndisc6",
    "nftables",
    "openssl",
];

/// Show it all in network namespaces: a Kubernetes cluster of three nodes, a client and a router on one Ethernet segment
///
/// Builds what is needed (etcd, kube-apiserver and kube-proxy from their sources, once), then shows and checks: who
/// announces the addresses of Services; what a client sees when a node dies, when one is drained, when all agents
/// are restarted, and when a node is cut off from the API server. Takes about a minute once built, needs root (or
/// sudo), and removes everything it made, also when interrupted.
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
    /// Without kube-proxy, as where the kernel lacks what it needs
    #[arg(long, hide = true, conflicts_with = "standalone")]
    no_kube_proxy: bool,
    /// All is built: this is the part that runs as root
    #[arg(long, hide = true)]
    built: bool,
    /// Be a server that answers every TCP connection with this text
    #[arg(long, hide = true, value_name = "TEXT")]
    serve: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(text) = &arguments.serve {
        standalone::serve(text)?;
    }
    if arguments.cleanup {
        root::ensure_root()?;
        let removed = cleanup_kept();
        println!("removed {} namespaces and directories", removed.len());
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.built {
        return prepare_and_play(arguments);
    }
    root::ensure_bpffs()?;
    let mut show = Show::new();
    let holds = if arguments.standalone {
        let world = standalone::play(&mut show, arguments.keep)?;
        let holds = show.close();
        if arguments.keep {
            standalone::keep(&world, &show)?;
        }
        holds
    } else {
        let world = cluster::play(&mut show, arguments.keep, arguments.no_kube_proxy)?;
        let holds = show.close();
        if arguments.keep {
            cluster::keep(&world, &show)?;
        }
        holds
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds and installs all, and becomes the process of root's that plays the demo.
fn prepare_and_play(arguments: &Arguments) -> Result<ExitCode> {
    let consent = match Consent::new(arguments.yes) {
        // Setting all up is what this command says it does.
        Consent::Withheld => Consent::Given,
        given @ (Consent::Given | Consent::Ask) => given,
    };
    let control_plane = prepare(arguments.standalone, consent)?;
    // Administrators' tools are not on everybody's path.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let mut environment: Vec<(&str, &OsStr)> = vec![("PATH", &path)];
    if let Some(dir) = &control_plane {
        environment.push((kubernetes::VARIABLE, dir.as_os_str()));
    }
    if !root::is_root() {
        say("network namespaces and eBPF need root: going on through sudo");
    }
    let program = env::current_exe().context("this program's path")?;
    let mut command = root::command(program, &environment)?;
    let error = command.args(env::args_os().skip(1)).arg("--built").exec();
    Err(anyhow!("cannot start the demo: {error}"))
}

/// Toolchain, packages, eBPF objects, agent; the control plane's directory unless this is the demo without one.
fn prepare(standalone: bool, consent: Consent) -> Result<Option<PathBuf>> {
    step("tools", || install(&PACKAGES, consent))?;
    let control_plane = match standalone {
        true => None,
        false => {
            let built = step("control plane", || kubernetes::ensure(consent));
            Some(built.context("`cargo xtask demo --standalone` shows what there is without Kubernetes")?)
        }
    };
    ebpf::build(Wanted::Auto, consent, &Request::new(&workspace()))?;
    step("agent", build::agent)?;
    step("endpoints", || build::executables(&["build", "--package", "responder-lab"]))?;
    Ok(control_plane)
}
