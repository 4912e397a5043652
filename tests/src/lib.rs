//! What the tests of the programs compare with, and the means to run them in the kernel.
//!
//! * [`build`]: frames out of plain fields, byte by byte.
//! * [`campaign`]: random faults in it, one after the other.
//! * [`commands`]: the commands that the documents show: found, and run as they are written.
//! * [`compare`]: the programs in the kernel against the model, with any number of frames.
//! * [`crowd`]: clusters with many addresses.
//! * [`daemonset`]: agents in pods on real nodes, and what happens to them in their life.
//! * [`fleet`]: agents in a cluster, and what a client sees of them.
//! * [`frames`]: the acceptance list: frames and what becomes of each while the address is owned.
//! * [`hosts`]: hosts that know this and that.
//! * [`leases`]: the agents' Leases, as the API server shows them.
//! * [`model`]: what becomes of *any* frame in any state, written from the RFCs and docs/protocol.md over byte
//!   slices. It shares no code with the programs.
//! * [`mutate`]: frames like those of the list, and then not.
//! * [`run`]: the programs in the kernel under `BPF_PROG_TEST_RUN`.
//! * [`scenario`]: what is done to the agents of a cluster and must be true then, one after the other.
//! * [`soak`]: a cluster for long, with everything that happens to one, and what must not grow.
//! * [`skip`]: tests that cannot run here say so.
//! * [`usage`]: what processes use.

pub mod build;
pub mod campaign;
pub mod commands;
pub mod compare;
pub mod crowd;
pub mod daemonset;
pub mod fleet;
pub mod frames;
pub mod hosts;
pub mod leases;
pub mod model;
pub mod mutate;
pub mod run;
pub mod scenario;
pub mod skip;
pub mod soak;
pub mod usage;
