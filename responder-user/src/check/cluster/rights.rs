//! Whether the agents may do what they must.

use serde_json::{Value, json};

use super::{
    super::{
        Finding,
        Verdict::{self, Bad, Limited, Ok as Fine},
    },
    post,
};
use crate::operator::Operator;

/// What an agent does, and what it does not do without.
struct Right {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    /// In the agents' namespace alone.
    own: bool,
    purpose: &'static str,
    without: Verdict,
}

const RIGHTS: [Right; 5] = [
    Right {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "list", "watch", "create", "update"],
        own: true,
        purpose: "who holds what",
        without: Bad,
    },
    Right {
        group: "",
        resource: "services",
        verbs: &["list", "watch"],
        own: false,
        purpose: "which addresses there are",
        without: Bad,
    },
    Right {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        verbs: &["list", "watch"],
        own: false,
        purpose: "which nodes have endpoints",
        without: Bad,
    },
    Right {
        group: "",
        resource: "nodes",
        verbs: &["list", "watch"],
        own: false,
        purpose: "which nodes are fit, and which addresses are theirs",
        without: Bad,
    },
    Right {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create"],
        own: false,
        purpose: "Events on Services; all else works without",
        without: Limited,
    },
];

/// Whose rights are asked for.
enum Subject {
    /// Those of the credentials in use, of this name.
    Own(String),
    /// Those of a ServiceAccount.
    Account(String),
}

pub(super) async fn check(operator: &Operator, account: &str) -> Vec<Finding> {
    let namespace = &operator.namespace;
    let agents = format!("system:serviceaccount:{namespace}:{account}");
    let mut findings = Vec::new();
    let own = whoami(operator).await;
    let subject = if own.as_deref() == Some(agents.as_str()) {
        Subject::Own(agents)
    } else if may_ask(operator).await {
        Subject::Account(agents)
    } else {
        let own = own.unwrap_or_else(|| "who asks".to_owned());
        let text = format!(
            "those of {agents} cannot be asked for (`create subjectaccessreviews` is missing): those of {own} are shown; \
             ask as an administrator, or on a node with the agent's --kubeconfig"
        );
        findings.push(Finding::new("rights", Limited, text));
        Subject::Own(own)
    };
    let (mut asked, mut missing) = (0, 0);
    for right in &RIGHTS {
        for verb in right.verbs {
            asked += 1;
            match allowed(operator, &subject, right, verb).await {
                Ok(true) => {}
                Ok(false) => {
                    missing += 1;
                    findings.push(lacking(&subject, right, verb, namespace));
                }
                Err(error) => {
                    missing += 1;
                    findings.push(Finding::new("rights", Limited, error));
                }
            }
        }
    }
    if missing == 0 {
        let text = format!("{} may do all {asked} things that agents do", subject.name());
        findings.push(Finding::new("rights", Fine, text));
    }
    findings
}

impl Subject {
    fn name(&self) -> &str {
        match self {
            Self::Own(name) | Self::Account(name) => name,
        }
    }
}

fn lacking(subject: &Subject, right: &Right, verb: &str, namespace: &str) -> Finding {
    let Right { group, resource, own, purpose, without, .. } = right;
    let resource = if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") };
    let scope = if *own { format!("in namespace {namespace}") } else { "in all namespaces".to_owned() };
    let text = format!(
        "{} may not `{verb} {resource}` {scope} ({purpose}); deploy/base has the Role and ClusterRole: \
         kubectl apply -k deploy/base",
        subject.name()
    );
    Finding::new("rights", *without, text)
}

/// The name of the credentials in use, if the API server tells it.
async fn whoami(operator: &Operator) -> Option<String> {
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = post(operator, "this user's name", "create selfsubjectreviews", (path, &body)).await.ok()?;
    answer["status"]["userInfo"]["username"].as_str().map(str::to_owned)
}

/// Whether others' rights may be asked for.
async fn may_ask(operator: &Operator) -> bool {
    let attributes =
        json!({ "group": "authorization.k8s.io", "resource": "subjectaccessreviews", "verb": "create" });
    review(operator, None, &attributes).await.unwrap_or(false)
}

async fn allowed(operator: &Operator, subject: &Subject, right: &Right, verb: &str) -> Result<bool, String> {
    let mut attributes = json!({ "group": right.group, "resource": right.resource, "verb": verb });
    if right.own {
        attributes["namespace"] = json!(operator.namespace);
    }
    let account = match subject {
        Subject::Own(_) => None,
        Subject::Account(name) => Some((name.as_str(), operator.namespace.as_str())),
    };
    review(operator, account, &attributes).await
}

async fn review(
    operator: &Operator,
    account: Option<(&str, &str)>,
    attributes: &Value,
) -> Result<bool, String> {
    let mut spec = json!({ "resourceAttributes": attributes });
    let kind = match account {
        None => "SelfSubjectAccessReview",
        Some((name, namespace)) => {
            spec["user"] = json!(name);
            spec["groups"] = json!([
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ]);
            "SubjectAccessReview"
        }
    };
    let body = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec });
    let resource = format!("{}s", kind.to_lowercase());
    let path = format!("/apis/authorization.k8s.io/v1/{resource}");
    let answer =
        post(operator, "an answer about rights", &format!("create {resource}"), (&path, &body)).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(answer["status"]["allowed"].as_bool().unwrap_or(false))
}
