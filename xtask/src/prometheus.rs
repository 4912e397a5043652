//! Prometheus and its tool for tests of alerts, built once from its Go module and kept; tests of the alerts, and of the
//! dashboard.

mod npm;
pub(crate) mod picture;
mod schema;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::workspace,
    go::{self, Go},
    kept::kept,
    step::{say, step},
    tools::{Consent, run as execute},
};

/// A program of Prometheus', and the environment variable in which it can be named; whoever sets that has built it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
}

/// Tests rules.
pub(crate) const PROMTOOL: Program = Program { name: "promtool", variable: "RESPONDER_PROMTOOL" };
/// Scrapes.
pub(crate) const SERVER: Program = Program { name: "prometheus", variable: "RESPONDER_PROMETHEUS" };

/// As in `xtask/prometheus/go.mod`: 3.13.5, whose Go module counts by 300 more.
const VERSION: &str = "0.313.5";
const MODULE: &str = "github.com/prometheus/prometheus";

/// Test the alerts in deploy/monitoring: each is made to fire and not to
///
/// Builds promtool from its Go module, once (three minutes of a CPU; 0.5 GB of sources in Go's own cache), and keeps it outside of
/// the tree. Uses a Go that is new enough, or installs one there. The dashboard is compared with Grafana's own types, which
/// npm installs. With --server, only builds the Prometheus server, for tests/tests/monitoring.rs, and prints its path.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// Build the Prometheus server and test nothing
    #[arg(long)]
    server: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let consent = Consent::new(arguments.yes);
    if arguments.server {
        println!("{}", ensure(SERVER, consent)?.display());
        return Ok(ExitCode::SUCCESS);
    }
    let promtool = ensure(PROMTOOL, consent)?;
    step("alerts and dashboard", || test_alerts(&promtool))?;
    let types = schema::PACKAGES.ensure(consent)?;
    step("dashboard by Grafana's types", || check_dashboard(&types))?;
    Ok(ExitCode::SUCCESS)
}

/// A program, which is built unless it has been.
///
/// # Errors
///
/// There is no Go and it may not or cannot be installed, the modules cannot be downloaded, or the build fails.
pub(crate) fn ensure(Program { name, variable }: Program, consent: Consent) -> Result<PathBuf> {
    if let Some(set) = env::var_os(variable).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(set);
        return match path.is_file() {
            true => Ok(path),
            false => bail!("{variable}: there is no {}", path.display()),
        };
    }
    kept(&format!("{name}-{VERSION}"), |place| {
        let go = go::ensure(consent)?;
        say(format!("{go} builds {name} {VERSION}, once: two minutes on two cores"));
        let program = place.join(name);
        build(&go, name, &program)?;
        Ok(program)
    })
}

fn build(go: &Go, name: &str, out: &Path) -> Result<()> {
    let mut command = Command::new(&go.program);
    command.current_dir(workspace().join("xtask/prometheus"));
    // As the files there say, whatever this user's settings are.
    command.envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOTOOLCHAIN", "local")]);
    // Finding targets at cloud providers is two thirds of the code.
    let tags = "remove_all_sd,enable_kubernetes_sd";
    command.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", tags]);
    command.args(["-ldflags", "-s -w", "-o"]).arg(out).arg(format!("{MODULE}/cmd/{name}"));
    execute(&mut command)
}

