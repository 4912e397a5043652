//! Arguments and exit codes.

mod cluster;
mod metrics;
mod operator;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    builder::{BoolishValueParser, Styles},
};
use clap_complete::Shell;
use responder_common::layout::DEFAULT_VIPS;

use self::{
    cluster::ClusterArgs,
    metrics::MetricsArgs,
    operator::{
        CLAIMS_EXAMPLES, ClaimsArgs, DRAIN_EXAMPLES, DrainArgs, REBALANCE_EXAMPLES, RebalanceArgs,
        STATUS_EXAMPLES, StatusArgs,
    },
};
use crate::{
    agent::{self, AllForeign, OnExit},
    check::{self, ShiftedClock},
    config::ConfigError,
    control,
    datapath::{
        chain,
        pins::PinsError,
        xdp::{WantedAttach, WantedMode},
    },
    decision::{burst::BurstPolicy, fence::FencePolicy},
    detach, telemetry,
    telemetry::LogFormat,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or ended by a signal as asked
  1  failed; the reason is on standard error
  2  wrong arguments, or a static file that cannot be used
  3  other XDP programs hold the interfaces; nothing was changed
  4  the host is not fit: no BPF file system, missing capabilities or kernel features
  5  no agent and nothing pinned (status, watch)
  6  not everything has moved in time, or has somewhere to go (drain, rebalance, claims)";

const EXAMPLES: &str = "\
Examples:
  responder check eth0                   # what will work on this host, and what not
  responder run --static vips.toml       # answer for the addresses in the file
  responder run --node-name n1           # in a cluster: for the addresses of Services
  responder status                       # what is answered, and by which program; in a cluster, by which node
  responder drain --node n1              # before maintenance of a cluster's node
  responder run --help                   # what the file looks like";

const RUN_EXAMPLES: &str = "\
Examples:
  # Announce two addresses on the interface of the default route
  echo 'vips = [\"192.0.2.10\", \"2001:db8::10\"]' > vips.toml
  responder run --static vips.toml

  # On two interfaces, in the driver or not at all, quick to fall silent if the agent hangs
  responder run --static vips.toml --xdp-mode native --fence 2s

  # In a cluster, with failover within about a second
  responder run --kubeconfig agent.kubeconfig --node-name n1 --lease-duration 1s

The static file:
  interfaces = [\"eth0\", \"bond*\"]     # names or patterns; none: that of the default route
  vips = [
    \"192.0.2.10\",
    { address = \"2001:db8::10\", interfaces = [\"eth1\"] },
    { address = \"192.0.2.11\", standby = true },   # owned elsewhere: kept silent here
  ]
It is followed: an edit takes effect at once, and a bad one changes nothing.";

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
    /// Follow what happens: gained, lost, announced, conflicts.
    #[command(after_help = "Examples:\n  responder watch\n  responder watch --json | grep conflict")]
    Watch(WatchArgs),
    /// Have a node of the cluster hand over what it holds, and take nothing until that is undone.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Move claims of the cluster to the nodes that come first for them, one planned hand-over at a time.
    #[command(after_help = REBALANCE_EXAMPLES)]
    Rebalance(RebalanceArgs),
    /// Change the number of groups that the cluster's addresses are spread over.
    #[command(after_help = CLAIMS_EXAMPLES)]
    Claims(ClaimsArgs),
    /// Look whether this host and its interfaces are fit, and what stands in the way.
    #[command(after_help = "Examples:\n  responder check\n  responder check eth0 eth1")]
    Check(CheckArgs),
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
struct WatchArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Interfaces to look at; all Ethernet interfaces by default.
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

#[derive(Debug, Args)]
struct DetachArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Then wait for a signal: for the pods of a DaemonSet, which are not to end.
    #[arg(long)]
    stay: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Without a cluster: the file that lists interfaces and addresses (see below).
    #[arg(long = "static", env = "RESPONDER_STATIC", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Where the XDP program runs: in the driver (native), in the network stack (generic), or the first that
    /// works (auto).
    #[arg(long, env = "RESPONDER_XDP_MODE", value_enum, default_value = "auto")]
    xdp_mode: WantedMode,
    /// How programs are attached.
    #[arg(long, env = "RESPONDER_ATTACH", value_enum, default_value = "auto", hide = true)]
    attach: WantedAttach,
    /// With --static: how long the datapath answers without hearing from the agent (killed, stopped, starved). In a
    /// cluster --lease-duration says it.
    #[arg(long, env = "RESPONDER_FENCE", value_name = "TIME", value_parser = fence_time, default_value = "10s")]
    fence: Duration,
    /// How long, without hearing from the agent, the host is kept silent about addresses that it knows but does
    /// not own. Then everything is passed, as if there were no program.
    #[arg(long, env = "RESPONDER_SUPPRESS", value_name = "TIME", value_parser = time, default_value = "1h")]
    suppress: Duration,
    /// Between announcements of an address after its first burst; 0 for none.
    #[arg(long, env = "RESPONDER_ANNOUNCE_INTERVAL", value_name = "TIME", value_parser = time,
        default_value = "30s")]
    announce_interval: Duration,
    /// Announcement packets per second at most, over all addresses and interfaces.
    #[arg(long, env = "RESPONDER_ANNOUNCE_RATE", value_name = "PACKETS",
        value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1000)]
    announce_rate: u32,
    /// With --static, at SIGTERM: go on answering until the deadline, or stop answering at once. With another agent waiting
    /// to take over, nothing stops in either case.
    #[arg(long, env = "RESPONDER_ON_EXIT", value_enum, default_value = "withdraw")]
    on_exit: OnExit,
    /// Addresses of each family that the maps have room for.
    #[arg(long, env = "RESPONDER_CAPACITY", value_name = "ADDRESSES",
        value_parser = clap::value_parser!(u32).range(1..=1 << 22), default_value_t = DEFAULT_VIPS)]
    capacity: u32,
    /// Log each frame that the program looks at, for debugging: costs time for every such frame.
    #[arg(long, env = "RESPONDER_EBPF_LOG", value_parser = BoolishValueParser::new())]
    ebpf_log: bool,
    /// How log lines look. Their level is that of RESPONDER_LOG (error, warn, info, debug, trace).
    #[arg(long, env = "RESPONDER_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A time like `500ms`, `10s`, `5m` or `1h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; write a time like 500ms, 10s or 1h"))
}

