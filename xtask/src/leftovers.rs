//! What tests may have left on the machine.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// What names of things that tests create begin with.
const PREFIX: &str = "rsp-";
/// Where such things are: namespaces, pins, links, files.
const PLACES: [&str; 4] = ["/run/netns", "/sys/fs/bpf", "/sys/class/net", "/tmp"];
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
    let things = PLACES
        .iter()
        .flat_map(|place| names(place))
        .filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(PREFIX)));
    things.chain(processes(mark)).collect()
}

fn names(place: &str) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Processes of the run, and agents of any: another user's environment cannot be seen without root.
fn processes(mark: &str) -> Vec<String> {
    let mark = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for process in names("/proc") {
        let read = |file: &str| fs::read(Path::new(&process).join(file)).unwrap_or_default();
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        let marked = read("environ").split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        if marked || name == "responder" {
            found.push(format!("process {} ({name})", process.trim_start_matches("/proc/")));
        }
    }
    found
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
        let is_seen = || look(&mark).iter().any(|found| found.starts_with(&pid));
        let deadline = Instant::now() + PATIENCE;
        // It is there before `exec` has given it its environment.
        while !is_seen() && Instant::now() < deadline {
            thread::yield_now();
        }
        let seen = is_seen();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen, "{pid}not found");
        assert!(before.new_since().iter().all(|left| !left.starts_with(&pid)));
    }
}
