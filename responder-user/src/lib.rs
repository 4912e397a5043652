//! The agent and the operator's commands.

pub mod net;
