//! The steps of docs/migrating.md, with the other announcers' own programs.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "migrating/keepalived.rs"]
mod keepalived;
#[path = "migrating/metallb.rs"]
mod metallb;
#[path = "migrating/support.rs"]
mod support;
