//! What a benchmark found: a table, which targets hold, and the same as JSON.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::stats::Stats;

/// A ratio that was to be reached.
pub(crate) struct Target {
    what: String,
    /// The limit.
    limit: f64,
    /// Whether it is to be at least that, not at most.
    least: bool,
    got: Stats,
}

impl Target {
    pub(crate) fn at_most(what: impl Into<String>, limit: f64, got: Stats) -> Self {
        Self { what: what.into(), limit, least: false, got }
    }

    pub(crate) fn at_least(what: impl Into<String>, limit: f64, got: Stats) -> Self {
        Self { what: what.into(), limit, least: true, got }
    }

    fn holds(&self) -> bool {
        if self.least { self.got.median >= self.limit } else { self.got.median <= self.limit }
    }
}

/// What a benchmark found.
pub(crate) struct Report {
    name: &'static str,
    title: String,
    lines: Vec<String>,
    targets: Vec<Target>,
    failed: bool,
    more: Map<String, Value>,
}

impl Report {
    pub(crate) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self { name, title: title.into(), lines: vec![], targets: vec![], failed: false, more: Map::new() }
    }

    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// A line that makes the run fail.
    pub(crate) fn fail(&mut self, line: impl AsRef<str>) {
        self.lines.push(format!("TOO MUCH: {}", line.as_ref()));
        self.failed = true;
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn target(&mut self, target: Target) {
        self.targets.push(target);
    }

    pub(crate) fn json(&mut self, key: &str, value: Value) {
        self.more.insert(key.to_owned(), value);
    }

    pub(crate) fn print(&self) {
        println!("{}:", self.title);
        self.lines.iter().for_each(|line| println!("  {line}"));
        for target in &self.targets {
            let Target { what, limit, least, got } = target;
            let (bound, verdict) =
                (if *least { "≥" } else { "≤" }, if target.holds() { "holds" } else { "missed" });
            println!("  target {what} {bound} {limit}: {:.2}, {verdict}", got.median);
        }
        println!();
    }

    /// Writes `NAME.json` into a directory, with what describes the machine.
    pub(crate) fn write(mut self, dir: &Path, machine: &Value) -> Result<()> {
        let targets = self.targets.iter().map(|target| {
            json!({
                "what": target.what,
                "limit": target.limit,
                "at_least": target.least,
                "got": target.got.json(),
                "holds": target.holds(),
            })
        });
        let targets = targets.collect();
        self.more.insert("targets".into(), targets);
        self.more.insert("machine".into(), machine.clone());
        let path = dir.join(format!("{}.json", self.name));
        let shown = path.display();
        fs::write(&path, format!("{:#}\n", Value::Object(self.more)))
            .with_context(|| format!("cannot write {shown}"))?;
        println!("Figures: {shown}\n");
        Ok(())
    }
}
