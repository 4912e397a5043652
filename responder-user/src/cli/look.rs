//! The arguments of the commands that look at what happens: `watch`, `log`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::{NoAgent, PlaceArgs, cluster::AccessArgs, operator::connect};
use crate::{
    control,
    operator::is_known,
    program::{self, Called},
    status::say,
    watch,
};

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  responder watch                              # this host's agent: every gain, loss, announcement and conflict
  responder watch --json | grep conflict
  responder watch --cluster                    # the cluster, from any machine: who holds what, and who lives";

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
