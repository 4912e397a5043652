//! The dashboard, compared with Grafana's own types of one: its package for that, and the TypeScript compiler, are installed
//! once and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::cache_dir;

use crate::{
    build::workspace,
    step::say,
    tools::{self, Consent, on_path, remove_abandoned, run},
};

/// As in `xtask/dashboard/package.json`.
const NAME: &str = "grafana-schema-13.2.3";
/// What is there besides what is installed.
const MODEL: [&str; 2] = ["model.ts", "tsconfig.json"];

/// Errors that must be found, by what they do to the dashboard: whatever finds none of them would find none of ours.
const PLANTED: [(&str, &str); 10] = [
    ("\"panels\"", "\"pannels\""),
    ("\"schemaVersion\": 39", "\"schemaVersion\": \"39\""),
    ("\"graphTooltip\": 1", "\"graphTooltip\": 7"),
    ("\"type\": \"stat\"", "\"type\": \"stats\""),
    ("\"instant\"", "\"instnat\""),
    ("\"showHeader\"", "\"showHaeder\""),
    ("\"colorMode\": \"background\"", "\"colorMode\": \"backgruond\""),
    ("\"lineWidth\": 1", "\"lineWidth\": \"1\""),
    ("\"overrides\"", "\"override\""),
    ("\"gridPos\"", "\"gridPosition\""),
];

/// The directory with the packages, which are installed unless they have been.
///
/// # Errors
///
/// There is no npm and it may not or cannot be installed, or the packages cannot be had.
pub(super) fn ensure_installed(consent: Consent) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let place = cache.join(NAME);
    // It gets its name when it is complete.
    if place.is_dir() {
        return Ok(place);
    }
    if on_path("npm").is_none() {
        tools::install(&["nodejs", "npm"], consent)?;
    }
    say("npm installs Grafana's types of a dashboard and the TypeScript compiler, once (27 MB)");
    let unfinished = format!("{NAME}-installing-");
    remove_abandoned(&cache, &unfinished);
    let temporary = cache.join(format!("{unfinished}{}", process::id()));
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let installed = (|| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(workspace().join("xtask/dashboard").join(file), temporary.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        run(npm.current_dir(&temporary).stdin(Stdio::null()))?;
        fs::rename(&temporary, &place).with_context(|| format!("cannot create {}", place.display()))
    })();
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    installed.map(|()| place)
}

/// Compares a dashboard with the types, and sees that planted errors are found. `place` is a directory to work in.
///
/// # Errors
///
/// What Grafana would not understand in it.
pub(super) fn check(installed: &Path, dashboard: &str, place: &Path) -> Result<()> {
    for file in MODEL {
        fs::copy(workspace().join("xtask/dashboard").join(file), place.join(file))?;
    }
    std::os::unix::fs::symlink(installed.join("node_modules"), place.join("node_modules"))?;
    fs::create_dir(place.join("checked"))?;
    let write = |name: &str, dashboard: &str| {
        let text = format!(
            "import type {{ Dashboard }} from \"../model\";\nexport const dashboard: Dashboard = {dashboard};\n"
        );
        fs::write(place.join("checked").join(format!("{name}.ts")), text)
    };
    write("dashboard", dashboard)?;
    for (index, (right, wrong)) in PLANTED.iter().enumerate() {
        ensure!(dashboard.contains(right), "an error cannot be planted: the dashboard has no {right}");
        write(&format!("planted-{index}"), &dashboard.replace(right, wrong))?;
    }
    let compiler = place.join("node_modules/typescript/bin/tsc");
    let mut command = Command::new("node");
    command
        .arg(compiler)
        .args(["--pretty", "false", "--project", "."])
        .current_dir(place)
        .stdin(Stdio::null());
    let output = command.output().context("cannot run node")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let about = |name: &str| {
        let begin = format!("checked/{name}.ts(");
        said.lines().filter(|line| line.starts_with(&begin)).collect::<Vec<_>>()
    };
    for (index, (right, wrong)) in PLANTED.iter().enumerate() {
        let found = !about(&format!("planted-{index}")).is_empty();
        ensure!(found, "{wrong} for {right} is not found to be wrong:\n{said}{}", tools::shown(&command));
    }
    let wrong = about("dashboard");
    if !wrong.is_empty() {
        bail!("deploy/monitoring/dashboard.json is none of Grafana's dashboards:\n{}", wrong.join("\n"));
    }
    say(format!("Grafana's types ({NAME}) know all of it, and none of {} planted errors", PLANTED.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_that_of_the_package() {
        let package = fs::read_to_string(workspace().join("xtask/dashboard/package.json")).unwrap();
        let version = NAME.strip_prefix("grafana-schema-").unwrap();
        assert!(package.contains(&format!("\"@grafana/schema\": \"{version}\"")), "{package}");
    }
}