/// Tests the alerts in `deploy/monitoring`, and that the dashboard's queries are queries.
///
/// # Errors
///
/// What is wrong with them.
fn test_alerts(promtool: &Path) -> Result<()> {
    let place = env::temp_dir().join(format!("rsp-{}-alerts", process::id()));
    fs::create_dir_all(&place)?;
    let tested = (|| {
        let monitoring = workspace().join("deploy/monitoring");
        let rules = fs::read_to_string(monitoring.join("rules.yaml"))?;
        fs::write(place.join("rules.yaml"), rule_file(&rules)?)?;
        fs::copy(monitoring.join("tests.yaml"), place.join("tests.yaml"))?;
        let promtool = |arguments: &[&str]| {
            execute(Command::new(promtool).current_dir(&place).args(arguments).stdin(Stdio::null()))
        };
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"])?;
        promtool(&["test", "rules", "tests.yaml"])?;
        let dashboard: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(monitoring.join("dashboard.json"))?)?;
        let queries = queries(&dashboard);
        say(format!("{} queries of the dashboard", queries.len()));
        // As rules, so that one run sees all of them.
        let mut records = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
        for (index, query) in queries.iter().enumerate() {
            let query = serde_json::to_string(&query.replace("$__rate_interval", "1m"))?;
            records += &format!("      - record: dashboard:query_{index}\n        expr: {query}\n");
        }
        fs::write(place.join("dashboard.yaml"), records)?;
        promtool(&["check", "rules", "--lint=none", "dashboard.yaml"])
    })();
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    tested
}

/// Compares the dashboard with Grafana's types.
fn check_dashboard(types: &Path) -> Result<()> {
    let place = env::temp_dir().join(format!("rsp-{}-dashboard", process::id()));
    fs::create_dir_all(&place)?;
    let dashboard = fs::read_to_string(workspace().join("deploy/monitoring/dashboard.json"));
    let checked = dashboard.map_err(Into::into).and_then(|text| schema::check(types, &text, &place));
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    checked
}

/// What Prometheus itself reads: the part of a PrometheusRule below `spec`.
fn rule_file(rules: &str) -> Result<String> {
    let (_, spec) = rules.split_once("\nspec:\n").context("rules.yaml has no line `spec:`")?;
    let mut file = String::new();
    for line in spec.lines() {
        let within = line.strip_prefix("  ").or(line.is_empty().then_some(""));
        file += within.with_context(|| format!("not below spec: {line}"))?;
        file.push('\n');
    }
    Ok(file)
}

/// All queries of a dashboard.
fn queries(value: &serde_json::Value) -> Vec<&str> {
    if let Some(values) = value.as_array() {
        return values.iter().flat_map(queries).collect();
    }
    let own = value.get("expr").and_then(serde_json::Value::as_str);
    let fields = value.as_object().into_iter().flat_map(serde_json::Map::values);
    own.into_iter().chain(fields.flat_map(queries)).collect()
}

/// The same in steps. `Some`: it could not be had, for this reason.
///
/// # Errors
///
/// As [`test_alerts`].
pub(crate) fn alerts(consent: Consent) -> Result<Option<String>> {
    match step("promtool", || ensure(PROMTOOL, consent)) {
        Ok(promtool) => step("alerts and dashboard", || test_alerts(&promtool)).map(|()| None),
        Err(error) => Ok(Some(format!("{error:#}").replace('\n', " "))),
    }
}

/// The dashboard by Grafana's types, likewise.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn dashboard(consent: Consent) -> Result<Option<String>> {
    match step("Grafana's types", || schema::PACKAGES.ensure(consent)) {
        Ok(types) => step("dashboard by Grafana's types", || check_dashboard(&types)).map(|()| None),
        Err(error) => Ok(Some(format!("{error:#}").replace('\n', " "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_that_of_the_module() {
        let module = fs::read_to_string(workspace().join("xtask/prometheus/go.mod")).unwrap();
        let wanted = format!("{MODULE} v{VERSION}");
        let required = |line: &str| line.trim().trim_end_matches(" // indirect") == wanted;
        assert!(module.lines().any(required), "{wanted} in {module}");
    }

    #[test]
    fn rules_are_what_is_below_spec() {
        let rule = "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n\n      rules: []\n";
        assert_eq!(rule_file(rule).unwrap(), "groups:\n  - name: a\n\n    rules: []\n");
        assert!(rule_file("spec: {}\n").is_err());
        assert!(rule_file("a: b\nspec:\n  groups: []\nmore: c\n").is_err());
    }

    #[test]
    fn queries_are_found_at_any_depth() {
        let dashboard = serde_json::json!({ "panels": [{ "targets": [{ "expr": "a" }] }, { "expr": "b" }] });
        assert_eq!(queries(&dashboard), ["a", "b"]);
    }
}
