//! What `deploy` asks a cluster for, and what the API server says to it.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{collections::BTreeSet, env, fs, net::IpAddr, path::PathBuf, process::Command, time::Duration};

use responder_lab::{Cluster, Service, cluster_or_skip, paths, wait_until};
use serde_json::{Value, json};

/// What is rendered, and where that is kept: what `kubectl apply -f` takes.
const RENDERED: [(&str, &str); 2] = [("base", "install.yaml"), ("uninstall", "uninstall.yaml")];

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Directories with a `kustomization.yaml` that an operator applies.
fn directories() -> Vec<PathBuf> {
    let overlays = fs::read_dir(deploy().join("overlays")).unwrap().map(|entry| entry.unwrap().path());
    RENDERED.iter().map(|(name, _)| deploy().join(name)).chain(overlays).collect()
}

fn kustomize(directory: &PathBuf) -> String {
    let kubectl = PathBuf::from(env::var_os("RESPONDER_KUBE_BIN").unwrap()).join("kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_rendered_is_current() {
    if !cluster_or_skip("what_is_rendered_is_current") {
        return;
    }
    for (name, file) in RENDERED {
        let path = deploy().join("rendered").join(file);
        let rendered = format!("# kubectl kustomize deploy/{name}\n{}", kustomize(&deploy().join(name)));
        if env::var_os("RESPONDER_BLESS").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == rendered,
            "{} is not what deploy/{name} makes: RESPONDER_BLESS=1 cargo xtask test what_is_rendered_is_current",
            path.display()
        );
        let image = format!("image: localhost/l2-responder/responder:{}\n", env!("CARGO_PKG_VERSION"));
        assert!(rendered.contains(&image), "no {image:?} in {rendered}");
    }
}

/// A setting that the agent does not know would be without effect, and nobody would say so.
#[test]
fn the_agent_knows_all_settings() {
    if !cluster_or_skip("the_agent_knows_all_settings") {
        return;
    }
    let help = Command::new(paths::responder().unwrap()).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut all = BTreeSet::new();
    for directory in directories() {
        let text = kustomize(&directory);
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        all.extend(words.filter(|word| word.starts_with("RESPONDER_")).map(str::to_owned));
    }
    assert!(all.contains("RESPONDER_LEASE_DURATION") && all.contains("RESPONDER_NODE_NAME"), "{all:?}");
    let unknown: Vec<_> = all.iter().filter(|name| !help.contains(&format!("[env: {name}="))).collect();
    assert!(unknown.is_empty(), "`responder run --help` does not name {unknown:?}");
}

#[test]
fn the_api_server_takes_the_manifests_as_they_are() {
    if !cluster_or_skip("the_api_server_takes_the_manifests_as_they_are") {
        return;
    }
    let cluster = Cluster::builder().nodes(1).build().unwrap();
    let strict = ["--dry-run=server", "--validate=strict", "--warnings-as-errors"];
    for directory in directories() {
        let place = ["apply", "-k", directory.to_str().unwrap()];
        let said = cluster.kubectl(&[&place[..], &strict[..]].concat()).unwrap();
        assert!(said.contains("daemonset.apps/responder"), "{said}");
    }
    for (_, file) in RENDERED {
        let path = deploy().join("rendered").join(file);
        cluster.kubectl(&[&["apply", "-f", path.to_str().unwrap()], &strict[..]].concat()).unwrap();
    }
    pod_security(&cluster);
    priority(&cluster);
}

/// The namespace's level is the lowest that admits the agents' pods, and they ask for no more than they need of it.
fn pod_security(cluster: &Cluster) {
    let daemon_set =
        cluster.requests().get("/apis/apps/v1/namespaces/l2-responder/daemonsets/responder").unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "responder" },
        "spec": daemon_set["spec"]["template"]["spec"],
    });
    let create = |namespace: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        cluster.requests().request("POST", &path, "application/json", &pod.to_string()).unwrap()
    };
    let refusal = |level: &str| {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": level, "labels": { "pod-security.kubernetes.io/enforce": level },
        } });
        cluster.requests().create("/api/v1/namespaces", &namespace).unwrap();
        let (code, answer) = create(level);
        assert_eq!(code, 403, "{answer:#}");
        answer["message"].as_str().unwrap().to_owned()
    };
    let (code, answer) = create("l2-responder");
    assert_eq!(code, 201, "{answer:#}");
    let spec: &Value = &answer["spec"];
    assert_eq!(
        (&spec["priorityClassName"], &spec["priority"]),
        (&json!("system-node-critical"), &json!(2_000_001_000))
    );

    let baseline = refusal("baseline");
    for reason in ["host namespaces", "hostPath volumes", "\"BPF\", \"NET_ADMIN\", \"NET_RAW\", \"PERFMON\""]
    {
        assert!(baseline.contains(reason), "{reason}: {baseline}");
    }
    assert!(!baseline.contains("privileged (") && !baseline.contains("hostPort"), "{baseline}");
    let restricted = refusal("restricted");
    for kept in ["allowPrivilegeEscalation", "seccompProfile", "must set securityContext.capabilities.drop"] {
        assert!(!restricted.contains(kept), "{kept}: {restricted}");
    }
}

/// Renewals go by the priority level of their own.
fn priority(cluster: &Cluster) {
    let vip: IpAddr = "192.0.2.200".parse().unwrap();
    cluster.service(&Service::new("web").vips(&[vip]).on(&["n1"])).unwrap();
    let requests = cluster.requests();
    let dispatched = || {
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        requests.metric(name, "flow_schema=\"l2-responder\",priority_level=\"l2-responder\"").unwrap()
    };
    let before = dispatched();
    let mark = cluster.audit().mark().unwrap();
    let _agent = cluster.agent("n1", &["--lease-duration", "1s"]).unwrap();
    wait_until("renewals with their own priority", Duration::from_secs(30), || {
        let renewed = cluster.audit().count(mark, |request| {
            request.node.as_deref() == Some("n1") && request.verb == "update" && request.name == "session-n1"
        });
        (renewed.ok()? >= 8 && dispatched() - before >= 8.0).then_some(())
    })
    .unwrap();
}
