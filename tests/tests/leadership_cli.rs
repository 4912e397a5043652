//! The operator's commands for a cluster, with three agents and a real API server: what is seen, and what is moved.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use responder_lab::{Cluster, ClusterAgent, Output, Service, cluster_or_skip, paths, wait_until};
use serde_json::{Value, json};

/// The router's address.
const GATEWAY: &str = "192.0.2.102";
const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DRAIN: &str = "l2-responder.io/drain";

fn vip(number: u8) -> IpAddr {
    [192, 0, 2, 200 + number].into()
}

fn cluster() -> (Cluster, Vec<ClusterAgent>) {
    let cluster = Cluster::builder().nodes(3).build().unwrap();
    let services: Vec<_> =
        (0..8).map(|n| Service::new(&format!("web{n}")).vips(&[vip(n)]).on(&["n1"])).collect();
    cluster.services(&services).unwrap();
    let mut agents: Vec<_> =
        NODES.iter().map(|node| cluster.agent(node, &["--lease-duration", "1s"]).unwrap()).collect();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    (cluster, agents)
}

/// `responder ARGUMENTS` where no node is: beside the API server.
fn responder(cluster: &Cluster, kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(paths::responder().unwrap());
    command.args(arguments).env("KUBECONFIG", kubeconfig).env("NO_COLOR", "1");
    cluster.management().spawn(command).unwrap().finish(Duration::from_secs(90)).unwrap()
}

fn admin(cluster: &Cluster, arguments: &[&str]) -> Output {
    responder(cluster, &cluster.kubeconfig(), arguments)
}

fn view(cluster: &Cluster) -> Value {
    let output = admin(cluster, &["status", "--json"]).ok().unwrap();
    serde_json::from_str::<Value>(&output.stdout).unwrap()["cluster"].take()
}

fn wait_view(cluster: &Cluster, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_until(what, SOON, || {
        last = view(cluster);
        wanted(&last).then(|| last.clone())
    });
    found.unwrap_or_else(|error| panic!("{error}: {last:#}"))
}

/// Whether every claim is held and every address answered.
fn settled(view: &Value) -> bool {
    let (claims, vips) = (view["claims"].as_array().unwrap(), view["vips"].as_array().unwrap());
    claims.len() == 16
        && claims.iter().all(|claim| claim["problem"].is_null())
        && vips.iter().all(|vip| !vip["owner"].is_null())
}

/// Waits until all agents live and hold everything, each its share, however slowly they have started.
fn balanced(cluster: &Cluster) -> Value {
    wait_view(cluster, "every claim held by live agents", |view| {
        let sessions = view["sessions"].as_array().unwrap();
        sessions.iter().all(|session| session["life"] == "live" && session["fitness"] == "fit")
            && settled(view)
    });
    admin(cluster, &["rebalance"]).ok().unwrap();
    let balanced = view(cluster);
    assert!(settled(&balanced) && misplaced(&balanced) == 0, "{balanced:#}");
    assert_eq!(holders(&balanced).len(), balanced["sessions"].as_array().unwrap().len(), "{balanced:#}");
    balanced
}

/// Claims by holder.
fn holders(view: &Value) -> BTreeMap<String, usize> {
    let mut holders = BTreeMap::new();
    for claim in view["claims"].as_array().unwrap() {
        let holder = claim["holder"].as_str().unwrap().split('/').next().unwrap().to_owned();
        *holders.entry(holder).or_default() += 1;
    }
    holders
}

fn misplaced(view: &Value) -> usize {
    let node = |text: &Value| text.as_str().unwrap().split('/').next().unwrap().to_owned();
    let claims = view["claims"].as_array().unwrap().iter();
    claims.filter(|claim| node(&claim["holder"]) != node(&claim["preferred"])).count()
}

