//! What `cargo xtask demo` builds and runs: shows it all in network namespaces, and checks what it claims.

mod cluster;
mod show;
mod standalone;

use std::{env, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use responder_lab::{check_nodes, skip};

use self::show::Show;

/// Plays the demo.
#[derive(Parser)]
struct Arguments {
    /// Leave everything running at the end, and say how to look around
    #[arg(long)]
    keep: bool,
    /// The archive of the agent's image; without it, two hosts and a client without Kubernetes
    #[arg(long, requires = "deploy")]
    image: Option<PathBuf>,
    /// The directory of the objects to install
    #[arg(long, requires = "image")]
    deploy: Option<PathBuf>,
    /// Be a server that answers every TCP connection with this text
    #[arg(long, hide = true, value_name = "TEXT")]
    serve: Option<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads may have gone.
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(text) = &arguments.serve {
        standalone::serve(text)?;
    }
    let mut show = Show::new();
    let holds = match (arguments.image, arguments.deploy) {
        (Some(image), Some(deploy)) => {
            if let Err(error) = check_nodes() {
                if env::var_os("RESPONDER_SKIP_LOG").is_some() {
                    skip("demo_cluster", &format!("{error:#}"));
                    return Ok(ExitCode::SUCCESS);
                }
                return Err(error).context(
                    "this machine cannot have nodes with kubelets; `cargo xtask demo --standalone` shows what \
                     there is without Kubernetes",
                );
            }
            let world = cluster::play(&mut show, &image, &deploy, arguments.keep)?;
            let holds = show.close();
            if arguments.keep {
                cluster::keep(&world, &show)?;
            }
            holds
        }
        (None, _) | (_, None) => {
            let world = standalone::play(&mut show, arguments.keep)?;
            let holds = show.close();
            if arguments.keep {
                standalone::keep(&world, &show)?;
            }
            holds
        }
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
