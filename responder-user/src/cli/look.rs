//! The arguments of the commands that look at what happens: `watch`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::{NoAgent, PlaceArgs, cluster::AccessArgs, operator::connect};
use crate::{
    operator::is_known,
    program::{self, Called},
    watch,
};

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  responder watch                              # this host's agent: every gain, loss, announcement and conflict
  responder watch --json | grep conflict
  responder watch --cluster                    # the cluster, from any machine: who holds what, and who lives";

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
