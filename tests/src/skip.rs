//! Tests that need what this machine or user lacks name themselves instead of passing in silence.

use std::io::Write as _;

/// True if the test can run. Otherwise says that `test` was skipped, on standard output and in the file that
/// `RESPONDER_SKIP_LOG` names.
///
/// # Panics
///
/// If that file cannot be written.
#[must_use]
pub fn is_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    report(test, "needs root");
    false
}

/// Says that `test` was skipped and why.
///
/// # Panics
///
/// If the file that `RESPONDER_SKIP_LOG` names cannot be written.
pub fn report(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("RESPONDER_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|e| panic!("RESPONDER_SKIP_LOG={}: {e}", path.display()));
        writeln!(log, "{test}: {why}").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
