//! Nodes with kubelets: what they are, and that nothing is left of them.

use std::{fs, process::Command, time::Duration};

use nix::sys::signal::Signal;
use responder_lab::{Cluster, LAB_IMAGE, Lab, kubelets_or_skip, namespaces, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

/// Control groups whose names begin so, in version 1's hierarchy of memory and in version 2's.
fn cgroups(name: &str) -> Vec<String> {
    let dirs = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpuset"];
    let entries = dirs.iter().flat_map(fs::read_dir).flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(name)).collect()
}

#[test]
fn a_pod_runs_and_survives_its_node_s_crash() {
    if !kubelets_or_skip("a_pod_runs_and_survives_its_node_s_crash") {
        return;
    }
    let cluster = Cluster::builder().nodes(1).kubelets(&[]).build().unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "pause", "namespace": "default", "labels": { "app": "pause" } },
        "spec": { "containers": [{ "name": "pause", "image": LAB_IMAGE, "imagePullPolicy": "Never" }] },
    });
    cluster.apply(&pod.to_string()).unwrap();
    let ready = || cluster.pods("default", "app=pause").unwrap().into_iter().find(|pod| pod.ready);
    let before = wait_until("the pod", SOON, ready).unwrap();
    assert_eq!(before.node, "n1");
    let pids = cluster.processes(&before).unwrap();
    assert_eq!(pids.len(), 1);
    assert!(fs::read_to_string(format!("/proc/{}/cmdline", pids[0])).unwrap().starts_with("/lab\0pause"));
    assert!(cluster.memory_group(&before).unwrap().is_dir());

    cluster.crash("n1").unwrap();
    assert!(!fs::exists(format!("/proc/{}", pids[0])).unwrap());
    cluster.boot("n1").unwrap();
    cluster.wait_node_ready("n1").unwrap();
    let again = || ready().filter(|pod| pod.container != before.container);
    let after = wait_until("the pod again", SOON, again).unwrap();
    assert_eq!((after.name.as_str(), after.restarts), ("pause", 1));

    cluster.stop_kubelet("n1").unwrap();
    assert!(cluster.stop_kubelet("n1").unwrap_err().to_string().contains("no kubelet runs on n1"));
    assert_eq!(cluster.processes(&after).unwrap().len(), 1);
    cluster.start_kubelet("n1").unwrap();
    cluster.wait_node_ready("n1").unwrap();
}

#[test]
fn nothing_is_left_of_killed_nodes() {
    if !kubelets_or_skip("nothing_is_left_of_killed_nodes") {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).clients(&[]).build().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_responder-lab"));
        command.arg("nodes");
        let mut child = lab.node("a").ns().spawn(command).unwrap();
        let ready = child.wait_line(2 * SOON, |line| line.starts_with("ready ")).unwrap();
        let words: Vec<&str> = ready.split([' ', ';']).collect();
        let (name, pid) = (words[1], words[2]);
        assert!(!cgroups(name).is_empty());
        child.signal(signal).unwrap();
        child.wait(SOON).unwrap();
        if signal == Signal::SIGKILL {
            let gone = || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(());
            wait_until("the end of all processes", SOON, gone).unwrap();
            responder_lab::cleanup_stale();
        }
        let left: Vec<_> = namespaces().unwrap().into_iter().filter(|ns| ns.starts_with(name)).collect();
        assert!(left.is_empty() && cgroups(name).is_empty(), "{left:?} {:?}", cgroups(name));
        assert!(!std::env::temp_dir().join(name).exists());
    }
}
