//! What libFuzzer says at its end.

use std::fmt;

/// How much was tried, and what it reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Report {
    runs: u64,
    per_second: u64,
    edges: u64,
    features: u64,
    corpus: String,
}

impl Report {
    /// From its output; `None` if that does not say.
    pub(super) fn read(said: &str) -> Option<Self> {
        let done = said.lines().rfind(|line| line.contains(" DONE "))?;
        let field = |name: &str| {
            let mut words = done.split_whitespace();
            words.find(|word| *word == name)?;
            words.next()
        };
        let stat = |name: &str| {
            let line = said.lines().rfind(|line| line.starts_with(&format!("stat::{name}:")))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Some(Self {
            runs: stat("number_of_executed_units")?,
            per_second: stat("average_exec_per_sec")?,
            edges: field("cov:")?.parse().ok()?,
            features: field("ft:")?.parse().ok()?,
            corpus: field("corp:")?.to_owned(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, per_second, edges, features, corpus } = self;
        write!(f, "{runs} runs, {per_second}/s; {edges} edges, {features} features; corpus {corpus}")
    }
}

/// The file that it has written what broke the target into.
pub(super) fn artifact(said: &str) -> Option<&str> {
    Some(said.lines().rev().find_map(|line| line.split_once("Test unit written to "))?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "#4\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 26Mb\n\
        #2097152\tDONE   cov: 513 ft: 2110 corp: 240/16Kb lim: 4096 exec/s: 190650 rss: 300Mb\n\
        Done 2097152 runs in 11 second(s)\n\
        stat::number_of_executed_units: 2097152\n\
        stat::average_exec_per_sec:     190650\n";

    #[test]
    fn the_end_is_understood() {
        let report = Report::read(SAID).unwrap();
        let said = "2097152 runs, 190650/s; 513 edges, 2110 features; corpus 240/16Kb";
        assert_eq!(report.to_string(), said);
        assert_eq!(Report::read("Done 5 runs"), None);
    }

    #[test]
    fn what_broke_it_is_found() {
        let said =
            "thread panicked\nartifact_prefix='x/'; Test unit written to x/lease-crash-00ff\nBase64: AA==";
        assert_eq!(artifact(said), Some("x/lease-crash-00ff"));
        assert_eq!(artifact(SAID), None);
    }
}
