//! What only root may read: who has it is the administrator, and thus root on this machine.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
    path::Path,
};

use anyhow::{Context as _, Result};

/// A token that nobody can guess.
pub(super) fn token() -> Result<String> {
    let mut random = [0; 16];
    let source = "/dev/urandom";
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut random))
        .with_context(|| format!("reading {source}"))?;
    let mut token = String::new();
    for byte in random {
        write!(token, "{byte:02x}")?;
    }
    Ok(token)
}

/// Makes a directory that only its owner enters.
pub(super) fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("creating {}", path.display()))
}

/// Writes a new file that only its owner reads.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}

/// Gives a directory and the files in it to somebody.
pub(super) fn give(path: &Path, (user, group): (u32, u32)) -> Result<()> {
    let give = |path: &Path| {
        chown(path, Some(user), Some(group))
            .with_context(|| format!("giving {} to user {user}", path.display()))
    };
    for entry in fs::read_dir(path)? {
        give(&entry?.path())?;
    }
    give(path)
}
