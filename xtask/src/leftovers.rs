//! What tests may have left on the machine.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// What names of things that tests create begin with.
const PREFIX: &str = "rsp-";
/// Where such things are: namespaces, pins, links, control groups (of version 2, and of two controllers of version 1),
/// files.
const PLACES: [&str; 7] = [
    "/run/netns",
    "/sys/fs/bpf",
    "/sys/class/net",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/pids",
    "/tmp",
];
/// How long the kernel and dying processes may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A variable that all processes of one run have in their environment; its value is that of the run.
pub(crate) const MARK: &str = "RESPONDER_TEST_RUN";

/// What is there now.
pub(crate) struct Snapshot {
    mark: String,
    found: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the machine before the run that is marked so.
    pub(crate) fn take(mark: &str) -> Self {
        Self { mark: mark.to_owned(), found: look(mark) }
    }

    /// Everything that is there now and was not before, after a while in which it might go away.
    pub(crate) fn new_since(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let new: Vec<String> = look(&self.mark).difference(&self.found).cloned().collect();
            if new.is_empty() || Instant::now() > deadline {
                return new;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn look(mark: &str) -> BTreeSet<String> {
    let things = PLACES.iter().flat_map(|place| entries(place)).filter(|path| is_leftover(path, mark));
    things.chain(processes(mark)).collect()
}

fn entries(place: &str) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Whether a path is of a test, and not of one that someone else is running now: names go on with the pid of
/// their creator.
fn is_leftover(path: &str, mark: &str) -> bool {
    let Some(rest) = path.rsplit('/').next().and_then(|name| name.strip_prefix(PREFIX)) else {
        return false;
    };
    let pid = rest.split('-').next().unwrap_or_default();
    let creator = format!("/proc/{pid}");
    let is_number = pid.parse::<u32>().is_ok();
    !(is_number && Path::new(&creator).exists() && !is_of_run(&creator, mark))
}

/// The processes of the run, except those that have ended and wait for their parents to notice.
fn processes(mark: &str) -> Vec<String> {
    let ours = entries("/proc").into_iter().filter(|process| is_of_run(process, mark));
    let shown = |process: String| {
        let name = fs::read_to_string(format!("{process}/comm")).unwrap_or_default();
        format!("process {} ({})", process.trim_start_matches("/proc/"), name.trim())
    };
    ours.map(shown).collect()
}

/// Whether a process has the mark of the run. Without root, another user's environment cannot be read; then an
/// agent is taken for one of ours.
fn is_of_run(process: &str, mark: &str) -> bool {
    let mark = format!("{MARK}={mark}");
    match fs::read(format!("{process}/environ")) {
        Ok(environment) => environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::read_to_string(format!("{process}/comm")).is_ok_and(|name| name.trim() == "responder")
        }
        // Gone, or no process at all.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn finds_a_process_and_its_end() {
        let mark = format!("unit-{}", id());
        let before = Snapshot::take(&mark);
        let mut child = Command::new("sleep").arg("600").env(MARK, &mark).spawn().unwrap();
        let pid = format!("process {} ", child.id());
        let by_child = format!("/tmp/rsp-{}-0", child.id());
        let by_other = format!("/tmp/rsp-{}-0", id());
        let is_seen = || look(&mark).iter().any(|found| found.starts_with(&pid));
        let deadline = Instant::now() + PATIENCE;
        // It is there before `exec` has given it its environment.
        while !is_seen() && Instant::now() < deadline {
            thread::yield_now();
        }
        let seen = is_seen();
        let files = (is_leftover(&by_child, &mark), is_leftover(&by_other, &mark));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen, "{pid}not found");
        // Of this run, and of a living process that is not.
        assert_eq!(files, (true, false));
        assert!(is_leftover(&by_child, &mark), "its creator is dead");
        assert!(before.new_since().iter().all(|left| !left.starts_with(&pid)));
    }
}
