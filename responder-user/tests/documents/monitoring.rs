//! Alerts, their runbooks and the dashboard: about metrics that there are. What promtool has to say of them is
//! `cargo xtask alerts`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{documents, read};

/// All names of metrics, histograms' series included.
fn metrics() -> BTreeSet<String> {
    let table = read("docs/metrics.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `responder_")?.split_once("` | "));
    let mut names = BTreeSet::new();
    for (name, rest) in rows {
        let name = format!("responder_{name}");
        if rest.starts_with("histogram") {
            names.extend(["bucket", "sum", "count"].map(|series| format!("{name}_{series}")));
        }
        names.insert(name);
    }
    assert!(names.len() > 60, "{names:?}");
    names
}

/// What looks like the name of a metric.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    // These are crates.
    words.filter(|word| word.starts_with("responder_") && !["responder_user"].contains(word))
}

/// Severity by alert.
fn alerts() -> BTreeMap<String, String> {
    let rules = read("deploy/monitoring/rules.yaml");
    let alerts = rules.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().unwrap();
        let field = |name: &str| rule.lines().find_map(|line| line.trim().strip_prefix(name));
        assert_eq!(field("runbook_url: "), Some(&*format!("docs/runbooks/{name}.md")));
        for needed in ["summary: ", "description: "] {
            assert!(field(needed).is_some_and(|text| !text.is_empty()), "{name}: {needed}");
        }
        let severity = field("severity: ").unwrap_or_else(|| panic!("{name} has no severity"));
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        (name.to_owned(), severity.to_owned())
    });
    let alerts: BTreeMap<_, _> = alerts.collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn every_metric_that_is_named_exists() {
    let known = metrics();
    let files =
        ["rules.yaml", "tests.yaml", "dashboard.json"].map(|file| format!("deploy/monitoring/{file}"));
    let texts = files.map(|file| (file.clone(), read(&file))).into_iter().chain(documents());
    for (path, text) in texts {
        for name in named(&text) {
            assert!(known.contains(name), "{path}: there is no metric {name}");
        }
    }
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let alerts = alerts();
    let index = read("docs/runbooks/README.md");
    for (alert, severity) in &alerts {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        assert!(page.starts_with(&format!("# {alert}\n")), "{alert}");
        let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, ["Meaning", "Impact", "Diagnosis", "Mitigation"], "{alert}");
        assert!(page.contains("```console\n$ "), "{alert} has no command");
        assert!(
            index.contains(&format!("| [{alert}]({alert}.md) | {severity} |")),
            "{alert}, {severity}: {index}"
        );
    }
    let pages = documents().into_iter().filter_map(|(path, _)| {
        Some(path.strip_prefix("docs/runbooks/")?.strip_suffix(".md")?.to_owned())
            .filter(|name| name != "README")
    });
    assert_eq!(pages.collect::<BTreeSet<_>>(), alerts.into_keys().collect());
}

#[test]
fn every_alert_is_made_to_fire_and_not_to() {
    let tests = read("deploy/monitoring/tests.yaml");
    for alert in alerts().into_keys() {
        let lines = || tests.lines().map(str::trim);
        let silent = format!("- {{alertname: {alert}, ");
        assert!(
            lines().any(|line| line.starts_with(&silent) && line.ends_with("exp_alerts: []}")),
            "{alert}"
        );
        assert!(lines().any(|line| line == format!("- alertname: {alert}")), "{alert}");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job", "node"]);
    let datasource = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's, too");
        assert!(titles.insert(title), "{title} twice");
        let place = ["x", "y", "w", "h"].map(|field| panel["gridPos"][field].as_u64().unwrap());
        let [x, y, w, h] = place;
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}: {place:?}");
        for cell in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (row, column))) {
            assert!(taken.insert(cell), "{title}: lies on another panel at {cell:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"], datasource, "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert_eq!(target["datasource"], datasource, "{title}");
            assert!(named(query).next().is_some(), "{title}: {query}");
            assert!(query.contains("job=\"$job\""), "{title}: {query}");
            for variable in query.split('$').skip(1) {
                let known = ["job\"", "node\"", "__rate_interval]"];
                assert!(known.iter().any(|name| variable.starts_with(name)), "{title}: ${variable}");
            }
        }
    }
    assert!(ids.len() > 20, "{} panels", ids.len());
}
