//! What happens to an installation in its life.

use std::{fs, net::IpAddr, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{NAMESPACE, Pod, wait_until, xdp_on};

use super::{
    Installation, SETTLED,
    workload::{LOCAL, vips, vips_of},
};

/// How the VIPs are to be answered during a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// Not a question remains without an answer.
    All,
    /// There may be a gap, which is reported.
    WithGap,
}

/// Something that happens to an installation. Afterwards all VIPs are answered, unless it is the end.
pub struct Scenario {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What happens, as a sentence.
    pub about: &'static str,
    /// What is expected of the answers.
    pub answers: Answers,
    pub(super) play: fn(&mut Installation) -> Result<String>,
}

/// All of them, in the order in which they are played.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "install",
        about: "kubectl apply -k: from nothing to all VIPs answered",
        answers: Answers::WithGap,
        play: install,
    },
    Scenario {
        name: "rolling-update",
        about: "kubectl rollout restart: each agent is replaced by another",
        answers: Answers::All,
        play: rolling_update,
    },
    Scenario {
        name: "node-drain",
        about: "kubectl drain and responder drain of a node that answers, and back",
        answers: Answers::WithGap,
        play: node_drain,
    },
    Scenario {
        name: "pod-eviction",
        about: "the pod of an agent that answers is evicted",
        answers: Answers::WithGap,
        play: pod_eviction,
    },
    Scenario {
        name: "oom-kill",
        about: "the kernel kills an agent that answers because its memory limit is reached",
        answers: Answers::WithGap,
        play: oom_kill,
    },
    Scenario {
        name: "kubelet-stop",
        about: "the kubelet of a node that answers stops until the node is NotReady, and comes back",
        answers: Answers::WithGap,
        play: kubelet_stop,
    },
    Scenario {
        name: "node-crash",
        about: "a node that answers loses power, and is switched on again",
        answers: Answers::WithGap,
        play: node_crash,
    },
    Scenario {
        name: "uninstall",
        about: "everything is removed: no program, pin or Lease is left",
        answers: Answers::WithGap,
        play: uninstall,
    },
];

fn first_vip() -> IpAddr {
    vips_of(0)[0]
}

fn install(site: &mut Installation) -> Result<String> {
    let begin = Instant::now();
    site.kustomized(&["apply"], site.variant)?;
    site.settle(&[])?;
    let answered = begin.elapsed();
    for vip in vips() {
        site.fetch(vip)?;
    }
    for node in site.names() {
        let seen = site.status_on(&node)?;
        let told = seen["agent"]["leadership"]["node"].as_str();
        ensure!(told == Some(node.as_str()), "`responder status` on {node} finds no agent: {seen:#}");
    }
    Ok(format!(
        "answered {:.1} s after kubectl apply; web servers reached by every VIP",
        answered.as_secs_f64()
    ))
}

fn rolling_update(site: &mut Installation) -> Result<String> {
    let before = site.agents()?;
    let owners: Vec<String> = vips().iter().map(|vip| site.owner(*vip)).collect::<Result<_>>()?;
    site.kubectl(&["rollout", "restart", "daemonset", "-n", NAMESPACE])?;
    site.settle(&before)?;
    let after: Vec<String> = vips().iter().map(|vip| site.owner(*vip)).collect::<Result<_>>()?;
    ensure!(owners == after, "VIPs moved from {owners:?} to {after:?}");
    Ok(format!("{} agents replaced, no VIP moved", before.len()))
}

fn node_drain(site: &mut Installation) -> Result<String> {
    let local = vips_of(LOCAL)[0];
    let node = site.owner(local)?;
    site.kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"])?;
    // Its web server has gone, so a Service that wants one on the node itself follows.
    let next = site.wait_other(local, &node)?;
    site.responder(&["drain", "--node", &node])?.ok()?;
    for vip in vips() {
        ensure!(site.owner(vip)? != node, "{node} is drained and answers for {vip}");
    }
    site.fetch(local)?;
    site.responder(&["drain", "--node", &node, "--undo"])?.ok()?;
    site.kubectl(&["uncordon", &node])?;
    site.settle(&[])?;
    Ok(format!("{node} gave all to others, the Local VIP to {next}"))
}

