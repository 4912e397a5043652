//! The DaemonSet on three real nodes, from its installation to its end.

use std::path::PathBuf;

use responder_lab::{kubelets_or_skip, skip};
use responder_tests::daemonset::{Installation, play};

#[test]
fn real_nodes() {
    if !kubelets_or_skip("real_nodes") {
        return;
    }
    let Some(image) = std::env::var_os("RESPONDER_IMAGE").map(PathBuf::from) else {
        return skip("real_nodes", "RESPONDER_IMAGE does not name an archive of the agent's image");
    };
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    // No answer is lost as long as the API server pauses for less than a lease, and this machine may be busy.
    let mut site = Installation::prepare(&image, &deploy, "overlays/patient", false).unwrap();
    let played = play(&mut site, &|_| true, &|row| println!("{row}"));
    println!("{played}");
    let failures = played.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
