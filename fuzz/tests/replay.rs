//! All that has ever told something, again: the seeds and the corpus of each target.

use std::{fs, path::Path};

use responder_fuzz::TARGETS;

/// The corpus is part of the source: small enough to be cloned by everybody.
const FILES: usize = 200;
const BYTES: u64 = 200_000;

#[test]
fn corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (mut files, mut bytes) = (0, 0);
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in seeds {
            (target.run)(&seed);
        }
        let dir = corpus.join(target.name);
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            // Shown if the test fails in it.
            println!("{}", path.display());
            let content = fs::read(&path).unwrap();
            (files, bytes) = (files + 1, bytes + content.len() as u64);
            (target.run)(&content);
        }
    }
    assert!(
        files <= FILES && bytes <= BYTES,
        "{files} files with {bytes} bytes: cargo xtask fuzz --minimise"
    );
}
