//! Mounts, modules and the end of the machine.

use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount as mount_at},
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};

/// Files of modules and their parameters, in the order in which they are loaded.
const MODULES: &str = "modules";
/// Names the kernel's directory under /vm, on its command line.
const SERIES: &str = "vm.series=";
/// The address of the NIC that leads outside.
const OUTSIDE: &str = "02:00:00:00:0d:01";

/// What a machine has.
const MOUNTS: [(&str, &str, &str); 8] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", ""),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", "mode=755"),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Mounts it all.
pub(crate) fn mount() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("cannot create {place}"))?;
        mount_at(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    // So that the mounts of `ip netns` reach all.
    mount_at(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("cannot share the mounts")
}

/// What is for this machine's kernel.
pub(crate) fn dir() -> Result<PathBuf> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let series = line.split_whitespace().find_map(|word| word.strip_prefix(SERIES));
    Ok(Path::new("/vm").join(series.with_context(|| format!("no {SERIES} in {line:?}"))?))
}

/// Loads the modules; names those that the kernel does not take.
pub(crate) fn modules() -> Result<Vec<String>> {
    let path = dir()?.join(MODULES);
    let list = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let load = |path: &str, parameters: &str| -> Result<()> {
        Ok(finit_module(File::open(path)?, &CString::new(parameters)?, ModuleInitFlags::empty())?)
    };
    let mut unloaded = Vec::new();
    for line in list.lines() {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        if let Err(error) = load(path, parameters) {
            eprintln!("responder-init: {path}: {error:#}");
            let name = Path::new(path).file_stem().unwrap_or_default();
            unloaded.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(unloaded)
}

/// Gives the NIC to the outside its address, where there is one.
pub(crate) fn network() -> Result<()> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == OUTSIDE {
            let name = entry.file_name();
            for arguments in [["address", "add", "10.0.2.15/24", "dev"], ["link", "set", "up", "dev"]] {
                let status = Command::new("/usr/bin/ip").args(arguments).arg(&name).status()?;
                ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
            }
        }
    }
    Ok(())
}

/// Ends the machine. There is nobody to tell if that fails.
pub(crate) fn end() {
    sync();
    reboot(RebootMode::RB_AUTOBOOT).ok();
}
