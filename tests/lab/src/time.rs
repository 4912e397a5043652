//! CLOCK_BOOTTIME, the clock of the fence, and waiting for conditions.

use std::{
    env,
    ops::{Add, Sub},
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// An instant of CLOCK_BOOTTIME, in ns: what the datapath's deadline is measured in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The present.
    ///
    /// # Panics
    ///
    /// If the kernel has no CLOCK_BOOTTIME (before 2.6.39).
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_BOOTTIME))
    }

    /// Time from `earlier` to this instant, zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

/// Translates the kernel's packet timestamps (CLOCK_REALTIME) to [`BootTime`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealTime {
    boot_behind: u64,
}

impl RealTime {
    pub(crate) fn new() -> Self {
        let (real, boot) = (read(ClockId::CLOCK_REALTIME), BootTime::now());
        Self { boot_behind: real.saturating_sub(boot.0) }
    }

    pub(crate) fn to_boot(self, real_ns: u64) -> BootTime {
        BootTime(real_ns.saturating_sub(self.boot_behind))
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("CLOCK_BOOTTIME and CLOCK_REALTIME exist since Linux 2.6.39");
    nanos(now.into())
}

/// By how much longer than planned everything may take, and by how much more slowly questions are asked:
/// `$RESPONDER_PATIENCE`, for emulated processors; otherwise 1.
pub(crate) fn patience() -> u32 {
    static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
        let set = env::var("RESPONDER_PATIENCE").ok();
        set.map_or(1, |set| set.parse().unwrap_or_else(|e| panic!("RESPONDER_PATIENCE={set}: {e}")))
    });
    *PATIENCE
}

/// Asks `condition` every 2 ms until it yields a value.
///
/// # Errors
///
/// After `deadline`, naming `what` was waited for.
pub fn wait_until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let deadline = deadline * patience();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            bail!("{what}: not within {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
