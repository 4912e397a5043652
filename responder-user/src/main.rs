//! The `responder` binary.

fn main() {}
