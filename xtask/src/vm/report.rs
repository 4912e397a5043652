//! What is heard of all machines, shown as it comes and as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    step::say,
    total::{Reader, Total},
};

/// What a test says that is to be seen although it passes.
const MEASURED: &str = "measured: ";
/// The step that is no test program.
pub(super) const COMMAND: &str = "command";

/// How a test ended on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One kernel's.
pub(super) struct Column {
    pub(super) title: String,
    outcomes: BTreeMap<String, Outcome>,
    /// The program that runs, its reader, its output, and when its last test ended.
    running: Option<(String, Reader, Vec<String>, Instant)>,
    skips: String,
    pub(super) done: bool,
    pub(super) ready: Option<Duration>,
    pub(super) started: Instant,
    pub(super) took: Option<Duration>,
}

impl Column {
    pub(super) fn new(title: String) -> Self {
        Self {
            title,
            outcomes: BTreeMap::new(),
            running: None,
            skips: String::new(),
            done: false,
            ready: None,
            started: Instant::now(),
            took: None,
        }
    }

    /// Takes a line of the machine's report.
    pub(super) fn line(&mut self, fields: &[String], total: &mut Total) {
        let field = |index: usize| fields.get(index).map_or("", String::as_str);
        match field(0) {
            "ready" => {
                self.ready = Some(self.started.elapsed());
                let missing = field(3);
                let missing = if missing.is_empty() { String::new() } else { format!(", without {missing}") };
                let seconds = self.started.elapsed().as_secs_f64();
                say(format!("{}: {} is up in {seconds:.1} s{missing}", self.title, field(1)));
            }
            "begin" => {
                let reader = Reader::new(&format!("vm {} {}", self.title, field(1)));
                self.running = Some((field(1).to_owned(), reader, Vec::new(), Instant::now()));
            }
            "line" => self.output(field(2)),
            "skip" => {
                let (test, reason) = field(2).split_once(": ").unwrap_or((field(2), "no reason given"));
                let whole = format!("{}::{test}", field(1));
                self.skips.push_str(&format!("vm {} {}: {reason}\n", self.title, whole.replace("::", ".")));
                self.outcomes.insert(whole, Outcome::Skipped);
            }
            "end" => self.end(field(2), total),
            "done" => self.done = true,
            _ => {}
        }
    }

    fn output(&mut self, text: &str) {
        let Some((program, reader, output, last)) = &mut self.running else { return };
        if program == COMMAND {
            say(format!("{}: {text}", self.title));
            return;
        }
        if text.starts_with(MEASURED) {
            say(format!("{}: {text}", self.title));
        }
        reader.line(text);
        output.push(text.to_owned());
        if let Some((test, outcome)) = ended(text) {
            let took = last.elapsed();
            *last = Instant::now();
            let whole = format!("{program}::{test}");
            let word = match outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "ignored",
            };
            say(format!("{}: {whole} {word} ({:.1} s)", self.title, took.as_secs_f64()));
            self.outcomes.insert(whole, outcome);
        }
    }

    fn end(&mut self, status: &str, total: &mut Total) {
        let Some((program, reader, output, _)) = self.running.take() else { return };
        let good = status == "exit status: 0";
        if program == COMMAND {
            match good {
                true => total.passed(),
                false => total.failed(format!("{}: {status}", self.title)),
            }
            return;
        }
        reader.finish(good, total);
        if !good {
            say(format!("{} {program} ended with {status}:\n{}", self.title, output.join("\n")));
        }
    }

    /// No more lines come: whatever was running has failed, and so has all if the end was not reported.
    pub(super) fn close(&mut self, why: &str, total: &mut Total) {
        self.took = Some(self.started.elapsed());
        if self.running.is_some() {
            self.end(why, total);
        }
        total.take_out_skipped(&self.skips);
        if !self.done {
            total.failed(format!("vm {}: the machine: {why}", self.title));
        }
    }
}

/// From `test NAME ... ok`.
fn ended(line: &str) -> Option<(&str, Outcome)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match result {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        _ if result.starts_with("ignored") => Outcome::Skipped,
        _ => return None,
    };
    Some((name, outcome))
}

/// Tests by kernels.
pub(super) fn table(columns: &[Column], tests: &[String]) -> String {
    let known = columns.iter().flat_map(|column| column.outcomes.keys());
    let tests: BTreeSet<&String> = tests.iter().chain(known).collect();
    let width = tests.iter().map(|test| test.len()).max().unwrap_or_default();
    let heads: Vec<usize> = columns.iter().map(|column| column.title.len().max(4)).collect();
    let row = |name: &str, cells: Vec<&str>| {
        let cells = cells.iter().zip(&heads).map(|(cell, width)| format!("  {cell:<width$}"));
        format!("{name:<width$}{}", cells.collect::<String>()).trim_end().to_owned()
    };
    let mut lines = vec![row("", columns.iter().map(|column| column.title.as_str()).collect())];
    for test in tests {
        let cells = columns.iter().map(|column| match column.outcomes.get(test) {
            Some(Outcome::Passed) => "ok",
            Some(Outcome::Failed) => "FAIL",
            Some(Outcome::Skipped) => "skip",
            None => "none",
        });
        lines.push(row(test, cells.collect()));
    }
    lines.join("\n")
}
