//! Where the control plane's programs are.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::{ProxyMode, kubelet};
use crate::{
    lab::Lab,
    skip::{missing, root_or_skip, skip, tools_or_skip},
};

/// The environment variable that names the directory of the programs.
const DIR: &str = "RESPONDER_KUBE_BIN";

/// What is in that directory.
const PROGRAMS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"];

/// What is there, too, for nodes that run pods.
const NODE_PROGRAMS: [&str; 2] = ["kubelet", "kube-scheduler"];

/// Programs of Debian's that a cluster is built with.
const TOOLS: [&str; 3] = ["ip", "nft", "openssl"];

/// Those that nodes need, too, which run pods.
const NODE_TOOLS: [&str; 5] = ["containerd", "ctr", "runc", "mount", "tar"];

/// The directory of the programs: the one that is given, or `$RESPONDER_KUBE_BIN`. `kubelets`: nodes run pods.
pub(super) fn directory(given: Option<PathBuf>, kubelets: bool) -> Result<PathBuf> {
    let how = "`cargo xtask kubernetes` builds them and prints their directory";
    let dir = given.or_else(|| env::var_os(DIR).map(PathBuf::from));
    let dir = dir.with_context(|| format!("{DIR} is not set: {how}"))?;
    for program in PROGRAMS.iter().chain(if kubelets { &NODE_PROGRAMS[..] } else { &[] }) {
        ensure!(dir.join(program).is_file(), "no {program} in {}: {how}", dir.display());
    }
    Ok(dir)
}

/// True if a [`crate::Cluster`] can be built here: as root, with the control plane's programs (`$RESPONDER_KUBE_BIN`)
/// and a few tools. Otherwise skips `test`.
#[must_use]
pub fn cluster_or_skip(test: &str) -> bool {
    if !root_or_skip(test) || !tools_or_skip(test, &TOOLS) {
        return false;
    }
    or_skip(test, directory(None, false).map(|_| ()))
}

/// True if a [`crate::Cluster`] with [`kubelets`](crate::ClusterBuilder::kubelets) can be built here. Otherwise skips
/// `test`.
#[must_use]
pub fn kubelets_or_skip(test: &str) -> bool {
    cluster_or_skip(test) && or_skip(test, check_nodes())
}

/// Looks whether a [`crate::Cluster`] can be built here with [`kubelets`](crate::ClusterBuilder::kubelets), and with
/// [kube-proxies](crate::ClusterBuilder::kube_proxy).
///
/// # Errors
///
/// With what is missing.
pub fn check_nodes() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root");
    if let Some(tool) = missing(&TOOLS).or_else(|| missing(&NODE_TOOLS)) {
        bail!("needs {tool}");
    }
    directory(None, true)?;
    kubelet::check()?;
    let trial = Lab::builder().hosts(&["n"]).clients(&[]).build()?;
    ProxyMode::choose(trial.node("n").ns()).map(|_| ())
}

fn or_skip(test: &str, possible: Result<()>) -> bool {
    if let Err(error) = &possible {
        skip(test, &format!("{error:#}"));
    }
    possible.is_ok()
}
