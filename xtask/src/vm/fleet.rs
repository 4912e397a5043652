//! All machines at once: started, listened to, given up when they are silent.

use std::{
    ffi::OsString,
    num::NonZero,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    boot::{Heard, Machine},
    kernel::Kernel,
    outside::{Outside, Plane},
    qemu::{Accelerator, Qemu},
    report::Column,
};
use crate::{step::say, total::Total};

/// How long a machine may take until its first process runs: half a minute is much, four at once on two processors that
/// do something else besides are slower.
const BOOT: Duration = Duration::from_secs(180);
/// The same with KVM, which takes a second where it works.
const BOOT_KVM: Duration = Duration::from_secs(30);
/// How long a machine may be silent beyond the time that a test program has.
const SILENCE: Duration = Duration::from_secs(60);

/// What all machines have in common.
pub(super) struct Fleet<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) initramfs: &'a Path,
    /// Where consoles go.
    pub(super) place: &'a Path,
    /// How long a test program may run.
    pub(super) limit: Duration,
    /// There if the machines are to reach an API server.
    pub(super) outside: Option<&'a Outside>,
    /// For the machines' processes.
    pub(super) environment: &'a [(&'static str, OsString)],
}

/// A machine, and what is heard of it.
struct Berth<'a> {
    kernel: &'a Kernel,
    column: Column,
    machine: Machine,
    /// Its own API server.
    _plane: Option<Plane>,
    accelerator: Accelerator,
    deadline: Instant,
}

impl Fleet<'_> {
    fn console(&self, kernel: &Kernel) -> PathBuf {
        self.place.join(format!("console-{}", kernel.series))
    }

    fn launch<'k>(
        &self,
        kernel: &'k Kernel,
        accelerator: Accelerator,
        to: (usize, Sender<(usize, Heard)>),
    ) -> Result<Berth<'k>> {
        let column = Column::new(kernel.short_version().to_owned());
        let plane = self.outside.map(|outside| outside.plane(self.environment)).transpose()?;
        let console = self.console(kernel);
        let machine = Machine::start(self, kernel, accelerator, &console, plane.as_ref(), to)?;
        let patience = if accelerator == Accelerator::Kvm { BOOT_KVM } else { BOOT };
        Ok(Berth { kernel, column, machine, _plane: plane, accelerator, deadline: Instant::now() + patience })
    }

    /// Boots a machine for each kernel, as many at once as there are processors, and returns when all have ended.
    ///
    /// # Errors
    ///
    /// The emulator cannot be started.
    pub(super) fn run(
        &self,
        kernels: &[Kernel],
        accelerator: Accelerator,
        total: &mut Total,
    ) -> Result<Vec<Column>> {
        let (sender, heard): (_, Receiver<(usize, Heard)>) = mpsc::channel();
        let mut berths: Vec<Berth<'_>> = Vec::new();
        let mut waiting = kernels.iter();
        loop {
            // More at once than there are processors, and tests that wait for something do so for too long.
            while berths.iter().filter(|berth| berth.is_open()).count() < at_once() {
                let Some(kernel) = waiting.next() else { break };
                let to = (berths.len(), sender.clone());
                berths.push(self.launch(kernel, accelerator, to)?);
            }
            let open = berths.iter().filter(|berth| berth.is_open());
            let Some(deadline) = open.map(|berth| berth.deadline).min() else { break };
            match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((index, Heard::Line(fields))) => {
                    let berth = &mut berths[index];
                    berth.column.line(&fields, total);
                    berth.deadline = Instant::now() + self.limit + SILENCE;
                }
                Ok((index, Heard::End)) if berths[index].is_open() => {
                    berths[index].close("it ended before its tests did", total);
                }
                Ok((_, Heard::End)) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let now = Instant::now();
                    let late =
                        (0..berths.len()).filter(|i| berths[*i].is_open() && berths[*i].deadline <= now);
                    for index in late.collect::<Vec<_>>() {
                        let berth = &mut berths[index];
                        if berth.accelerator == Accelerator::Kvm && berth.column.ready.is_none() {
                            say(format!("{}: KVM does not work here: software", berth.column.title));
                            let again = (index, sender.clone());
                            *berth = self.launch(berth.kernel, Accelerator::Tcg, again)?;
                        } else {
                            berth.close("nothing has been heard of it for too long", total);
                            berth.machine.kill();
                        }
                    }
                }
            }
        }
        Ok(berths.into_iter().map(|berth| berth.column).collect())
    }
}

/// How many machines run at once.
fn at_once() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

impl Berth<'_> {
    fn is_open(&self) -> bool {
        self.column.took.is_none()
    }

    fn close(&mut self, why: &str, total: &mut Total) {
        let title = self.column.title.clone();
        self.column.close(why, total);
        if !self.column.done {
            say(format!("{title}: the end of its console:\n{}", self.machine.last_words()));
        }
        if let Some(complaint) = self.machine.complaint() {
            say(format!("{title}: the kernel complains:\n{complaint}"));
            total.failed(format!("vm {title}: the kernel complains"));
        }
        let took = self.column.took.unwrap_or_default();
        say(format!("{title}: ended after {:.1} s", took.as_secs_f64()));
    }
}
