//! Everything that is done with a cluster, from the installation to the removal, on real nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use responder_lab::{
    Endpoint, Mac, NAMESPACE, Pod, Service,
    frames::{Arp, arp},
    kubelets_or_skip, send_all, skip, tools_or_skip, wait_until,
};
use responder_tests::{
    commands::Desk,
    daemonset::{Installation, vips},
};
use serde_json::{Value, json};

use super::{
    runner::{Runner, must},
    tables::{Place, Stage},
};

/// How long something may take, however busy the machine.
const SOON: Duration = Duration::from_secs(90);
/// What documents call `VIP`, and name in examples.
const EXAMPLE: &str = "192.0.2.10";
/// The router's address.
const GATEWAY: &str = "192.0.2.102";
/// What documents call `NODE`.
const NODE: &str = "n2";
/// What the neighbours' programs are.
const TOOLS: [&str; 9] = ["arping", "bash", "bpftool", "ethtool", "hostname", "ip", "jq", "ndisc6", "tc"];

#[test]
fn documented_commands_in_a_cluster() {
    let test = "documented_commands_in_a_cluster";
    if !kubelets_or_skip(test) || !tools_or_skip(test, &TOOLS) {
        return;
    }
    let Some(image) = std::env::var_os("RESPONDER_IMAGE").map(PathBuf::from) else {
        return skip(test, "RESPONDER_IMAGE does not name an archive of the agent's image");
    };
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let site = must(Installation::prepare(&image, &deploy, "base", false), "the cluster");
    prepare(&site);

    let mut runner = Runner::new(desk(&site, &image), |place, command| match place {
        Place::Desk => site.cluster.management().spawn(command),
        Place::Node => site.cluster.node("n1").spawn(command),
        Place::Neighbour => site.cluster.host("c").ns().spawn(command),
    });
    let nothing = || ();
    runner.stage(Stage::Install, &nothing);
    if !runner.has_failed() {
        must(site.settle(&[]), "after the installation");
        let agent = trouble(&site);
        runner.desk.word("AGENT", &agent.name);
        runner.stage(Stage::Look, &nothing);
        refused_by_all(&site);
        runner.stage(Stage::Move, &|| must(site.settle(&[]), "after a move"));
        runner.stage(Stage::Remove, &nothing);
        runner.stage(Stage::Outside, &nothing);
    }
    runner.finish();
}

/// From outside of the nodes, too, an address that agents refuse is shown as that, like `why` has it.
fn refused_by_all(site: &Installation) {
    let status = |arguments: &[&str]| {
        let output = must(site.responder(&[&["status"], arguments].concat()), "status");
        must(output.ok(), "status").stdout
    };
    let seen: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    let cluster = &seen["cluster"];
    let any = |list: &str, key: &str| cluster[list].as_array().unwrap().iter().any(|of| of[key] == GATEWAY);
    assert!(any("refused", "address") && !any("vips", "vip"), "{cluster:#}");
    assert_eq!(cluster["problems"], json!([]));
    let why = must(site.responder(&["why", GATEWAY]), "why");
    assert!(why.stdout.contains("the address of a default gateway"), "{why:?}");
    // Where none can be asked, that is said.
    let text = status(&["--vips", "--metrics-port", "0"]);
    assert!(text.contains("no agent could be asked what it refuses"), "{text}");
}

/// The administrator's directory.
fn desk(site: &Installation, image: &Path) -> Desk {
    let mut desk = Desk::create(&site.cluster.dir().join("desk")).unwrap();
    let bin = desk.dir().join("bin");
    desk.link("bin/kubectl", &site.cluster.kubectl_path()).unwrap();
    desk.link("admin.conf", &site.cluster.kubeconfig()).unwrap();
    fs::create_dir(desk.dir().join("home/.kube")).unwrap();
    desk.link("home/.kube/config", &site.cluster.kubeconfig()).unwrap();
    desk.link("target/image/responder-x86_64.tar", &fs::canonicalize(image).unwrap()).unwrap();
    // There is no sshd; but who logs in on a node is in its namespaces.
    let mut ssh = "case $1 in\n".to_owned();
    for node in site.cluster.nodes() {
        ssh.push_str(&format!("{}) pid={} ;;\n", node.name(), node.pid().unwrap()));
    }
    ssh.push_str("esac\nshift\nexec nsenter --all --target=\"$pid\" \"$@\"");
    desk.script("ssh", &ssh).unwrap();
    desk.word("/usr/local/bin", &bin.display().to_string());
    desk.word("VIP", EXAMPLE);
    desk.word("NODE", NODE);
    desk
}

