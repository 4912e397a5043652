//! The kernel's networking as the agent sees and uses it: reports and requests, translated, and no decisions.
//!
//! * [`link`], [`watch`], [`decode`]: which links there are, followed by netlink events. [`topology`]: how they lie above each other.
//! * [`xdp`], [`tc`], [`ethtool`], [`xdp_features`]: what runs on a link and what its driver does.
//! * [`groups`], [`packet`], [`listen`]: what a link receives, what is sent on it and what is heard.
//! * [`sysctl`], [`boot`]: a setting and a clock.
//!
//! Everything acts in the network namespace of the calling thread (a socket stays in the one where it was made).

pub mod boot;
pub mod decode;
pub mod ethtool;
pub mod groups;
pub mod link;
pub mod listen;
mod netlink;
pub mod packet;
pub mod sysctl;
pub mod tc;
pub mod topology;
pub mod watch;
pub mod xdp;
pub mod xdp_features;

pub use netlink::NetlinkError;
