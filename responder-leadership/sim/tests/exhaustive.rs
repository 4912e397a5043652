//! Every state of small clusters.

use std::time::Duration;

use responder_sim::exhaustive::{Bounds, explore};

fn check(bounds: Bounds) {
    let found = explore(bounds, 2);
    println!("{bounds}: {} states, {} visits, {} steps at most", found.states, found.visits, found.depth);
    assert!(found.violation.is_none(), "{bounds}: {}", found.violation.unwrap_or_default());
    assert!(found.unseen.is_empty(), "{bounds}: never seen: {:?}", found.unseen);
}

#[test]
fn two_nodes() {
    check(Bounds::of(2, 1, 2));
}

#[test]
fn two_nodes_with_deletions() {
    check(Bounds { deletions: true, ..Bounds::of(2, 1, 1) });
}

#[test]
fn two_nodes_from_nothing() {
    check(Bounds { cold: true, horizon: Duration::from_millis(3500), ..Bounds::of(2, 1, 1) });
}

#[test]
fn three_nodes_and_two_claims() {
    check(Bounds::of(3, 2, 1));
}