/// A kubeconfig for a new ServiceAccount with these rights in the cluster (rules of a ClusterRole).
fn account(cluster: &Cluster, name: &str, rules: &Value) -> PathBuf {
    let api = cluster.requests();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(
        accounts,
        &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } }),
    )
    .unwrap();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let version = "rbac.authorization.k8s.io/v1";
    let role = json!({ "apiVersion": version, "kind": "ClusterRole", "metadata": { "name": name },
        "rules": rules });
    api.create(&format!("{rbac}/clusterroles"), &role).unwrap();
    let binding = json!({ "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "default" }] });
    api.create(&format!("{rbac}/clusterrolebindings"), &binding).unwrap();
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let answer = api.create(&format!("{accounts}/{name}/token"), &request).unwrap();
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(cluster.node("n1").kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = json!({ "token": answer["status"]["token"] });
    let path = cluster.dir().join(format!("{name}.kubeconfig"));
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn the_cluster_is_seen_from_everywhere() {
    if !cluster_or_skip("the_cluster_is_seen_from_everywhere") {
        return;
    }
    let (cluster, agents) = cluster();
    let seen = balanced(&cluster);
    assert_eq!(seen["vips"].as_array().unwrap().len(), 8);
    for session in seen["sessions"].as_array().unwrap() {
        assert_eq!((&session["life"], &session["fitness"]), (&json!("live"), &json!("fit")), "{seen:#}");
        assert!(session["reach"]["prefixes"].to_string().contains("192.0.2.0/24"), "{seen:#}");
        assert!(session["since_ms"].is_u64() && session["renewed_ms"].is_u64(), "{seen:#}");
    }
    assert_eq!(seen["claim_count"], 16);
    assert_eq!(seen["problems"], json!([]));
    for vip in seen["vips"].as_array().unwrap() {
        assert!(vip["reason"].as_str().unwrap().starts_with("holds claim-16-"), "{vip}");
        assert!(vip["services"][0]["name"].as_str().unwrap().starts_with("web"), "{vip}");
    }

    // For people, from a machine that is no node.
    let text = admin(&cluster, &["status"]).ok().unwrap().stdout;
    assert!(text.contains("8 addresses: 8 answered (--vips shows each)"), "{text}");
    assert!(!text.contains("this node is") && !text.contains("192.0.2.200"), "{text}");
    let text = admin(&cluster, &["status", "--vips=default/web3"]).ok().unwrap().stdout;
    assert!(text.contains("192.0.2.203") && !text.contains("192.0.2.204"), "{text}");

    // On a node: this host first, by the agent's own credentials, and the node marked.
    let output = agents[0].command(&["status"]).unwrap().ok().unwrap();
    for wanted in ["Deadline", "LINK", "Node      n1: session n1/", "this node is n1", "n1 *", "claim-16-00"]
    {
        assert!(output.stdout.contains(wanted), "{wanted}: {}", output.stdout);
    }
    let output = agents[0].command(&["status", "--json"]).unwrap().ok().unwrap();
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(status["cluster"]["this_node"], "n1");
    let leadership = &status["agent"]["leadership"];
    assert_eq!((&leadership["node"], &leadership["claims"]), (&json!("n1"), &json!(16)));
    assert!(leadership["deadline_left_ms"].as_i64().unwrap() > 0, "{leadership:#}");
    let held = leadership["machine"]["groups"].as_array().unwrap().len();
    assert_eq!(held, holders(&status["cluster"])["n1"], "{status:#}");
    assert!(!leadership["notes"].as_array().unwrap().is_empty());
    let local = agents[0].status().unwrap();
    assert!(local["cluster"].is_null() && !local["agent"].is_null());

    // What only nodes know, their default gateway, is asked of an agent, also where its rules are given.
    cluster.service(&Service::new("greedy").vips(&[GATEWAY.parse().unwrap()]).on(&["n1"])).unwrap();
    for rules in [&[][..], &["--ip-ranges", "192.0.2.0/24"]] {
        let text = admin(&cluster, &[&["status", "--vips"], rules].concat()).ok().unwrap().stdout;
        assert!(text.contains("refused 192.0.2.102 of Service default/greedy is, or was"), "{text}");
        assert!(text.contains("8 addresses: 8 answered") && !text.contains("problem:"), "{text}");
    }
    let text = admin(&cluster, &["status", "--vips", "--metrics-port", "0"]).ok().unwrap().stdout;
    assert!(text.contains("no agent could be asked what it refuses"), "{text}");

    // An address with endpoints nowhere is answered by nobody, and the reason is said.
    cluster.service(&Service::new("web0").vips(&[vip(0)]).local().on(&[])).unwrap();
    let text = admin(&cluster, &["status"]).ok().unwrap().stdout;
    assert!(text.contains("8 addresses: 7 answered, 1 by nobody"), "{text}");
    assert!(text.contains("no ready endpoint on any node"), "{text}");

    // A crashed node, too.
    cluster.crash("n3").unwrap();
    let seen = wait_view(&cluster, "n3 revoked", |view| {
        view["sessions"].as_array().unwrap().iter().any(|s| s["node"] == "n3" && s["life"] == "ended")
    });
    assert!(["n1", "n2"].contains(&seen["sessions"][2]["why"].as_str().unwrap()), "{seen:#}");
}

#[test]
fn a_node_is_drained_and_the_claims_come_back_only_on_request() {
    if !cluster_or_skip("a_node_is_drained_and_the_claims_come_back_only_on_request") {
        return;
    }
    let (cluster, _agents) = cluster();
    balanced(&cluster);
    let annotation =
        || cluster.requests().get("/api/v1/nodes/n2").unwrap()["metadata"]["annotations"][DRAIN].clone();

    // Where no agents are, nobody can say what it holds.
    let output = admin(&cluster, &["drain", "--node", "n2", "--namespace", "default"]);
    assert!(output.code() == Some(1) && output.stderr.contains("n2 is not drained"), "{output:?}");
    assert!(holders(&view(&cluster)).contains_key("n2"));
    let output = admin(&cluster, &["claims", "8", "--namespace", "default"]);
    assert!(output.code() == Some(1) && output.stderr.contains("is --namespace right?"), "{output:?}");
    let record = "/apis/coordination.k8s.io/v1/namespaces/default/leases/cluster";
    assert!(cluster.requests().get(record).is_err(), "a record was made");
    let mut watch = Command::new(paths::responder().unwrap());
    watch.args(["watch", "--cluster", "--namespace", "default", "--kubeconfig"]).arg(cluster.kubeconfig());
    let mut watch = cluster.management().spawn(watch).unwrap();
    watch.wait_line(SOON, |line| line.contains("no agent has started in this namespace")).unwrap();
    watch.kill().unwrap();

    let text = admin(&cluster, &["drain", "--node", "n2"]).ok().unwrap().stdout;
    assert!(
        text.contains("n2 is drained (") && text.contains("n2 holds nothing; its claims went to:"),
        "{text}"
    );
    let drained = view(&cluster);
    assert!(settled(&drained) && !holders(&drained).contains_key("n2"), "{drained:#}");
    assert_eq!(annotation(), "true");
    let fitness = drained["sessions"][1]["fitness"]["unfit"].as_str().unwrap();
    assert!(fitness.contains("is drained"), "{fitness}");
    let text = admin(&cluster, &["drain", "--node", "n2"]).ok().unwrap().stdout;
    assert!(text.contains("n2 is drained already"), "{text}");

    // Undone, and nothing moves by itself.
    let text = admin(&cluster, &["drain", "--node", "n2", "--undo"]).ok().unwrap().stdout;
    assert!(text.contains("takes part again") && text.contains("responder rebalance"), "{text}");
    assert_eq!(annotation(), Value::Null);
    let text = admin(&cluster, &["drain", "--node", "n2", "--undo"]).ok().unwrap().stdout;
    assert!(text.contains("was not drained"), "{text}");
    let undone = wait_view(&cluster, "n2 fit", |view| view["sessions"][1]["fitness"] == "fit");
    assert_eq!(holders(&undone), holders(&drained));
    let count = misplaced(&undone);
    assert!(count > 0, "{undone:#}");
    let text = admin(&cluster, &["status"]).ok().unwrap().stdout;
    assert!(text.contains(&format!("{count} not at their first choice")), "{text}");

    let text = admin(&cluster, &["rebalance", "--dry-run"]).ok().unwrap().stdout;
    assert!(text.contains(&format!("{count} claims would be moved; nothing was changed")), "{text}");
    assert_eq!(holders(&view(&cluster)), holders(&drained));
    let text = admin(&cluster, &["rebalance"]).ok().unwrap().stdout;
    assert!(text.contains(&format!("{count} claims moved; every claim is where it should be")), "{text}");
    let again = view(&cluster);
    assert!(settled(&again) && misplaced(&again) == 0, "{again:#}");
    let text = admin(&cluster, &["rebalance"]).ok().unwrap().stdout;
    assert!(text.contains("nothing to move"), "{text}");

    // The last fit node is silent then, because it is not to answer either, and the operator is told at once.
    for node in ["n1", "n2"] {
        admin(&cluster, &["drain", "--node", node]).ok().unwrap();
    }
    let output = admin(&cluster, &["drain", "--node", "n3"]);
    assert_eq!(output.code(), Some(6), "{output:?}");
    assert!(output.stdout.contains("no other node is fit") && output.stdout.contains("--undo"), "{output:?}");
    let seen = view(&cluster);
    assert!(holders(&seen) == [("n3".to_owned(), 16)].into(), "{seen:#}");
    let vips = seen["vips"].as_array().unwrap();
    assert!(vips.iter().all(|vip| vip["owner"].is_null()), "{seen:#}");
    assert!(vips[0]["reason"].as_str().unwrap().contains("is drained"), "{seen:#}");
}

#[test]
fn a_missing_right_is_named() {
    if !cluster_or_skip("a_missing_right_is_named") {
        return;
    }
    let (cluster, agents) = cluster();
    balanced(&cluster);

    // The agents' own account lists and watches, and may not drain.
    let output = agents[0].command(&["drain", "--no-wait"]).unwrap();
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("`patch nodes`") && output.stderr.contains("cluster-admin"), "{output:?}");
    let output = admin(&cluster, &["drain", "--node", "n9"]);
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("n9") && output.stderr.contains("--node"), "{output:?}");

    // Who may read Leases alone sees sessions and claims.
    let leases = json!([{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "list"] }]);
    let few = account(&cluster, "reader", &leases);
    let output = responder(&cluster, &few, &["status"]).ok().unwrap();
    for wanted in ["list services", "list endpointslices", "list nodes", "claim-16-00", "live"] {
        assert!(output.stdout.contains(wanted), "{wanted}: {}", output.stdout);
    }
    let output = responder(&cluster, &few, &["rebalance"]);
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("list services"), "{output:?}");

    // Who may read everything may not move anything.
    let mut read = leases;
    for (group, resources) in
        [("", json!(["services", "nodes"])), ("discovery.k8s.io", json!(["endpointslices"]))]
    {
        let rule = json!({ "apiGroups": [group], "resources": resources, "verbs": ["get", "list"] });
        read.as_array_mut().unwrap().push(rule);
    }
    let all = account(&cluster, "viewer", &read);
    let output = responder(&cluster, &all, &["status"]).ok().unwrap();
    assert!(output.stdout.contains("8 addresses: 8 answered"), "{output:?}");
    assert!(!output.stdout.contains("problem:"), "{output:?}");
    admin(&cluster, &["drain", "--node", "n1"]).ok().unwrap();
    admin(&cluster, &["drain", "--node", "n1", "--undo"]).ok().unwrap();
    wait_view(&cluster, "something misplaced", |view| misplaced(view) > 0);
    let output = responder(&cluster, &all, &["rebalance"]);
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("update leases"), "{output:?}");
    let output = responder(&cluster, &all, &["rebalance", "--dry-run"]).ok().unwrap();
    assert!(output.stdout.contains("would be moved"), "{output:?}");

    // Who may read nothing is told so, by one line for each part.
    let none = account(&cluster, "nobody", &json!([]));
    let output = responder(&cluster, &none, &["status"]);
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stdout.contains("list leases in namespace l2-responder"), "{output:?}");

    // Without any API server.
    let mut command = Command::new(paths::responder().unwrap());
    command.args(["status", "--cluster"]).env("HOME", cluster.dir()).env_remove("KUBECONFIG");
    let output = cluster.management().spawn(command).unwrap().finish(SOON).unwrap();
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("--kubeconfig"), "{output:?}");
}

