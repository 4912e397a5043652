//! The directory on bpffs that makes the datapath outlive the agent.
//!
//! ```text
//! /sys/fs/bpf/responder/          locked by the agent that runs
//!   successor/                    locked by an agent that waits to take over
//!   v3/                           the layout's version
//!     VIPS4 VIPS6 SLOTS …         maps
//!     progs/xdp-ID tx-ID          our programs, to tell them from others'
//!     links/xdp-IFINDEX           links; the kernel detaches what is unpinned and not held
//!     links/tx-IFINDEX
//! ```

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{programs::links::LinkError, sys::SyscallError};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use responder_common::layout::{LAYOUT_VERSION, MAPS};

use super::DatapathError;

/// Why the pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not on a BPF file system.
    #[error(
        "{path} is not on a BPF file system, so nothing can be pinned there; mount one (`mount -t bpf bpf \
         /sys/fs/bpf`) or name another directory with --bpffs"
    )]
    NoBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// A name that the file system does not take.
    #[error(
        "cannot create {path}: a BPF file system takes no dots in names; name another directory with --bpffs"
    )]
    Dots {
        /// The directory.
        path: PathBuf,
    },
    /// Pinned by a program with another map layout.
    #[error(
        "{path} holds maps of layout {found}, and this program has {ours}; they are not reinterpreted. Stop \
         the agent that uses them and remove them with `responder detach --bpffs {path}` of its version, or \
         name another directory with --bpffs",
        path = path.display(), ours = version_name()
    )]
    OtherLayout {
        /// The directory.
        path: PathBuf,
        /// The name of the other version's directory.
        found: String,
    },
    /// Another agent runs.
    #[error("another agent runs on {path}; stop it first")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PinsError {
    /// True if the directory is not there (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// So that the path means the same wherever it is shown or asked for.
fn absolute(path: &Path) -> Result<PathBuf, PinsError> {
    std::path::absolute(path).map_err(|source| PinsError::Io {
        action: "find",
        path: path.to_owned(),
        source,
    })
}

fn version_name() -> String {
    format!("v{LAYOUT_VERSION}")
}

/// The pin directory.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// A held lock; released when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock(Flock<fs::File>);

