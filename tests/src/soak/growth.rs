//! What agents use, and whether that grows.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use responder_lab::wait_until;

use crate::fleet::Fleet;

/// Growth of memory that is none: an allocator's pages, a longer list somewhere.
const KIB: f64 = 4096.0;
/// Fewer samples have no trend.
const SAMPLES: usize = 12;
/// By then connections have been closed that nobody uses.
const IDLE: Duration = Duration::from_secs(150);

/// What an agent uses at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sample {
    /// Since the beginning, in s.
    pub at: f64,
    /// Memory that is its own (`RssAnon`), in KiB.
    pub kib: f64,
    /// Open file descriptors.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// Objects pinned on its node.
    pub pinned: usize,
}

/// Samples of each agent, by node and process.
#[derive(Clone, Debug, Default)]
pub struct Growth(BTreeMap<(String, u32), Vec<Sample>>);

impl Growth {
    /// Looks at each agent.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub(super) fn sample(&mut self, fleet: &mut Fleet, since: Duration) -> Result<()> {
        for name in fleet.names() {
            let sample = Sample { at: since.as_secs_f64(), ..look(fleet, &name)? };
            self.0.entry((name.clone(), fleet.agent(&name).pid())).or_default().push(sample);
        }
        Ok(())
    }

    /// What has grown, as sentences. Waits until what is only not closed yet is closed.
    pub(super) fn judge(&self, fleet: &mut Fleet) -> Result<Vec<String>> {
        let mut grown = Vec::new();
        for ((name, pid), samples) in &self.0 {
            if let Some(sentence) = trend(samples) {
                grown.push(format!("agent {pid} of {name}: {sentence}"));
            }
            let Some(first) = samples.first().filter(|_| fleet.agent(name).pid() == *pid) else {
                continue;
            };
            // Pools have their usual size after the first third.
            let usual = samples.iter().take(samples.len().div_ceil(3)).map(|sample| sample.files).max();
            let usual = usual.unwrap_or_default();
            let closed = wait_until("no more open files than before", IDLE, || {
                look(fleet, name).ok().filter(|now| now.files <= usual)
            });
            let now = look(fleet, name)?;
            if closed.is_err() {
                grown.push(format!("agent {pid} of {name} has {} open files, and had {usual}", now.files));
            }
            if now.pinned != first.pinned {
                grown.push(format!("{} objects are pinned on {name}, and {} were", now.pinned, first.pinned));
            }
        }
        // Whoever the agent is, it pins the same.
        let pinned = |(name, pid): &(String, u32), samples: &[Sample]| {
            let different = samples.iter().find(|sample| sample.pinned != samples[0].pinned)?;
            Some(format!("agent {pid} of {name} pinned {}, then {}", samples[0].pinned, different.pinned))
        };
        grown.extend(self.0.iter().filter_map(|(key, samples)| pinned(key, samples)));
        Ok(grown)
    }
}

/// Growth of memory: its trend without the first quarter, in which caches fill, and what it comes to.
fn trend(samples: &[Sample]) -> Option<String> {
    let settled = samples.get(samples.len() / 4..).filter(|_| samples.len() >= SAMPLES)?;
    let points: Vec<(f64, f64)> = settled.iter().map(|sample| (sample.at, sample.kib)).collect();
    let span = points.last()?.0 - points.first()?.0;
    let third = points.len() / 3;
    let level = |part: &[(f64, f64)]| median(part.iter().map(|point| point.1).collect());
    let by_level = level(&points[points.len() - third..]) - level(&points[..third]);
    let by_slope = slope(&points) * span;
    // Neither one late step nor a slope within the noise is a leak; a leak is both.
    (by_slope > KIB && by_level > KIB).then(|| {
        format!(
            "memory has grown by {:.1} MiB in {span:.0} s, {:.1} MiB by its trend",
            by_level / 1024.0,
            by_slope / 1024.0
        )
    })
}

/// Theil-Sen: the median of the slopes between all pairs.
fn slope(points: &[(f64, f64)]) -> f64 {
    let pairs = points.iter().enumerate().flat_map(|(n, a)| points[n + 1..].iter().map(move |b| (a, b)));
    median(pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn look(fleet: &mut Fleet, name: &str) -> Result<Sample> {
    let agent = fleet.agent(name);
    let pid = agent.pid();
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("agent of {name}"))?;
    let number = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let kib: u32 = number("RssAnon:").context("no RssAnon in status")?;
    let threads: u32 = number("Threads:").context("no Threads in status")?;
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let pinned = objects(&agent.node().root()?.join("sys/fs/bpf"))?;
    Ok(Sample { at: 0.0, kib: kib.into(), files, threads: threads as usize, pinned })
}

/// Files below a directory.
fn objects(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { objects(&entry.path())? } else { 1 };
    }
    Ok(count)
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} samples  memory first    last     most   per min  files  threads  pinned",
            "agent"
        )?;
        for ((name, pid), samples) in &self.0 {
            let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
                continue;
            };
            let points: Vec<_> = samples[samples.len() / 4..].iter().map(|s| (s.at, s.kib)).collect();
            let most = samples.iter().map(|sample| sample.kib).fold(0.0, f64::max);
            let range = |of: fn(&Sample) -> usize| {
                let all = || samples.iter().map(of);
                let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
                if least == most { most.to_string() } else { format!("{least}-{most}") }
            };
            writeln!(
                f,
                "{:<14} {:>7} {:>9.1} MiB {:>5.1} MiB {:>5.1} MiB {:>5.1} KiB {:>6} {:>8} {:>7}",
                format!("{name} ({pid})"),
                samples.len(),
                first.kib / 1024.0,
                last.kib / 1024.0,
                most / 1024.0,
                slope(&points) * 60.0,
                range(|s| s.files),
                range(|s| s.threads),
                range(|s| s.pinned),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of 20 minutes, with memory as a function of the time in s.
    fn samples(kib: impl Fn(f64) -> f64) -> Vec<Sample> {
        (0..80)
            .map(|n| f64::from(n) * 15.0)
            .map(|at| Sample { at, kib: kib(at), ..Sample::default() })
            .collect()
    }

    #[test]
    fn a_leak_is_seen() {
        // 10 KiB a second under noise of a megabyte.
        let sentence = trend(&samples(|at| 10_000.0 + 10.0 * at + 1024.0 * (at % 7.0) / 7.0)).unwrap();
        assert!(sentence.contains("MiB"), "{sentence}");
        assert_eq!(trend(&samples(|at| 10_000.0 + 10.0 * at)[..SAMPLES - 1]), None, "too few");
    }

    #[test]
    fn what_is_no_leak_is_not() {
        assert_eq!(trend(&samples(|at| 10_000.0 + 3000.0 * (at * 0.7).sin())), None, "noise");
        assert_eq!(
            trend(&samples(|at| if at < 240.0 { 5000.0 + 40.0 * at } else { 14_600.0 })),
            None,
            "warm-up"
        );
        assert_eq!(
            trend(&samples(|at| if at > 1100.0 { 40_000.0 } else { 10_000.0 })),
            None,
            "one late step"
        );
        assert_eq!(trend(&samples(|at| 30_000.0 - 10.0 * at)), None, "shrinks");
    }

    #[test]
    fn slopes_are_those_of_most_pairs() {
        let points: Vec<(f64, f64)> =
            (0..20).map(f64::from).map(|x| (x, if x == 7.0 { 1e9 } else { 3.0 * x })).collect();
        assert!((slope(&points) - 3.0).abs() < 1e-9);
        assert_eq!(slope(&[]), 0.0);
    }
}