#[test]
fn a_record_of_a_takeover_is_replayed() {
    if !cluster_or_skip("a_record_of_a_takeover_is_replayed") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).build().unwrap();
    cluster.service(&Service::new("web").vips(&[vip(0)]).on(&["n1"])).unwrap();
    let record = cluster.dir().join("n2.record");
    let options = ["--lease-duration", "1s", "--record", record.to_str().unwrap()];
    let mut agents = [cluster.agent("n1", &options[..2]).unwrap(), cluster.agent("n2", &options).unwrap()];
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    balanced(&cluster);
    cluster.crash("n1").unwrap();
    wait_view(&cluster, "everything on n2", |view| {
        settled(view) && holders(view).len() == 1 && holders(view).contains_key("n2")
    });
    agents[1].kill().unwrap();

    let replay = |file: &Path| {
        // This test is one of the programs that it has built.
        let xtask = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("xtask");
        Command::new(xtask).arg("replay").arg(file).output().unwrap()
    };
    let output = replay(&record);
    let timeline = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("every decision made again"), "{said}");
    assert!(timeline.contains("revoked") && timeline.contains("answer for claims"), "{timeline}");

    let text = fs::read_to_string(&record).unwrap();
    let number = text.lines().position(|line| line.contains("was not renewed")).unwrap() + 1;
    let tampered = cluster.dir().join("tampered.record");
    fs::write(&tampered, text.replacen("was not renewed", "was renewed", 1)).unwrap();
    let output = replay(&tampered);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("line {number},")), "{said}");
}
