//! Metrics and health over HTTP: `/metrics`, `/livez`, `/readyz`, `/state`.
//!
//! * `address`: where it is served.
//! * `server`: connections and paths, in a thread of their own: whatever a client does, the agent's loop does not wait.
//! * `snapshot`: what the agent and the kernel's maps say, asked for seldom however many clients there are.
//! * `health`: whether the agent is ready.
//! * `tls`: the certificate, if there is one.
//! * `counts`: what is counted as it happens. `renewals`: what those of the session take.
//! * `families`, `datapath`, `agent`, `cluster`: a snapshot as metrics. `reasons`: why addresses are refused, as labels.

mod address;
mod agent;
mod cluster;
mod counts;
mod datapath;
mod families;
mod health;
mod reasons;
mod renewals;
mod server;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls;

use std::{fmt, sync::Arc};

use prometheus_client::{encoding::text, registry::Registry};

pub use self::{
    address::{Address, DEFAULT_PORT},
    counts::Counts,
    renewals::Renewals,
    tls::TlsFiles,
};
use self::{
    families::{Families, PREFIX},
    snapshot::Snapshot,
};
pub(crate) use self::{
    server::{Serving, start},
    snapshot::Snapshots,
};

/// What is served, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub address: Address,
    /// By TLS alone, with this certificate.
    pub tls: Option<TlsFiles>,
    /// So many addresses have series of their own.
    pub per_vip: usize,
}

/// All metrics as OpenMetrics text.
fn encode(snapshot: &Snapshot, counts: &Counts, per_vip: usize) -> Result<String, fmt::Error> {
    let mut now = Registry::with_prefix(PREFIX);
    now.register_collector(Box::new(View { snapshot: Arc::clone(snapshot), per_vip }));
    let mut out = String::new();
    text::encode_registry(&mut out, &now)?;
    counts.encode(&mut out)?;
    text::encode_eof(&mut out)?;
    Ok(out)
}

/// What is as it is now.
#[derive(Debug)]
struct View {
    snapshot: Snapshot,
    per_vip: usize,
}

impl prometheus_client::collector::Collector for View {
    fn encode(&self, encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        let status = &*self.snapshot;
        datapath::encode(&mut families, status)?;
        datapath::encode_vips(&mut families, &status.vips, self.per_vip)?;
        agent::encode(&mut families, status)?;
        match status.agent.as_ref().and_then(|agent| agent.leadership.as_ref()) {
            Some(leadership) => cluster::encode(&mut families, leadership),
            None => Ok(()),
        }
    }
}
