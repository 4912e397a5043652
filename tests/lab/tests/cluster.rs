//! The cluster itself, tried with `kubectl` in the agents' place.

use responder_lab::{Cluster, cluster_or_skip};
use std::time::Instant;

#[test]
fn comes_up() {
    if !cluster_or_skip("comes_up") {
        return;
    }
    let t = Instant::now();
    let cluster = Cluster::builder().build().unwrap();
    println!("up in {:?}", t.elapsed());
    println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"]).unwrap());
    println!(
        "{}",
        cluster
            .node("n1")
            .check(&[
                "sh",
                "-c",
                "hostname; findmnt /run; ls -a /run /sys/fs/bpf; ps ax; ip -br a; ip r; ls /sys/class/net"
            ])
            .unwrap()
    );
    let t = Instant::now();
    cluster.crash("n1").unwrap();
    println!("crash {:?}", t.elapsed());
    cluster.boot("n1").unwrap();
    println!("boot {:?}", t.elapsed());
    drop(cluster);
    println!("down {:?}", t.elapsed());
}
