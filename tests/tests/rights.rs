//! Each right that deploy/base grants is taken away, one by one: something breaks, the agent names what is missing, and goes
//! on by itself when the right is back. So there is none too many, and none whose want is a riddle.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    COMMAND_DEADLINE, Cluster, ClusterAgent, Service, cluster_or_skip, http_get, wait_until,
};
use responder_tests::leases::LEASES;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const USER: &str = "system:serviceaccount:l2-responder:responder";
const SOON: Duration = Duration::from_secs(20);
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));
/// Has an address only when a test says so.
const LATE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 201));

/// A right that a role grants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Right {
    /// Path of the role.
    role: String,
    group: String,
    resource: String,
    verb: String,
}

impl Right {
    /// The API server's words for its want.
    fn wanting(&self) -> String {
        format!("cannot {} resource \"{}\" in API group \"{}\"", self.verb, self.resource, self.group)
    }

    fn name(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

/// What breaks without a right.
enum Breaks {
    /// An agent is not ready, as it does not know enough to take part.
    Start,
    /// An agent takes nothing: it would not see whose it is.
    Taking,
    /// What an agent holds it holds no more.
    Holding,
    /// Changes of it are not seen.
    Following,
    /// The outcome of a write is known later.
    Settling,
    /// Services get no Events.
    Events,
}

/// What breaks without each right that there is; all are expected to be granted.
const RIGHTS: [(&str, Breaks); 12] = [
    ("create events", Breaks::Events),
    ("create leases", Breaks::Start),
    ("get leases", Breaks::Settling),
    ("list endpointslices", Breaks::Start),
    ("list leases", Breaks::Start),
    ("list nodes", Breaks::Start),
    ("list services", Breaks::Start),
    ("update leases", Breaks::Holding),
    ("watch endpointslices", Breaks::Following),
    ("watch leases", Breaks::Taking),
    ("watch nodes", Breaks::Following),
    ("watch services", Breaks::Following),
];

#[test]
fn every_right_is_needed_and_its_want_is_named() {
    if !cluster_or_skip("every_right_is_needed_and_its_want_is_named") {
        return;
    }
    let cluster = Cluster::builder().nodes(1).build().unwrap();
    cluster.service(&Service::new("web").vips(&[VIP]).on(&["n1"])).unwrap();
    let rights = granted(&cluster).unwrap();
    let names: BTreeSet<String> = rights.iter().map(Right::name).collect();
    let known: BTreeSet<String> = RIGHTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, known, "deploy/base grants other rights than this test knows the use of");

    let mut failed = Vec::new();
    for right in &rights {
        let breaks = RIGHTS.iter().find(|(name, _)| *name == right.name()).map(|(_, breaks)| breaks).unwrap();
        let began = std::time::Instant::now();
        if let Err(error) = without(&cluster, right, breaks) {
            failed.push(format!("{}: {error:#}", right.name()));
            set(&cluster, right, true).unwrap();
        }
        println!("{}: {:.1} s", right.name(), began.elapsed().as_secs_f64());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Every right that the roles of the agent grant.
fn granted(cluster: &Cluster) -> Result<Vec<Right>> {
    let mut rights = BTreeSet::new();
    for role in [
        format!("{RBAC}/namespaces/l2-responder/roles/responder"),
        format!("{RBAC}/clusterroles/l2-responder"),
    ] {
        for rule in rules(cluster, &role)? {
            let all = |list: &str| {
                rule[list].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
            };
            for group in all("apiGroups") {
                for resource in all("resources") {
                    rights.extend(all("verbs").map(|verb| Right {
                        role: role.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb,
                    }));
                }
            }
        }
    }
    Ok(rights.into_iter().collect())
}

fn rules(cluster: &Cluster, role: &str) -> Result<Vec<Value>> {
    cluster.requests().get(role)?["rules"].as_array().cloned().context("a role without rules")
}

/// Takes a right away from its role or gives it back, and waits until the API server judges so.
fn set(cluster: &Cluster, right: &Right, granted: bool) -> Result<()> {
    let mut rules = rules(cluster, &right.role)?;
    if granted {
        rules.push(json!({
            "apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb],
        }));
    } else {
        // A rule may be about several resources.
        rules = rules
            .into_iter()
            .flat_map(|rule| {
                let resources = rule["resources"].as_array().cloned().unwrap_or_default();
                resources.into_iter().map(move |resource| {
                    let mut rule = rule.clone();
                    rule["resources"] = json!([resource]);
                    rule
                })
            })
            .map(|mut rule| {
                let same = |list: &str, wanted: &str| rule[list] == json!([wanted]);
                if same("apiGroups", &right.group) && same("resources", &right.resource) {
                    let verbs = rule["verbs"].as_array().cloned().unwrap_or_default();
                    rule["verbs"] = verbs.into_iter().filter(|verb| *verb != right.verb.as_str()).collect();
                }
                rule
            })
            .filter(|rule| rule["verbs"] != json!([]))
            .collect();
    }
    cluster.requests().merge(&right.role, &json!({ "rules": rules }))?;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": { "user": USER, "resourceAttributes": {
            "group": right.group, "resource": right.resource, "verb": right.verb, "namespace": "l2-responder",
        } },
    });
    wait_until(&format!("{} {granted}", right.name()), SOON, || {
        let answer =
            cluster.requests().create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).ok()?;
        (answer["status"]["allowed"] == granted).then_some(())
    })
}

