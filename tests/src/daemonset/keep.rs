//! An installation that outlives its process, and how to look at it from a shell.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use responder_lab::{NAMESPACE, Output, paths};

use super::{Installation, SETTLED, vips};

impl Installation {
    /// Leaves it when this process ends, with a way to its API server, and says how to look at it from a shell.
    ///
    /// # Errors
    ///
    /// If it was not prepared to be kept.
    pub fn keep(&self) -> Result<String> {
        let tools = self.tools()?;
        let (relay, kubeconfig) = self.cluster.open_outside(person())?;
        self.cluster.keep()?;
        drop(relay); // which stays, too
        let sudo = if env::var_os("SUDO_USER").is_some() { "sudo " } else { "" };
        let client = format!("{sudo}nsenter --net={}", self.cluster.host("c").ns().path().display());
        let vip = vips()[0];
        let mut text = format!(
            "The cluster is still running. To look around, in any shell:\n\n\
             export KUBECONFIG={}\n\
             export PATH={}:$PATH\n\
             kubectl get nodes,pods,services -A -o wide\n\
             kubectl get leases -n {NAMESPACE}\n\
             kubectl responder status --vips\n\
             kubectl responder why {vip}\n\
             kubectl responder drain --node n1           # and back: --undo\n\
             kubectl logs -n {NAMESPACE} daemonset/responder\n\
             # ask as the client\n\
             {client} arping -I eth0 -c 3 {vip}\n\
             {client} curl -s http://{vip}/\n\
             # a shell on a node: its processes, links and files\n",
            kubeconfig.display(),
            tools.display(),
        );
        for node in self.cluster.nodes() {
            if let Ok(pid) = node.pid() {
                text.push_str(&format!("{sudo}nsenter --all --target={pid}     # {}\n", node.name()));
            }
        }
        Ok(text)
    }

    /// `kubectl responder`, as the administrator; the exit code may be any.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not end.
    pub fn responder(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.tools()?.join("kubectl-responder"));
        command.args(arguments).env("KUBECONFIG", self.cluster.kubeconfig());
        self.cluster.management().spawn(command)?.finish(SETTLED)
    }

    /// What `responder status --json` says as root on a node, outside of its pods.
    ///
    /// # Errors
    ///
    /// If it fails, or prints no JSON.
    pub fn status_on(&self, node: &str) -> Result<serde_json::Value> {
        let mut command = Command::new(paths::responder()?.canonicalize()?);
        command.args(["status", "--json"]);
        let output = self.cluster.node(node).spawn(command)?.finish(SETTLED)?.ok()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("status printed {:?}", output.stdout))
    }

    /// A directory with kubectl and its plugin.
    fn tools(&self) -> Result<PathBuf> {
        let dir = self.cluster.dir().join("bin");
        if !dir.exists() {
            fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
            symlink(self.cluster.kubectl_path(), dir.join("kubectl"))?;
            symlink(paths::responder()?.canonicalize()?, dir.join("kubectl-responder"))?;
        }
        Ok(dir)
    }
}

/// Who called sudo: user and group id.
fn person() -> Option<(u32, u32)> {
    let id = |name| env::var(name).ok()?.parse().ok();
    id("SUDO_UID").zip(id("SUDO_GID"))
}