fn fence_time(text: &str) -> Result<Duration, String> {
    let fence = time(text)?;
    if fence < Duration::from_millis(200) {
        return Err(format!(
            "{text} is too short: the agent extends the deadline every quarter of it, and must not miss it on a \
             busy host; 200ms is the least"
        ));
    }
    Ok(fence)
}

impl Cli {
    /// Does what the arguments say.
    ///
    /// # Errors
    ///
    /// What went wrong; [`fail`] turns it into a message and an exit code.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Status(args) => block_on(args.run())?,
            Command::Watch(WatchArgs { place, json }) => block_on(watch(place, json))?,
            Command::Drain(args) => block_on(args.run())?,
            Command::Rebalance(args) => block_on(args.run())?,
            Command::Claims(args) => block_on(args.run())?,
            Command::Check(CheckArgs { place, interfaces, json }) => {
                block_on(check::run(&place.bpffs, &interfaces, json))?
            }
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

impl RunArgs {
    fn run(self) -> Result<ExitCode> {
        let Self {
            file,
            place: PlaceArgs { bpffs, run_dir },
            xdp_mode,
            attach,
            fence,
            suppress,
            announce_interval,
            announce_rate,
            on_exit,
            capacity,
            ebpf_log,
            log_format,
            metrics,
            cluster,
        } = self;
        telemetry::init(log_format, ebpf_log);
        if suppress < fence {
            return Err(Usage(format!(
                "--suppress {suppress:?} is shorter than --fence {fence:?}: the host would answer for addresses \
                 while the deadline is still ahead; make it at least as long"
            ))
            .into());
        }
        let metrics = metrics.options(file.is_none());
        let from = match file {
            Some(file) => agent::From::File(file),
            None => agent::From::Cluster(Box::new(cluster.options()?)),
        };
        let options = agent::Options {
            from,
            bpffs,
            run_dir,
            mode: xdp_mode,
            attach,
            fence: FencePolicy { fence, suppress },
            burst: BurstPolicy { interval: announce_interval, rate: announce_rate },
            on_exit,
            capacity,
            ebpf_log,
            metrics,
        };
        block_on(agent::run(options))??;
        Ok(ExitCode::SUCCESS)
    }
}

async fn watch(place: PlaceArgs, json: bool) -> Result<ExitCode> {
    let PlaceArgs { bpffs: _, run_dir } = place;
    let print = |line: &str, happening: crate::journal::Happening| {
        let mut out = io::stdout().lock();
        if json { writeln!(out, "{line}") } else { writeln!(out, "{happening}") }
    };
    match control::watch(&run_dir, print).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(NoAgent(run_dir).into())
        }
        // Whoever read the output has had enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(e).context("the connection to the agent broke"),
    }
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
    let unfit = check::explain_unfit(error);
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
        writeln!(io::stderr(), "responder: {text}").ok();
    }
    ExitCode::from(code)
}
