//! The files of deploy/monitoring and docs/monitoring.md, as Prometheus reads them, with shorter times.

use std::{fs, path::Path};

use super::prometheus::Prometheus;

/// As the documentation calls it.
pub(crate) const JOB: &str = "l2-responder";
/// As the Prometheus operator calls it.
pub(crate) const POD_JOB: &str = "l2-responder/l2-responder";

/// Times in the rules, and those in their place: scrapes are every second instead of every 15. All other times in the rules,
/// whatever they are, end the test.
const SHORTER: [(&str, &str); 8] = [
    ("for: 15s\n", "for: 2s\n"),
    ("for: 1m\n", "for: 2s\n"),
    ("for: 2m\n", "for: 2s\n"),
    ("for: 5m\n", "for: 2s\n"),
    ("for: 10m\n", "for: 3s\n"),
    ("[5m]", "[7s]"),
    ("[10m]", "[20s]"),
    ("[30m]", "[1m]"),
];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The dashboard.
pub(crate) fn dashboard() -> serde_json::Value {
    serde_json::from_str(&file("deploy/monitoring/dashboard.json")).unwrap()
}

/// The rules with shorter times: what `sed` makes of them in docs/monitoring.md.
pub(crate) fn rules() -> String {
    let file = file("deploy/monitoring/rules.yaml");
    let (_, spec) = file.split_once("\nspec:\n").unwrap();
    let lines = spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    let mut rules: String = lines.flat_map(|line| [line, "\n"]).collect();
    let waits = rules.lines().filter(|line| line.trim_start().starts_with("for: ")).count();
    let (all, mut replaced) = (waits + rules.matches("m]").count(), 0);
    for (long, short) in SHORTER {
        let count = rules.matches(long).count();
        assert!(count > 0, "{long:?} is not in the rules any more");
        replaced += count;
        rules = rules.replace(long, short);
    }
    assert_eq!(replaced, all, "a time is not in the table: {rules}");
    rules
}

/// Scrapes as docs/monitoring.md says, and as the Prometheus operator makes it of podmonitor.yaml. Shorter times, and from
/// outside of the cluster: these are the differences.
pub(crate) fn prometheus(kubeconfig: &Path) -> String {
    let kubeconfig = kubeconfig.display();
    let page = file("docs/monitoring.md");
    let (_, rest) = page.split_once("```yaml\nscrape_configs:\n").unwrap();
    let (jobs, _) = rest.split_once("```").unwrap();
    assert!(jobs.contains(&format!("job_name: {JOB}\n")), "{jobs}");
    let jobs = replaced(jobs, "scrape_interval: 15s", "scrape_interval: 1s");
    let jobs = replaced(&jobs, "{ role: node }", &format!("{{ role: node, kubeconfig_file: {kubeconfig} }}"));

    let monitor = file("deploy/monitoring/podmonitor.yaml");
    let (_, relabelings) = monitor.split_once("      relabelings:\n").unwrap();
    let relabelings =
        relabelings.replace("sourceLabels", "source_labels").replace("targetLabel", "target_label");
    let labels: Vec<_> = monitor
        .split_once("matchLabels:\n")
        .map(|(_, rest)| rest.lines().take_while(|line| line.starts_with("      ")))
        .into_iter()
        .flatten()
        .map(|line| line.trim().replace(": ", "="))
        .collect();
    assert_eq!(labels.len(), 2, "{labels:?}");
    format!(
        "global: {{ evaluation_interval: 1s }}
rule_files: [rules.yml]
scrape_configs:
{jobs}
  - job_name: {POD_JOB}
    scrape_interval: 1s
    kubernetes_sd_configs:
      - role: pod
        kubeconfig_file: {kubeconfig}
        namespaces: {{ names: [l2-responder] }}
        selectors: [{{ role: pod, label: \"{}\" }}]
    relabel_configs:
        - {{ source_labels: [__meta_kubernetes_pod_phase], regex: (Failed|Succeeded), action: drop }}
        - {{ source_labels: [__meta_kubernetes_namespace], target_label: namespace }}
        - {{ source_labels: [__meta_kubernetes_pod_container_name], target_label: container }}
        - {{ source_labels: [__meta_kubernetes_pod_name], target_label: pod }}
        - {{ target_label: endpoint, replacement: \"7490\" }}
{relabelings}",
        labels.join(",")
    )
}

fn replaced(text: &str, what: &str, with: &str) -> String {
    assert_eq!(text.matches(what).count(), 1, "{what:?} in {text}");
    text.replace(what, with)
}

/// The alerts that the server knows.
pub(crate) fn alerts(prometheus: &Prometheus) -> Vec<String> {
    let rules = prometheus.get("rules", &[("type", "alert")]);
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
}
