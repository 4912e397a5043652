//! What comes from outside, fuzzed.
//!
//! A [`Target`] takes any bytes and panics if what becomes of them is not as it must be. `cargo xtask fuzz` has libFuzzer
//! look for such bytes; the test `replay` runs all targets on what is in `corpus`, and on their seeds.
//!
//! * [`frames`]: what neighbours send, and what this host sends, in the programs as they run on a host, against the model.
//! * [`config`]: the static file.
//! * [`lease`]: Leases, which others may have edited.
//! * [`objects`]: Services, EndpointSlices and Nodes.
//! * [`netlink`]: what the kernel says of links, addresses and routes, and what is planned for them.
//! * [`heard`]: frames that commands hear on the segment.

#[path = "../../responder-common/tests/host/buffer.rs"]
mod buffer;
pub mod config;
pub mod frames;
pub mod heard;
pub mod lease;
pub mod netlink;
pub mod objects;
mod tables;

/// Something that takes bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes the bytes.
    ///
    /// # Panics
    ///
    /// If it does not do with them what it must.
    pub run: fn(&[u8]),
    /// What to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "lease", run: lease::run, seeds: lease::seeds },
    Target { name: "objects", run: objects::run, seeds: objects::seeds },
    Target { name: "netlink", run: netlink::run, seeds: netlink::seeds },
    Target { name: "heard", run: heard::run, seeds: heard::seeds },
];
