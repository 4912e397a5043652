//! What the documentation says is so, as far as a program can tell.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod claims;
mod commands;
mod monitoring;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All documents: those beside the workspace's manifest, and `docs`. Path and text.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dir in ["", "docs/", "docs/runbooks/"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                let path = format!("{dir}{name}");
                found.push((path.clone(), read(&path)));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The text between backticks in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
