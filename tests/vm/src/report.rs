//! The serial line to whoever has started the machine.
//!
//! One line each, with tabs between its fields: `ready KERNEL UPTIME-MS UNLOADED-MODULES`, `begin STEP`, `line STEP TEXT`,
//! `skip STEP TEXT`, `end STEP STATUS MS`, `done`. After `done` nothing comes; a report without it is of a machine that died.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::OFlag,
    sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr},
};

const LINE: &str = "/dev/ttyS1";

pub(crate) struct Report(File);

impl Report {
    /// Opens the line; what goes through it is not changed.
    pub(crate) fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
        let file = options.open(LINE).with_context(|| format!("cannot open {LINE}"))?;
        let mut settings = tcgetattr(&file)?;
        cfmakeraw(&mut settings);
        tcsetattr(&file, SetArg::TCSANOW, &settings)?;
        Ok(Self(file))
    }

    fn tell(&mut self, fields: &[&str]) -> Result<()> {
        let line = fields.iter().map(|field| field.replace(['\t', '\r'], " ")).collect::<Vec<_>>().join("\t");
        self.0.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("writing to {LINE}"))
    }

    pub(crate) fn ready(&mut self, unloaded: &[String]) -> Result<()> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let uptime = fs::read_to_string("/proc/uptime")?;
        let seconds: f64 = uptime.split(' ').next().unwrap_or_default().parse().context("/proc/uptime")?;
        self.tell(&["ready", release.trim(), &format!("{:.0}", seconds * 1e3), &unloaded.join(" ")])
    }

    pub(crate) fn begin(&mut self, step: &str) -> Result<()> {
        self.tell(&["begin", step])
    }

    pub(crate) fn line(&mut self, step: &str, text: &str) -> Result<()> {
        self.tell(&["line", step, text])
    }

    pub(crate) fn skipped(&mut self, step: &str, text: &str) -> Result<()> {
        self.tell(&["skip", step, text])
    }

    pub(crate) fn end(&mut self, step: &str, status: &str, took: Duration) -> Result<()> {
        self.tell(&["end", step, status, &took.as_millis().to_string()])
    }

    pub(crate) fn done(&mut self) -> Result<()> {
        self.tell(&["done"])?;
        Ok(tcdrain(&self.0)?)
    }
}
