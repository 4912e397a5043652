//! The arguments of `responder check`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::{
    PlaceArgs,
    cluster::{AccessArgs, RulesArgs},
    operator::local,
    time,
};
use crate::{
    check::{self, cluster},
    decision::services::Rules,
    operator::Where,
};

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  responder check                              # this host
  responder check eth0 eth1
  responder check --cluster                    # the cluster, and the segment as far as this host is on it
  responder check --cluster --lease-duration 1s --json | jq '.[] | select(.verdict != \"ok\")'

--cluster changes nothing. It needs to read what agents read; what it may not read it says. On a node, as root, it also
listens for VRRP and probes for the addresses by ARP (RFC 5227) and Neighbor Discovery; neighbours may learn this host's own
link-local address by it, and nothing else.";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Interfaces to look at; all Ethernet interfaces by default.
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// The cluster instead of this host: rights, clocks, latency, other announcers, addresses.
    #[arg(long, env = "RESPONDER_CLUSTER", value_parser = BoolishValueParser::new())]
    cluster: bool,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rules: RulesArgs,
    /// With --cluster: the agents' --lease-duration, against which latency is judged; by default the shortest that a
    /// session has, else 3s.
    #[arg(long, env = "RESPONDER_LEASE_DURATION", value_name = "TIME", value_parser = time)]
    lease_duration: Option<Duration>,
    /// With --cluster: the agents' --renew-interval; a quarter of the lease duration by default.
    #[arg(long, env = "RESPONDER_RENEW_INTERVAL", value_name = "TIME", value_parser = time)]
    renew_interval: Option<Duration>,
    /// With --cluster: the agents' ServiceAccount, in the namespace of their Leases.
    #[arg(long, env = "RESPONDER_SERVICE_ACCOUNT", value_name = "NAME", default_value = "responder")]
    service_account: String,
    /// With --cluster: how long to listen for VRRP; 0 for not at all.
    #[arg(long, env = "RESPONDER_LISTEN", value_name = "TIME", value_parser = time, default_value = "4s")]
    listen: Duration,
}

impl CheckArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self {
            place,
            interfaces,
            cluster,
            json,
            access,
            rules,
            lease_duration,
            renew_interval,
            service_account,
            listen,
        } = self;
        if !cluster {
            return check::run(&place.bpffs, &interfaces, json).await;
        }
        let rules = rules.rules()?;
        let local = local(&place.run_dir).await;
        let options = cluster::Options {
            place: Where {
                access: access.access(),
                namespace: access.namespace,
                node: std::env::var("RESPONDER_NODE_NAME").ok(),
                rules: (rules != Rules::default()).then_some(rules),
            },
            interfaces,
            lease_duration,
            renew_interval,
            service_account,
            listen,
        };
        check::print_and_judge(&cluster::check(&options, local.as_ref()).await?, json)
    }
}
