//! Where and when is measured.

use std::{fs, io, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::{Value, json};

/// What every report says of the machine.
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    date: String,
    /// What else wants the CPUs: processes, in the mean of a minute.
    load: String,
    rounds: u32,
}

impl Machine {
    pub(crate) fn look(rounds: u32) -> Result<Self> {
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("cannot run date")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: cpu_model(),
            cpus: std::thread::available_parallelism()?.get(),
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
            load: load.split(' ').next().unwrap_or("?").to_owned(),
            rounds,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let Self { kernel, cpu, cpus, date, load, rounds } = self;
        json!({ "kernel": kernel, "cpu": cpu, "cpus": cpus, "date": date, "load": load, "rounds": rounds })
    }

    pub(crate) fn line(&self) -> String {
        let Self { kernel, cpu, cpus, date, load, rounds } = self;
        format!(
            "{date}, kernel {kernel}, {cpus} × {cpu}, load {load}; medians of {rounds} rounds (quartiles)"
        )
    }
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown CPU").trim().to_owned()
}

/// What this thread has had of its CPU: others that want it do not count.
pub(crate) fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Keeps this thread, and what it starts, on the last CPU that it may use: interrupts tend to be on the first.
pub(crate) fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU to run on")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Lets this thread run before all of the usual ones.
#[expect(unsafe_code, reason = "nix has no scheduling policies")]
pub(crate) fn before_others() -> Result<()> {
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
    ensure!(done == 0, "cannot set a real-time priority: {}", io::Error::last_os_error());
    Ok(())
}
