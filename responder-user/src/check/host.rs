//! The host as a whole: capabilities, clock, BPF file system, and what explains a refusal.

use std::{fs, io, path::Path};

use nix::sys::{
    resource::RLIM_INFINITY,
    statfs::{BPF_FS_MAGIC, statfs},
};

use super::{
    Finding,
    Verdict::{Bad, Limited, Ok as Fine},
    kernel,
};
use crate::{
    datapath::{
        DatapathError,
        pins::Pins,
        probe::{self, Counted, Lacking},
    },
    net::boot,
};

/// Capabilities by number (include/uapi/linux/capability.h), and what each is for.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (39, "CAP_BPF", "to load programs and make maps"),
    (38, "CAP_PERFMON", "without it the kernel refuses programs that compare pointers into packets"),
    (12, "CAP_NET_ADMIN", "to attach programs to interfaces"),
    (13, "CAP_NET_RAW", "to send announcements"),
];
/// It includes those in [`OF_SYS_ADMIN`].
const SYS_ADMIN: u32 = 21;
const OF_SYS_ADMIN: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];

pub(super) fn check(bpffs: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel::release(), clock(), capabilities(), lockdown(), file_system(bpffs)];
    findings.extend(kernel::check());
    findings
}

fn clock() -> Finding {
    match boot::namespace_offset() {
        0 => Finding::new("clock", Fine, "the agent and the programs read the same CLOCK_BOOTTIME"),
        offset => Finding::new("clock", Bad, ShiftedClock(offset).to_string()),
    }
}

/// The agent's clock is not the programs'.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process lives in a time namespace whose CLOCK_BOOTTIME is {0} s off, and the programs in the kernel read \
     the real one: deadlines would be off by as much; run it in the host's time namespace"
)]
pub struct ShiftedClock(pub i64);

/// The effective capabilities of this process.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_capabilities() -> Vec<(&'static str, &'static str)> {
    let Some(have) = effective() else {
        return Vec::new();
    };
    let has = |n: u32| have & 1 << n != 0;
    CAPABILITIES
        .iter()
        .filter(|(n, name, _)| !(has(*n) || OF_SYS_ADMIN.contains(name) && has(SYS_ADMIN)))
        .map(|(_, name, purpose)| (*name, *purpose))
        .collect()
}

fn capabilities() -> Finding {
    let missing = missing_capabilities();
    if missing.is_empty() {
        return Finding::new(
            "capabilities",
            Fine,
            "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW are there",
        );
    }
    let list: Vec<_> = missing.iter().map(|(name, purpose)| format!("{name} ({purpose})")).collect();
    Finding::new("capabilities", Bad, format!("missing: {}; run as root or grant them", list.join(", ")))
}

fn locked_down() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| text.contains("[confidentiality]"))
}

fn lockdown() -> Finding {
    if locked_down() {
        Finding::new(
            "lockdown",
            Limited,
            "the kernel is locked down for confidentiality; it may refuse BPF programs (see `load`)",
        )
    } else {
        Finding::new("lockdown", Fine, "BPF is not restricted by kernel lockdown")
    }
}

fn file_system(bpffs: &Path) -> Finding {
    let about = "BPF file system";
    match Pins::existing(bpffs) {
        Err(error) => return Finding::new(about, Bad, error.to_string()),
        Ok(Some(_)) => {
            return Finding::new(
                about,
                Fine,
                format!("{} is in use by an agent or left by one", bpffs.display()),
            );
        }
        Ok(None) => {}
    }
    let existing = bpffs.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    if statfs(existing).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC) {
        Finding::new(about, Fine, format!("{} can be made", bpffs.display()))
    } else {
        Finding::new(
            about,
            Bad,
            format!("{} is not on one; `mount -t bpf bpf /sys/fs/bpf`, or name --bpffs", bpffs.display()),
        )
    }
}

/// One sentence for an error that the host's state explains.
#[must_use]
pub fn explain_unfit(error: &anyhow::Error) -> Option<String> {
    let because = |why: String| format!("{why} ({})", short(&format!("{error:#}")));
    let codes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    if let Some(why) = codes.filter_map(explain_denied).next() {
        return Some(because(why));
    }
    // Only where the kernel has refused to load something there is a question.
    let refused = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(DatapathError::Load(_) | DatapathError::Program { .. } | DatapathError::Map { .. })
        )
    });
    refused.then(Lacking::find).flatten().map(|lacking| because(lacking.to_string()))
}

/// The same for an error of which only the words are left.
pub(super) fn explain_text(error: &str) -> String {
    let is = |code: &i32| error.contains(&format!("os error {code})"));
    match [libc::EPERM, libc::EACCES].into_iter().filter(is).find_map(explain_denied) {
        Some(why) => format!("{why} ({})", short(error)),
        None => complaint(error),
    }
}

/// The first line: what the verifier says comes after.
fn short(error: &str) -> &str {
    error.lines().next().unwrap_or(error)
}

/// The first line, and of what the verifier says, which is all that it has looked at, what it complains of: the last line before
/// its figures.
fn complaint(error: &str) -> String {
    let is_figure = |line: &&str| {
        ["verification time", "stack depth", "processed"].iter().any(|begin| line.starts_with(begin))
    };
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty() && !is_figure(line));
    let first = lines.next().unwrap_or(error);
    match lines.next_back() {
        Some(last) => format!("{first} … {last}"),
        None => first.to_owned(),
    }
}

/// Why the kernel has refused something with this error number.
fn explain_denied(code: i32) -> Option<String> {
    if code != libc::EPERM && code != libc::EACCES {
        return None;
    }
    let missing: Vec<_> = missing_capabilities().iter().map(|(n, p)| format!("{n} ({p})")).collect();
    if !missing.is_empty() {
        return Some(format!("this needs {}; run as root or grant it", missing.join(" and ")));
    }
    if locked_down() {
        return Some(
            "the kernel is locked down for confidentiality and refuses BPF programs; boot without \
             lockdown=confidentiality"
                .to_owned(),
        );
    }
    match probe::memory() {
        Counted::Locked(limit) if code == libc::EPERM && limit != RLIM_INFINITY => Some(format!(
            "this kernel counts maps as locked memory, of which {} KiB are allowed, and they need some ten MiB: lift the \
             limit (LimitMEMLOCK=infinity, `ulimit -l unlimited`), or grant CAP_SYS_RESOURCE, with which the agent \
             does it itself",
            limit / 1024
        )),
        Counted::Locked(_) | Counted::Group | Counted::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_s_complaint_is_found() {
        let error = "the kernel refuses program x: Verifier output: 0: (b7) r0 = 0\nR7 offset is outside of the packet\n\
            verification time 609 usec\nstack depth 256+0\nprocessed 5606 insns (limit 1000000)\n\n";
        assert_eq!(
            complaint(error),
            "the kernel refuses program x: Verifier output: 0: (b7) r0 = 0 … R7 offset is outside of the packet"
        );
        assert_eq!(complaint("no such file"), "no such file");
    }
}
