//! `responder why`, kubectl's plugin, and the log, with two agents and a real API server.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{
    env, ffi::OsString, net::IpAddr, os::unix::fs::symlink, path::Path, process::Command, time::Duration,
};

use responder_lab::{Cluster, ClusterAgent, Output, Service, cluster_or_skip, paths, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const NOT_ANSWERED: Option<i32> = Some(7);
const OPTIONS: [&str; 4] = ["--lease-duration", "5s", "--ip-ranges", "192.0.2.0/24,2001:db8::/64"];

fn vip(number: u8) -> IpAddr {
    [192, 0, 2, 200 + number].into()
}

/// One address that is answered, and some that are not, each for a reason of its own.
fn cluster() -> (Cluster, Vec<ClusterAgent>) {
    let cluster = Cluster::builder().nodes(2).build().unwrap();
    let six: IpAddr = "2001:db8::c8".parse().unwrap();
    let services = [
        Service::new("web").vips(&[vip(0), six]).on(&["n1"]),
        Service::new("out").vips(&["198.51.100.9".parse().unwrap()]).on(&["n1"]),
        Service::new("local").vips(&[vip(1)]).local().on(&[]),
        Service::new("other").vips(&[vip(2)]).class("example.com/other").on(&["n1"]),
    ];
    cluster.services(&services).unwrap();
    let mut agents: Vec<_> = ["n1", "n2"].map(|node| cluster.agent(node, &OPTIONS).unwrap()).into();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    (cluster, agents)
}

/// A command beside the API server, as administrator.
fn admin(cluster: &Cluster, mut command: Command) -> Output {
    command.env("KUBECONFIG", cluster.kubeconfig()).env("NO_COLOR", "1");
    cluster.management().spawn(command).unwrap().finish(SOON).unwrap()
}

fn responder(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(paths::responder().unwrap());
    command.args(arguments);
    admin(cluster, command)
}

fn why(cluster: &Cluster, address: &str) -> (Option<i32>, Value) {
    let output = responder(cluster, &["why", address, "--json"]);
    let told = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code(), told)
}

fn wait_answered(cluster: &Cluster, address: &str, answered: bool) -> Value {
    let mut last = Value::Null;
    let found = wait_until(&format!("{address} answered: {answered}"), SOON, || {
        let (code, told) = why(cluster, address);
        last = told;
        (code == if answered { Some(0) } else { NOT_ANSWERED }).then(|| last.clone())
    });
    found.unwrap_or_else(|error| panic!("{error}: {last:#}"))
}

