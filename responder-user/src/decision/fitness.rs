//! Whether this node may hold anything, by its Node object and by what it finds on itself.

use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

/// The label by which Kubernetes keeps load balancers away from a node. Its value does not matter.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The annotation by which `responder drain` marks a node. Its value does not matter.
pub const DRAIN_ANNOTATION: &str = "l2-responder.io/drain";

/// Whether a node may hold VIPs. The reasons are sentences whose subject is the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// It may.
    Yes,
    /// It keeps what it has while no fitter node lives, and takes what nobody else can.
    LastResort(String),
    /// It may not, and hands over what it has.
    No(String),
}

/// What the agent knows of its own host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host<'a> {
    /// Some link that VIPs can be announced on is up and has a carrier: what [`super::subnets`] can announce is
    /// not nothing.
    pub usable_link: bool,
    /// Why the agent or its datapath does not work; a sentence whose subject is the agent.
    pub unhealthy: Option<&'a str>,
}

/// Judges a node. `node` is its object as it was last seen; `None`: there is none.
///
/// Cordon (`spec.unschedulable`) alone changes nothing: it is about new pods, and the node forwards as before. A
/// node that is not Ready, or has no object, is a last resort: its kubelet may be what is broken, or all kubelets'
/// way to the API server, and an address on a doubtful node is better than none.
#[must_use]
pub fn fitness(node: Option<&Node>, host: &Host<'_>) -> Fit {
    let mut no = Vec::new();
    if let Some(reason) = host.unhealthy {
        no.push(format!("has an agent that {reason}"));
    }
    if !host.usable_link {
        no.push("has no usable link".to_owned());
    }
    let Some(node) = node else {
        return verdict(no, vec!["has no Node object".to_owned()]);
    };
    if node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDE_LABEL)) {
        no.push(format!("has the label {EXCLUDE_LABEL}"));
    }
    if node.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(DRAIN_ANNOTATION)) {
        no.push(format!("is drained (annotation {DRAIN_ANNOTATION})"));
    }
    if condition(node, "NetworkUnavailable") == Some("True") {
        no.push("has no network (condition NetworkUnavailable)".to_owned());
    }
    let doubt = match condition(node, "Ready") {
        Some("True") => None,
        Some(status) => Some(format!("is not ready (condition Ready is {status})")),
        None => Some("is not ready (it has no condition Ready)".to_owned()),
    };
    verdict(no, doubt.into_iter().collect())
}

fn verdict(no: Vec<String>, doubts: Vec<String>) -> Fit {
    if !no.is_empty() {
        Fit::No(no.join(", and "))
    } else if !doubts.is_empty() {
        Fit::LastResort(doubts.join(", and "))
    } else {
        Fit::Yes
    }
}

/// The status of a condition.
fn condition<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == name).map(|condition| condition.status.as_str())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus};

    use super::*;

    const WELL: Host<'_> = Host { usable_link: true, unhealthy: None };

    fn node(conditions: &[(&str, &str)]) -> Node {
        let condition = |(name, status): &(&str, &str)| NodeCondition {
            type_: (*name).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        };
        Node {
            status: Some(NodeStatus {
                conditions: Some(conditions.iter().map(condition).collect()),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }

    fn no(fit: &Fit) -> &str {
        match fit {
            Fit::No(reason) => reason,
            Fit::Yes | Fit::LastResort(_) => panic!("{fit:?}"),
        }
    }

    #[test]
    fn a_ready_node_may() {
        let mut node =
            node(&[("NetworkUnavailable", "False"), ("MemoryPressure", "True"), ("Ready", "True")]);
        assert_eq!(fitness(Some(&node), &WELL), Fit::Yes);
        node.spec = Some(NodeSpec { unschedulable: Some(true), ..NodeSpec::default() });
        assert_eq!(fitness(Some(&node), &WELL), Fit::Yes, "cordon alone changes nothing");
    }

    #[test]
    fn label_and_annotation_with_any_value() {
        for value in ["", "true", "false"] {
            let mut labelled = node(&[("Ready", "True")]);
            labelled.metadata.labels = Some([(EXCLUDE_LABEL.to_owned(), value.to_owned())].into());
            assert!(no(&fitness(Some(&labelled), &WELL)).contains(EXCLUDE_LABEL));
            let mut drained = node(&[("Ready", "True")]);
            drained.metadata.annotations = Some([(DRAIN_ANNOTATION.to_owned(), value.to_owned())].into());
            assert!(no(&fitness(Some(&drained), &WELL)).contains("is drained"));
        }
    }

    #[test]
    fn without_network() {
        assert!(
            no(&fitness(Some(&node(&[("Ready", "True"), ("NetworkUnavailable", "True")])), &WELL))
                .contains("has no network")
        );
        let unknown = node(&[("Ready", "True"), ("NetworkUnavailable", "Unknown")]);
        assert_eq!(fitness(Some(&unknown), &WELL), Fit::Yes);
    }

    #[test]
    fn in_doubt_it_is_a_last_resort() {
        for (conditions, reason) in [
            (vec![("Ready", "False")], "is not ready (condition Ready is False)"),
            (vec![("Ready", "Unknown")], "is not ready (condition Ready is Unknown)"),
            (vec![], "is not ready (it has no condition Ready)"),
        ] {
            assert_eq!(fitness(Some(&node(&conditions)), &WELL), Fit::LastResort(reason.to_owned()));
        }
        assert_eq!(fitness(Some(&Node::default()), &WELL), fitness(Some(&node(&[])), &WELL));
        assert_eq!(fitness(None, &WELL), Fit::LastResort("has no Node object".to_owned()));
    }

    #[test]
    fn the_host_decides_whatever_the_object_says() {
        let ready = node(&[("Ready", "True")]);
        let fit = fitness(Some(&ready), &Host { usable_link: false, unhealthy: None });
        assert_eq!(no(&fit), "has no usable link");
        let fit = fitness(None, &Host { usable_link: true, unhealthy: Some("cannot write its maps") });
        assert_eq!(no(&fit), "has an agent that cannot write its maps");
    }

    #[test]
    fn all_reasons_are_named_and_no_outweighs_doubt() {
        let mut node = node(&[("Ready", "False")]);
        node.metadata.labels = Some([(EXCLUDE_LABEL.to_owned(), String::new())].into());
        let fit = fitness(Some(&node), &Host { usable_link: false, unhealthy: None });
        assert_eq!(no(&fit), format!("has no usable link, and has the label {EXCLUDE_LABEL}"));
    }
}
