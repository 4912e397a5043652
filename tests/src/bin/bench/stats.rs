//! Medians and quartiles.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

/// What came out of several rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stats {
    /// A quarter of the rounds gave less.
    low: f64,
    /// Half of the rounds gave less.
    pub(crate) median: f64,
    /// A quarter of the rounds gave more.
    high: f64,
}

impl Stats {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quarters: usize| values[(values.len() - 1) * quarters / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }

    /// Of the values of two series of the same rounds, one through the other: what disturbs a round disturbs both.
    pub(crate) fn ratio(of: &[f64], to: &[f64]) -> Self {
        Self::of(of.iter().zip(to).map(|(a, b)| a / b).collect())
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "quartiles": [self.low, self.high] })
    }
}

impl Display for Stats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { low, median, high } = self;
        // Rates are shown in millions.
        if *median >= 10_000.0 {
            let million = 1e6;
            write!(f, "{:6.2} M ({:.2}–{:.2})", median / million, low / million, high / million)
        } else {
            write!(f, "{median:6.1} ({low:.1}–{high:.1})")
        }
    }
}
