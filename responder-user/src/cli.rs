//! Arguments and exit codes.

mod check;
mod cluster;
mod look;
mod metrics;
mod operator;
mod run;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    builder::{BoolishValueParser, Styles},
};
use clap_complete::Shell;

use self::{
    check::{CHECK_EXAMPLES, CheckArgs},
    look::{LOG_EXAMPLES, LogArgs, WATCH_EXAMPLES, WHY_EXAMPLES, WatchArgs, WhyArgs},
    operator::{
        CLAIMS_EXAMPLES, ClaimsArgs, DRAIN_EXAMPLES, DrainArgs, REBALANCE_EXAMPLES, RebalanceArgs,
        STATUS_EXAMPLES, StatusArgs,
    },
    run::{RUN_EXAMPLES, RunArgs},
};
use crate::{
    agent::AllForeign,
    check::ShiftedClock,
    config::ConfigError,
    datapath::{chain, pins::PinsError},
    detach,
    program::{self, Called},
    telemetry,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or ended by a signal as asked
  1  failed; the reason is on standard error
  2  wrong arguments, or a static file that cannot be used
  3  other XDP programs hold the interfaces; nothing was changed
  4  the host is not fit: no BPF file system, missing capabilities or kernel features; or the cluster (check)
  5  no agent and nothing pinned (status, watch, log)
  6  not everything has moved in time, or has somewhere to go (drain, rebalance, claims)
  7  the address is not answered (why)";

const EXAMPLES: &str = "\
Examples:
  responder check eth0                   # what will work on this host, and what not
  responder run --static vips.toml       # answer for the addresses in the file
  responder run --node-name n1           # in a cluster: for the addresses of Services
  responder status                       # what is answered, and by which program; in a cluster, by which node
  responder why 192.0.2.10               # why this address is answered or not, and by whom
  responder drain --node n1              # before maintenance of a cluster's node
  responder run --help                   # what the file looks like";

const PLUGIN_EXAMPLES: &str = "\
Examples:
  kubectl responder status               # nodes, claims, and which address is answered by which node
  kubectl responder why 192.0.2.10       # why this address is answered or not, and by whom
  kubectl responder check --cluster      # rights, clocks, latency, other announcers, addresses
  kubectl responder drain --node n1      # before maintenance of a node

The kubeconfig is kubectl's: KUBECONFIG or ~/.kube/config. Options come behind the command
(kubectl responder status --context NAME). `responder --help` on a node has the commands that are about a host.";

/// What kubectl's plugin does not list: commands about the host that they run on.
const OF_A_HOST: [&str; 4] = ["run", "log", "detach", "completions"];

/// Answers ARP and Neighbor Solicitations for virtual IP addresses in the NIC driver.
#[derive(Debug, Parser)]
#[command(name = "responder", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    styles = Styles::styled())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Show links, addresses, deadline and counters, also without an agent; in a cluster all nodes, claims and owners.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Box<StatusArgs>),
    /// Follow what happens: gained, lost, announced, conflicts; in a cluster who holds what.
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Say why an address is answered or not, and by whom, from its Service to its counters.
    #[command(after_help = WHY_EXAMPLES)]
    Why(Box<WhyArgs>),
    /// Have a node of the cluster hand over what it holds, and take nothing until that is undone.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Move claims of the cluster to the nodes that come first for them, one planned hand-over at a time.
    #[command(after_help = REBALANCE_EXAMPLES)]
    Rebalance(RebalanceArgs),
    /// Change the number of groups that the cluster's addresses are spread over.
    #[command(after_help = CLAIMS_EXAMPLES)]
    Claims(ClaimsArgs),
    /// Look whether this host and its interfaces are fit, or the cluster, and what stands in the way.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<CheckArgs>),
    /// Show or change the level of the running agent's log.
    #[command(after_help = LOG_EXAMPLES)]
    Log(LogArgs),
    /// Stop answering and remove programs, links and maps: every trace.
    #[command(after_help = "Examples:\n  systemctl stop responder && responder detach\n  responder detach \
        --bpffs /sys/fs/bpf/other")]
    Detach(DetachArgs),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  responder completions bash > /etc/bash_completion.d/responder")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// Directory on a BPF file system where programs, links and maps are pinned.
    #[arg(long, env = "RESPONDER_BPFFS", value_name = "DIR", default_value = "/sys/fs/bpf/responder")]
    bpffs: PathBuf,
    /// Directory of the agent's control socket.
    #[arg(long, env = "RESPONDER_RUN_DIR", value_name = "DIR", default_value = "/run/responder")]
    run_dir: PathBuf,
}

