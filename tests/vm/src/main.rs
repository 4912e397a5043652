//! The first process of a virtual machine: makes it a place where tests can run, runs what its plan says, and reports each
//! line on the second serial line.
//!
//! * `machine`: mounts, modules, the end.
//! * `plan`: what is to run; made by `cargo xtask vm-test`.
//! * `report`: the serial line.

mod machine;
mod plan;
mod report;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{plan::Step, report::Report};

/// Where a test writes why it skips itself.
const SKIPS: &str = "/run/skipped";

fn main() {
    let result = run();
    if let Err(error) = &result {
        // On the kernel's console: the report may be what does not work.
        eprintln!("responder-init: {error:#}");
    }
    machine::end();
}

fn run() -> Result<()> {
    machine::mount()?;
    let mut report = Report::open()?;
    let unloaded = machine::modules()?;
    machine::network()?;
    report.ready(&unloaded)?;
    let environment = plan::environment()?;
    for step in plan::steps()? {
        report.begin(&step.name)?;
        let start = Instant::now();
        let end = match play(&step, &environment, &mut report) {
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        for line in fs::read_to_string(SKIPS).unwrap_or_default().lines() {
            report.skipped(&step.name, line)?;
        }
        fs::remove_file(SKIPS).ok();
        report.end(&step.name, &end, start.elapsed())?;
    }
    report.done()
}

/// Runs one program, both outputs into the report. It ends with all its children when its time is up.
fn play(step: &Step, environment: &[(String, String)], report: &mut Report) -> Result<ExitStatus> {
    let (output, input) = std::io::pipe()?;
    let mut command = Command::new(&step.program);
    command.args(&step.arguments).envs(environment.iter().cloned()).env("RESPONDER_SKIP_LOG", SKIPS);
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", step.program))?;
    // Holds the writing ends of the pipe.
    drop(command);
    let group = Pid::from_raw(child.id().cast_signed());
    let ended = Mutex::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let start = Instant::now();
            while start.elapsed() < step.limit {
                thread::park_timeout(Duration::from_millis(500));
                if *ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
                    return false;
                }
            }
            killpg(group, Signal::SIGKILL).ok();
            true
        });
        let mut told = Ok(());
        for line in BufReader::new(File::from(std::os::fd::OwnedFd::from(output))).split(b'\n') {
            let Ok(line) = line else { break };
            told = told.and(report.line(&step.name, &String::from_utf8_lossy(&line)));
        }
        let status = child.wait();
        *ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        watch.thread().unpark();
        if watch.join().is_ok_and(|late| late) {
            report.line(&step.name, &format!("it ran for more than {} s", step.limit.as_secs()))?;
        }
        told?;
        Ok(status?)
    })
}
