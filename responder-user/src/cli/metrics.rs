//! The arguments of `responder run` that are about metrics.

use std::path::PathBuf;

use clap::Args;

use crate::metrics::{self, Address, DEFAULT_PORT, TlsFiles};

/// Metrics and health.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics and health")]
pub(super) struct MetricsArgs {
    /// Where /metrics, /livez, /readyz and /state are served: ADDRESS:PORT, :PORT for all addresses of the host, "" for
    /// nowhere. The default is :7490 in a cluster, else nowhere.
    #[arg(long, env = "RESPONDER_METRICS_ADDRESS", value_name = "ADDRESS")]
    metrics_address: Option<Address>,
    /// Serve by TLS alone, with this certificate and what it is signed by (PEM). A file that changes is read again.
    #[arg(long, env = "RESPONDER_METRICS_TLS_CERT", value_name = "FILE", requires = "metrics_tls_key")]
    metrics_tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, env = "RESPONDER_METRICS_TLS_KEY", value_name = "FILE", requires = "metrics_tls_cert")]
    metrics_tls_key: Option<PathBuf>,
    /// So many addresses, the first, have series of their own in /metrics.
    #[arg(long, env = "RESPONDER_METRICS_PER_VIP", value_name = "ADDRESSES", default_value_t = 100)]
    metrics_per_vip: usize,
}

impl MetricsArgs {
    pub(super) fn options(self, in_cluster: bool) -> metrics::Options {
        let Self { metrics_address, metrics_tls_cert, metrics_tls_key, metrics_per_vip: per_vip } = self;
        let tls =
            metrics_tls_cert.zip(metrics_tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
        let default = if in_cluster { Address::Everywhere(DEFAULT_PORT) } else { Address::Nowhere };
        metrics::Options { address: metrics_address.unwrap_or(default), tls, per_vip }
    }
}
