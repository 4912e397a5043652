//! The `responder` binary.

use std::process::ExitCode;

use responder_user::cli::{Cli, fail};

fn main() -> ExitCode {
    let cli = Cli::from_env();
    match cli.run() {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}
