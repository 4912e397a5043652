//! `cargo xtask vm-test`: the same tests on several kernels, each in a virtual machine.
//!
//! * `fetch`: packages of other suites; `kernel`, `qemu`: what of them.
//! * `choice`: which tests; `suite`: they and what they need; `initramfs`: packs it.
//! * `outside`: what they reach outside of themselves.
//! * `boot`: a machine; `fleet`: all of them; `report`: what is heard of them.

mod boot;
mod choice;
mod fetch;
mod fleet;
mod initramfs;
mod kernel;
mod outside;
mod qemu;
mod report;
mod suite;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use ebpf_build::target_dir;

use self::{choice::Plan, fleet::Fleet, kernel::SERIES, outside::Outside, qemu::Accelerator};
use crate::{
    build::{Executable, workspace},
    image, kubernetes,
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
    /// Only the selection that is part of `cargo xtask test`
    #[arg(long, conflicts_with_all = ["filter", "shell"])]
    short: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// Only tests whose names (PROGRAM::TEST) contain one of these
    filter: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let series: Vec<&'static str> = match arguments.kernel.as_slice() {
        [] => SERIES.iter().map(|(series, _)| *series).collect(),
        named => named.iter().map(|name| known(name)).collect::<Result<_>>()?,
    };
    let mut total = Total::default();
    let what = match &arguments.shell {
        Some(command) => What::Shell(command),
        None if arguments.short => What::Short,
        None => What::Tests(&arguments.filter),
    };
    let (update, limit) = (arguments.update, arguments.limit);
    let consent = Consent::new(arguments.yes);
    let agent = arguments.program.clone();
    let programs = || kubernetes::ensure(consent).map(OsString::from);
    let wanted = Wanted { series, update, agent, what, limit, programs: &programs, environment: &[] };
    wanted.play(consent, &mut total)?;
    println!("{total}");
    Ok(if total.is_good() || total.only_skipped() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a test program is of use only in these machines.
pub(crate) fn is_for_machines(program: &Executable) -> bool {
    program.target.starts_with("vm_")
}

/// Tests a selection on all kernels, for `cargo xtask test`: with the agent of the image that it has built. What cannot
/// run here is counted as skipped.
///
/// # Errors
///
/// Something does not build.
pub(crate) fn short(
    consent: Consent,
    environment: &[(&'static str, OsString)],
    total: &mut Total,
) -> Result<()> {
    let agent = image::program()?;
    if !agent.is_file() {
        total.skipped("vm-test", "needs the image, which could not be built");
        return Ok(());
    }
    let built = environment.iter().find(|(name, _)| *name == kubernetes::VARIABLE);
    let programs = || built.map(|(_, dir)| dir.clone()).context("they could not be built");
    Wanted {
        series: SERIES.iter().map(|(series, _)| *series).collect(),
        update: false,
        agent: Some(agent),
        what: What::Short,
        limit: 240,
        programs: &programs,
        environment,
    }
    .play(consent, total)
}

fn known(name: &str) -> Result<&'static str> {
    match SERIES.iter().find(|(series, _)| *series == name) {
        Some((series, _)) => Ok(series),
        None => bail!("--kernel {name}: there are {}", SERIES.map(|(series, _)| series).join(", ")),
    }
}

/// What the machines are to do.
enum What<'a> {
    /// All tests whose names contain one of these.
    Tests(&'a [String]),
    /// A selection.
    Short,
    /// A command of a shell.
    Shell(&'a str),
}

struct Wanted<'a> {
    series: Vec<&'static str>,
    update: bool,
    /// By default the image's, which is built.
    agent: Option<PathBuf>,
    what: What<'a>,
    /// Seconds for one test program.
    limit: u64,
    /// The directory of etcd and the API server.
    programs: &'a dyn Fn() -> Result<OsString>,
    /// For the machines' processes.
    environment: &'a [(&'static str, OsString)],
}

impl Wanted<'_> {
    fn play(self, consent: Consent, total: &mut Total) -> Result<()> {
        let found = step("QEMU and kernels", || {
            let qemu = qemu::ensure_qemu(consent)?;
            tools::install(&["binutils", "lz4", "xz-utils", "zstd"], consent)?;
            Ok((qemu, kernel::ensure_kernels(&self.series, self.update)?))
        });
        let (qemu, kernels) = match found {
            Ok(found) => found,
            Err(error) => {
                let reason = format!("{error:#}").replace('\n', " ");
                for series in &self.series {
                    total.skipped(format!("vm-test {series}"), &reason);
                }
                return Ok(());
            }
        };
        let agent = match &self.agent {
            Some(program) => program.clone(),
            None => {
                step("image", || image::ensure(consent))?;
                image::program()?
            }
        };
        let plan = self.plan()?;
        let outside = self.outside(&plan)?;
        let place = target_dir(&workspace()).join("vm");
        let initramfs = place.join("initramfs.cpio");
        step("files", || {
            let size = suite::files(&plan, &kernels, &agent, outside.is_some())?.write(&initramfs)?;
            say(format!("{:.0} MB", size as f64 / 1e6));
            Ok(())
        })?;

        let accelerator = qemu::accelerator();
        let how = match accelerator {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "software emulation",
        };
        let columns = step(&format!("machines (QEMU {}, {how})", qemu.version), || {
            let limit = Duration::from_secs(self.limit);
            let (outside, environment) = (outside.as_ref(), self.environment);
            let fleet =
                Fleet { qemu: &qemu, initramfs: &initramfs, place: &place, limit, outside, environment };
            fleet.run(&kernels, accelerator, total)
        })?;
        if let Plan::Tests(..) = plan {
            println!("{}", report::table(&columns, &plan.tests()));
        }
        Ok(())
    }

    /// What the machines are to reach outside of themselves. Without it, tests skip themselves that need it.
    fn outside(&self, plan: &Plan) -> Result<Option<Outside>> {
        if !plan.tests().iter().any(|test| test.starts_with(choice::OUTSIDE)) {
            return Ok(None);
        }
        match step("control plane", || (self.programs)()) {
            Ok(programs) => Ok(Some(Outside { lab: suite::lab()?, programs })),
            Err(error) => {
                say(format!("{error:#}"));
                Ok(None)
            }
        }
    }

    fn plan(&self) -> Result<Plan> {
        let chosen = match self.what {
            What::Shell(command) => return Ok(Plan::Command(command.to_owned(), self.limit)),
            What::Tests(filter) => step("test programs", || choice::choose_by(filter))?,
            What::Short => step("test programs", choice::choose_short)?,
        };
        if chosen.is_empty() {
            bail!("no test in the machines has such a name");
        }
        Ok(Plan::Tests(chosen, self.limit))
    }
}
