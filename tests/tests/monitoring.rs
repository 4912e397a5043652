//! A real Prometheus scrapes real agents: faults are made, the alerts of deploy/monitoring fire, and the dashboard has data.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "monitoring/configuration.rs"]
mod configuration;
#[path = "monitoring/dashboard.rs"]
mod dashboard;
#[path = "monitoring/faults.rs"]
mod faults;
#[path = "monitoring/prometheus.rs"]
mod prometheus;

use std::time::Instant;

use responder_lab::{Cluster, cluster_or_skip, tools_or_skip};

use faults::Site;
use prometheus::{Prometheus, prometheus_or_skip};

/// What is not made to fire here. (promtool makes them all fire: `cargo xtask alerts`.)
const NOT_MADE: [&str; 0] = [];

#[test]
fn alerts_fire_and_the_dashboard_shows_it() {
    let test = "alerts_fire_and_the_dashboard_shows_it";
    if !cluster_or_skip(test) || !tools_or_skip(test, &["tc"]) || !prometheus_or_skip(test) {
        return;
    }
    let begin = Instant::now();
    let cluster = Cluster::builder().nodes(4).delays(true).build().unwrap();
    let mut site = Site::start(cluster);
    println!("{:5.1} s: agents have started", begin.elapsed().as_secs_f64());
    let since = prometheus::now();
    let prometheus = Prometheus::start(
        site.cluster.management(),
        &site.cluster.dir().join("prometheus"),
        &[
            ("prometheus.yml", &configuration::prometheus(&site.cluster.kubeconfig())),
            ("rules.yml", &configuration::rules()),
        ],
    );
    let alerts = configuration::alerts(&prometheus);
    assert_eq!(alerts.len(), 14, "{alerts:?}");

    faults::all_is_well(&prometheus);
    let mut seen = Vec::new();
    for (what, fault) in faults::ALL {
        let fired = fault(&mut site, &prometheus);
        println!("{:5.1} s: {what}: {fired:?}", begin.elapsed().as_secs_f64());
        seen.extend(fired);
    }
    dashboard::shows(&prometheus, since);
    println!("{:5.1} s: the dashboard has been asked for", begin.elapsed().as_secs_f64());

    let missing: Vec<_> = alerts.iter().filter(|alert| !seen.contains(&alert.as_str())).collect();
    assert_eq!(missing, NOT_MADE.iter().collect::<Vec<_>>(), "these have not been seen to fire");
}
