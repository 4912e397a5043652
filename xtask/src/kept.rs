//! What is built or fetched once, and kept outside of the tree.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};
use ebpf_build::cache_dir;

/// A file or directory of the tool cache, which is made unless it is there. `make` gets a directory to make it in, and says
/// which it is; it gets its name when it is complete.
///
/// # Errors
///
/// Those of `make`, or the cache cannot be written.
pub(crate) fn kept(name: &str, make: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let place = cache.join(name);
    if place.exists() {
        return Ok(place);
    }
    let unfinished = format!("{name}-building-");
    remove_abandoned(&cache, &unfinished);
    let temporary = cache.join(format!("{unfinished}{}", process::id()));
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let made = make(&temporary).and_then(|made| match fs::rename(made, &place) {
        // Somebody else was faster.
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
            Ok(())
        }
        other => other.with_context(|| format!("cannot create {}", place.display())),
    });
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    made.map(|()| place)
}

/// Removes what killed processes have left in the tool cache: directories named `prefix` and their pid.
pub(crate) fn remove_abandoned(cache: &Path, prefix: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Should that fail, it is in nobody's way.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    #[test]
    fn abandoned_builds_go() {
        let cache = env::temp_dir().join(format!("rsp-{}-abandoned", process::id()));
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let dirs =
            [format!("k-building-{}", dead.id()), format!("k-building-{}", process::id()), "k".to_owned()];
        dirs.iter().for_each(|dir| fs::create_dir_all(cache.join(dir)).unwrap());
        remove_abandoned(&cache, "k-building-");
        let left = dirs.map(|dir| cache.join(dir).exists());
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(left, [false, true, true]);
    }
}
