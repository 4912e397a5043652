//! The dashboard, compared with Grafana's own types of one.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::npm::Packages;
use crate::{build::workspace, step::say, tools};

/// The types, of the version in `xtask/dashboard/package.json`.
pub(super) const PACKAGES: Packages = Packages {
    name: "grafana-schema-13.2.3",
    source: "xtask/dashboard",
    what: "Grafana's types of a dashboard and the TypeScript compiler (33 MB)",
};
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

/// Compares a dashboard with the types, and sees that planted errors are found. `place` is a directory to work in.
///
/// # Errors
///
/// What Grafana would not understand in it.
pub(super) fn check(installed: &Path, dashboard: &str, place: &Path) -> Result<()> {
    for file in MODEL {
        fs::copy(workspace().join("xtask/dashboard").join(file), place.join(file))?;
    }
    symlink(installed.join("node_modules"), place.join("node_modules"))?;
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
    say(format!("Grafana's types know all of it, and each of {} planted errors is found", PLANTED.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_that_of_the_package() {
        let package = fs::read_to_string(workspace().join("xtask/dashboard/package.json")).unwrap();
        let version = PACKAGES.name.strip_prefix("grafana-schema-").unwrap();
        assert!(package.contains(&format!("\"@grafana/schema\": \"{version}\"")), "{package}");
    }
}
