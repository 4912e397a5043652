//! What the dashboard's panels ask for, asked as Grafana asks it, with an answer that it can show.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::{
    configuration::{self, JOB},
    prometheus::{Labels, Prometheus, labels, now, number},
};

/// Between two points.
const STEP: &str = "1";
/// Grafana's: four scrapes.
const RATE_INTERVAL: &str = "4s";
/// What may be 0 after everything that has been done to the cluster (by title, and letter of the query), with the reason. All
/// others have shown something else.
const MAY_BE_ZERO: [(&str, &str, &str); 5] = [
    ("Without an owner", "A", "all have one again"),
    ("Without an endpoint", "A", "all have one again"),
    ("Nodes without an agent", "A", "all have one again"),
    ("Frames of this host stopped or corrected", "A", "no node has sent anything in the name of an address"),
    (
        "Leases in doubt or failing, and claims to be settled",
        "A",
        "a doubt is over within a renewal, between two scrapes",
    ),
];

/// Asks for all that the dashboard shows. What was answered is written into a file, for pictures.
pub(crate) fn shows(prometheus: &Prometheus, since: f64) {
    let dashboard = configuration::dashboard();
    variables(prometheus, &dashboard);
    let times = [since, now()].map(|time| format!("{time:.3}"));
    let annotation = &dashboard["annotations"]["list"][0];
    assert!(
        !range(prometheus, annotation["target"]["expr"].as_str().unwrap(), &times, ".*").is_empty(),
        "{annotation}"
    );

    let (mut answers, mut empty, mut zero) = (Vec::new(), Vec::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (letter, query) = (target["refId"].as_str().unwrap(), target["expr"].as_str().unwrap());
            let ask = |nodes: &str| match target["instant"] == true {
                true => instant(prometheus, query, &times[1], nodes),
                false => range(prometheus, query, &times, nodes),
            };
            let found = ask(".*");
            // As Grafana writes several that have been chosen.
            if query.contains("$node") {
                let chosen = ask("(n1|n2|n3|n4)");
                assert_eq!(chosen.len(), found.len(), "{title}: {query}");
            }
            let numbers = || found.iter().flat_map(|(_, points)| points).filter(|(_, value)| !value.is_nan());
            if numbers().next().is_none() {
                empty.push((title, letter, query));
            } else if !numbers().any(|(_, value)| *value != 0.0) {
                zero.insert((title, letter));
            }
            legend(target["legendFormat"].as_str().unwrap(), &found);
            answers.push(json!({ "panel": panel["id"], "query": letter, "series": found }));
        }
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-data.json");
    fs::write(place, json!({ "since": times[0], "until": times[1], "answers": answers }).to_string())
        .unwrap();
    assert!(answers.len() > 28, "{}", answers.len());
    assert!(empty.is_empty(), "nothing to show: {empty:#?}");
    zero.retain(|(title, letter)| !MAY_BE_ZERO.iter().any(|(t, l, _)| (t, l) == (title, letter)));
    assert!(zero.is_empty(), "always 0: {zero:#?}");
}

/// A series with its points.
type Series = (Labels, Vec<(f64, f64)>);

fn filled(query: &str, nodes: &str) -> String {
    let query = query.replace("$job", JOB).replace("$node", nodes).replace("$__rate_interval", RATE_INTERVAL);
    assert!(!query.contains('$'), "{query}");
    query
}

fn point(value: &Value) -> (f64, f64) {
    (value[0].as_f64().unwrap(), number(&value[1]))
}

fn instant(prometheus: &Prometheus, query: &str, time: &str, nodes: &str) -> Vec<Series> {
    let answer = prometheus.get("query", &[("query", &filled(query, nodes)), ("time", time)]);
    let series = answer["result"].as_array().unwrap().iter();
    series.map(|one| (labels(&one["metric"]), vec![point(&one["value"])])).collect()
}

fn range(prometheus: &Prometheus, query: &str, [start, end]: &[String; 2], nodes: &str) -> Vec<Series> {
    let query = filled(query, nodes);
    let parameters = [("query", query.as_str()), ("start", start), ("end", end), ("step", STEP)];
    let answer = prometheus.get("query_range", &parameters);
    let series = answer["result"].as_array().unwrap().iter();
    let points = |one: &Value| one["values"].as_array().unwrap().iter().map(point).collect();
    series.map(|one| (labels(&one["metric"]), points(one))).collect()
}

/// Labels that the legend names are there.
fn legend(format: &str, found: &[Series]) {
    for name in format.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
        let missing = found.iter().find(|(labels, _)| !labels.contains_key(name));
        assert!(missing.is_none(), "{format:?}: {missing:?}");
    }
}

/// What the variables offer: the job, and the nodes.
fn variables(prometheus: &Prometheus, dashboard: &Value) {
    let offered = |name: &str| {
        let list = dashboard["templating"]["list"].as_array().unwrap();
        let variable = list.iter().find(|variable| variable["name"] == name).unwrap();
        let query = variable["query"]["query"].as_str().unwrap().replace("$job", JOB);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        let values = prometheus.get(&format!("label/{label}/values"), &[("match[]", series)]);
        values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(offered("job"), [JOB, configuration::POD_JOB]);
    assert_eq!(offered("node"), ["n1", "n2", "n3", "n4"]);
}
