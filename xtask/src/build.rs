//! What cargo builds for the host, and where it is.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::tools::shown;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> PathBuf {
    // Set by `cargo xtask`; what was known when this was built is for the program run by itself.
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map(Path::to_owned).unwrap_or(package)
}

/// A cargo command in the workspace: the cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // About this package; tests and build scripts of others must not see them.
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

/// A program that cargo has built.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The directory of its package, where its tests expect to run.
    pub(crate) package: PathBuf,
    /// The name of its target.
    pub(crate) target: String,
    /// Whether it is tests, and no program that tests use.
    pub(crate) test: bool,
    /// Whether it is an integration test: a target of its own, not the tests in a library or program.
    pub(crate) integration: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Builds with these arguments of cargo and returns all programs that result.
///
/// # Errors
///
/// The build fails (cargo has said why), or cargo's messages cannot be read.
pub(crate) fn executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    executables_of(cargo().args(arguments))
}

/// The same with a command of [`cargo`] that builds.
///
/// # Errors
///
/// As [`executables`].
pub(crate) fn executables_of(command: &mut Command) -> Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics");
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(command), output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    messages.lines().filter_map(|line| executable(line).transpose()).collect()
}

fn executable(message: &str) -> Result<Option<Executable>> {
    let message: Value = serde_json::from_str(message).with_context(|| format!("cargo says `{message}`"))?;
    let (Some(path), Some(manifest)) = (message["executable"].as_str(), message["manifest_path"].as_str())
    else {
        return Ok(None);
    };
    let package = Path::new(manifest).parent().with_context(|| format!("{manifest} has no directory"))?;
    let kinds = message["target"]["kind"].as_array();
    Ok(Some(Executable {
        package: package.to_owned(),
        target: message["target"]["name"].as_str().unwrap_or_default().to_owned(),
        test: message["profile"]["test"] == true,
        integration: kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")),
        path: PathBuf::from(path),
    }))
}

/// Builds with these arguments of `cargo test` and returns the programs that are tests.
///
/// # Errors
///
/// As [`executables`].
pub(crate) fn tests(arguments: &[&str]) -> Result<Vec<Executable>> {
    let mut built = executables(&[&["test", "--no-run"], arguments].concat())?;
    built.retain(|executable| executable.test);
    Ok(built)
}

/// Builds the agent and returns where it is.
///
/// # Errors
///
/// As [`executables`].
pub(crate) fn agent() -> Result<PathBuf> {
    let built = executables(&["build", "--package", "responder-user", "--bin", "responder"])?;
    built.into_iter().map(|executable| executable.path).next().context("cargo built no agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let test = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"name":"random"},"profile":{"test":true},"executable":"/w/target/debug/deps/random-1"}"#;
        let found = executable(test).unwrap().unwrap();
        assert_eq!(found.package, Path::new("/w/tests"));
        assert_eq!(found.target, "random");
        assert!(found.integration && found.test);
        let used = test.replace("true", "false");
        assert!(!executable(&used).unwrap().unwrap().test);
        let library = r#"{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","executable":null}"#;
        assert!(executable(library).unwrap().is_none());
        assert!(executable("warning: no JSON").is_err());
    }
}
