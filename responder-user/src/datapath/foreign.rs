//! Naming programs that are not ours, so that an operator knows whose they are.

use std::{
    fmt, fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;

use super::pins::open_pin;

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its kernel id.
    pub id: u32,
    /// Its name, where the kernel tells it (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// A pin of it, or of a link that runs it, if one was found.
    pub pin: Option<PathBuf>,
}

impl Foreign {
    /// Finds out what can be known of the program `id`.
    #[must_use]
    pub fn inspect(id: u32) -> Self {
        let name = loaded_programs()
            .flatten()
            .find(|info| info.id() == id)
            .and_then(|info| info.name_as_str().map(str::to_owned));
        Self { id, name, pin: find_pin(Path::new("/sys/fs/bpf"), id, 8) }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XDP program id {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if let Some(pin) = &self.pin {
            write!(f, " pinned at {}", pin.display())?;
        }
        Ok(())
    }
}

/// Looks for a pin of the program or of a link to it.
fn find_pin(dir: &Path, id: u32, depth: u32) -> Option<PathBuf> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            dirs.push(path);
        } else if program_at(&path) == Some(id) {
            return Some(path);
        }
    }
    if depth == 0 {
        return None;
    }
    dirs.iter().find_map(|dir| find_pin(dir, id, depth - 1))
}

/// The id of the program that is pinned at `path`, or that a link pinned there runs.
fn program_at(path: &Path) -> Option<u32> {
    let fd = open_pin(path).ok()?;
    // The only account of a pinned object that tells programs, links and maps apart.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}
