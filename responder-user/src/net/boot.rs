//! The clock of fences and deadlines.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`, what the datapath reads, too).
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    // Neither part is ever negative, and the sum lasts for 584 years.
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

/// How far this process's CLOCK_BOOTTIME is ahead of the kernel's, in whole seconds, because it lives in a time
/// namespace; 0 where there are none.
///
/// The programs read the kernel's clock, so that a deadline written by such a process would be off by as much.
#[must_use]
pub fn namespace_offset() -> i64 {
    let Ok(offsets) = std::fs::read_to_string("/proc/self/timens_offsets") else {
        return 0;
    };
    offset_of("boottime", &offsets)
}

fn offset_of(clock: &str, offsets: &str) -> i64 {
    let line = offsets.lines().find_map(|line| line.strip_prefix(clock));
    let mut numbers = line.into_iter().flat_map(str::split_whitespace).map(|n| n.parse().unwrap_or(0));
    let (seconds, ns): (i64, i64) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if seconds == 0 { ns.signum() } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::offset_of;

    #[test]
    fn offsets() {
        let none = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(offset_of("boottime", none), 0);
        let some = "monotonic           0         0\nboottime        86400         5\n";
        assert_eq!(offset_of("boottime", some), 86400);
        assert_eq!(offset_of("boottime", "boottime 0 7"), 1);
        assert_eq!(offset_of("boottime", ""), 0);
    }
}
