//! The arguments of the commands that look at what happens: `watch`, `why`, `log`.

use std::{net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::{
    NoAgent, PlaceArgs,
    cluster::{AccessArgs, AskArgs, RulesArgs},
    operator::connect,
};
use crate::{
    control,
    decision::services::Rules,
    operator::{Where, is_known},
    program::{self, Called},
    status::say,
    watch, why,
};

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  responder watch                              # this host's agent: every gain, loss, announcement and conflict
  responder watch --json | grep conflict
  responder watch --cluster                    # the cluster, from any machine: who holds what, and who lives";

pub(super) const WHY_EXAMPLES: &str = "\
Examples:
  responder why 192.0.2.10
  responder why 2001:db8::10 --json | jq '.steps[] | select(.verdict != \"ok\")'
  responder why 192.0.2.10 --kubeconfig admin.conf    # from any machine

On a node the rules (--load-balancer-class, --external-ips, --ip-ranges) are those of its agent, elsewhere those that some
agent in the cluster tells, by its metrics address, if it can be asked. Exit code 0: answered; 7: not; 1: cannot be told.";

pub(super) const LOG_EXAMPLES: &str = "\
Examples:
  responder log                                # the level as it is
  responder log debug
  responder log info,responder_user::cluster=debug
  kubectl exec -n l2-responder PODNAME -- responder log debug

It lasts until the agent ends, and begins with RESPONDER_LOG. There is no line for a packet at any level but trace, and
with --ebpf-log debug.";

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// The cluster, by its Leases, not this host's agent. So it is where no agent runs and an API server is known.
    #[arg(long, env = "RESPONDER_CLUSTER", value_parser = BoolishValueParser::new())]
    cluster: bool,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

impl WatchArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, access, cluster, json } = self;
        let from_anywhere = cluster || program::called() == Called::Plugin;
        if !from_anywhere && watch::host(&place.run_dir, json).await? {
            return Ok(ExitCode::SUCCESS);
        }
        if !from_anywhere && !is_known(&access.access()) {
            return Err(NoAgent(place.run_dir).into());
        }
        let operator = connect(&place.run_dir, &access, None).await?;
        watch::cluster(&operator, json).await?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The address, of either family.
    #[arg(value_name = "ADDRESS")]
    address: IpAddr,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

impl WhyArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { address, place, access, rules, ask, json } = self;
        let rules = rules.rules()?;
        let options = why::Options {
            address: address.to_canonical(),
            metrics_port: ask.port(),
            json,
            place: Where {
                access: access.access(),
                namespace: access.namespace,
                node: std::env::var("RESPONDER_NODE_NAME").ok(),
                rules: (rules != Rules::default()).then_some(rules),
            },
        };
        why::run(&place.bpffs, &place.run_dir, options).await
    }
}

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The new level: error, warn, info, debug or trace; also of single modules (`info,responder_user::cluster=debug`).
    #[arg(value_name = "LEVEL")]
    level: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

impl LogArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { level, place } = self;
        match control::ask_log(&place.run_dir, level.as_deref()).await? {
            None => Err(NoAgent(place.run_dir).into()),
            Some(Err(reason)) => Err(super::Usage(reason).into()),
            Some(Ok(level)) => {
                say(level)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
