//! Gaps by kind of fault.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::Kind;

/// Gaps by kind of fault.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<Kind, Row>);

#[derive(Clone, Debug, Default)]
struct Row {
    runs: usize,
    /// The longest silence of each VIP in each run.
    gaps: Vec<Duration>,
    doubles: usize,
}

impl Table {
    /// Adds a run: the longest silence of each VIP, and how many questions two answered.
    pub(super) fn add(&mut self, kind: Kind, gaps: impl Iterator<Item = Duration>, doubles: usize) {
        let row = self.0.entry(kind).or_default();
        row.runs += 1;
        row.gaps.extend(gaps);
        row.doubles += doubles;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "silence of a VIP        runs  hit     median        p99        max  two answered")?;
        for (kind, row) in &self.0 {
            // Those that the fault did not touch say nothing about it.
            let mut gaps: Vec<Duration> = row.gaps.iter().copied().filter(|gap| !gap.is_zero()).collect();
            gaps.sort_unstable();
            let of = |share: f64| {
                let last = gaps.len().saturating_sub(1);
                let gap = gaps.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default();
                format!("{:.1} ms", gap.as_secs_f64() * 1e3)
            };
            let Row { runs, doubles, .. } = row;
            let (median, p99, max) = (of(0.5), of(0.99), of(1.0));
            let hit = gaps.len();
            let kind = kind.to_string();
            writeln!(f, "{kind:<22} {runs:>5} {hit:>4} {median:>10} {p99:>10} {max:>10} {doubles:>13}")?;
        }
        Ok(())
    }
}
