//! What the kernel can do, found out by trying it: versions say little of kernels that distributions patch. Nothing is
//! attached, pinned or kept.
//!
//! What the agent can do without it simply tries when it attaches ([`super::xdp`], [`super::egress`]).

use std::fmt;

use aya::{
    maps::{Array, MapError, MapType},
    programs::{ProgramError, ProgramType, SchedClassifier, TcAttachType, Xdp, XdpMode},
    sys::{BpfHelper, is_helper_supported, is_map_supported},
};
use nix::{
    errno::Errno,
    sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

use super::chain;

// linux/bpf.h
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// It is in every network namespace, and has no driver.
const LOOPBACK: &str = "lo";

/// What the programs cannot be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuffer,
    /// `bpf_ktime_get_boot_ns`.
    BootClock,
    /// `BPF_F_MMAPABLE`.
    SharedMaps,
}

impl Required {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RingBuffer, Self::BootClock, Self::SharedMaps];

    /// What it is called in a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RingBuffer => "ring buffers",
            Self::BootClock => "CLOCK_BOOTTIME in programs",
            Self::SharedMaps => "maps in shared memory",
        }
    }

    /// What it is called in a table.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::RingBuffer => "ring buffers",
            Self::BootClock => "boot clock",
            Self::SharedMaps => "shared maps",
        }
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::RingBuffer => "conflicts are reported by them",
            Self::BootClock => "the deadline after which nothing is answered is on that clock",
            Self::SharedMaps => "slots and deadline are written without a system call",
        }
    }

    /// What it is called in the kernel, and the release of kernel.org that has it first.
    #[must_use]
    pub fn origin(self) -> &'static str {
        match self {
            Self::RingBuffer => "BPF_MAP_TYPE_RINGBUF, Linux 5.8",
            Self::BootClock => "bpf_ktime_get_boot_ns, Linux 5.8",
            Self::SharedMaps => "BPF_F_MMAPABLE, Linux 5.5",
        }
    }

    /// Tries.
    #[must_use]
    pub fn probe(self) -> Answer {
        match self {
            Self::RingBuffer => Answer::of(is_map_supported(MapType::RingBuf)),
            Self::BootClock => {
                Answer::of(is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_ktime_get_boot_ns))
            }
            Self::SharedMaps => match make_array(BPF_F_MMAPABLE) {
                Ok(()) => Answer::Yes,
                Err(error) if map_errno(&error) == Some(Errno::EINVAL) => Answer::No,
                Err(error) => Answer::Unknown(chain(&error)),
            },
        }
    }
}

/// Whether the kernel has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// It does not let itself be asked, for this reason.
    Unknown(String),
}

impl Answer {
    fn of<E: std::error::Error + 'static>(supported: Result<bool, E>) -> Self {
        match supported {
            Ok(true) => Self::Yes,
            Ok(false) => Self::No,
            Err(error) => Self::Unknown(chain(&error)),
        }
    }
}

/// The kernel cannot run the programs at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Lacking(Vec<Required>);

impl Lacking {
    /// What is missing for certain; `None` if nothing is, or it cannot be told.
    #[must_use]
    pub fn find() -> Option<Self> {
        let missing: Vec<_> = Required::ALL.into_iter().filter(|r| r.probe() == Answer::No).collect();
        (!missing.is_empty()).then_some(Self(missing))
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self.0.iter().map(|r| format!("{} ({})", r.name(), r.origin())).collect();
        write!(f, "this kernel does not have {}; nothing can stand in for them: ", list.join(" and "))?;
        f.write_str("boot a kernel that has them; every longterm kernel from 5.10 on does")
    }
}

/// Whether programs can be attached to interfaces by `bpf_link` (Linux 5.9), asked with a loaded program: to attach it
/// to the driver of the loopback interface, which has none, is refused in another way where there are no such links.
#[must_use]
pub fn xdp_links(program: &mut Xdp) -> Answer {
    match program.attach(LOOPBACK, XdpMode::Driver) {
        // Refused as a link.
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() != Some(libc::EPERM) => {
            Answer::Yes
        }
        // On EINVAL aya tries netlink, which is refused as well.
        Err(ProgramError::XdpError(_)) => Answer::No,
        Err(error) => Answer::Unknown(chain(&error)),
        // It has a driver now; dropped, it is detached.
        Ok(id) => program.take_link(id).map_or_else(|e| Answer::Unknown(chain(&e)), |_| Answer::Yes),
    }
}

/// Whether programs can be attached to what a link sends by TCX (Linux 6.6).
#[must_use]
pub fn tcx() -> Answer {
    match SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Egress) {
        Ok(_) => Answer::Yes,
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
            Answer::No
        }
        Err(error) => Answer::Unknown(chain(&error)),
    }
}

/// Where the kernel counts what maps and programs take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// As memory of the control group.
    Group,
    /// As locked memory of the user, of which this process can have so many bytes (before Linux 5.11).
    Locked(u64),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// Asks by making a map while nothing may be locked, after lifting the limit as far as possible. For a moment that is the limit of
/// this process, so this is for processes that make no maps meanwhile.
#[must_use]
pub fn memory() -> Counted {
    raise_memory_limit();
    let limit = |soft, hard| setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard);
    let unknown = |error: &(dyn std::error::Error + 'static)| Counted::Unknown(chain(error));
    let (soft, hard) = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok(limits) => limits,
        Err(error) => return unknown(&error),
    };
    if let Err(error) = limit(0, hard) {
        return unknown(&error);
    }
    let made = make_array(0);
    // aya lifts the limit, too, if a map is refused for it, and tries again.
    let was_lifted = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft != 0);
    if let Err(error) = limit(soft, hard) {
        return unknown(&error);
    }
    match made {
        Ok(()) if !was_lifted => Counted::Group,
        Ok(()) => Counted::Locked(soft),
        // Who may make no maps at all is refused in the same words.
        Err(error) if map_errno(&error) == Some(Errno::EPERM) => match make_array(0) {
            Err(error) if soft > 0 && map_errno(&error) == Some(Errno::EPERM) => unknown(&error),
            Ok(()) | Err(_) => Counted::Locked(soft),
        },
        Err(error) => unknown(&error),
    }
}

/// Lifts the limit of locked memory as far as this process may, which costs nothing where it is not held against maps.
pub fn raise_memory_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return;
    };
    if soft == RLIM_INFINITY {
        return;
    }
    // Above the hard limit needs CAP_SYS_RESOURCE; what is still missing the kernel says when it matters.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .or_else(|_| setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard))
        .ok();
}

fn make_array(flags: u32) -> Result<(), MapError> {
    Array::<_, u64>::create(1, flags).map(drop)
}

fn map_errno(error: &MapError) -> Option<Errno> {
    let MapError::CreateError { io_error, .. } = error else {
        return None;
    };
    io_error.raw_os_error().map(Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let text = Lacking(vec![Required::RingBuffer, Required::BootClock]).to_string();
        assert_eq!(
            text,
            "this kernel does not have ring buffers (BPF_MAP_TYPE_RINGBUF, Linux 5.8) and CLOCK_BOOTTIME in programs \
             (bpf_ktime_get_boot_ns, Linux 5.8); nothing can stand in for them: boot a kernel that has them; every \
             longterm kernel from 5.10 on does"
        );
    }
}
