//! What `responder status --json` says, by what tests ask of it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{agent::Commands, time::wait_until};

/// One status.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// Asks for it.
    ///
    /// # Errors
    ///
    /// If the command fails or prints no JSON.
    pub fn read(commands: &Commands) -> Result<Self> {
        commands.status().map(Self)
    }

    /// Asks until `wanted` is true, and returns that status.
    ///
    /// # Errors
    ///
    /// If that is not so within `deadline`, with the last status.
    pub fn wait(
        commands: &Commands,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Self) -> bool,
    ) -> Result<Self> {
        let mut last = None;
        let found = wait_until(what, deadline, || {
            let status = Self::read(commands);
            match status {
                Ok(status) if wanted(&status) => Some(status),
                other => {
                    last = Some(other);
                    None
                }
            }
        });
        found.with_context(|| format!("last status: {last:#?}"))
    }

    /// A link as the running agent sees it; null if there is no agent or link.
    #[must_use]
    pub fn agent_link(&self, name: &str) -> &Value {
        &self.0["agent"]["links"][name]
    }

    /// A link as the maps and the kernel have it; null if it is not there.
    #[must_use]
    pub fn link(&self, name: &str) -> &Value {
        self.entry("links", "name", name)
    }

    /// An address as the maps have it (the first, if it is on several links); null if it is not there.
    #[must_use]
    pub fn vip(&self, vip: IpAddr) -> &Value {
        self.entry("vips", "vip", &vip.to_string())
    }

    /// "answering", "standby", …; empty if the address is not there.
    #[must_use]
    pub fn state(&self, vip: IpAddr) -> &str {
        self.vip(vip)["state"].as_str().unwrap_or("")
    }

    /// A counter of `received` or `sent`; those that are 0 are not listed.
    #[must_use]
    pub fn count(&self, direction: &str, outcome: &str) -> u64 {
        self.0[direction][outcome].as_u64().unwrap_or(0)
    }

    /// Until the deadline, in ms; negative after it.
    #[must_use]
    pub fn deadline_left_ms(&self) -> i64 {
        self.0["fence"]["deadline_left_ms"].as_i64().unwrap_or(i64::MIN)
    }

    fn entry(&self, list: &str, key: &str, wanted: &str) -> &Value {
        static NULL: Value = Value::Null;
        let entries = self.0[list].as_array().map_or(&[][..], Vec::as_slice);
        entries.iter().find(|entry| entry[key] == wanted).unwrap_or(&NULL)
    }
}
