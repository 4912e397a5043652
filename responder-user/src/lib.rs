//! The agent and the operator's commands.
//!
//! # Layout
//!
//! In reading order:
//!
//! * [`cli`]: arguments, exit codes, and which module a command is in.
//! * [`config`]: the static file.
//! * [`decision`]: what to do, as pure functions and machines.
//! * [`cluster`]: what is read from and written to the Kubernetes API.
//! * [`datapath`]: programs, links and maps in the kernel.
//! * [`net`]: interfaces, netlink, multicast groups, packets.
//! * [`agent`]: the loop that puts them together.
//! * [`control`] and [`journal`]: what the agent tells others, and how.
//! * [`metrics`]: that for machines: metrics and health over HTTP.
//! * [`overview`]: a whole cluster at a glance; [`operator`]: read for commands.
//! * [`status`], [`watch`], [`why`], [`drain`], [`rebalance`], [`recount`], [`check`], [`detach`]: the operator's other
//!   commands.
//! * [`telemetry`]: the log. [`program`]: what this program is called.

pub mod agent;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod datapath;
pub mod decision;
pub mod detach;
pub mod drain;
pub mod journal;
pub mod metrics;
pub mod net;
mod notes;
pub mod operator;
pub mod overview;
pub mod program;
pub mod rebalance;
pub mod recount;
pub mod status;
pub mod telemetry;
pub mod watch;
pub mod why;
