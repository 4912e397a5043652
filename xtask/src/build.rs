//! What cargo builds for the host, and where it is.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A build that is moved runs from its new place by `cargo xtask`, which sets this.
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| package.to_owned(), PathBuf::from);
    package.parent().map(Path::to_owned).unwrap_or(package)
}

/// A cargo command in the workspace: the cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // Set for this package only; seen by build scripts and tests of others, they would mislead.
    for (name, _) in env::vars_os() {
        let known = name.to_string_lossy();
        if known.starts_with("CARGO_PKG_")
            || known.starts_with("CARGO_MANIFEST_")
            || known == "CARGO_BIN_NAME"
        {
            command.env_remove(name);
        }
    }
    command
}
