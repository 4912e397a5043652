//! The agent on a node of a cluster.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::node::ClusterNode;
use crate::{
    agent::READY_DEADLINE,
    paths,
    process::{Output, Process},
    time::wait_until,
};

/// The namespace that `deploy/base` makes for the agent.
pub const NAMESPACE: &str = "l2-responder";

/// A `responder run` on a node, with the node's own `/run`, bpffs and ServiceAccount token. It is killed when this is
/// dropped, and when the node crashes.
#[derive(Debug)]
pub struct ClusterAgent {
    process: Process,
    node: Arc<ClusterNode>,
    binary: PathBuf,
    options: Vec<String>,
}

impl ClusterAgent {
    pub(super) fn spawn(node: Arc<ClusterNode>, options: &[&str]) -> Result<Self> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let binary = paths::responder()?;
        let process = run(&node, &binary, &options)?;
        Ok(Self { process, node, binary, options })
    }

    /// Starts one more with the same options, as a DaemonSet with `maxSurge` does: it waits for the node's lock.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn successor(&self) -> Result<Self> {
        let process = run(&self.node, &self.binary, &self.options)?;
        let (node, binary, options) = (Arc::clone(&self.node), self.binary.clone(), self.options.clone());
        Ok(Self { process, node, binary, options })
    }

    /// Starts it anew after its end, with the same options.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = run(&self.node, &self.binary, &self.options)?;
        Ok(())
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &ClusterNode {
        &self.node
    }

    /// Its process id outside of the node.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process, to wait for lines of.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Waits until it says in its log that it is ready.
    ///
    /// # Errors
    ///
    /// If it does not within [`READY_DEADLINE`], or ends before, with what it wrote.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.process.wait_line(READY_DEADLINE, |line| line.contains("ready")).map(|_| ())
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    ///
    /// If it has ended before, or does not end within `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(deadline)
    }

    /// SIGSTOP.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Runs `responder ARGUMENTS` on the node to its end.
    ///
    /// # Errors
    ///
    /// If it does not end; not if its exit code is not 0.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = base(&self.binary);
        command.args(arguments);
        self.node.spawn(command)?.finish(crate::ns::COMMAND_DEADLINE)
    }

    /// What `responder status --json` says of the node; nothing is asked of the API server.
    ///
    /// # Errors
    ///
    /// If it fails or prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let output = self.command(&["status", "--local", "--json"])?.ok()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("status --json printed {:?}", output.stdout))
    }

    /// Asks for the status until `wanted` is true, and returns that one.
    ///
    /// # Errors
    ///
    /// If that is not so within `deadline`, with the last answer.
    pub fn wait_status(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let found = wait_until(what, deadline, || match self.status() {
            Ok(status) if wanted(&status) => Some(status),
            other => {
                last = Some(other);
                None
            }
        });
        found.with_context(|| format!("last status: {last:#?}\n{}", self.process.last_words()))
    }
}

fn base(binary: &PathBuf) -> Command {
    let mut command = Command::new(binary);
    command.env("NO_COLOR", "1").env_remove("RESPONDER_BPFFS").env_remove("RESPONDER_RUN_DIR");
    command
}

fn run(node: &ClusterNode, binary: &PathBuf, options: &[String]) -> Result<Process> {
    let mut command = base(binary);
    command.arg("run").arg("--kubeconfig").arg(node.kubeconfig());
    command.args(["--node-name", node.name(), "--namespace", NAMESPACE]).args(options);
    node.spawn(command)
}