/// What the documents take for granted: the Services of their examples, and kinds of the Prometheus operator.
fn prepare(site: &Installation) {
    let not_ready = [Endpoint::not_ready("n2"), Endpoint::not_ready("n3")];
    let services = [
        Service::new("example")
            .vips(&[EXAMPLE.parse().unwrap(), "2001:db8::10".parse().unwrap()])
            .on(&["n1"]),
        Service::new("local").vips(&["192.0.2.20".parse().unwrap()]).local().endpoints(&not_ready),
        Service::new("greedy").vips(&[GATEWAY.parse().unwrap()]).on(&["n1"]),
    ];
    must(site.cluster.services(&services), "the Services");
    let kinds = [("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")];
    for (kind, plural) in kinds {
        let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.monitoring.coreos.com") },
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural },
                "versions": [
                    { "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } },
                ],
            },
        });
        must(site.cluster.apply(&definition.to_string()), kind);
    }
}

/// Has happened what commands look for: an agent has been started again, its writes were refused, a Lease was damaged, and
/// somebody else has claimed an address. Returns that agent's pod.
fn trouble(site: &Installation) -> Pod {
    let owner = site.owner(vips()[0]).unwrap();
    let pod = site.cluster.agent_pod(&owner).unwrap();
    for pid in site.cluster.processes(&pod).unwrap() {
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &pid.to_string()]);
        site.cluster.management().spawn(kill).unwrap().finish(SOON).unwrap().ok().unwrap();
    }
    let again = wait_until("the agent started again", SOON, || {
        let pods = site.agents().ok()?;
        pods.into_iter().find(|now| now.name == pod.name && now.restarts > pod.restarts && now.ready)
    });
    let pod = again.unwrap_or_else(|error| panic!("{error}\n{}", site.diagnosis()));
    must(site.settle(&[]), "after an agent's end");

    let all = ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=l2-responder", "--tail=-1"];
    let own = ["logs", "-n", NAMESPACE, &pod.name];
    let wait_log = |logs: &[&str], what: &str, again: &dyn Fn()| {
        let found = wait_until(&format!("{what:?} in a log"), SOON, || {
            again();
            site.kubectl(logs).ok().filter(|text| text.contains(what)).map(|_| ())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{}", site.diagnosis()));
    };

    let std::net::IpAddr::V4(vip) = vips()[0] else { panic!("the first VIP is none of IPv4") };
    let sha = site.mac("c");
    let claim = arp(Mac::BROADCAST, Arp { op: 1, sha, spa: vip, tha: Mac::ZERO, tpa: vip });
    let send = || send_all(site.cluster.host("c").ns(), "eth0", std::slice::from_ref(&claim)).unwrap();
    wait_log(&all, "another station claims", &send);

    site.kubectl(&["delete", "rolebinding", "-n", NAMESPACE, "responder"]).unwrap();
    wait_log(&own, "renewal failed", &|| ());
    let rights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/rbac.yaml");
    site.kubectl(&["apply", "-f", rights.to_str().unwrap()]).unwrap();
    must(site.settle(&[]), "after writes were refused");

    let leases = site.kubectl(&["get", "leases", "-n", NAMESPACE, "-o", "name"]).unwrap();
    let claim = leases.lines().find(|line| line.contains("/claim-")).unwrap();
    let nonsense = "l2-responder.io/record=nonsense";
    site.kubectl(&["annotate", "-n", NAMESPACE, claim, nonsense, "--overwrite"]).unwrap();
    wait_log(&all, "cannot be understood", &|| ());
    must(site.settle(&[]), "after a Lease was damaged");
    site.cluster.agent_pod(&owner).unwrap()
}
