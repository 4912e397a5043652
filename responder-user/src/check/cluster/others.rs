//! Who else announces addresses, as far as it can be read; and kube-proxy, of which nothing is needed.

use serde_json::Value;

use super::{
    super::{
        Finding,
        Verdict::{self, Bad, Limited, Ok as Fine},
    },
    get,
};
use crate::{cluster::read::ReadError, operator::Operator};

/// Another announcer, known by the image of a container.
struct Known {
    image: &'static str,
    name: &'static str,
    way_out: &'static str,
}

const KNOWN: [Known; 6] = [
    Known {
        image: "metallb/speaker",
        name: "MetalLB's speaker",
        way_out: "keep its controller for addresses and remove the speaker, or give each its own loadBalancerClass",
    },
    Known {
        image: "kube-vip/kube-vip",
        name: "kube-vip",
        way_out: "turn its Services off (svc_enable: \"false\"), or give each its own loadBalancerClass",
    },
    Known {
        image: "purelb/lbnodeagent",
        name: "PureLB's lbnodeagent",
        way_out: "remove it; its allocator may stay",
    },
    Known {
        image: "openelb",
        name: "OpenELB's speaker",
        way_out: "remove it, or give each its own loadBalancerClass",
    },
    Known { image: "loxilb", name: "LoxiLB", way_out: "remove it, or give each its own loadBalancerClass" },
    Known {
        image: "keepalived",
        name: "keepalived",
        way_out: "take the Services' addresses out of its configuration",
    },
];

/// Leases of others, by the beginning of their names.
const LEASES: [(&str, &str); 4] = [
    ("cilium-l2announce-", "Cilium's L2 announcements"),
    ("plndr-svcs-lock", "kube-vip for Services"),
    ("plndr-cp-lock", "kube-vip for the control plane"),
    ("kubevip-", "kube-vip"),
];

pub(super) async fn check(operator: &Operator) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = "/apis/apps/v1/daemonsets";
    match get(operator, "the DaemonSets", "list daemonsets.apps in all namespaces", path).await {
        Ok(list) => {
            let advertisements = advertisements(operator).await;
            findings.extend(daemon_sets(&list, advertisements));
        }
        Err(error) => findings.push(unread("MetalLB's speaker, kube-vip and others", &error)),
    }
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    match get(operator, "the Leases of kube-system", "list leases in namespace kube-system", path).await {
        Ok(list) => findings.extend(leases(&list)),
        Err(error) => findings.push(unread("Leases of kube-vip and Cilium", &error)),
    }
    let path = "/api/v1/namespaces/kube-system/configmaps/cilium-config";
    match config_map(operator, path).await {
        Ok(Some(config)) => findings.push(cilium(&config)),
        Ok(None) => {}
        Err(error) => findings.push(unread("Cilium's configuration", &error)),
    }
    if findings.is_empty() {
        findings.push(Finding::new("announcers", Fine, "no other is known to this cluster"));
    }
    let path = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";
    findings.push(match config_map(operator, path).await {
        Ok(config) => kube_proxy(config.as_ref()),
        Err(error) => unread("kube-proxy's mode, which does not matter to agents,", &error),
    });
    findings
}

fn unread(what: &str, error: &ReadError) -> Finding {
    Finding::new("announcers", Limited, format!("{what} could not be looked for: {error}"))
}

