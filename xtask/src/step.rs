//! What is being done, and how long it took, on standard output.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use anyhow::Result;

/// Tells something that belongs to the step that runs.
pub(crate) fn say(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        show(&format!("    {line}"));
    }
}

/// Runs a step: its title before, how long it took after.
///
/// # Errors
///
/// That of the step.
pub(crate) fn step<T>(title: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    show(&format!("==> {title}"));
    let start = Instant::now();
    let result = run();
    let end = if result.is_ok() { "done" } else { "failed" };
    show(&format!("    {end} in {:.1} s", start.elapsed().as_secs_f64()));
    result
}

/// Whoever reads this may have seen enough (`| head`); the work goes on, and so does what cleans up.
fn show(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}
