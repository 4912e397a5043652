//! Files of an image. Whatever they were on this machine, in the image they are root's and have no times of their own.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File { content: Vec<u8>, executable: bool },
    Link(String),
}

impl Entry {
    fn mode(&self) -> u32 {
        match self {
            Self::Dir | Self::File { executable: true, .. } => 0o755,
            Self::File { executable: false, .. } => 0o644,
            Self::Link(_) => 0o777,
        }
    }
}

/// Files, links and directories by their paths, which have no slash in front. A map, so that their order is always the
/// same, directories first.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds a file, and the directories above it.
    pub(super) fn file(&mut self, path: &str, content: Vec<u8>, executable: bool) {
        self.add(path, Entry::File { content, executable });
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.add(path, Entry::Link(to.to_owned()));
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/') {
            self.0.insert(path[..at].to_owned(), Entry::Dir);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The size of a file, in bytes.
    pub(super) fn size(&self, path: &str) -> Option<usize> {
        match self.0.get(path)? {
            Entry::File { content, .. } => Some(content.len()),
            Entry::Dir | Entry::Link(_) => None,
        }
    }

    /// The size of all files, in bytes.
    pub(super) fn total(&self) -> usize {
        self.0.keys().filter_map(|path| self.size(path)).sum()
    }

    /// As a tar archive, everything of this time (seconds since 1970).
    ///
    /// # Errors
    ///
    /// A path is too long for it.
    pub(super) fn tar(&self, epoch: u64) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(entry.mode());
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(epoch);
            header.set_size(0);
            let added = match entry {
                Entry::Dir => {
                    header.set_entry_type(EntryType::Directory);
                    archive.append_data(&mut header, format!("{path}/"), [].as_slice())
                }
                Entry::File { content, .. } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, path, content.as_slice())
                }
                Entry::Link(to) => {
                    header.set_entry_type(EntryType::Symlink);
                    archive.append_link(&mut header, path, to)
                }
            };
            added.with_context(|| format!("{path} does not fit into an archive"))?;
        }
        Ok(archive.into_inner()?)
    }

    /// Writes all of it into a directory, which then holds nothing else.
    ///
    /// # Errors
    ///
    /// Something there cannot be removed or written.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(root)?,
        }
        for (path, entry) in &self.0 {
            let path = root.join(path);
            match entry {
                Entry::Dir => fs::create_dir(&path)?,
                Entry::File { content, .. } => fs::write(&path, content)?,
                Entry::Link(to) => {
                    symlink(to, &path)?;
                    continue; // it has no mode of its own
                }
            }
            fs::set_permissions(&path, Permissions::from_mode(entry.mode()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.link("usr/bin/other", "program");
        tree.file("usr/bin/program", b"program".to_vec(), true);
        tree.file("etc/text", b"text".to_vec(), false);
        tree
    }

    #[test]
    fn directories_come_first_and_all_is_root_s_and_of_one_time() {
        let tar = tree().tar(5).unwrap();
        let mut seen = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                (0, 0, 5),
                "{header:?}"
            );
            let path = entry.path().unwrap().display().to_string();
            seen.push((path, header.mode().unwrap()));
        }
        let wanted = [
            ("etc/", 0o755),
            ("etc/text", 0o644),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/other", 0o777),
            ("usr/bin/program", 0o755),
        ];
        assert_eq!(seen, wanted.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn a_directory_holds_the_same_and_nothing_older() {
        let root = env::temp_dir().join(format!("rsp-{}-tree", process::id()));
        let mut old = Tree::default();
        old.file("old", Vec::new(), false);
        old.write(&root).unwrap();
        tree().write(&root).unwrap();
        let program = fs::metadata(root.join("usr/bin/other")).unwrap();
        let left = root.join("old").exists();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((program.len(), program.permissions().mode() & 0o777, left), (7, 0o755, false));
    }
}
