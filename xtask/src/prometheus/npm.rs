//! Packages of JavaScript, installed once and kept.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{
    build::workspace,
    kept::kept,
    step::say,
    tools::{self, Consent, on_path, run},
};

/// What is to be installed.
pub(super) struct Packages {
    /// The directory's name in the tool cache; another version needs another one.
    pub(super) name: &'static str,
    /// Where `package.json` is, and `package-lock.json` if there is one, below the workspace.
    pub(super) source: &'static str,
    /// For the user.
    pub(super) what: &'static str,
}

impl Packages {
    /// The directory of `node_modules`, which are installed unless they have been.
    ///
    /// # Errors
    ///
    /// There is no npm and it may not or cannot be installed, or the packages cannot be had.
    pub(super) fn ensure(&self, consent: Consent) -> Result<PathBuf> {
        kept(self.name, |place| {
            if on_path("npm").is_none() {
                tools::install(&["nodejs", "npm"], consent)?;
            }
            say(format!("npm installs {}, once", self.what));
            let source = workspace().join(self.source);
            let is_locked = source.join("package-lock.json").is_file();
            let files = ["package.json", "package-lock.json"].into_iter().take(1 + usize::from(is_locked));
            for file in files {
                fs::copy(source.join(file), place.join(file))?;
            }
            let mut npm = Command::new("npm");
            npm.arg(if is_locked { "ci" } else { "install" });
            npm.args([
                "--ignore-scripts",
                "--legacy-peer-deps",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]);
            run(npm.current_dir(place).stdin(Stdio::null()))?;
            Ok(place.to_owned())
        })
    }
}