fn without(cluster: &Cluster, right: &Right, breaks: &Breaks) -> Result<()> {
    cluster.requests().delete(LEASES)?;
    let web = |vips: &[IpAddr]| cluster.service(&Service::new("late").vips(vips).on(&["n1"]));
    web(&[])?;
    let start = || cluster.agent("n1", &["--lease-duration", "1s"]);
    let restore = || set(cluster, right, true);
    match breaks {
        Breaks::Start | Breaks::Taking => {
            set(cluster, right, false)?;
            let mut agent = start()?;
            named(&mut agent, right)?;
            if matches!(breaks, Breaks::Start) {
                let (code, text) = ready(cluster)?;
                ensure!(code == 503, "it is ready: {text}");
            }
            answers(&agent, VIP, false)?;
            restore()?;
            answers(&agent, VIP, true)
        }
        Breaks::Holding => {
            let mut agent = start()?;
            answers(&agent, VIP, true)?;
            set(cluster, right, false)?;
            named(&mut agent, right)?;
            answers(&agent, VIP, false)?;
            wait_until("not ready", SOON, || (ready(cluster).ok()?.0 == 503).then_some(()))?;
            restore()?;
            answers(&agent, VIP, true)
        }
        Breaks::Following => {
            set(cluster, right, false)?;
            let mut agent = start()?;
            named(&mut agent, right)?;
            answers(&agent, VIP, true)?;
            web(&[LATE])?;
            restore()?;
            agent.process().wait_line(SOON, |line| line.contains("followed again"))?;
            answers(&agent, LATE, true)
        }
        Breaks::Settling => {
            let mut agent = start()?;
            answers(&agent, VIP, true)?;
            set(cluster, right, false)?;
            // Somebody else's hand in it, so that a renewal fails and what is there is to be read.
            let mut times = 0;
            wait_until("a renewal that fails", SOON, || {
                times += 1; // what changes nothing is no write
                let path = format!("{LEASES}/session-n1");
                let touched = json!({ "metadata": { "annotations": { "touched": times.to_string() } } });
                cluster.requests().merge(&path, &touched).ok()?;
                agent.log().contains(&right.wanting()).then_some(())
            })?;
            named(&mut agent, right)?;
            restore()?;
            answers(&agent, VIP, true)
        }
        Breaks::Events => {
            let events = "/apis/events.k8s.io/v1/namespaces/default/events";
            set(cluster, right, false)?;
            cluster.requests().delete(events)?;
            let mut agent = start()?;
            named(&mut agent, right)?;
            answers(&agent, VIP, true)?;
            let list = cluster.requests().get(events)?;
            ensure!(list["items"] == json!([]), "there are Events: {list:#}");
            restore()?;
            web(&[LATE])?;
            wait_until("an Event of another Service", SOON, || {
                let list = cluster.requests().get(events).ok()?;
                list["items"].as_array()?.iter().any(|event| event["reason"] == "Announcing").then_some(())
            })
        }
    }
}

/// Waits until the agent names a right that it lacks, where people look: in a warning or an error.
fn named(agent: &mut ClusterAgent, right: &Right) -> Result<()> {
    let wanted = right.wanting();
    let line = agent.process().wait_line(SOON, |line| line.contains(&wanted))?;
    ensure!(line.contains("WARN") || line.contains("ERROR"), "that is said too quietly: {line}");
    println!("  {line}");
    Ok(())
}

fn ready(cluster: &Cluster) -> Result<(u16, String)> {
    let address = (cluster.node("n1").address(), 7490).into();
    let answer = wait_until("health is served", COMMAND_DEADLINE, || {
        http_get(cluster.management(), address, "/readyz").ok()
    })?;
    Ok((answer.code, answer.body))
}

/// Waits until the agent answers for an address, or does not any more.
fn answers(agent: &ClusterAgent, vip: IpAddr, wanted: bool) -> Result<()> {
    let what = format!("{vip} answered: {wanted}");
    agent.wait_status(&what, SOON, |status| {
        let vips = status["vips"].as_array().into_iter().flatten();
        let mut answered = vips.filter(|one| one["state"] == "answering").map(|one| &one["vip"]);
        answered.any(|one| *one == json!(vip)) == wanted
    })?;
    Ok(())
}