fn step(told: &Value, about: &str) -> String {
    let steps = told["steps"].as_array().unwrap();
    let texts: Vec<_> =
        steps.iter().filter(|step| step["about"] == about).map(|step| &step["text"]).collect();
    assert!(!texts.is_empty(), "no step {about}: {told:#}");
    texts.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn not_answered(cluster: &Cluster, address: &str, why_not: &str) {
    let (code, told) = why(cluster, address);
    assert_eq!(code, NOT_ANSWERED, "{told:#}");
    assert_eq!(told["answered"], "no");
    assert!(told["sentence"].as_str().unwrap().contains(why_not), "{why_not:?}: {told:#}");
}

fn drain(cluster: &Cluster, node: &str, arguments: &[&str]) {
    let output = responder(cluster, &[&["drain", "--node", node], arguments].concat());
    assert!(matches!(output.code(), Some(0 | 6)), "{output:?}");
}

#[test]
fn why_an_address_is_answered_or_not() {
    if !cluster_or_skip("why_an_address_is_answered_or_not") {
        return;
    }
    let (cluster, mut agents) = cluster();

    // Answered: from the Service to the counters of a node elsewhere, and by the rules of an agent.
    for address in ["192.0.2.200", "2001:db8::c8"] {
        let told = wait_answered(&cluster, address, true);
        let owner = told["by"].as_str().unwrap().to_owned();
        assert!(told["sentence"].as_str().unwrap().starts_with(&format!("{address} is answered by {owner}")));
        assert!(step(&told, "service").contains("default/web"), "{told:#}");
        let ranges = step(&told, "ranges");
        assert!(ranges.contains("192.0.2.0/24,2001:db8::/64") && ranges.contains("agent on n"), "{ranges}");
        assert!(step(&told, "endpoints").contains("1 of 1 endpoints ready: n1 1"), "{told:#}");
        assert!(step(&told, "group").contains("l2-responder/claim-16-"), "{told:#}");
        assert!(step(&told, "map").contains(&format!("{owner} owns it on eth0")), "{told:#}");
        assert!(step(&told, "counters").contains("questions answered"), "{told:#}");
    }

    // Each reason.
    not_answered(&cluster, "198.51.100.9", "is in none of --ip-ranges");
    not_answered(&cluster, "192.0.2.201", "No node has a ready endpoint of default/local");
    not_answered(&cluster, "192.0.2.202", "the class example.com/other");
    not_answered(&cluster, "192.0.2.250", "No Service has it");
    not_answered(&cluster, "192.0.2.1", "address of node n1");

    // On nodes, for people: the owner, and another.
    let owner = why(&cluster, "192.0.2.200").1["by"].as_str().unwrap().to_owned();
    for agent in &agents {
        let output = agent.command(&["why", "192.0.2.200"]).unwrap().ok().unwrap();
        assert!(
            output.stdout.starts_with(&format!("192.0.2.200 is answered by {owner}, for ")),
            "{output:?}"
        );
        let here = output.stdout.contains("where this was asked, knows it as another's");
        assert_eq!(here, agent.node().name() != owner, "{output:?}");
    }

    // Nobody may ask nodes: what the Leases say, and what could not be looked at.
    let output = responder(&cluster, &["why", "192.0.2.200", "--metrics-port", "0"]).ok().unwrap();
    assert!(output.stdout.contains("could not be looked at: it was not asked"), "{output:?}");
    let output = responder(&cluster, &["why", "192.0.2.200", "--metrics-port", "1"]).ok().unwrap();
    assert!(output.stdout.contains("port 1: "), "{output:?}");
    assert_eq!(responder(&cluster, &["why", "web"]).code(), Some(2));

    // Both drained: the last one holds it, and is not to answer either. Started so, nobody takes anything.
    drain(&cluster, "n1", &[]);
    drain(&cluster, "n2", &[]);
    not_answered(
        &cluster,
        "192.0.2.200",
        "but is drained (annotation l2-responder.io/drain), and no other node may",
    );
    for agent in &mut agents {
        agent.terminate(SOON).unwrap();
    }
    not_answered(&cluster, "192.0.2.200", "Its holder does not count: the session of n2 has ended");
    for agent in &mut agents {
        agent.restart().unwrap();
        agent.wait_ready().unwrap();
    }
    let drained = wait_until("both sessions unfit", SOON, || {
        let (code, told) = why(&cluster, "192.0.2.200");
        assert_eq!(code, NOT_ANSWERED, "{told:#}");
        (step(&told, "candidates").matches("is drained").count() == 2).then_some(())
    });
    drained.unwrap();
    drain(&cluster, "n1", &["--undo", "--no-wait"]);
    let told = wait_answered(&cluster, "192.0.2.200", true);
    assert_eq!(told["by"], "n1", "{told:#}");

    // The agent is gone: on its node, the maps say so.
    agents[1].terminate(SOON).unwrap();
    agents[0].kill().unwrap();
    wait_answered(&cluster, "192.0.2.200", false);
    let kubeconfig = cluster.node("n1").kubeconfig().to_str().unwrap().to_owned();
    let output = agents[0].command(&["why", "192.0.2.200", "--kubeconfig", &kubeconfig]).unwrap();
    assert_eq!(output.code(), NOT_ANSWERED, "{output:?}");
    for wanted in ["the session of n1 has expired", "n2 has an agent that ended", "deadline pass"] {
        assert!(output.stdout.contains(wanted), "{wanted}: {output:?}");
    }
}

#[test]
fn as_a_plugin_of_kubectl() {
    if !cluster_or_skip("as_a_plugin_of_kubectl") {
        return;
    }
    let (cluster, _agents) = cluster();
    wait_answered(&cluster, "192.0.2.200", true);
    let plugins = cluster.dir().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    symlink(paths::responder().unwrap(), plugins.join("kubectl-responder")).unwrap();
    let path: OsString =
        env::join_paths([plugins.as_path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(cluster.kubectl_path());
        command.args(arguments).env("PATH", &path);
        command
    };
    let kubectl = |arguments: &[&str]| admin(&cluster, command(arguments));

    assert!(kubectl(&["plugin", "list"]).ok().unwrap().stdout.contains("kubectl-responder"));
    let help = kubectl(&["responder", "--help"]).ok().unwrap().stdout;
    assert!(help.contains("Usage: kubectl responder <COMMAND>"), "{help}");
    let output = kubectl(&["responder", "drain", "--nod"]);
    assert_eq!(output.code(), Some(2));
    assert!(output.stderr.contains("Usage: kubectl responder drain"), "{output:?}");
    let output = kubectl(&["responder", "drain", "--node", "n9"]);
    assert_eq!(output.code(), Some(1));
    assert!(output.stderr.starts_with("kubectl responder: "), "{output:?}");

    let text = kubectl(&["responder", "status"]).ok().unwrap().stdout;
    assert!(text.contains("claim-16-00") && text.contains("3 addresses"), "{text}");
    // By the agents' own --ip-ranges, which the command line does not give.
    assert!(text.contains("refused 198.51.100.9 of Service default/out"), "{text}");
    let output = kubectl(&["responder", "why", "192.0.2.200"]).ok().unwrap();
    assert!(output.stdout.starts_with("192.0.2.200 is answered by n"), "{output:?}");
    assert_eq!(kubectl(&["responder", "why", "192.0.2.250"]).code(), NOT_ANSWERED);

    // Whoever watches sees what a drain moves.
    let mut watch = command(&["responder", "watch"]);
    watch.env("KUBECONFIG", cluster.kubeconfig());
    let mut watch = cluster.management().spawn(watch).unwrap();
    watch.wait_line(SOON, |line| line.starts_with("following 16 claims: ")).unwrap();
    let output = kubectl(&["responder", "drain", "--node", "n1"]).ok().unwrap();
    assert!(output.stdout.contains("n1 is drained"), "{output:?}");
    watch.wait_line(SOON, |line| line.starts_with("fitness       n1: unfit: it is drained")).unwrap();
    watch.wait_line(SOON, |line| line.starts_with("claim ") && line.ends_with("from n1 to n2")).unwrap();
    let output = kubectl(&["responder", "drain", "--node", "n1", "--undo"]).ok().unwrap();
    assert!(output.stdout.contains("until `kubectl responder rebalance`"), "{output:?}");
    let output = kubectl(&["responder", "rebalance"]).ok().unwrap();
    assert!(output.stdout.contains("every claim is where it should be"), "{output:?}");
    let output = kubectl(&["responder", "claims", "8"]).ok().unwrap();
    assert!(!output.stdout.is_empty(), "{output:?}");
    watch.wait_line(SOON, |line| line == "claims        there are 8").unwrap();
    watch.kill().unwrap();

    // As JSON, a line each.
    let mut watch = command(&["responder", "watch", "--json"]);
    watch.env("KUBECONFIG", cluster.kubeconfig());
    let mut watch = cluster.management().spawn(watch).unwrap();
    // What has happened before the first look is not told: until it is, drain and undo.
    let mut undo = false;
    wait_until("a change in JSON", SOON, || {
        let arguments = if undo { &["--undo", "--no-wait"][..] } else { &["--no-wait"] };
        undo = !undo;
        drain(&cluster, "n1", arguments);
        let line =
            watch.wait_line(Duration::from_secs(3), |line| line.contains("\"event\":\"fitness\"")).ok()?;
        let told: Value = serde_json::from_str(&line).unwrap();
        (told["node"] == json!("n1")).then_some(())
    })
    .unwrap();
    watch.kill().unwrap();
}

#[test]
fn every_change_of_ownership_is_one_line_with_its_cause() {
    if !cluster_or_skip("every_change_of_ownership_is_one_line_with_its_cause") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).build().unwrap();
    cluster.service(&Service::new("web").vips(&[vip(0)]).on(&["n1"])).unwrap();
    let options = ["--lease-duration", "5s", "--log-format", "json"];
    let mut agents: Vec<_> = ["n1", "n2"].map(|node| cluster.agent(node, &options).unwrap()).into();
    for agent in &mut agents {
        agent.wait_ready().unwrap();
    }
    let lines = |agent: &ClusterAgent, message: &str, vip: IpAddr| -> Vec<String> {
        let log = agent.log();
        let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of = parsed.filter(|line| line["message"] == message && line["vip"] == vip.to_string());
        of.map(|line| line["cause"].as_str().unwrap().to_owned()).collect()
    };
    let wait = |agent: &ClusterAgent, message: &str, vip: IpAddr, count: usize| {
        let found = wait_until(&format!("{count} × {message} {vip}"), SOON, || {
            let lines = lines(agent, message, vip);
            (lines.len() >= count).then_some(lines)
        });
        let found = found.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
        assert_eq!(found.len(), count, "one line for one change: {found:?}");
        found.last().unwrap().clone()
    };

    let gained_by = |agent: &ClusterAgent| lines(agent, "gained", vip(0)).len();
    wait_until("an owner that says so", SOON, || {
        (agents.iter().map(gained_by).sum::<usize>() > 0).then_some(())
    })
    .unwrap();
    let before = gained_by(&agents[1]);
    drain(&cluster, "n2", &[]); // now it is n1's
    let cause = wait(&agents[0], "gained", vip(0), 1);
    let wanted = if before == 0 { "taken, which nobody held" } else { "received from n2/" };
    assert!(cause.starts_with("claim ") && cause.contains(wanted), "{cause}");

    drain(&cluster, "n2", &["--undo"]);
    drain(&cluster, "n1", &[]);
    let cause = wait(&agents[0], "lost", vip(0), 1);
    assert!(cause.contains("handed over to n2/") && cause.contains("this node is drained"), "{cause}");
    let cause = wait(&agents[1], "gained", vip(0), before + 1);
    assert!(cause.contains("received from n1/"), "{cause}");

    // A Service that comes and goes.
    cluster.service(&Service::new("new").vips(&[vip(1)]).on(&["n1"])).unwrap();
    let cause = wait(&agents[1], "gained", vip(1), 1);
    assert!(cause.contains("a Service has it now"), "{cause}");
    cluster.delete_service("new").unwrap();
    let cause = wait(&agents[1], "lost", vip(1), 1);
    assert!(cause.contains("no Service has it any more"), "{cause}");

    // A crash: the survivor says whom it took it from.
    drain(&cluster, "n1", &["--undo"]);
    agents[1].kill().unwrap();
    let cause = wait(&agents[0], "gained", vip(0), 2);
    assert!(cause.contains("taken, which n2/"), "{cause}");
}
