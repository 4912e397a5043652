//! The arguments of `responder run` that are about metrics.

use clap::Args;

use crate::metrics::{self, Address, DEFAULT_PORT};

/// Metrics and health.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics and health")]
pub(super) struct MetricsArgs {
    /// Where /metrics, /livez, /readyz and /state are served: ADDRESS:PORT, :PORT for all addresses of the host, "" for
    /// nowhere. The default is :7490 in a cluster, else nowhere.
    #[arg(long, env = "RESPONDER_METRICS_ADDRESS", value_name = "ADDRESS")]
    metrics_address: Option<Address>,
    /// So many addresses, the first, have series of their own in /metrics.
    #[arg(long, env = "RESPONDER_METRICS_PER_VIP", value_name = "ADDRESSES", default_value_t = 100)]
    metrics_per_vip: usize,
}

impl MetricsArgs {
    pub(super) fn options(self, in_cluster: bool) -> metrics::Options {
        let Self { metrics_address, metrics_per_vip: per_vip } = self;
        let default = if in_cluster { Address::Everywhere(DEFAULT_PORT) } else { Address::Nowhere };
        metrics::Options { address: metrics_address.unwrap_or(default), per_vip }
    }
}
