//! Which node answers for which VIP.
//!
//! A **session** is one Lease per node, its heartbeat; a **claim** is one Lease per group of VIPs, which says whose
//! session holds it. The API server's compare-and-swap on their versions is the only arbiter. Everything here is pure:
//! events and the time in, effects out. ARCHITECTURE.md ("Leadership") has the rules and why they are so.
//!
//! In reading order:
//!
//! * [`id`]: names. [`group`]: which group, and who comes first.
//! * [`lease`]: what the Leases say. [`settings`]: times.
//! * [`event`]: events, effects.
//! * [`machine`]: the decisions. [`record`]: how they are recorded.

pub mod event;
#[cfg(feature = "flaws")]
pub mod flaw;
#[cfg(not(feature = "flaws"))]
mod flaw;
pub mod group;
pub mod id;
pub mod lease;
pub mod machine;
pub mod record;
pub mod settings;
