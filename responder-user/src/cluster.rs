//! What is read from and written to the Kubernetes API.
//!
//! # Layout
//!
//! In reading order:
//!
//! * [`names`]: names, labels and annotations of the Leases.
//! * [`codec`]: Leases as sessions, claims and the cluster's record, and back. Pure.
//! * [`client`]: where the API server is, and connections to it.
//! * [`follow`]: a list and the watch after it, for ever.
//! * [`leases`]: the Leases as events for the machine. [`known`]: the Leases last seen.
//! * [`writes`]: the machine's writes and reads; `outcome`: what an answer means; `owed`: that one is always told.
//! * [`record`]: what all agents must agree on.
//! * [`objects`]: Services, EndpointSlices and Nodes.
//! * [`read`]: all of it read once, for commands.
//! * [`events`]: Events on Services; [`limit`]: how many.

pub mod client;
pub mod codec;
pub mod events;
pub mod follow;
pub mod known;
pub mod leases;
pub mod limit;
pub mod names;
pub mod objects;
mod outcome;
mod owed;
pub mod read;
pub mod record;
#[cfg(test)]
mod scripted;
pub mod writes;
