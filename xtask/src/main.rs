//! Every build and test step of the project.

mod bench;
mod build;
mod cluster;
mod demo;
mod ebpf;
mod faults;
mod fuzz;
mod go;
mod image;
mod kept;
mod kubernetes;
mod leftovers;
mod lint;
mod object;
mod others;
mod peers;
mod prometheus;
mod replay;
mod root;
mod sim;
mod soak;
mod sources;
mod step;
mod test;
mod toolchain;
mod tools;
mod total;
mod verify;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Every build and test step of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    BuildEbpf(ebpf::Arguments),
    Cluster(cluster::Arguments),
    Demo(demo::Arguments),
    Image(image::Arguments),
    Kubernetes(kubernetes::Arguments),
    Peers(peers::Arguments),
    Alerts(prometheus::Arguments),
    Picture(prometheus::picture::Arguments),
    VerifyEbpf(ebpf::VerifyArguments),
    Replay(replay::Arguments),
    Test(test::Arguments),
    VmTest(vm::Arguments),
    Bench(bench::Arguments),
    Sim(sim::Arguments),
    Faults(faults::Arguments),
    Fuzz(fuzz::Arguments),
    Soak(soak::Arguments),
    Lint(lint::Arguments),
}

fn main() -> ExitCode {
    if fuzz::instrument::is_asked() {
        return fuzz::instrument::run();
    }
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::BuildEbpf(arguments) => ebpf::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Kubernetes(arguments) => kubernetes::run(&arguments),
        Command::Peers(arguments) => peers::run(&arguments),
        Command::Alerts(arguments) => prometheus::run(&arguments),
        Command::Picture(arguments) => prometheus::picture::run(&arguments),
        Command::VerifyEbpf(arguments) => ebpf::verify(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::VmTest(arguments) => vm::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
    }
}
