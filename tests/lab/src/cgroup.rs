//! Control groups of our own, at the top of every hierarchy: version 1, version 2, or 1 with an idle 2 beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::cleanup;

/// What those who run pods want to control in version 2, where it is there.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];
/// How long the last processes of a group may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control group. It goes, with all below it, when this is dropped; the processes in it must have ended.
#[derive(Debug)]
pub(crate) struct Cgroup(String);

impl Cgroup {
    /// Makes it in all hierarchies.
    ///
    /// # Errors
    ///
    /// If there are none, or processes may not be controlled here, as in a container.
    pub(crate) fn create(name: String) -> Result<Self> {
        let hierarchies = hierarchies()?;
        ensure!(!hierarchies.is_empty(), "no control groups are mounted");
        cleanup::add_cgroup(&name);
        let group = Self(name);
        let version1 = hierarchies.iter().any(|hierarchy| hierarchy.has("memory"));
        for hierarchy in &hierarchies {
            let path = hierarchy.path.join(&group.0);
            let create = || fs::create_dir(&path).with_context(|| format!("creating {}", path.display()));
            match hierarchy.version2 {
                // It controls nothing; programs make of it what they like.
                true if version1 => {}
                true => {
                    delegate(&hierarchy.path)?;
                    create()?;
                    delegate(&path)?;
                }
                false => {
                    create()?;
                    if hierarchy.has("cpuset") {
                        inherit(&hierarchy.path, &path)?;
                    }
                }
            }
        }
        Ok(group)
    }

    /// Its path below each hierarchy's top, as kubelets want it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.0)
    }

    /// Removes what is below it.
    ///
    /// # Errors
    ///
    /// If a process is in there.
    pub(crate) fn clear(&self) -> Result<()> {
        let below = tops(&self.0)?.into_iter().flat_map(|top| children(&top)).collect::<Vec<_>>();
        below.iter().try_for_each(|path| remove_tree(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        cleanup::remove_cgroup(&self.0);
    }
}

/// Removes a group of this name wherever it is.
pub(crate) fn remove(name: &str) {
    for top in tops(name).unwrap_or_default() {
        // Nothing to be done about a failure.
        remove_tree(&top).ok();
    }
}

/// Names of the groups at the tops of the hierarchies.
pub(crate) fn names() -> Vec<String> {
    let paths = hierarchies().unwrap_or_default().into_iter().flat_map(|hierarchy| children(&hierarchy.path));
    let mut names: Vec<String> =
        paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The directories of a group of this name that exist; of version 1's, one for each controller.
fn tops(name: &str) -> Result<Vec<PathBuf>> {
    let tops = hierarchies()?.into_iter().map(|hierarchy| hierarchy.path.join(name));
    Ok(tops.filter(|top| top.is_dir()).collect())
}

/// The processes, by their ids outside of all namespaces, of the group at the end of which path is `last`, anywhere
/// below the group `name`.
pub(crate) fn processes(name: &str, last: &str) -> Result<Vec<i32>> {
    Ok(find(name, last)?.map_or_else(Vec::new, |dir| {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }))
}

/// Where the memory is controlled of the group at the end of which path is `last`, anywhere below the group `name`.
pub(crate) fn find(name: &str, last: &str) -> Result<Option<PathBuf>> {
    let all = hierarchies()?;
    let memory = all.iter().find(|h| h.has("memory")).or_else(|| all.iter().find(|h| h.version2));
    Ok(memory.and_then(|hierarchy| search(&hierarchy.path.join(name), last)))
}

fn search(dir: &Path, last: &str) -> Option<PathBuf> {
    children(dir).into_iter().find_map(|path| match path.file_name().is_some_and(|name| name == last) {
        true => Some(path),
        false => search(&path, last),
    })
}

/// A mounted hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hierarchy {
    path: PathBuf,
    version2: bool,
    /// With version 1 the controllers, among others.
    options: Vec<String>,
}

impl Hierarchy {
    /// Whether this is version 1's of a controller.
    fn has(&self, controller: &str) -> bool {
        !self.version2 && self.options.iter().any(|option| option == controller)
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::<Hierarchy>::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        // A hierarchy may be mounted in more than one place.
        let known = found.iter().any(|known| known.path == Path::new(path));
        if matches!(kind, "cgroup" | "cgroup2") && !known {
            found.push(Hierarchy { path: path.into(), version2: kind == "cgroup2", options });
        }
    }
    found
}

/// Version 2: groups below `dir` may be controlled.
fn delegate(dir: &Path) -> Result<()> {
    let there = fs::read_to_string(dir.join("cgroup.controllers"))
        .with_context(|| format!("reading {}", dir.display()))?;
    let place = dir.join("cgroup.subtree_control");
    let done = fs::read_to_string(&place).unwrap_or_default();
    let there: Vec<&str> = there.split_whitespace().collect();
    for controller in CONTROLLERS.into_iter().filter(|name| there.contains(name)) {
        if done.split_whitespace().all(|name| name != controller) {
            fs::write(&place, format!("+{controller}")).with_context(|| {
                format!(
                    "writing +{controller} to {} (in a container, its own processes are in the way)",
                    place.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Version 1: a new group may use no processor before it is told which.
fn inherit(from: &Path, to: &Path) -> Result<()> {
    ["cpuset.cpus", "cpuset.mems"].into_iter().try_for_each(|file| {
        let value = fs::read(from.join(file)).with_context(|| format!("reading {file}"))?;
        fs::write(to.join(file), value).with_context(|| format!("writing {file} of {}", to.display()))
    })
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group and all below it, waiting for processes that are about to end.
fn remove_tree(dir: &Path) -> Result<()> {
    children(dir).iter().try_for_each(|child| remove_tree(child))?;
    let start = Instant::now();
    loop {
        match fs::remove_dir(dir) {
            Err(_) if !dir.exists() => return Ok(()),
            Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            other => return other.with_context(|| format!("removing {}", dir.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions() {
        let mounts = "sysfs /sys sysfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let found = parse(mounts);
        let paths: Vec<_> = found.iter().map(|h| h.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"]);
        assert!(found[0].has("cpuacct") && found[1].has("memory") && !found[1].has("cpu"));
        assert!(found[2].version2 && !found[2].has("memory"));
    }
}
