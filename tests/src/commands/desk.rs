//! Where commands are run: a directory like the project's, and the programs under their plain names.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::paths;

use super::workspace;

/// A directory in which commands find what they name: `deploy`, `target/release/responder`, and what commands before
/// them have written.
#[derive(Debug)]
pub struct Desk {
    dir: PathBuf,
    words: Vec<(String, String)>,
}

impl Desk {
    /// Makes it at a place where nothing is yet. Of programs it has `responder`, and `sudo`, which only runs what follows.
    ///
    /// # Errors
    ///
    /// If files cannot be written, or there is no `responder`.
    pub fn create(dir: &Path) -> Result<Self> {
        let desk = Self { dir: dir.to_owned(), words: Vec::new() };
        for part in ["bin", "home", "target/release", "target/image"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("creating {}", dir.display()))?;
        }
        // A copy: commands may write there.
        let copied = Command::new("cp").arg("-r").arg(workspace().join("deploy")).arg(dir).status()?;
        ensure!(copied.success(), "cp: {copied}");
        let responder = fs::canonicalize(paths::responder()?)?;
        desk.link("target/release/responder", &responder)?;
        desk.link("bin/responder", &responder)?;
        desk.script("sudo", "exec \"$@\"")?;
        Ok(desk)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has a file of the directory be another one.
    ///
    /// # Errors
    ///
    /// If something is there already.
    pub fn link(&self, name: &str, to: &Path) -> Result<()> {
        symlink(to, self.dir.join(name)).with_context(|| format!("making {name}"))
    }

    /// Makes a program: lines of a shell.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// From now on a word that stands for something, such as `NODE`, is replaced.
    pub fn word(&mut self, word: &str, by: &str) {
        self.words.retain(|(known, _)| known != word);
        self.words.push((word.to_owned(), by.to_owned()));
    }

    /// A shell that runs a command as it is written, words that stand for something aside. That one program in a pipe
    /// fails is the command's failure, too.
    #[must_use]
    pub fn command(&self, text: &str) -> Command {
        let text = self.words.iter().fold(text.to_owned(), |text, (word, by)| replace(&text, word, by));
        let path = std::env::var("PATH").unwrap_or_default();
        // Only there, because who enters a node's mounts is in its root.
        let mut command = Command::new("env");
        command.arg("--chdir").arg(&self.dir).args(["bash", "-o", "pipefail", "-c", &text]);
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.dir.join("bin").display()));
        command.env("HOME", self.dir.join("home"));
        for name in ["RESPONDER_BPFFS", "RESPONDER_RUN_DIR", "KUBERNETES_SERVICE_HOST"] {
            command.env_remove(name);
        }
        command
    }
}

/// Replaces whole words.
fn replace(text: &str, word: &str, by: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(word) {
        let end = at + word.len();
        let alone = !rest[..at].ends_with(is_part) && !rest[end..].starts_with(is_part);
        done.push_str(&rest[..at]);
        done.push_str(if alone { by } else { word });
        rest = &rest[end..];
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn words_are_replaced_where_they_are_whole() {
        assert_eq!(replace("a --vips=VIP VIPS4 VIP/32", "VIP", "x"), "a --vips=x VIPS4 x/32");
        assert_eq!(replace("ln /usr/local/bin/a", "/usr/local/bin", "/b"), "ln /b/a");
        assert_eq!(replace("NODE", "NODE", "NODE"), "NODE");
    }
}
