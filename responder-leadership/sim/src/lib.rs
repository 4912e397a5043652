//! Checks of the leadership machine ([`responder_leadership::machine`]).
//!
//! Random simulation: [`run`] plays the schedule of a seed: a cluster of some nodes, an API server, and everything that
//! can go wrong. A schedule goes on after its faults, to see that the cluster recovers.

mod agent;
mod api;
mod clock;
mod fault;
mod host;
mod inject;
mod judge;
mod phase;
mod request;
mod rng;
mod setup;
mod tally;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::World;
pub use self::{
    fault::{Fault, Faults},
    setup::Profile,
    tally::Tally,
    world::Violation,
};

/// What a schedule has shown.
#[derive(Debug)]
pub struct Report {
    /// What must not be.
    pub violation: Option<Violation>,
    /// What has happened.
    pub tally: Tally,
    /// How much time it has simulated, in ns.
    pub simulated: u64,
}

/// How a schedule is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Whether everything that happens is printed.
    pub trace: bool,
    /// A fault in all machines.
    #[cfg(feature = "flaws")]
    pub flaw: Option<responder_leadership::flaw::Flaw>,
}

/// Plays the schedule of a seed.
#[must_use]
pub fn run(seed: u64, profile: &Profile, how: How) -> Report {
    let mut world = World::new(seed, profile, how.trace);
    #[cfg(feature = "flaws")]
    {
        world.flaw = how.flaw;
    }
    if catch_unwind(AssertUnwindSafe(|| world.run())).is_err() {
        world.violated("panic");
    }
    Report { violation: world.violation, tally: world.tally, simulated: world.t }
}
