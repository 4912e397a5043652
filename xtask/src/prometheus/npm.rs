//! Packages of JavaScript, installed once and kept.

use std::{
    fs,
    path::PathBuf,
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result};
use ebpf_build::cache_dir;

use crate::{
    build::workspace,
    step::say,
    tools::{self, Consent, on_path, remove_abandoned, run},
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
        let cache = cache_dir()?;
        let place = cache.join(self.name);
        // It gets its name when it is complete.
        if place.is_dir() {
            return Ok(place);
        }
        if on_path("npm").is_none() {
            tools::install(&["nodejs", "npm"], consent)?;
        }
        say(format!("npm installs {}, once", self.what));
        let unfinished = format!("{}-installing-", self.name);
        remove_abandoned(&cache, &unfinished);
        let temporary = cache.join(format!("{unfinished}{}", process::id()));
        fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        let source = workspace().join(self.source);
        let installed = (|| {
            fs::copy(source.join("package.json"), temporary.join("package.json"))?;
            let is_locked = source.join("package-lock.json").is_file();
            if is_locked {
                fs::copy(source.join("package-lock.json"), temporary.join("package-lock.json"))?;
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
            run(npm.current_dir(&temporary).stdin(Stdio::null()))?;
            fs::rename(&temporary, &place).with_context(|| format!("cannot create {}", place.display()))
        })();
        if temporary.exists() {
            fs::remove_dir_all(&temporary)
                .with_context(|| format!("cannot remove {}", temporary.display()))?;
        }
        installed.map(|()| place)
    }
}
