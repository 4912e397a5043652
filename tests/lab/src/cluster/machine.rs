//! A node's own mounts, processes and host name: what ends when it crashes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{
    cleanup,
    ns::{COMMAND_DEADLINE, NetNs},
    process::{Process, SharedChild},
    start::{Namespaces, Place},
};

/// What the first process does before it says "up". Nothing of it is seen outside. `$1` is the host's name, `$2` its
/// [`disk`](super::disk), if it has one.
const INIT: &str = "set -e
mount --make-rprivate /
mount -t proc proc /proc
[ -z \"$2\" ] || mount --rbind /sys/fs/cgroup \"$2/cgroup\"
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
if [ -n \"$2\" ]; then
    mount --rbind \"$2/cgroup\" /sys/fs/cgroup
    umount -R \"$2/cgroup\"
    for dir in lib log; do mount --bind \"$2/$dir\" \"/var/$dir\"; done
    cd \"$2/sysctl\"
    for key in */* */*/*; do [ -d \"$key\" ] || mount --bind \"$key\" \"/proc/sys/$key\"; done
    cd /
fi
# As a host has it that runs containers.
mount --make-rshared /
echo \"$1\" > /proc/sys/kernel/hostname
echo up
# Whoever has lost its parent becomes a child of this shell, which waits for it, too.
sleep infinity & wait";

/// A computer that can be switched off and on; its network interfaces are not part of it.
#[derive(Debug)]
pub(super) struct Machine {
    name: String,
    ns: NetNs,
    disk: Option<PathBuf>,
    up: Mutex<Option<Up>>,
}

#[derive(Debug)]
struct Up {
    init: Process,
    namespaces: Arc<Namespaces>,
    /// Everything that was started here. The kernel ends the first process only after all others were waited for.
    started: Vec<SharedChild>,
}

impl Machine {
    /// One that is switched off, with what was put on its [`disk`](super::disk), if it has one.
    pub(super) fn new(name: &str, ns: NetNs, disk: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), ns, disk, up: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches it on: an empty `/run`, an empty bpffs, no processes.
    pub(super) fn boot(&self) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", INIT, "init", &self.name]);
        command.arg(self.disk.as_deref().unwrap_or(Path::new("")));
        let mut init = Process::spawn(&self.ns, Place::Own, command)?;
        init.wait_line(COMMAND_DEADLINE, |line| line == "up")?;
        let namespaces = Arc::new(Namespaces::of(init.pid())?);
        *self.lock() = Some(Up { init, namespaces, started: Vec::new() });
        Ok(())
    }

    /// Its first process, by its id outside.
    pub(super) fn pid(&self) -> Result<u32> {
        let guard = self.lock();
        let up = guard.as_ref().with_context(|| format!("node {} is switched off", self.name))?;
        Ok(up.init.pid())
    }

    /// Starts a program in it.
    pub(super) fn spawn(&self, command: Command) -> Result<Process> {
        let mut guard = self.lock();
        let up = guard.as_mut().with_context(|| format!("node {} is switched off", self.name))?;
        let process = Process::spawn(&self.ns, Place::Of(Arc::clone(&up.namespaces)), command)?;
        up.started.retain(SharedChild::is_held);
        up.started.push(process.shared());
        Ok(process)
    }

    /// Switches it off, as a power failure does; nothing if it is off. `at_once` is done after that and before its
    /// processes are waited for.
    pub(super) fn kill(&self, at_once: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(mut up) = self.lock().take() else {
            return at_once();
        };
        up.init.signal(Signal::SIGKILL)?;
        let done = at_once();
        for child in &up.started {
            child.reap().with_context(|| format!("waiting for a process of node {}", self.name))?;
        }
        up.init.kill()?;
        done
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !cleanup::stays() {
            // Whatever is left of it goes with its namespaces.
            self.kill(|| Ok(())).ok();
        }
    }
}
