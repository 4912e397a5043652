//! Following the static file.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
    recommended_watcher,
};
use tokio::sync::mpsc;

/// Tells when the file may have changed.
pub(super) struct FileWatch {
    changes: mpsc::UnboundedReceiver<()>,
    _watcher: RecommendedWatcher,
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
        Ok(Self { changes, _watcher: watcher })
    }

    /// Waits for a change.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while self.changes.try_recv().is_ok() {}
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
