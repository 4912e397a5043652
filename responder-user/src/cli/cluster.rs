//! The arguments of `responder run` that are about a cluster.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};
use glob::Pattern;
use ipnet::IpNet;
use responder_leadership::{id::NodeName, settings::Times};

use super::{Usage, time};
use crate::{
    agent::ClusterOptions,
    cluster::{client::Access, names},
    decision::{
        services::{OWN_CLASS, Rules},
        subnets::LinkChoice,
    },
    metrics::DEFAULT_PORT,
};

/// Where the API server is.
#[derive(Clone, Debug, Args)]
pub(super) struct AccessArgs {
    /// How to reach the API server. Default: in a pod its ServiceAccount, else KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "RESPONDER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one by default.
    #[arg(long, env = "RESPONDER_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the agents' Leases; l2-responder by default, for commands that of the agent on this host.
    #[arg(short, long, env = "RESPONDER_NAMESPACE", value_name = "NAME")]
    pub(super) namespace: Option<String>,
}

/// What is announced at all.
#[derive(Clone, Debug, Args)]
pub(super) struct RulesArgs {
    /// Announce Services of this spec.loadBalancerClass only; by default those without a class and those of
    /// l2-responder.io/responder.
    #[arg(long, env = "RESPONDER_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    load_balancer_class: Option<String>,
    /// Announce the externalIPs of Services, too. Whoever may write a Service may then have any address of
    /// --ip-ranges announced.
    #[arg(long, env = "RESPONDER_EXTERNAL_IPS", value_parser = BoolishValueParser::new())]
    external_ips: bool,
    /// Addresses that may be announced at all, as prefixes. The default is all; nodes' addresses, default gateways
    /// and the API server's are refused always.
    #[arg(long, env = "RESPONDER_IP_RANGES", value_name = "PREFIX", value_delimiter = ',')]
    ip_ranges: Vec<IpNet>,
}

impl RulesArgs {
    pub(super) fn rules(self) -> Result<Rules> {
        if self.load_balancer_class.as_deref() == Some("") {
            return Err(Usage(format!(
                "--load-balancer-class is empty; leave it out to announce Services without a class and those of \
                 {OWN_CLASS}"
            ))
            .into());
        }
        let Self { load_balancer_class: class, external_ips, ip_ranges: ranges } = self;
        Ok(Rules { class, external_ips, ranges })
    }
}

/// Whether agents are asked for what they alone know.
#[derive(Clone, Debug, Args)]
pub(super) struct AskArgs {
    /// The port at which agents serve /state (see --metrics-address of `responder run`); 0: do not ask them.
    #[arg(long, env = "RESPONDER_METRICS_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT)]
    metrics_port: u16,
}

impl AskArgs {
    pub(super) fn port(&self) -> Option<u16> {
        (self.metrics_port != 0).then_some(self.metrics_port)
    }
}

impl AccessArgs {
    pub(super) fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// Leadership, and what is announced.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub(super) struct ClusterArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// This node's name in the cluster; the host's name by default.
    #[arg(long, env = "RESPONDER_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// How long other nodes leave what this one holds alone after its last sign of life: from 500ms to 60s.
    #[arg(long, env = "RESPONDER_LEASE_DURATION", value_name = "TIME", value_parser = time, default_value = "3s")]
    lease_duration: Duration,
    /// Between signs of life while something is held; a quarter of --lease-duration by default.
    #[arg(long, env = "RESPONDER_RENEW_INTERVAL", value_name = "TIME", value_parser = time)]
    renew_interval: Option<Duration>,
    /// Between signs of life while nothing is held; twice --lease-duration by default.
    #[arg(long, env = "RESPONDER_IDLE_RENEW_INTERVAL", value_name = "TIME", value_parser = time)]
    idle_renew_interval: Option<Duration>,
    /// Number of groups that the addresses are spread over. The first agent of a cluster records it there; later
    /// ones follow the record.
    #[arg(long, env = "RESPONDER_CLAIMS", value_name = "GROUPS",
        value_parser = clap::value_parser!(u16).range(1..=1024), default_value_t = 16)]
    claims: u16,
    #[command(flatten)]
    rules: RulesArgs,
    /// Announce addresses that no prefix of this node's interfaces covers, too.
    #[arg(long, env = "RESPONDER_ANY_SUBNET", value_parser = BoolishValueParser::new())]
    any_subnet: bool,
    /// Interfaces to announce on (names or patterns); by default that of the default route, and for each address
    /// those whose prefix covers it.
    #[arg(long = "interface", env = "RESPONDER_INTERFACES", value_name = "NAME", value_delimiter = ',')]
    interfaces: Vec<Pattern>,
    /// Write every event and decision to this file, for `cargo xtask replay`.
    #[arg(long, env = "RESPONDER_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,
}

impl ClusterArgs {
    pub(super) fn options(self) -> Result<ClusterOptions> {
        let mut times = Times::of(self.lease_duration);
        times.renew_interval = self.renew_interval.unwrap_or(times.renew_interval);
        times.idle_renew_interval = self.idle_renew_interval.unwrap_or(times.idle_renew_interval);
        let times = times.check().map_err(|error| Usage(error.to_string()))?;
        let node = match self.node_name {
            Some(name) => name,
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let node = NodeName::from(node.as_str());
        names::check_node(&node).map_err(|error| Usage(format!("--node-name: {error}")))?;
        Ok(ClusterOptions {
            access: self.access.access(),
            namespace: self.access.namespace.unwrap_or_else(|| names::NAMESPACE.to_owned()),
            node,
            times,
            claims: NonZeroU16::new(self.claims).unwrap_or(NonZeroU16::MIN),
            rules: self.rules.rules()?,
            links: LinkChoice { interfaces: self.interfaces, any_subnet: self.any_subnet },
            record: self.record,
        })
    }
}
