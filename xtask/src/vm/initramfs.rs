//! The guest's files: a newc archive, which the kernel unpacks into its memory.

use std::{
    collections::BTreeMap,
    fs,
    io::BufWriter,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Dir,
    Content(Vec<u8>, u32),
    /// A file of this machine.
    Copy(PathBuf, u32),
    Link(String),
    /// A character device.
    Device(u32, u32),
}

/// Files by their paths, which have no slash in front; directories come before what is in them.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<String, Entry>);

impl Files {
    /// With what every guest needs.
    pub(super) fn new() -> Self {
        let mut files = Self::default();
        // Tests work in /tmp; it is no mount, as a work tree under /tmp has files there, too.
        for dir in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "tmp", "var/tmp", "root"] {
            files.add(&format!("{dir}/."), Entry::Dir);
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            files.add(link, Entry::Link(format!("usr/{link}")));
        }
        files.add("var/run", Entry::Link("/run".into()));
        // The kernel opens it for the first process before anything is mounted.
        files.add("dev/console", Entry::Device(5, 1));
        files
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Dir);
        }
        if !path.ends_with("/.") {
            self.0.insert(path.to_owned(), entry);
        }
    }

    pub(super) fn content(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, Entry::Content(content.into(), 0o644));
    }

    /// A file of this machine, at another path.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let mode = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(path, Entry::Copy(from.to_owned(), mode.permissions().mode() & 0o777));
        Ok(())
    }

    /// A directory of this machine with all that is in it, at the path that it has here.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn copy_dir(&mut self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            match path.is_dir() {
                true => self.copy_dir(&path)?,
                false => self.copy(path.to_string_lossy().trim_start_matches('/'), &path)?,
            }
        }
        Ok(())
    }

    /// A program of this machine, and the libraries that it is linked with where its loader looks for them.
    ///
    /// # Errors
    ///
    /// It is not there, or `ldd` fails.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.copy(path, from)?;
        let output = Command::new("ldd").arg(from).output().context("cannot run ldd")?;
        // A static program has none, of which ldd complains.
        for library in String::from_utf8_lossy(&output.stdout).lines().filter_map(library) {
            let library = library.trim_start_matches('/');
            let place =
                if library.starts_with("usr/") { library.to_owned() } else { format!("usr/{library}") };
            if !self.0.contains_key(&place) {
                self.copy(&place, &Path::new("/").join(library))?;
            }
        }
        Ok(())
    }

    /// Writes the archive and returns its size in bytes.
    ///
    /// # Errors
    ///
    /// A file of this machine cannot be read, or the archive not be written.
    pub(super) fn write(&self, archive: &Path) -> Result<u64> {
        let file =
            fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
        let mut out = BufWriter::new(file);
        for (number, (path, entry)) in (1..).zip(&self.0) {
            match entry {
                Entry::Dir => record(&mut out, number, path, 0o040_755, (0, 0), &[])?,
                Entry::Link(to) => record(&mut out, number, path, 0o120_777, (0, 0), to.as_bytes())?,
                Entry::Device(major, minor) => {
                    record(&mut out, number, path, 0o020_600, (*major, *minor), &[])?
                }
                Entry::Content(content, mode) => {
                    record(&mut out, number, path, 0o100_000 | mode, (0, 0), content)?
                }
                Entry::Copy(from, mode) => {
                    let content =
                        fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
                    record(&mut out, number, path, 0o100_000 | mode, (0, 0), &content)?;
                }
            }
        }
        record(&mut out, 0, "TRAILER!!!", 0, (0, 0), &[])?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(file.metadata()?.len())
    }
}

/// From `ldd`: `name => /path (address)` or `/path (address)`.
fn library(line: &str) -> Option<&str> {
    let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
    let path = path.split(" (").next()?;
    path.starts_with('/').then_some(path)
}

/// One entry: thirteen numbers of eight hexadecimal digits, name and content, each filled up to a multiple of four.
fn record(
    out: &mut impl std::io::Write,
    inode: u32,
    path: &str,
    mode: u32,
    device: (u32, u32),
    content: &[u8],
) -> Result<()> {
    let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
    let name = u32::try_from(path.len() + 1)?;
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    let fill = |length: usize| &[0_u8; 3][..(4 - length % 4) % 4];
    write!(out, "{path}\0")?;
    out.write_all(fill(110 + path.len() + 1))?;
    out.write_all(content)?;
    Ok(out.write_all(fill(content.len()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record() {
        let mut out = Vec::new();
        record(&mut out, 7, "init", 0o100_755, (0, 0), b"hello").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("07070100000007000081ed"), "{text}");
        // 110 bytes of header, `init` and its end make 115, filled up by one; then the content, by three.
        assert_eq!(&text[110..], "init\0\0hello\0\0\0");
    }

    #[test]
    fn libraries() {
        assert_eq!(library("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)"), Some("/lib/x/libc.so.6"));
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(library("\tstatically linked"), None);
    }

    /// A work tree under /tmp had brought the directory along; one elsewhere did not.
    #[test]
    fn a_guest_has_what_programs_expect() {
        for dir in ["tmp", "var/tmp", "root", "usr/bin"] {
            assert_eq!(Files::new().0.get(dir), Some(&Entry::Dir), "{dir}");
        }
    }

    #[test]
    fn directories_come_first() {
        let mut files = Files::default();
        files.content("a/b/c", "x");
        assert_eq!(files.0.keys().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
    }
}