impl Pins {
    /// A directory that is not looked at.
    #[cfg(test)]
    pub(crate) fn unchecked(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory as it is, for looking at it.
    ///
    /// # Errors
    ///
    /// If it holds another layout.
    pub fn existing(root: &Path) -> Result<Option<Self>, PinsError> {
        let pins = Self { root: absolute(root)? };
        if !pins.root.is_dir() {
            return Ok(None);
        }
        pins.check_version()?;
        Ok(pins.maps_dir().is_dir().then_some(pins))
    }

    /// The directory, created if it is missing.
    ///
    /// # Errors
    ///
    /// If it is not on a BPF file system, holds another layout, or cannot be created.
    pub fn create(root: &Path) -> Result<Self, PinsError> {
        let root = absolute(root)?;
        let mut ancestor = root.as_path();
        let pins = Self { root: root.clone() };
        while !ancestor.exists() {
            ancestor = ancestor.parent().unwrap_or(Path::new("/"));
        }
        let on_bpffs = statfs(ancestor).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
        if !on_bpffs {
            return Err(PinsError::NoBpffs { path: root });
        }
        pins.check_version()?;
        for dir in [pins.links_dir(), pins.progs_dir(), pins.successor_dir()] {
            fs::create_dir_all(&dir).map_err(|source| {
                if source.kind() == io::ErrorKind::PermissionDenied && dir.to_string_lossy().contains('.') {
                    return PinsError::Dots { path: pins.root.clone() };
                }
                PinsError::Io { action: "create", path: dir, source }
            })?;
        }
        Ok(pins)
    }

    fn check_version(&self) -> Result<(), PinsError> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_version = name.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
            if is_version && name != version_name() {
                return Err(PinsError::OtherLayout { path: self.root.clone(), found: name });
            }
        }
        Ok(())
    }

    /// Takes the agent's lock if nobody has it.
    ///
    /// # Errors
    ///
    /// [`PinsError::Locked`] if somebody has.
    pub fn try_lock(&self) -> Result<Lock, PinsError> {
        lock(&self.root, FlockArg::LockExclusiveNonblock)
    }

    /// True if `lock` is on the directory as it is now, and not on one that was removed meanwhile.
    #[must_use]
    pub fn is_locked_by(&self, lock: &Lock) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (lock.0.metadata(), fs::metadata(&self.root)) {
            (Ok(locked), Ok(there)) => identity(locked) == identity(there),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Announces this process as the successor of the agent that runs, while the result is held.
    ///
    /// # Errors
    ///
    /// If the directory cannot be opened.
    pub fn announce_successor(&self) -> Result<Lock, PinsError> {
        lock(&self.successor_dir(), FlockArg::LockShared)
    }

    /// Waits for the agent's lock. Blocks the thread.
    ///
    /// # Errors
    ///
    /// If the directory cannot be opened.
    pub fn wait_for_lock(&self) -> Result<Lock, PinsError> {
        lock(&self.root, FlockArg::LockExclusive)
    }

    /// True if somebody holds [`Pins::announce_successor`].
    #[must_use]
    pub fn successor_waits(&self) -> bool {
        matches!(lock(&self.successor_dir(), FlockArg::LockExclusiveNonblock), Err(PinsError::Locked { .. }))
    }

    /// Where all is pinned.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the maps are.
    #[must_use]
    pub fn maps_dir(&self) -> PathBuf {
        self.root.join(version_name())
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps_dir().join(name)
    }

    /// True if an agent runs or has run here.
    #[must_use]
    pub fn in_use(&self) -> bool {
        MAPS.iter().any(|name| self.map(name).exists())
    }

    /// Where links are.
    #[must_use]
    pub fn links_dir(&self) -> PathBuf {
        self.maps_dir().join("links")
    }

    /// Where programs are.
    #[must_use]
    pub fn progs_dir(&self) -> PathBuf {
        self.maps_dir().join("progs")
    }

    fn successor_dir(&self) -> PathBuf {
        self.root.join("successor")
    }

    /// The pin of the XDP link of an interface.
    #[must_use]
    pub fn xdp_link(&self, ifindex: u32) -> PathBuf {
        self.links_dir().join(format!("xdp-{ifindex}"))
    }

    /// The pin of the egress link of an interface.
    #[must_use]
    pub fn tx_link(&self, ifindex: u32) -> PathBuf {
        self.links_dir().join(format!("tx-{ifindex}"))
    }

    /// Interfaces with a pinned link whose name begins with `kind` ("xdp" or "tx").
    #[must_use]
    pub fn linked(&self, kind: &str) -> Vec<u32> {
        let prefix = format!("{kind}-");
        names(&self.links_dir()).iter().filter_map(|n| n.strip_prefix(&prefix)?.parse().ok()).collect()
    }

    /// Removes all pins; the kernel detaches pinned links. The directory goes, too, unless it holds something of
    /// others or is the file system itself.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove(&self) -> Result<(), PinsError> {
        for dir in [self.links_dir(), self.progs_dir(), self.maps_dir()] {
            for name in names(&dir) {
                let path = dir.join(name);
                if path.is_dir() {
                    continue; // one of those that come later
                }
                fs::remove_file(&path).map_err(|source| PinsError::Io { action: "remove", path, source })?;
            }
            remove_dir(dir)?;
        }
        remove_dir(self.successor_dir())?;
        match remove_dir(self.root.clone()) {
            Err(PinsError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}

fn remove_dir(path: PathBuf) -> Result<(), PinsError> {
    match fs::remove_dir(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| PinsError::Io { action: "remove", path, source }),
    }
}

/// The names in a directory; none if it cannot be read.
#[must_use]
pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn lock(dir: &Path, how: FlockArg) -> Result<Lock, PinsError> {
    let error = |source: io::Error| PinsError::Io { action: "lock", path: dir.to_owned(), source };
    let file = fs::File::open(dir).map_err(error)?;
    match Flock::lock(file, how) {
        Ok(held) => Ok(Lock(held)),
        Err((_, Errno::EWOULDBLOCK)) => Err(PinsError::Locked { path: dir.to_owned() }),
        Err((_, errno)) => Err(error(errno.into())),
    }
}

/// Opens whatever is pinned at `path` (`BPF_OBJ_GET`); aya has it only for objects whose kind is known.
///
/// # Errors
///
/// If there is nothing, or the kernel refuses.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that this command has (include/uapi/linux/bpf.h).
    #[repr(C)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    const BPF_OBJ_GET: libc::c_long = 7;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads `attr` of the given size and the string, both of which live until it returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<ObjGet>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Removes a pinned link; the kernel detaches it.
pub(super) fn unpin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DatapathError::Link {
            action: "unpin",
            path: path.to_owned(),
            source: LinkError::SyscallError(SyscallError { call: "unlink", io_error: e }),
        }),
        _ => Ok(()),
    }
}
