//! Prometheus for the tests of alerts: built once from its Go module, and kept. And these tests.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use ebpf_build::cache_dir;

use crate::{
    build::workspace,
    go::{self, Go},
    step::{say, step},
    tools::{Consent, remove_abandoned, run as execute},
};

/// The environment variable in which the programs' directory can be named; whoever sets it has built them.
const VARIABLE: &str = "RESPONDER_PROMETHEUS_BIN";

/// As in `xtask/prometheus/go.mod`: 3.13.5, whose Go module counts by 300 more.
const VERSION: &str = "0.313.5";
const MODULE: &str = "github.com/prometheus/prometheus";

/// Build promtool, which tests alerts, or also Prometheus, and print their directory
///
/// Each is built once (two minutes; 0.5 GB of sources in Go's own cache) and kept outside of the tree. Uses a Go that is
/// new enough, or installs one there.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also Prometheus itself, without its user interface
    #[arg(long)]
    server: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let consent = Consent::new(arguments.yes);
    let promtool = ensure("promtool", consent)?;
    if arguments.server {
        ensure("prometheus", consent)?;
    }
    println!("{}", promtool.parent().unwrap_or(&promtool).display());
    Ok(ExitCode::SUCCESS)
}

/// A program of Prometheus, which is built unless it has been.
///
/// # Errors
///
/// There is no Go and it may not or cannot be installed, the modules cannot be downloaded, or the build fails.
pub(crate) fn ensure(program: &str, consent: Consent) -> Result<PathBuf> {
    if let Some(set) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(set).join(program);
        return match path.is_file() {
            true => Ok(path),
            false => bail!("{VARIABLE}: there is no {}", path.display()),
        };
    }
    let cache = cache_dir()?;
    let place = cache.join(format!("prometheus-{VERSION}"));
    let path = place.join(program);
    if path.is_file() {
        return Ok(path);
    }
    let go = go::ensure(consent)?;
    say(format!("{go} builds {program} {VERSION}, once: two minutes on two cores"));
    let unfinished = "prometheus-building-";
    remove_abandoned(&cache, unfinished);
    let temporary = cache.join(format!("{unfinished}{}", process::id()));
    let built = build(&go, program, &temporary.join(program)).and_then(|()| {
        fs::create_dir_all(&place)?;
        fs::rename(temporary.join(program), &path)
            .with_context(|| format!("cannot create {}", path.display()))
    });
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", temporary.display()));
        }
        _ => {}
    }
    built.map(|()| path)
}

fn build(go: &Go, program: &str, out: &Path) -> Result<()> {
    let mut command = Command::new(&go.program);
    command.current_dir(workspace().join("xtask/prometheus"));
    command.envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOTOOLCHAIN", "local")]);
    // Finding targets at cloud providers is two thirds of the code.
    command.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", "remove_all_sd"]);
    command.args(["-ldflags", "-s -w", "-o"]).arg(out).arg(format!("{MODULE}/cmd/{program}"));
    execute(&mut command)
}

/// Tests the alerts in `deploy/monitoring`, and that the dashboard's queries are queries.
///
/// # Errors
///
/// What is wrong with them.
pub(crate) fn test_alerts(promtool: &Path) -> Result<()> {
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

/// Says what it does about [`test_alerts`].
pub(crate) fn alerts(consent: Consent) -> Result<Option<String>> {
    match step("promtool", || ensure("promtool", consent)) {
        Ok(promtool) => step("alerts and dashboard", || test_alerts(&promtool)).map(|()| None),
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
