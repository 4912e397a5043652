//! What to do: pure functions and machines.
//!
//! Nothing in here does I/O, reads a clock, or depends on the order of a hash map: facts and the time go in,
//! what is wanted comes out. Times are [`std::time::Duration`]s of CLOCK_BOOTTIME.
//!
//! * [`services`]: Services, EndpointSlices and Nodes in; addresses, and the nodes that may announce them, out.
//! * [`fitness`]: whether this node may hold anything.
//! * [`subnets`]: on which links an address can be announced.
//! * [`plan`]: configuration, links and ownership in; entries of the maps, multicast groups and refusals out.
//! * [`change`]: from one plan to the next, in the order that is safe.
//! * [`burst`]: when to announce what.
//! * [`fence`]: how far the deadline may be extended.

pub mod burst;
pub mod change;
pub mod fence;
pub mod fitness;
mod join;
pub mod plan;
pub mod services;
pub mod subnets;
