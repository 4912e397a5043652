//! Naming programs that are not ours, so that an operator knows whose they are.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use aya::programs::{ProgramInfo, loaded_links, loaded_programs};

use super::pins::{names, open_pin};

/// Where pins are looked for.
const BPFFS: &str = "/sys/fs/bpf";
/// What libxdp (`xdp-loader`, xdp-tools) attaches; it runs others' programs one after the other.
const DISPATCHER: &str = "xdp_dispatcher";
/// Time for looking into other processes, which can be many, where the agent's loop waits.
const SHORT_SEARCH: Duration = Duration::from_millis(50);
/// The same where nothing waits.
const LONG_SEARCH: Duration = Duration::from_secs(10);

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its kernel id.
    pub id: u32,
    /// Its name, where the kernel tells it (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// What a dispatcher runs, by name, if it is one and has pinned them.
    pub members: Vec<String>,
    /// The kernel id of the link that attaches it, if one does and the kernel tells it.
    pub link: Option<u32>,
    /// A pin of it, or of a link that runs it, if one was found.
    pub pin: Option<PathBuf>,
    /// A process that has it open: name and id. Those of other PID namespaces are not seen.
    pub holder: Option<(String, u32)>,
}

impl Foreign {
    /// Finds out what can be known quickly of the program `id`.
    #[must_use]
    pub fn inspect(id: u32) -> Self {
        Self::find(id, SHORT_SEARCH)
    }

    /// Finds out what can be known of the program `id`, however many processes there are.
    #[must_use]
    pub fn inspect_thoroughly(id: u32) -> Self {
        Self::find(id, LONG_SEARCH)
    }

    fn find(id: u32, limit: Duration) -> Self {
        let name = loaded_programs()
            .flatten()
            .find(|info| info.id() == id)
            .and_then(|info| info.name_as_str().map(str::to_owned));
        let link = loaded_links().flatten().find(|link| link.program_id() == id).map(|link| link.id());
        let members = if name.as_deref() == Some(DISPATCHER) { members(id) } else { Vec::new() };
        let pin = find_pin(Path::new(BPFFS), id, 8);
        Self { id, name, members, link, pin, holder: holder(id, limit) }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XDP program id {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if !self.members.is_empty() {
            write!(f, " with programs {}", self.members.join(", "))?;
        }
        if let Some(link) = self.link {
            write!(f, " by link id {link}")?;
        }
        if let Some(pin) = &self.pin {
            write!(f, " pinned at {}", pin.display())?;
        }
        if let Some((name, pid)) = &self.holder {
            write!(f, " held by {name} (pid {pid})")?;
        }
        Ok(())
    }
}

/// Names of the programs that a dispatcher runs, in their order: libxdp pins them in `dispatch-IFINDEX-ID/progN-prog`.
fn members(dispatcher: u32) -> Vec<String> {
    let Some(dir) = find_dir(Path::new(BPFFS), &format!("-{dispatcher}"), 3) else {
        return Vec::new();
    };
    let mut pins: Vec<_> = names(&dir).into_iter().filter(|name| name.ends_with("-prog")).collect();
    pins.sort();
    let name = |pin: String| ProgramInfo::from_pin(dir.join(pin)).ok()?.name_as_str().map(str::to_owned);
    pins.into_iter().filter_map(name).collect()
}

fn find_dir(within: &Path, end: &str, depth: u32) -> Option<PathBuf> {
    let dirs: Vec<_> =
        names(within).into_iter().map(|name| within.join(name)).filter(|p| p.is_dir()).collect();
    let is_it = |dir: &&PathBuf| {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with("dispatch-") && name.ends_with(end)
    };
    if let Some(found) = dirs.iter().find(is_it) {
        return Some(found.clone());
    }
    if depth == 0 {
        return None;
    }
    dirs.iter().find_map(|dir| find_dir(dir, end, depth - 1))
}

/// A process that has the program, or a link that runs it, open. Looked for once: the agent asks again and again.
fn holder(id: u32, limit: Duration) -> Option<(String, u32)> {
    static KNOWN: Mutex<BTreeMap<u32, Option<(String, u32)>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().ok()?;
    known.entry(id).or_insert_with(|| find_holder(id, limit)).clone()
}

fn find_holder(id: u32, limit: Duration) -> Option<(String, u32)> {
    let begin = Instant::now();
    for pid in names(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        if begin.elapsed() > limit {
            return None;
        }
        let process = Path::new("/proc").join(pid.to_string());
        let holds = names(&process.join("fd")).iter().any(|fd| {
            let target = fs::read_link(process.join("fd").join(fd)).unwrap_or_default();
            let target = target.to_str().unwrap_or("");
            (target == "anon_inode:bpf_link" || target == "anon_inode:bpf-prog")
                && program_in(&process.join("fdinfo").join(fd)) == Some(id)
        });
        if holds {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
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
    program_in(Path::new(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd())))
}

/// The id of the program that a file descriptor is of, or of a link to it; this file is the only account that tells
/// programs, links and maps apart.
fn program_in(fdinfo: &Path) -> Option<u32> {
    let info = fs::read_to_string(fdinfo).ok()?;
    info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}
