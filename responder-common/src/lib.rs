//! What the kernel side and the user side of the responder agree on.
//!
//! Everything here is `no_std`, allocates nothing and reads no clock, so that one source serves the XDP
//! program, the agent, and tests and fuzzers on any host.
//!
//! # Layout
//!
//! In reading order:
//!
//! * [`wire`]: big-endian integers, MAC and IP addresses and frame headers as they lie in a frame, and the
//!   [`wire::Frame`] trait through which all code touches packets.
//! * [`layout`]: keys and values of the BPF maps, their names, and the layout's version.
//! * [`outcome`]: what can become of a frame, each with the counter and the verdict that belong to it.
//! * [`fence`]: from slot, deadline and clock to "may this address be answered".
//! * [`eth`], [`arp`], [`ndp`], `extensions`: parsing, judging and answering one frame.
//! * [`datapath`]: the entry: frame and maps in, outcome out.
//! * [`egress`]: the correction of the host's own ARP requests.
//! * [`announce`]: gratuitous ARP and unsolicited Neighbor Advertisements for the agent's bursts.
#![cfg_attr(not(test), no_std)]

pub mod announce;
pub mod arp;
mod checksum;
pub mod datapath;
pub mod egress;
pub mod eth;
mod extensions;
pub mod fence;
pub mod layout;
pub mod ndp;
pub mod outcome;
pub mod wire;
