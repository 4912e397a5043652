//! Random and mutated frames through the programs in the kernel, against the model. `cargo xtask fuzz --kernel-frames`
//! builds and runs it.

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use responder_tests::compare::Comparison;

/// Between two lines that say how far it is.
const TOLD: u64 = 5_000_000;

/// Compares frames in the kernel with the model.
#[derive(Parser)]
struct Arguments {
    /// How many
    #[arg(long)]
    frames: u64,
    /// Where they come from
    #[arg(long)]
    seed: u64,
    /// How many on one host
    #[arg(long, default_value_t = 250_000)]
    per_host: u64,
}

fn main() -> Result<()> {
    let Arguments { frames, seed, per_host } = Arguments::parse();
    println!("seed {seed}: {frames} frames, {per_host} on each host");
    let (begin, mut told) = (Instant::now(), 0);
    let compared = Comparison { seed, frames, per_host }.run(|compared| {
        if compared.received / TOLD > told {
            told = compared.received / TOLD;
            let rate = compared.received as f64 / begin.elapsed().as_secs_f64();
            println!("{} frames on {} hosts, {rate:.0} each second", compared.received, compared.hosts);
        }
    })?;
    println!("{compared}in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}
