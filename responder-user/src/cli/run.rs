//! The arguments of `responder run`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};
use responder_common::layout::DEFAULT_VIPS;

use super::{PlaceArgs, Usage, block_on, cluster::ClusterArgs, metrics::MetricsArgs, time};
use crate::{
    agent::{self, OnExit},
    datapath::xdp::{WantedAttach, WantedMode},
    decision::{burst::BurstPolicy, fence::FencePolicy},
    telemetry::{self, LogFormat},
};

pub(super) const RUN_EXAMPLES: &str = "\
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

#[derive(Debug, Args)]
pub(super) struct RunArgs {
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
    /// Where a NIC takes VLAN tags off before a program sees them, and VLANs need them, turn that off
    /// (`ethtool -K … rxvlan off`). The agent does not turn it on again. Without this, VLAN devices get the slower
    /// generic mode.
    #[arg(long, env = "RESPONDER_SET_VLAN_OFFLOAD", value_parser = BoolishValueParser::new())]
    set_vlan_offload: bool,
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

impl RunArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self {
            file,
            place: PlaceArgs { bpffs, run_dir },
            xdp_mode,
            attach,
            set_vlan_offload,
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
            set_vlan_offload,
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