fn pod_eviction(site: &mut Installation) -> Result<String> {
    let (node, pod) = owner_pod(site)?;
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": pod.name, "namespace": NAMESPACE },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/eviction", pod.name);
    site.cluster.requests().create(&path, &eviction)?;
    let next = site.wait_other(first_vip(), &node)?;
    site.settle(&[pod])?;
    Ok(format!("{node} handed over to {next}"))
}

fn oom_kill(site: &mut Installation) -> Result<String> {
    let (node, pod) = owner_pod(site)?;
    let group = site.cluster.memory_group(&pod)?;
    let limit = memory_limit(&group).context("the agent's container has no memory limit")?;
    for pid in site.cluster.processes(&pod)? {
        // What the kernel kills first is the agent.
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?;
    }
    let eat = format!("echo $$ > {}/cgroup.procs && exec tail /dev/zero", group.display());
    let mut command = Command::new("sh");
    command.args(["-c", &eat]);
    let mut eater = site.cluster.management().spawn(command)?;
    let again = wait_until("the agent killed and started again", SETTLED, || {
        let pods = site.agents().ok()?;
        pods.into_iter().find(|now| now.name == pod.name && now.restarts > pod.restarts && now.ready)
    });
    eater.kill()?;
    again.with_context(|| format!("{}\n{}", eater.last_words(), site.diagnosis()))?;
    let object = site.kubectl(&["get", "pod", "-n", NAMESPACE, &pod.name, "-o", "json"])?;
    ensure!(object.contains("OOMKilled"), "the container was ended otherwise: {object}");
    site.settle(&[])?;
    let owner = site.owner(first_vip())?;
    let outcome = if owner == node { "kept its VIPs".to_owned() } else { format!("lost them to {owner}") };
    Ok(format!("limit {} MiB; {node} was back and {outcome}", limit >> 20))
}

/// The limit of a control group, in bytes, if it is one that can be reached without harm.
fn memory_limit(group: &Path) -> Option<u64> {
    let files = ["memory.max", "memory.limit_in_bytes"].map(|file| group.join(file));
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    text.trim().parse().ok().filter(|limit| *limit <= 1 << 30)
}

fn kubelet_stop(site: &mut Installation) -> Result<String> {
    let node = site.owner(first_vip())?;
    site.cluster.stop_kubelet(&node)?;
    site.wait_condition(&node, "Unknown")?;
    let next = site.wait_other(first_vip(), &node)?;
    site.cluster.start_kubelet(&node)?;
    site.wait_condition(&node, "True")?;
    site.settle(&[])?;
    Ok(format!("{node} answered until it was NotReady, then handed over to {next}"))
}

fn node_crash(site: &mut Installation) -> Result<String> {
    let node = site.owner(first_vip())?;
    site.cluster.crash(&node)?;
    let next = site.wait_other(first_vip(), &node)?;
    site.cluster.boot(&node)?;
    site.cluster.wait_node_ready(&node)?;
    site.settle(&[])?;
    Ok(format!("{next} took over from {node}, which came back"))
}

fn uninstall(site: &mut Installation) -> Result<String> {
    // As docs/install.md says.
    site.kubectl(&["delete", "daemonset", "responder", "-n", NAMESPACE, "--cascade=foreground"])?;
    site.kustomized(&["apply"], "uninstall")?;
    site.kubectl(&["rollout", "status", "daemonset/responder-uninstall", "-n", NAMESPACE, "--timeout=60s"])?;
    site.kustomized(&["delete", "--ignore-not-found"], site.variant)?;
    for node in site.cluster.nodes() {
        let ns = site.cluster.host(node.name()).ns();
        ensure!(xdp_on(ns, "eth0")?.is_none(), "an XDP program is left on {}", node.name());
        let pins = node.root()?.join("sys/fs/bpf/responder");
        ensure!(!pins.exists(), "{} is left on {}", pins.display(), node.name());
    }
    for vip in vips() {
        site.observer.wait_silence(vip, 20, SETTLED)?;
    }
    Ok("no program, no pin, no answer left".to_owned())
}

/// The node that answers for the first VIP, and its agent.
fn owner_pod(site: &Installation) -> Result<(String, Pod)> {
    let node = site.owner(first_vip())?;
    let pod = site.cluster.agent_pod(&node)?;
    Ok((node, pod))
}
