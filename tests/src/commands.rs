//! The commands that the documents show: found, and run as they are written.

mod blocks;
mod desk;
mod shapes;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

pub use self::{
    blocks::{Block, Command, blocks, manifests},
    desk::Desk,
    shapes::shapes,
};

/// The project's directory.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents with commands for users, in the order in which they are read: path and text.
///
/// # Errors
///
/// If one cannot be read.
pub fn documents() -> Result<Vec<(String, String)>> {
    let mut paths: Vec<String> = Vec::new();
    for dir in ["docs", "docs/runbooks", "deploy"] {
        let mut names: Vec<String> = fs::read_dir(workspace().join(dir))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".md"))
            .collect();
        names.sort();
        paths.extend(names.into_iter().map(|name| format!("{dir}/{name}")));
    }
    // They say in short what the others explain.
    paths.extend(["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(str::to_owned));
    ensure!(paths.len() > 20, "{paths:?}");
    let read = |path: String| {
        let text = fs::read_to_string(workspace().join(&path)).with_context(|| path.clone())?;
        Ok((path, text))
    };
    paths.into_iter().map(read).collect()
}
