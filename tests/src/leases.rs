//! The agents' Leases, as the API server shows them.

use std::{net::IpAddr, num::NonZeroU16, process::Command};

use anyhow::Result;
use responder_lab::{Cluster, Process, paths};
use responder_leadership::group::group_of;
use serde_json::Value;

/// The collection of the agents' Leases.
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/l2-responder/leases";

/// Number of groups unless an agent says otherwise.
pub const CLAIMS: NonZeroU16 = NonZeroU16::new(16).unwrap();

/// The Lease of the claim that a VIP belongs to.
#[must_use]
pub fn claim_of(vip: IpAddr) -> String {
    format!("claim-{CLAIMS}-{:02}", group_of(vip, CLAIMS))
}

/// What counts in a Lease: the record in its annotation.
#[must_use]
pub fn record_of(lease: &Value) -> Value {
    let annotations = lease["metadata"]["annotations"].as_object();
    let record = annotations.and_then(|all| all.iter().find(|(key, _)| key.ends_with("/record")));
    record.and_then(|(_, text)| serde_json::from_str(text.as_str()?).ok()).unwrap_or_default()
}

/// Starts `responder claims NUMBER`, with an administrator's rights.
///
/// # Errors
///
/// If it cannot be started.
pub fn change_claims(cluster: &Cluster, number: u16) -> Result<Process> {
    let mut command = Command::new(paths::responder()?);
    command.args(["claims", &number.to_string()]);
    command.env("KUBECONFIG", cluster.kubeconfig()).env("NO_COLOR", "1");
    cluster.management().spawn(command)
}
