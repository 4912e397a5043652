//! `cargo xtask vm-test`: the same tests on several kernels, each in a virtual machine.
//!
//! * `fetch`: packages of other suites; `kernel`, `qemu`: what of them.
//! * `suite`: which tests, and what they need; `initramfs`: packs it.
//! * `boot`: a machine; `report`: what is heard of it.

mod boot;
mod fetch;
mod initramfs;
mod kernel;
mod qemu;
mod report;
mod suite;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use ebpf_build::target_dir;

use self::{
    boot::{Heard, Machine},
    kernel::SERIES,
    qemu::Accelerator,
    report::Column,
    suite::Plan,
};
use crate::{
    build::workspace,
    image,
    step::{say, step},
    tools::{self, Consent},
    total::Total,
};

/// Run the tests on several kernels, each in a virtual machine
///
/// Fetches kernels of Debian's suites and QEMU into the tool cache, installing nothing of another suite. Boots one
/// machine for each kernel, in which the image's agent is tested.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these: 5.10, 6.1, 6.12, newest
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<String>,
    /// Look for newer kernels in their series
    #[arg(long)]
    update: bool,
    /// Test this agent instead of the image's
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// So many seconds for a test program
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// Run this command of a shell in the machines instead of tests, and show what it prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "filter")]
    shell: Option<String>,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// Only tests whose names (PROGRAM::TEST) contain one of these
    filter: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut total = Total::default();
    play(arguments, &mut total)?;
    println!("{total}");
    Ok(if total.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(arguments: &Arguments, total: &mut Total) -> Result<()> {
    let consent = Consent::new(arguments.yes);
    let series: Vec<&'static str> = match arguments.kernel.as_slice() {
        [] => SERIES.iter().map(|(series, _)| *series).collect(),
        named => named.iter().map(|name| known(name)).collect::<Result<_>>()?,
    };
    let qemu = step("QEMU", || {
        tools::install(&["lz4", "xz-utils", "zstd", "binutils"], consent)?;
        qemu::ensure_qemu(consent)
    })?;
    let kernels = step("kernels", || kernel::ensure_kernels(&series, arguments.update))?;
    let agent = match &arguments.program {
        Some(program) => program.clone(),
        None => {
            step("image", || image::ensure(consent))?;
            image::program()?
        }
    };
    let plan = match &arguments.shell {
        Some(command) => Plan::Command(command.clone(), arguments.limit),
        None => {
            let chosen = step("test programs", || suite::choose(&arguments.filter))?;
            if chosen.is_empty() {
                bail!("no test has such a name: {}", arguments.filter.join(" "));
            }
            Plan::Tests(chosen, arguments.limit)
        }
    };
    let place = target_dir(&workspace()).join("vm");
    let initramfs = place.join("initramfs.cpio");
    step("files", || {
        let files = suite::files(&plan, &kernels, &agent)?;
        let size = files.write(&initramfs)?;
        say(format!("{:.0} MB", size as f64 / 1e6));
        Ok(())
    })?;

    let accelerator = qemu::accelerator();
    let how = match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Tcg => "software emulation",
    };
    say(format!("QEMU {}, {how}", qemu.version));
    let columns = step("machines", || {
        let (sender, heard) = mpsc::channel();
        let mut columns = Vec::new();
        let mut machines = Vec::new();
        for (index, kernel) in kernels.iter().enumerate() {
            let console = place.join(format!("console-{}", kernel.series));
            columns.push(Column::new(kernel.short_version().to_owned()));
            machines.push(Machine::start(
                (&qemu, accelerator),
                kernel,
                &initramfs,
                &console,
                (index, sender.clone()),
            )?);
        }
        drop(sender);
        let mut open = machines.len();
        let deadline = Instant::now() + Duration::from_secs(3600);
        while open > 0 {
            match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((index, Heard::Line(fields))) => columns[index].line(&fields, total),
                Ok((index, Heard::End)) => {
                    open -= 1;
                    close(&mut columns[index], &machines[index], "it ended before its tests did", total);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    for (column, machine) in columns.iter_mut().zip(&machines) {
                        if column.took.is_none() {
                            close(column, machine, "its time is up", total);
                        }
                    }
                    open = 0;
                }
            }
        }
        Ok(columns)
    })?;
    if arguments.shell.is_none() {
        println!("{}", report::table(&columns, &plan.tests()));
    }
    Ok(())
}

fn close(column: &mut Column, machine: &Machine, why: &str, total: &mut Total) {
    column.close(why, total);
    if !column.done {
        say(format!("{}: the end of its console:\n{}", column.title, machine.last_words()));
    }
    if let Some(complaint) = machine.complaint() {
        say(format!("{}: the kernel complains:\n{complaint}", column.title));
        total.failed(format!("{}: the kernel complains", column.title));
    }
    let took = column.took.unwrap_or_default();
    say(format!("{}: ended after {:.1} s", column.title, took.as_secs_f64()));
}

fn known(name: &str) -> Result<&'static str> {
    match SERIES.iter().find(|(series, _)| *series == name) {
        Some((series, _)) => Ok(series),
        None => bail!("--kernel {name}: there are {}", SERIES.map(|(series, _)| series).join(", ")),
    }
}
