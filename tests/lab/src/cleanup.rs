//! What must not outlive this process, and its removal on return, panic, exit, SIGINT, SIGTERM and SIGHUP.
//!
//! A process killed by SIGKILL leaves namespaces behind (its children die with it); the next process that builds
//! a lab removes them, because their names carry the pid of the dead.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use crate::cgroup;

/// What names of ours begin with, in `/run/netns`, on bpffs, of control groups and in temporary directories.
pub(crate) const PREFIX: &str = "rsp-";
/// A file in a lab's directory that says: leave this one alone.
pub(crate) const KEPT: &str = "kept";

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

struct Registry {
    processes: BTreeSet<i32>,
    cgroups: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    dirs: BTreeSet<PathBuf>,
}

impl Registry {
    const EMPTY: Self = Self {
        processes: BTreeSet::new(),
        cgroups: BTreeSet::new(),
        namespaces: BTreeSet::new(),
        dirs: BTreeSet::new(),
    };
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry::EMPTY);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn add_process(pid: i32) {
    registry().processes.insert(pid);
}

pub(crate) fn forget_process(pid: i32) {
    registry().processes.remove(&pid);
}

pub(crate) fn add_cgroup(name: &str) {
    registry().cgroups.insert(name.to_owned());
}

pub(crate) fn remove_cgroup(name: &str) {
    registry().cgroups.remove(name);
    if !stays() {
        cgroup::remove(name);
    }
}

pub(crate) fn add_namespace(name: &str) {
    registry().namespaces.insert(name.to_owned());
}

pub(crate) fn remove_namespace(name: &str) {
    registry().namespaces.remove(name);
    if !stays() {
        delete_namespace(name);
    }
}

pub(crate) fn add_dir(dir: &Path) {
    registry().dirs.insert(dir.to_owned());
}

pub(crate) fn remove_dir(dir: &Path) {
    registry().dirs.remove(dir);
    if !stays() {
        delete_dir(dir);
    }
}

/// Set when everything is to stay in place after this process ends.
static STAY: AtomicBool = AtomicBool::new(false);

/// From now on nothing of this process's labs is removed.
pub(crate) fn stay() {
    STAY.store(true, Ordering::Relaxed);
}

pub(crate) fn stays() -> bool {
    STAY.load(Ordering::Relaxed)
}

/// Removes everything registered. True if there was nothing.
fn remove_all() -> bool {
    if stays() {
        return true;
    }
    let Registry { processes, cgroups, namespaces, dirs } =
        std::mem::replace(&mut *registry(), Registry::EMPTY);
    end(&processes);
    cgroups.iter().for_each(|name| cgroup::remove(name));
    namespaces.iter().for_each(|ns| delete_namespace(ns));
    dirs.iter().for_each(|dir| delete_dir(dir));
    processes.is_empty() && cgroups.is_empty() && namespaces.is_empty() && dirs.is_empty()
}

/// Kills processes and waits until none of them can write a file any more.
fn end(processes: &BTreeSet<i32>) {
    let mut left: Vec<Pid> = processes.iter().map(|pid| Pid::from_raw(*pid)).collect();
    for pid in &left {
        kill(*pid, Signal::SIGKILL).ok();
    }
    let start = Instant::now();
    while !left.is_empty() && start.elapsed() < PATIENCE {
        // All in turn: the first process of a pid namespace ends after the others were waited for.
        left.retain(|pid| waitpid(*pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
        thread::sleep(Duration::from_millis(1));
    }
}

fn delete_namespace(name: &str) {
    // Nothing to be done about a failure: another process's `cleanup_stale` may have been faster.
    Command::new("ip").args(["netns", "del", name]).output().ok();
}

fn delete_dir(dir: &Path) {
    fs::remove_dir_all(dir).ok();
}

/// At a process's end: what is in a `static`, as a cluster that several tests use, is never dropped.
extern "C" fn at_exit() {
    remove_all();
}

/// Once per process: removes what dead processes left, and makes signals and the process's end remove what this one
/// creates.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        cleanup_stale();
        #[expect(unsafe_code, reason = "there is no other way to do something at a process's end")]
        // SAFETY: the function has the right type, and is there as long as the process.
        let registered = unsafe { libc::atexit(at_exit) };
        assert_eq!(registered, 0, "no memory for what is to be done at the end");
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        thread::spawn(move || {
            for signal in signals.forever() {
                eprintln!("signal {signal}: cleaning up");
                // Again for what the other threads made meanwhile.
                while !remove_all() {}
                emulate_default_handler(signal).ok();
            }
        });
    });
}

/// Removes the namespaces, processes in them, control groups and directories of labs whose process is dead, except kept ones.
///
/// Returns the names of what it removed.
pub fn cleanup_stale() -> Vec<String> {
    remove_labs(false)
}

/// Removes labs that were kept after their process ended ([`crate::Lab::keep`]).
///
/// Returns the names of what it removed.
pub fn cleanup_kept() -> Vec<String> {
    remove_labs(true)
}

/// Removes labs of dead processes, or those that were kept.
fn remove_labs(kept: bool) -> Vec<String> {
    let mut removed = Vec::new();
    let selected = |name: &str| {
        lab_of(name).is_some_and(|(lab, pid)| match lab_dir(lab).join(KEPT).exists() {
            true => kept,
            false => !kept && !Path::new(&format!("/proc/{pid}")).exists(),
        })
    };
    for name in names_in(Path::new("/run/netns")).filter(|n| selected(n)) {
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        for pid in pids.iter().flat_map(|o| o.stdout.split(|b| *b == b'\n')) {
            if let Some(pid) = std::str::from_utf8(pid).ok().and_then(|s| s.trim().parse().ok()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        delete_namespace(&name);
        removed.push(name);
    }
    for name in cgroup::names().into_iter().filter(|n| selected(n)) {
        cgroup::remove(&name);
        removed.push(name);
    }
    // The labs' own directories last: they hold the marks of the kept ones.
    for parent in [PathBuf::from(crate::BPFFS), std::env::temp_dir()] {
        for name in names_in(&parent).filter(|n| selected(n)) {
            delete_dir(&parent.join(&name));
            removed.push(name);
        }
    }
    removed
}

/// Where a lab named `rsp-<pid>-<n>` keeps its files.
pub(crate) fn lab_dir(lab: &str) -> PathBuf {
    std::env::temp_dir().join(lab)
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// The lab's name and its process's pid, from `rsp-<pid>-<n>` or `rsp-<pid>-<n>-<role>`.
fn lab_of(name: &str) -> Option<(&str, u32)> {
    let rest = name.strip_prefix(PREFIX)?;
    let (pid, rest) = rest.split_once('-')?;
    let n = rest.split('-').next()?;
    n.parse::<u32>().ok()?;
    let len = PREFIX.len() + pid.len() + 1 + n.len();
    Some((name.get(..len)?, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_lab_and_pid() {
        assert_eq!(lab_of("rsp-77-0-switch"), Some(("rsp-77-0", 77)));
        assert_eq!(lab_of("rsp-77-12"), Some(("rsp-77-12", 77)));
        for other in ["rsp-x-0-a", "rsp-77", "rsp-77-a", "responder", "mine-77-0"] {
            assert_eq!(lab_of(other), None, "{other}");
        }
    }
}
