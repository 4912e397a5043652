//! A lab to look around in: `cargo run -p responder-lab`, as root; with the argument `cluster`, a cluster, with
//! `nodes`, one with a real node. It is gone when this is interrupted.
//!
//! With `serve NAME PORT`, a web server that says its name: an endpoint on a cluster's node. With `pause`, what keeps a
//! pod's namespaces. With `relay FILE ADDRESS`, a way to an address from the network namespace of that file.
//!
//! For virtual machines: with `control-plane`, an API server for the nodes in one; with `connect ADDRESS` (a socket's path or a
//! TCP port's), a connection from standard input and output; with `hypervisor MONITOR SOCKET`, one request to stop it.

use std::{
    env,
    path::Path,
    process::{self, Command},
    thread,
};

use anyhow::{Context as _, Result, bail};
use responder_lab::{
    Cluster, ClusterBuilder, Lab, connect, relay, serve_control_plane, serve_hypervisor, traffic,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => look_around(),
        ["cluster"] => look_around_cluster(Cluster::builder().nodes(2)),
        ["nodes"] => look_around_cluster(Cluster::builder().nodes(1).kubelets(&[])),
        ["serve", name, port] => {
            // Also as the first process of a pod, which is ended by no signal that it does not ask for.
            thread::spawn(|| wait_for_end().map(|()| process::exit(0)));
            traffic::serve_web(name, port.parse().context("no port")?)
        }
        ["relay", outside, server] => relay(Path::new(outside), server.parse().context("no address")?),
        ["pause"] => wait_for_end(),
        ["control-plane"] => serve_control_plane(),
        ["connect", server] => connect(server),
        ["hypervisor", monitor, requests] => serve_hypervisor(Path::new(monitor), Path::new(requests)),
        other => bail!(
            "no arguments, cluster, nodes, serve NAME PORT, relay FILE ADDRESS, pause, control-plane, connect ADDRESS, \
             or hypervisor MONITOR SOCKET; not {other:?}"
        ),
    }
}

fn wait_for_end() -> Result<()> {
    Signals::new([SIGINT, SIGTERM])?.forever().next();
    Ok(())
}

fn look_around() -> Result<()> {
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
        thread::park();
    }
}

fn look_around_cluster(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.build()?;
    let mut sleep = Command::new("sleep");
    sleep.arg("infinity");
    let process = cluster.node("n1").spawn(sleep)?;
    println!(
        "nsenter --net={} {} --kubeconfig {} get nodes",
        cluster.management().path().display(),
        cluster.kubectl_path().display(),
        cluster.kubeconfig().display()
    );
    println!("n1: nsenter --all --target={}", process.pid());
    println!("ready {} {}; Ctrl-C to end", cluster.lab().name(), process.pid());
    loop {
        thread::park();
    }
}
