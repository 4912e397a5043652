//! Counts what passed, failed and was skipped, from several runners.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::tools;

/// The total of all runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    passed: usize,
    failed: Vec<String>,
    /// The reason by name.
    skipped: BTreeMap<String, String>,
}

impl Total {
    /// Counts a check of our own.
    pub(crate) fn passed(&mut self) {
        self.passed += 1;
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, name: impl Into<String>) {
        self.failed.push(name.into());
    }

    /// Counts a check that did not run.
    pub(crate) fn skipped(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.skipped.insert(name.into(), reason.into());
    }

    /// Whether nothing failed, and something ran.
    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty() && self.passed > 0
    }

    /// Whether there was nothing but what cannot run here.
    pub(crate) fn only_skipped(&self) -> bool {
        self.failed.is_empty() && self.passed == 0 && !self.skipped.is_empty()
    }

    /// Takes tests out of those that passed: they have said `name: reason`, one a line, and ended well.
    pub(crate) fn take_out_skipped(&mut self, log: &str) {
        for line in log.lines().filter(|line| !line.trim().is_empty()) {
            let (name, reason) = line.split_once(": ").unwrap_or((line, "no reason given"));
            if self.skipped.insert(name.to_owned(), reason.to_owned()).is_none() {
                self.passed = self.passed.saturating_sub(1);
            }
        }
    }
}

/// Names first, then the numbers alone on the last line.
impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, reason) in &self.skipped {
            writeln!(f, "skipped: {name}: {reason}")?;
        }
        for name in &self.failed {
            writeln!(f, "failed: {name}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Reads what one test program prints.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    program: String,
    passed: usize,
    failed: usize,
    names: Vec<String>,
    ignored: Vec<(String, String)>,
    finished: bool,
    in_failures: bool,
}

impl Reader {
    /// For a program of this name.
    pub(crate) fn new(program: &str) -> Self {
        Self { program: program.to_owned(), ..Self::default() }
    }

    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        // A child of a test may have left an unfinished line before it.
        if let Some((_, result)) = line.split_once("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.finished = true;
        }
        if line == "failures:" {
            self.in_failures = true;
        } else if self.in_failures {
            match line.strip_prefix("    ") {
                Some(name) => self.names.push(format!("{}: {name}", self.program)),
                None => self.in_failures = false,
            }
        }
        if let Some((name, reason)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... ignored"))
        {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "marked as ignored" } else { reason };
            self.ignored.push((format!("{}: {name}", self.program), reason.to_owned()));
        }
    }

    /// Adds everything to the total; `success` is how the program ended.
    pub(crate) fn finish(mut self, success: bool, total: &mut Total) {
        total.passed += self.passed;
        total.skipped.extend(self.ignored);
        if self.names.len() < self.failed {
            self.names.push(format!("{}: a test that it does not name", self.program));
        }
        if self.names.is_empty() && !(success && self.finished) {
            self.names.push(format!("{}: it ended before its tests did", self.program));
        }
        total.failed.extend(self.names);
    }
}

fn number_before(text: &str, unit: &str) -> usize {
    let before = text.split_once(unit).map(|(before, _)| before);
    let number = before.and_then(|before| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Runs tests, showing what they print and counting.
///
/// # Errors
///
/// They cannot be started, or what they print cannot be passed on.
pub(crate) fn read(command: &mut Command, mut reader: Reader, total: &mut Total) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", tools::shown(command)))?;
    let output = child.stdout.take().context("no pipe from the tests")?;
    let mut shown = io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(shown, "{line}")?;
        reader.line(line.trim_end());
    }
    let status = child.wait()?;
    reader.finish(status.success(), total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(program: &str, output: &str, success: bool) -> Total {
        let mut reader = Reader::new(program);
        output.lines().for_each(|line| reader.line(line));
        let mut total = Total::default();
        reader.finish(success, &mut total);
        total
    }

    #[test]
    fn passed_and_ignored() {
        let output = "running 3 tests\ntest a ... ok\ntest b ... ignored, takes an hour\ntest c ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let total = total("unit", output, true);
        assert!(total.is_good());
        assert_eq!(total.to_string(), "skipped: unit: b: takes an hour\n2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn failures_by_name() {
        let output = "test a ... FAILED\ntest b ... ok\n\nfailures:\n\n---- a stdout ----\nfailures:\nno\n\n\n\
            failures:\n    a\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n";
        let total = total("net", output, false);
        assert!(!total.is_good());
        assert_eq!(total.to_string(), "failed: net: a\n1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_crash_is_a_failure() {
        let total = total("net", "running 2 tests\ntest a ... ok\n", false);
        assert_eq!(total.failed, ["net: it ended before its tests did"]);
    }

    #[test]
    fn an_early_exit_is_a_failure() {
        let total = total("net", "running 2 tests\n", true);
        assert!(!total.is_good());
    }

    #[test]
    fn unfinished_line_before_the_result() {
        let total = total("net", "ping: test result: ok. 4 passed; 0 failed; 0 ignored\n", true);
        assert_eq!(total.passed, 4);
    }

    #[test]
    fn skipped_are_not_passed() {
        let mut total = total("net", "test result: ok. 3 passed; 0 failed; 0 ignored\n", true);
        total.take_out_skipped("dad: needs root\narping: needs arping\ndad: needs root\n\n");
        assert_eq!(
            total.to_string(),
            "skipped: arping: needs arping\nskipped: dad: needs root\n1 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn nothing_is_not_good() {
        assert!(!Total::default().is_good());
    }
}
