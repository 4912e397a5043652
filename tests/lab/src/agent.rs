//! The agent in a host's namespace.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    node::Node,
    ns::{COMMAND_DEADLINE, NetNs},
    paths,
    process::{Output, Process},
    time::wait_until,
};

/// How long an agent may take to be ready on a busy machine.
pub const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The content of an agent's static file.
#[derive(Clone, Debug, Default)]
pub struct StaticFile {
    interfaces: Vec<String>,
    vips: Vec<String>,
}

impl StaticFile {
    /// A file that names these interfaces (names or globs) and no VIP yet.
    #[must_use]
    pub fn on(interfaces: &[&str]) -> Self {
        Self { interfaces: interfaces.iter().map(|&i| i.to_owned()).collect(), vips: Vec::new() }
    }

    /// With VIPs that are owned.
    #[must_use]
    pub fn own(mut self, vips: &[IpAddr]) -> Self {
        self.vips.extend(vips.iter().map(|vip| format!("\"{vip}\"")));
        self
    }

    /// With VIPs that are known but owned elsewhere.
    #[must_use]
    pub fn standby(mut self, vips: &[IpAddr]) -> Self {
        self.vips.extend(vips.iter().map(|vip| format!("{{ address = \"{vip}\", standby = true }}")));
        self
    }

    /// With a VIP only on these interfaces.
    #[must_use]
    pub fn own_on(mut self, vip: IpAddr, interfaces: &[&str]) -> Self {
        self.vips.push(format!("{{ address = \"{vip}\", interfaces = {interfaces:?} }}"));
        self
    }

    /// The TOML text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.interfaces.is_empty() {
            writeln!(text, "interfaces = {:?}", self.interfaces).ok();
        }
        text.push_str("vips = [\n");
        for vip in &self.vips {
            writeln!(text, "    {vip},").ok();
        }
        text.push_str("]\n");
        text
    }
}

/// A `responder run`. It is killed when this is dropped; its pins go with the lab.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    commands: Commands,
}

impl Agent {
    /// Writes the file and starts the agent with `options` (such as `["--fence", "2s"]`), not waiting for anything.
    ///
    /// # Errors
    ///
    /// If there is no binary; the message says how to build it.
    pub fn spawn(node: &Node, file: &StaticFile, options: &[&str]) -> Result<Self> {
        let commands = Commands::new(node)?;
        commands.write(&file.text())?;
        let mut command = commands.command("run");
        command.arg("--static").arg(&commands.file).args(options);
        Ok(Self { process: node.ns().spawn(command)?, commands })
    }

    /// Like [`Agent::spawn`], and waits until the agent reports that it runs ([`Agent::wait_ready`]).
    ///
    /// # Errors
    ///
    /// If it is not ready within [`READY_DEADLINE`] or ends before, with what it wrote.
    pub fn start(node: &Node, file: &StaticFile, options: &[&str]) -> Result<Self> {
        let mut agent = Self::spawn(node, file, options)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Waits until the agent says in its log that it is ready, and `status --json` is answered by this very process.
    ///
    /// # Errors
    ///
    /// If that does not happen within [`READY_DEADLINE`] or the agent ends before, with what it wrote.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.process.wait_line(READY_DEADLINE, |line| line.contains("ready"))?;
        let wanted = u64::from(self.process.pid());
        wait_until("an answer of the new agent to `status`", READY_DEADLINE, || {
            let status = self.commands.status().ok()?;
            (status.pointer("/agent/pid").and_then(Value::as_u64) == Some(wanted)).then_some(())
        })
        .with_context(|| self.process.last_words())
    }

    /// The process, to send signals to and read the log of.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The operator's commands against this agent. They outlive it.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Replaces its static file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, file: &StaticFile) -> Result<()> {
        self.commands.write(&file.text())
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// If it has ended by itself before.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the agent had ended before: {status}\n{}", self.process.last_words());
        }
        self.process.kill()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(COMMAND_DEADLINE)
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
}

/// The commands of `responder` on one host: same namespace, bpffs and run directory as its agent.
#[derive(Clone, Debug)]
pub struct Commands {
    ns: NetNs,
    binary: PathBuf,
    bpffs: PathBuf,
    run_dir: PathBuf,
    file: PathBuf,
}

impl Commands {
    /// Those of `node`.
    ///
    /// # Errors
    ///
    /// If there is no binary; the message says how to build it.
    pub fn new(node: &Node) -> Result<Self> {
        Ok(Self {
            ns: node.ns().clone(),
            binary: paths::responder()?,
            bpffs: node.bpffs().to_owned(),
            run_dir: node.dir().join("run"),
            file: node.dir().join("static.toml"),
        })
    }

    /// The static file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The directory of the control socket.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// `responder SUBCOMMAND` with the host's directories, to be completed and given to [`crate::NetNs::spawn`].
    #[must_use]
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg(subcommand)
            .env("RESPONDER_BPFFS", &self.bpffs)
            .env("RESPONDER_RUN_DIR", &self.run_dir)
            .env("NO_COLOR", "1");
        command
    }

    /// Like [`Commands::command`], run by another program that takes the command line, such as `setpriv OPTIONS`.
    #[must_use]
    pub fn command_by(&self, runner: &[&str], subcommand: &str) -> Command {
        let inner = self.command(subcommand);
        let mut words = runner.iter().map(OsStr::new).chain([inner.get_program()]).chain(inner.get_args());
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command
    }

    /// Runs `responder SUBCOMMAND OPTIONS` to its end.
    ///
    /// # Errors
    ///
    /// If it does not end; not if its exit code is not 0.
    pub fn output(&self, subcommand: &str, options: &[&str]) -> Result<Output> {
        let mut command = self.command(subcommand);
        command.args(options);
        self.ns.spawn(command)?.finish(COMMAND_DEADLINE)
    }

    /// What `responder status --json` says.
    ///
    /// # Errors
    ///
    /// If it fails or prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let output = self.output("status", &["--json"])?.ok()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("status --json printed {:?}", output.stdout))
    }

    /// Replaces the static file in one step, as editors and configuration management do.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, text: &str) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &self.file).with_context(|| format!("replacing {}", self.file.display()))
    }
}
