//! The `responder` binary.

use std::process::ExitCode;

use clap::Parser as _;
use responder_user::cli::{Cli, fail};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}
