//! Tests that this machine cannot run.

use std::{env, fs, fs::OpenOptions, io::Write as _};

/// Says that `test` is skipped and why: on stdout, and as a line in the file `$RESPONDER_SKIP_LOG`, from which the
/// total is made.
///
/// # Panics
///
/// If that file cannot be written: a skip that nobody hears of would be a silent pass.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Some(path) = env::var_os("RESPONDER_SKIP_LOG") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut f| f.write_all(format!("{test}: {reason}\n").as_bytes()));
        written.unwrap_or_else(|e| panic!("RESPONDER_SKIP_LOG={}: {e}", path.display()));
    }
}

/// True as root. Otherwise skips `test`.
#[must_use]
pub fn root_or_skip(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(test, "needs root");
    }
    is_root
}

/// True if all `tools` are on PATH. Otherwise skips `test`, naming the first that is not.
#[must_use]
pub fn tools_or_skip(test: &str, tools: &[&str]) -> bool {
    let missing = missing(tools);
    if let Some(tool) = missing {
        skip(test, &format!("needs {tool}"));
    }
    missing.is_none()
}

/// Version of the running kernel: major and minor.
///
/// # Panics
///
/// If its release does not begin with them.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("{path} is {release:?}"),
    }
}

/// True if the kernel is of this version or a later one. Otherwise skips `test`, which needs `what`.
#[must_use]
pub fn kernel_or_skip(test: &str, since: (u32, u32), what: &str) -> bool {
    let (major, minor) = kernel();
    let has = (major, minor) >= since;
    if !has {
        skip(test, &format!("needs {what} (Linux {}.{}), this is Linux {major}.{minor}", since.0, since.1));
    }
    has
}

/// The first of these tools that is not on PATH.
pub(crate) fn missing<'a>(tools: &[&'a str]) -> Option<&'a str> {
    let dirs: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    tools.iter().find(|tool| !dirs.iter().any(|dir| dir.join(tool).is_file())).copied()
}
