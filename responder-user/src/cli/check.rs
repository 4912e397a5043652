//! The arguments of `responder check`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::PlaceArgs;
use crate::check;

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  responder check
  responder check eth0 eth1";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Interfaces to look at; all Ethernet interfaces by default.
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// As JSON.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

impl CheckArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, interfaces, json } = self;
        check::run(&place.bpffs, &interfaces, json).await
    }
}
