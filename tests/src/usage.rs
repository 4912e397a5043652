//! What processes use, from proc(5).

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use responder_lab::{HttpAnswer, http_get};

use crate::fleet::Fleet;

/// Where agents in a cluster serve their metrics.
const METRICS_PORT: u16 = 7490;

/// What a process has used and has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on processors of all its threads that have not ended, since it started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The most resident memory that it had, in bytes.
    pub peak: u64,
}

impl Usage {
    /// Of a process that runs.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("no such process")?;
        let bytes = |field: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kibibytes: u64 =
                line.with_context(|| format!("no {field}"))?.trim().trim_end_matches(" kB").parse()?;
            Ok(kibibytes << 10)
        };
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // Nanoseconds, unlike those in /proc/PID/stat. A thread may have ended.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let ran = text.split(' ').next().unwrap_or_default();
            cpu += Duration::from_nanos(ran.parse().with_context(|| format!("schedstat is {text:?}"))?);
        }
        Ok(Self { cpu, resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

impl Fleet {
    /// What each node's agent uses.
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn usages(&mut self) -> Result<BTreeMap<String, Usage>> {
        let names = self.names();
        names.into_iter().map(|name| Ok((name.clone(), Usage::of(self.agent(&name).pid())?))).collect()
    }

    /// What the agent of a node says at `/metrics`.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn metrics(&self, name: &str) -> Result<HttpAnswer> {
        http_get(self.cluster.host(name).ns(), (Ipv4Addr::LOCALHOST, METRICS_PORT).into(), "/metrics")
    }

    /// The memory of the largest agent, and the most that any had, in bytes.
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn memory(&mut self) -> Result<[u64; 2]> {
        let usages = self.usages()?;
        let resident = usages.values().map(|usage| usage.resident).max();
        let peak = usages.values().map(|usage| usage.peak).max();
        Ok([resident.unwrap_or_default(), peak.unwrap_or_default()])
    }
}
