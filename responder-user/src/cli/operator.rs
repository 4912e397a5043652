//! The arguments of the commands that look at a cluster or change something in it.

use std::{num::NonZeroU16, path::Path, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, builder::BoolishValueParser};

use super::{
    PlaceArgs,
    cluster::{AccessArgs, AskArgs, RulesArgs},
    time,
};
use crate::{
    control::{self, LeadershipStatus},
    decision::services::Rules,
    drain,
    operator::{Operator, Prefer, Where},
    overview::Shown,
    rebalance, recount, status,
};

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  responder status                             # this host, and its cluster if its agent runs in one
  responder status --kubeconfig admin.conf     # a cluster, from any machine
  responder status --vips=nobody               # addresses that nobody answers for, and why
  responder status --vips=default/web          # those of a Service; or of a node, or in a prefix
  responder status --json | jq '.vips[] | select(.state != \"answering\")'
  responder status --json | jq '.cluster.sessions[] | {node, life, fitness}'

What is announced and refused (--load-balancer-class, --external-ips, --ip-ranges, default gateways) is on a node what its
agent says, elsewhere what some agent in the cluster tells, by its metrics address, if it can be asked.";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  responder drain --node n1                    # before maintenance: n1 hands over what it holds
  responder drain --node n1 --undo             # n1 takes part again; what has moved stays where it is
  responder drain --no-wait                    # this node, without waiting

Needs the right to `patch nodes`, which administrators have, and `list leases` in the agents' namespace.";

pub(super) const REBALANCE_EXAMPLES: &str = "\
Examples:
  responder rebalance --dry-run                # what would be moved
  responder rebalance

A claim is misplaced if another fit node comes first for it. Each move is a planned one, without a gap in answers, but
connections that run through the old node may break where it does not forward them any more. Needs the rights to
read what agents read, and `update leases` in their namespace.";

pub(super) const CLAIMS_EXAMPLES: &str = "\
Examples:
  responder claims 32
  responder claims 16                          # back

Agents stop answering for what they hold, claims of the old number are closed, then those of the new are taken: for about
a second nothing is answered, and connections that move to another node may break. A claim whose node has died is closed
when its session has expired. Needs the rights to `list, create, update, delete leases` in the agents' namespace.";

#[derive(Debug, Args)]
pub(super) struct ClaimsArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// How many there are from now on: from 1 to 1024.
    #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    claims: u16,
    /// How long to wait for those who hold claims of the old number.
    #[arg(long, env = "RESPONDER_CLAIMS_TIMEOUT", value_name = "TIME", value_parser = time,
        default_value = "90s")]
    timeout: Duration,
}

impl ClaimsArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, access, claims, timeout } = self;
        let operator = connect(&place.run_dir, &access, None).await?;
        let claims = NonZeroU16::new(claims).unwrap_or(NonZeroU16::MIN);
        recount::run(&operator, recount::Options { claims, timeout }).await
    }
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// As JSON: all there is.
    #[arg(long, env = "RESPONDER_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
    /// Only this host.
    #[arg(long, env = "RESPONDER_LOCAL", value_parser = BoolishValueParser::new(), conflicts_with = "cluster")]
    local: bool,
    /// Only the cluster.
    #[arg(long, env = "RESPONDER_CLUSTER", value_parser = BoolishValueParser::new())]
    cluster: bool,
    /// Show each of the cluster's addresses, or those that match: an address, a prefix, a node, a Service
    /// (NAMESPACE/NAME), or `nobody`.
    #[arg(long, env = "RESPONDER_VIPS", value_name = "WHICH", num_args = 0..=1, require_equals = true,
        default_missing_value = "all")]
    vips: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    ask: AskArgs,
}

impl StatusArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, json, local, cluster, vips, access, rules, ask } = self;
        let shown = match vips.as_deref() {
            None => Shown::Silent,
            Some("all") => Shown::All,
            Some(word) => Shown::Matching(word.to_owned()),
        };
        let rules = rules.rules()?;
        let place_in_cluster = Where {
            access: access.access(),
            namespace: access.namespace,
            node: std::env::var("RESPONDER_NODE_NAME").ok(),
            rules: (rules != Rules::default()).then_some(rules),
        };
        let metrics_port = ask.port();
        let options = status::Options { local, cluster, json, shown, metrics_port, place: place_in_cluster };
        status::run(&place.bpffs, &place.run_dir, options).await
    }
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Which node; the one of this host's agent by default, or of the host's name.
    #[arg(long, env = "RESPONDER_NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    /// Let it take part again.
    #[arg(long, env = "RESPONDER_DRAIN_UNDO", value_parser = BoolishValueParser::new())]
    undo: bool,
    /// Do not wait until it holds nothing.
    #[arg(long, env = "RESPONDER_NO_WAIT", value_parser = BoolishValueParser::new())]
    no_wait: bool,
    /// How long to wait.
    #[arg(long, env = "RESPONDER_DRAIN_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "60s")]
    timeout: Duration,
}

impl DrainArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, access, node, undo, no_wait, timeout } = self;
        let operator = connect(&place.run_dir, &access, node).await?;
        let wait = (!no_wait).then_some(timeout);
        drain::run(&operator, drain::Options { undo, wait }).await
    }
}

#[derive(Debug, Args)]
pub(super) struct RebalanceArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rules: RulesArgs,
    /// Only say what would be moved.
    #[arg(long, env = "RESPONDER_DRY_RUN", value_parser = BoolishValueParser::new())]
    dry_run: bool,
    /// How long one move may take.
    #[arg(long, env = "RESPONDER_MOVE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
}

impl RebalanceArgs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let Self { place, access, rules, dry_run, timeout } = self;
        let rules = rules.rules()?;
        let local = local(&place.run_dir).await;
        let place_in_cluster = Where {
            access: access.access(),
            namespace: access.namespace,
            node: None,
            rules: (rules != Rules::default()).then_some(rules),
        };
        let operator = Operator::connect(&place_in_cluster, local.as_ref(), Prefer::Own).await?;
        rebalance::run(&operator, rebalance::Options { dry_run, timeout }).await
    }
}

/// What this host's agent says, if there is one in a cluster.
pub(super) async fn local(run_dir: &Path) -> Option<LeadershipStatus> {
    control::ask_status(run_dir).await.ok().flatten().and_then(|agent| agent.leadership)
}

pub(super) async fn connect(run_dir: &Path, access: &AccessArgs, node: Option<String>) -> Result<Operator> {
    let local = local(run_dir).await;
    let place = Where { access: access.access(), namespace: access.namespace.clone(), node, rules: None };
    Ok(Operator::connect(&place, local.as_ref(), Prefer::Own).await?)
}
