//! A lab to look around in: `cargo run -p responder-lab`, as root. It is gone when this is interrupted.

use std::process::Command;

use anyhow::Result;
use responder_lab::Lab;

fn main() -> Result<()> {
    let lab = Lab::builder().build()?;
    // Something of every kind that must not be left behind.
    let mut sleep = Command::new("sleep");
    sleep.arg("infinity");
    let process = lab.node("a").ns().spawn(sleep)?;
    for node in ["a", "b", "c"].map(|name| lab.node(name)) {
        println!("{}: nsenter --net={} ip address", node.name(), node.ns().path().display());
    }
    println!("ready {} {}; Ctrl-C to end", lab.name(), process.pid());
    loop {
        std::thread::park();
    }
}
