//! Where and when each command is run, or why it is not.

use responder_tests::commands::Command;

/// Parts of what users do, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// On files alone.
    Files,
    /// In a cluster without the agent, which has it then.
    Install,
    /// While there is something to be seen of everything that the documents speak of.
    Look,
    /// What moves addresses.
    Move,
    /// Until nothing is left.
    Remove,
    /// An agent on a node that is no pod.
    Outside,
    /// On a host without a cluster.
    Host,
}

/// Where a command is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// Where the administrator sits: with a kubeconfig, and the files of the project.
    Desk,
    /// As root on a node, or on the host.
    Node,
    /// On another machine of the segment.
    Neighbour,
}

/// How a command is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// To its end.
    Run(Stage, Place),
    /// As long as the stage lasts: it tells what happens.
    Follow(Stage, Place),
    /// As long as the stage lasts: it says when it is ready.
    Serve(Stage, Place),
    /// Not, for this reason.
    Not(&'static str),
}

use How::{Follow, Not, Run, Serve};
use Place::{Desk, Neighbour, Node};
use Stage::{Files, Host, Install, Look, Move, Outside, Remove};

/// What commands begin with; the longest beginning that fits counts. Each has to fit some command.
pub(crate) const TABLE: &[(&str, How)] = &[
    // Files.
    ("sed -e '1,/^spec:/d'", Run(Files, Desk)),
    ("promtool check rules", Run(Files, Desk)),
    // Install.
    ("for node in n1 n2 n3; do\n  ssh", Run(Install, Desk)),
    ("kubectl apply -f deploy/rendered/install.yaml", Run(Install, Desk)),
    ("kubectl rollout status daemonset/responder --namespace l2-responder", Run(Install, Desk)),
    ("kubectl exec --namespace l2-responder daemonset/responder", Run(Install, Desk)),
    ("sudo install target/release/responder /usr/local/bin", Run(Install, Desk)),
    ("sudo ln -s responder /usr/local/bin/kubectl-responder", Run(Install, Desk)),
    // Look.
    ("kubectl", Run(Look, Desk)),
    ("responder", Run(Look, Desk)),
    ("arping", Run(Look, Neighbour)),
    ("ndisc6", Run(Look, Neighbour)),
    ("ip ", Run(Look, Node)),
    ("tc ", Run(Look, Node)),
    ("ethtool", Run(Look, Node)),
    ("bpftool net show", Run(Look, Node)),
    // Move.
    ("kubectl responder watch", Follow(Move, Desk)),
    ("kubectl exec -n l2-responder AGENT -- responder watch", Follow(Move, Desk)),
    ("kubectl responder drain", Run(Move, Desk)),
    ("kubectl responder rebalance", Run(Move, Desk)),
    ("kubectl responder claims", Run(Move, Desk)),
    ("responder drain", Run(Move, Desk)),
    ("kubectl drain", Run(Move, Desk)),
    ("kubectl uncordon", Run(Move, Desk)),
    // Remove.
    ("kubectl delete daemonset responder --namespace l2-responder", Run(Remove, Desk)),
    ("kubectl apply -f deploy/rendered/uninstall.yaml", Run(Remove, Desk)),
    ("kubectl rollout status daemonset/responder-uninstall", Run(Remove, Desk)),
    ("kubectl delete -f deploy/rendered/install.yaml", Run(Remove, Desk)),
    // Outside.
    ("kubectl apply -f deploy/base/namespace.yaml", Run(Outside, Desk)),
    ("kubectl get configmap kube-root-ca.crt", Run(Outside, Desk)),
    ("kubectl config", Run(Outside, Desk)),
    ("responder run --kubeconfig agent.kubeconfig", Serve(Outside, Node)),
    // Host.
    ("sudo target/release/responder", Run(Host, Node)),
    ("sudo target/release/responder run", Serve(Host, Node)),
    ("cat > vips.toml", Run(Host, Node)),
    ("bpftool map dump pinned", Run(Host, Node)),
    // Not.
    ("cargo build", Not("what is tested was built so")),
    ("cargo xtask image", Not("the image of these pods was built so")),
    ("cargo xtask demo", Not("`cargo xtask test` runs it")),
    ("cargo xtask cluster", Not("tests/tests/real_nodes.rs has its short form")),
    ("cargo xtask test", Not("this is a part of it")),
    ("cargo xtask fuzz", Not("`cargo xtask test` runs its short form")),
    ("cargo xtask soak", Not("tests/tests/soak.rs has its short form")),
    ("cargo xtask vm-test", Not("`cargo xtask test` runs its short form")),
    ("skopeo copy", Not("needs a registry")),
];

/// Documents whose commands are run by another test, all of them.
pub(crate) const OTHERS: &[(&str, &str)] =
    &[("docs/migrating.md", "tests/tests/migrating.rs plays its steps")];

/// Commands that end with another code than 0, as is documented.
pub(crate) const CODES: &[(&str, i32)] = &[("kubectl responder why 192.0.2.20", 7)];

/// What commands begin with that print nothing when all is well.
pub(crate) const SILENT: &[&str] = &[
    "sudo install target/release/responder",
    "sudo ln -s",
    "sed -e '1,/^spec:/d'",
    "cat > vips.toml",
    "kubectl get configmap kube-root-ca.crt",
    "kubectl get validatingwebhookconfigurations",
];

/// What is done with a command: the line of a table, and what it says.
pub(crate) fn entry(command: &Command) -> Option<(&'static str, How)> {
    if let Some((document, reason)) = OTHERS.iter().find(|(document, _)| *document == command.document) {
        return Some((document, Not(reason)));
    }
    let lines = TABLE.iter().filter(|(begin, _)| command.text.starts_with(begin));
    lines.max_by_key(|(begin, _)| begin.len()).copied()
}

/// When a command is run.
pub(crate) fn stage(command: &Command) -> Option<Stage> {
    match entry(command)?.1 {
        Run(stage, _) | Follow(stage, _) | Serve(stage, _) => Some(stage),
        Not(_) => None,
    }
}