#[derive(Debug, Args)]
struct DetachArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Then wait for a signal: for the pods of a DaemonSet, which are not to end.
    #[arg(long, env = "RESPONDER_STAY", value_parser = BoolishValueParser::new())]
    stay: bool,
}

/// A time like `500ms`, `10s`, `5m` or `1h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; write a time like 500ms, 10s or 1h"))
}

impl Cli {
    /// What this program was told: by its name and its arguments. If they are wrong, or ask for help, it ends here.
    #[must_use]
    pub fn from_env() -> Self {
        let called = Called::by(std::env::args_os().next().as_deref());
        program::set(called);
        let matches = command(called).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what the arguments say.
    ///
    /// # Errors
    ///
    /// What went wrong; [`fail`] turns it into a message and an exit code.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Status(args) => block_on(args.run())?,
            Command::Watch(args) => block_on(args.run())?,
            Command::Why(args) => block_on(args.run())?,
            Command::Drain(args) => block_on(args.run())?,
            Command::Rebalance(args) => block_on(args.run())?,
            Command::Claims(args) => block_on(args.run())?,
            Command::Check(args) => block_on(args.run())?,
            Command::Log(args) => block_on(args.run())?,
            Command::Detach(DetachArgs { place, stay }) => {
                detach::run(&place.bpffs, &place.run_dir)?;
                if stay {
                    block_on(detach::stay())??;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Completions { shell } => {
                // Not straight to standard output, whose end would be a panic.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "responder", &mut script);
                match io::stdout().write_all(&script) {
                    Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
                    _ => Ok(ExitCode::SUCCESS),
                }
            }
        }
    }
}

/// The commands, as they are called.
fn command(called: Called) -> clap::Command {
    let command = Cli::command();
    if called == Called::Itself {
        return command;
    }
    command.bin_name(called.name()).after_help(format!("{PLUGIN_EXAMPLES}\n\n{EXIT_CODES}")).mut_subcommands(
        |of_it| {
            let hidden = OF_A_HOST.contains(&of_it.get_name());
            let examples = of_it.get_after_help().map(ToString::to_string).unwrap_or_default();
            of_it.hide(hidden).after_help(called.speak(&examples).into_owned())
        },
    )
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

/// Arguments that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Nobody to talk to.
#[derive(Debug, thiserror::Error)]
#[error("no agent answers in {}; start one with `responder run`, or name its --run-dir", .0.display())]
pub struct NoAgent(pub PathBuf);

/// Prints an error to standard error and gives its exit code.
#[must_use]
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let unfit = crate::check::explain_unfit(error);
    let code = if error.is::<ConfigError>() || error.is::<Usage>() {
        2
    } else if error.is::<AllForeign>() {
        3
    } else if unfit.is_some()
        || error.is::<ShiftedClock>()
        || matches!(error.downcast_ref(), Some(PinsError::NoBpffs { .. }))
    {
        4
    } else if error.is::<NoAgent>() {
        5
    } else {
        1
    };
    let text = unfit.unwrap_or_else(|| chain(error.as_ref()));
    if telemetry::is_json() {
        tracing::error!(exit_code = code, "{text}");
    } else {
        // If standard error is gone there is nobody to tell.
        let called = program::called();
        writeln!(io::stderr(), "{}: {}", called.name(), called.speak(&text)).ok();
    }
    ExitCode::from(code)
}
