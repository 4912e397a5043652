//! The compiler for the crates that the fuzzer is to see into.
//!
//! Cargo calls this program in its place for the workspace's own crates (`RUSTC_WORKSPACE_WRAPPER`), so that dependencies are
//! those of every other build, and no other toolchain or tool is needed than the one that builds the agent.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, process::Command, process::ExitCode};

/// Set for this program in the compiler's place.
pub(super) const VARIABLE: &str = "RESPONDER_FUZZ_COMPILER";

/// What takes or judges bytes from outside. Neither build scripts nor programs: they have no fuzzer to report to.
const CRATES: [&str; 5] =
    ["responder_common", "responder_leadership", "responder_user", "responder_tests", "responder_fuzz"];

/// Edges counted, with a table of where they are, and operands of comparisons: what libFuzzer works with.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];

/// Whether this process is to be the compiler.
pub(crate) fn is_asked() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Becomes the compiler.
pub(crate) fn run() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(compiler) = arguments.next() else {
        eprintln!("error: {VARIABLE} is for cargo, which names a compiler");
        return ExitCode::FAILURE;
    };
    let arguments: Vec<OsString> = arguments.collect();
    let name = arguments.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| pair[1].clone());
    let ours = name.is_some_and(|name| CRATES.iter().any(|known| name == *known));
    let mut command = Command::new(compiler);
    command.args(arguments);
    if ours {
        command.args(FLAGS);
    }
    let error = command.exec();
    eprintln!("error: cannot start the compiler: {error}");
    ExitCode::FAILURE
}
