//! libFuzzer on the target that `RESPONDER_FUZZ_TARGET` names. `cargo xtask fuzz` builds and runs it.
#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use responder_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("RESPONDER_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("RESPONDER_FUZZ_TARGET={name}: there are {:?}", TARGETS.map(|t| t.name)))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
