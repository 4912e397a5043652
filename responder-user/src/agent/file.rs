//! Following the static file.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
    recommended_watcher,
};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

/// How often the file is looked at for what no event of its directory tells: it is a link and its target is
/// elsewhere, or the directory itself was replaced.
const LOOK: Duration = Duration::from_secs(2);

/// Tells when the file may have changed.
pub(super) struct FileWatch {
    file: PathBuf,
    /// The directory that is watched, and which one it was at the start.
    dir: PathBuf,
    watched: Option<Identity>,
    changes: mpsc::UnboundedReceiver<()>,
    look: Interval,
    /// The file as it was last seen; `None`: not there.
    seen: Option<(Identity, Version)>,
    _watcher: RecommendedWatcher,
}

/// Device and inode.
type Identity = (u64, u64);
/// Seconds and nanoseconds of the last change.
type Version = (i64, i64);

fn look_at(path: &Path) -> Option<(Identity, Version)> {
    let metadata = fs::metadata(path).ok()?;
    Some(((metadata.dev(), metadata.ino()), (metadata.ctime(), metadata.ctime_nsec())))
}

impl FileWatch {
    /// Watches the directory, because editors and Kubernetes replace the file instead of writing into it.
    pub(super) fn new(file: &Path) -> Result<Self> {
        let (tell, changes) = mpsc::unbounded_channel();
        let name: Option<OsString> = file.file_name().map(ToOwned::to_owned);
        let mut watcher = recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = event.as_ref().map_or(true, |event| {
                let ours = |path: &PathBuf| {
                    path.file_name() == name.as_deref()
                        // A mounted ConfigMap is switched by this link beside the files.
                        || path.file_name().is_some_and(|n| n == "..data")
                };
                is_finished(event) && event.paths.iter().any(ours)
            });
            if relevant {
                tell.send(()).ok(); // the agent may be ending
            }
        })?;
        let dir = match file.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        watcher
            .watch(dir, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch {} for changes of the static file", dir.display()))?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            file: file.to_owned(),
            dir: dir.to_owned(),
            watched: look_at(dir).map(|(identity, _)| identity),
            changes,
            look,
            seen: look_at(file),
            _watcher: watcher,
        })
    }

    /// Waits for a change.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.changes.recv() => break,
                _ = self.look.tick() => if self.changed_unseen() { break },
            }
        }
        while self.changes.try_recv().is_ok() {}
        self.seen = look_at(&self.file);
    }

    /// Whether the file has changed where the watched directory does not tell.
    fn changed_unseen(&self) -> bool {
        let same = look_at(&self.dir).map(|(identity, _)| identity) == self.watched;
        let target = fs::canonicalize(&self.file).ok();
        let here = target.is_none_or(|t| t.parent() == fs::canonicalize(&self.dir).ok().as_deref());
        !(same && here) && look_at(&self.file) != self.seen
    }
}

/// True for the end of a change. A file that is being written is not read.
fn is_finished(event: &notify::Event) -> bool {
    let finished = matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
    );
    // A link is complete when it is made, and nothing follows.
    finished || (event.kind.is_create() && event.paths.iter().any(|path| path.is_symlink()))
}