/// A ConfigMap, if there is one.
async fn config_map(operator: &Operator, path: &str) -> Result<Option<Value>, ReadError> {
    match get(operator, "a ConfigMap of kube-system", "get configmaps in namespace kube-system", path).await {
        Ok(config) => Ok(Some(config)),
        Err(ReadError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many layer-2 advertisements MetalLB has; `None`: not known.
async fn advertisements(operator: &Operator) -> Option<usize> {
    let path = "/apis/metallb.io/v1beta1/l2advertisements";
    match get(operator, "MetalLB's L2Advertisements", "list l2advertisements.metallb.io", path).await {
        Ok(list) => Some(list["items"].as_array().map_or(0, Vec::len)),
        Err(ReadError::NotFound { .. }) => Some(0),
        Err(_) => None,
    }
}

/// Announcers among DaemonSets. `advertisements`: how many MetalLB has for layer 2.
fn daemon_sets(list: &Value, advertisements: Option<usize>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for set in list["items"].as_array().into_iter().flatten() {
        let containers = set["spec"]["template"]["spec"]["containers"].as_array();
        let found = containers.into_iter().flatten().find_map(|container| {
            let image = container["image"].as_str()?;
            let is = |known: &&Known| image.contains(known.image) && !image.contains("cloud-provider");
            KNOWN.iter().find(is).map(|known| (known, container))
        });
        let Some((Known { name, way_out, image }, container)) = found else {
            continue;
        };
        let (namespace, set_name) = (&set["metadata"]["namespace"], &set["metadata"]["name"]);
        let place = format!(
            "DaemonSet {}/{}",
            namespace.as_str().unwrap_or_default(),
            set_name.as_str().unwrap_or_default()
        );
        let pods = set["status"]["desiredNumberScheduled"].as_u64().unwrap_or(0);
        let class = class(container);
        let (verdict, text) = if pods == 0 {
            (Fine, "is to run on no node".to_owned())
        } else if *image == "metallb/speaker" && advertisements == Some(0) {
            (
                Fine,
                format!(
                    "runs on {pods} nodes, but no L2Advertisement has it announce anything by ARP or NDP"
                ),
            )
        } else if let Some(class) = class {
            let text = format!(
                "runs on {pods} nodes for Services of the class {class} only; agents must not be given the same \
                 (--load-balancer-class)"
            );
            (Limited, text)
        } else {
            (
                Bad,
                format!("runs on {pods} nodes; two that answer for one address split its traffic: {way_out}"),
            )
        };
        findings.push(Finding::new("announcers", verdict, format!("{name} ({place}) {text}")));
    }
    findings
}

/// The load balancer class that a container is told to look after.
fn class(container: &Value) -> Option<String> {
    let mut args = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let flag = args.find_map(|arg| Some(arg.split_once("lb-class=")?.1.to_owned()));
    let mut variables = container["env"].as_array().into_iter().flatten();
    let named = variables.find(|variable| variable["name"] == "lb_class_name");
    flag.or_else(|| named?["value"].as_str().map(str::to_owned)).filter(|class| !class.is_empty())
}

fn leases(list: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (prefix, name) in LEASES {
        let of_it =
            list["items"].as_array().into_iter().flatten().filter(|lease| {
                lease["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(prefix))
            });
        let held: Vec<_> = of_it
            .filter(|lease| lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()))
            .filter_map(|lease| lease["metadata"]["name"].as_str())
            .collect();
        let Some(first) = held.first() else {
            continue;
        };
        let verdict: Verdict = if prefix == "plndr-cp-lock" { Limited } else { Bad };
        let text = format!(
            "{name} holds {} Leases in kube-system ({first}, …): it announces addresses, too. Turn that off for Services of \
             the agents, or delete the Leases if it is gone",
            held.len()
        );
        findings.push(Finding::new("announcers", verdict, text));
    }
    findings
}

fn cilium(config: &Value) -> Finding {
    let on = config["data"]["enable-l2-announcements"].as_str() == Some("true");
    if on {
        let text = "Cilium has L2 announcements on (enable-l2-announcements in kube-system/cilium-config): they answer for \
                    what a CiliumL2AnnouncementPolicy selects; turn them off, or let no policy select Services of the agents";
        Finding::new("announcers", Bad, text)
    } else {
        Finding::new("announcers", Fine, "Cilium is here, without L2 announcements")
    }
}

fn kube_proxy(config: Option<&Value>) -> Finding {
    const ABOUT: &str = "kube-proxy";
    let Some(config) = config.and_then(|config| config["data"]["config.conf"].as_str()) else {
        return Finding::new(
            ABOUT,
            Fine,
            "has no ConfigMap in kube-system; agents need nothing of it, whatever its mode",
        );
    };
    let value = |key: &str| {
        let line = config.lines().map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|value| value.trim().trim_matches('"').to_owned())
    };
    let mode = value("mode").filter(|mode| !mode.is_empty()).unwrap_or_else(|| "iptables".to_owned());
    let strict = value("strictARP").as_deref() == Some("true");
    let text = match (mode.as_str(), strict) {
        ("ipvs", true) => "has mode ipvs and strictARP: true, which MetalLB needs and agents do not; it may stay".to_owned(),
        ("ipvs", false) => {
            "has mode ipvs without strictARP, which MetalLB needs and agents do not: the program answers before the kernel \
             does, or drops the question"
                .to_owned()
        }
        _ => format!("has mode {mode}; agents need nothing of it"),
    };
    Finding::new(ABOUT, Fine, text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(image: &str, pods: u32, args: &[&str]) -> Value {
        json!({ "items": [{
            "metadata": { "namespace": "other", "name": "set" },
            "spec": { "template": { "spec": { "containers": [{ "image": image, "args": args }] } } },
            "status": { "desiredNumberScheduled": pods },
        }] })
    }

    #[test]
    fn announcers_are_known_by_their_images() {
        for (image, name) in [
            ("quay.io/metallb/speaker:v0.16.2", "MetalLB's speaker"),
            ("ghcr.io/kube-vip/kube-vip:v1.2.3", "kube-vip"),
            ("registry.gitlab.com/purelb/purelb/lbnodeagent:v0.17", "PureLB's"),
            ("kubesphere/openelb-speaker:v0.6", "OpenELB's"),
        ] {
            let found = daemon_sets(&set(image, 3, &[]), Some(1));
            assert_eq!(found.len(), 1, "{image}");
            assert_eq!(found[0].verdict, Bad, "{image}");
            assert!(found[0].text.contains(name) && found[0].text.contains("other/set"), "{found:?}");
        }
        for image in
            ["quay.io/metallb/controller:v0.16.2", "ghcr.io/kube-vip/kube-vip-cloud-provider:v1", "nginx"]
        {
            assert_eq!(daemon_sets(&set(image, 3, &[]), Some(1)), [], "{image}");
        }
    }

    #[test]
    fn what_announces_nothing_is_no_trouble() {
        let speaker = "quay.io/metallb/speaker:v0.16.2";
        let verdict = |list: &Value, advertisements| daemon_sets(list, advertisements)[0].verdict;
        assert_eq!(verdict(&set(speaker, 0, &[]), Some(1)), Fine);
        assert_eq!(verdict(&set(speaker, 3, &[]), Some(0)), Fine);
        assert_eq!(verdict(&set(speaker, 3, &[]), None), Bad, "not known is no excuse");
        let found = daemon_sets(&set(speaker, 3, &["--port=1", "--lb-class=metallb"]), Some(1));
        assert_eq!(found[0].verdict, Limited);
        assert!(found[0].text.contains("class metallb only"), "{found:?}");
    }

    #[test]
    fn leases_of_others() {
        let lease = |name: &str, holder: &str| json!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder } });
        let list = json!({ "items": [
            lease("cilium-l2announce-default-web", "n1"), lease("cilium-l2announce-default-b", "n2"),
            lease("plndr-svcs-lock", ""), lease("kube-scheduler", "n1"), lease("plndr-cp-lock", "n1"),
        ] });
        let found = leases(&list);
        assert_eq!(found.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Bad, Limited]);
        assert!(found[0].text.contains("Cilium's L2 announcements holds 2 Leases"), "{found:?}");
    }

    #[test]
    fn cilium_and_kube_proxy() {
        assert_eq!(cilium(&json!({ "data": { "enable-l2-announcements": "true" } })).verdict, Bad);
        assert_eq!(cilium(&json!({ "data": {} })).verdict, Fine);
        let of = |text: &str| kube_proxy(Some(&json!({ "data": { "config.conf": text } }))).text;
        assert!(of("mode: ipvs\nipvs:\n  strictARP: true\n").contains("may stay"));
        assert!(of("mode: \"ipvs\"\nipvs:\n  strictARP: false\n").contains("without strictARP"));
        assert!(of("mode: nftables\n").contains("mode nftables"));
        assert!(of("mode: \"\"\n").contains("mode iptables"));
        assert!(kube_proxy(None).text.contains("no ConfigMap"));
    }
}
