//! The picture of the dashboard in the documentation: drawn by Grafana's own components from a Prometheus' answers.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::target_dir;

use super::npm::Packages;
use crate::{
    build::workspace,
    step::step,
    tools::{self, Consent, on_path},
};

const SOURCE: &str = "deploy/monitoring/picture";
const PACKAGES: Packages = Packages {
    name: "grafana-ui-13.2.2",
    source: SOURCE,
    what: "Grafana's components and what builds a page of them (420 MB)",
};
/// What tests/tests/monitoring.rs leaves below the target directory.
const DATA: &str = "tmp/dashboard-data.json";
/// So many of the dashboard's rows, of 38 pixels each, are in the picture: the first two of its sections.
const ROWS: u32 = 40;
const SIZE: (u32, u32) = (1456, ROWS * 38 + 16);
/// More does not belong into a repository.
const MOST: u64 = 300_000;

/// Draw the picture of the dashboard in docs from what the last run of the monitoring test has measured
///
/// Grafana's components draw it (installed by npm, outside of the tree), in Debian's Chromium, which is installed if it is
/// not there. What they show has been answered by a real Prometheus while that test made its faults.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "docs/dashboard.png")]
    out: PathBuf,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let consent = Consent::new(arguments.yes);
    let data = target_dir(&workspace()).join(DATA);
    ensure!(data.is_file(), "nothing has been measured ({}): `cargo xtask test alerts_fire`", data.display());
    let packages = step("Grafana's components", || PACKAGES.ensure(consent))?;
    if on_path("chromium").is_none() {
        tools::install(&["chromium"], consent)?;
    }
    let place = env::temp_dir().join(format!("rsp-{}-picture", process::id()));
    fs::create_dir_all(&place)?;
    let drawn = step("picture", || draw(&place, &packages, &data, &workspace().join(&arguments.out)));
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    drawn.map(|()| ExitCode::SUCCESS)
}

fn draw(place: &Path, packages: &Path, data: &Path, out: &Path) -> Result<()> {
    for file in ["picture.jsx", "scrollbars.js", "index.html"] {
        fs::copy(workspace().join(SOURCE).join(file), place.join(file))?;
    }
    fs::copy(workspace().join("deploy/monitoring/dashboard.json"), place.join("dashboard.json"))?;
    fs::copy(data, place.join("data.json"))?;
    symlink(packages.join("node_modules"), place.join("node_modules"))?;

    let mut esbuild = Command::new(packages.join("node_modules/.bin/esbuild"));
    esbuild.args(["picture.jsx", "--bundle", "--outfile=picture.js", "--jsx=automatic", "--log-level=error"]);
    esbuild.arg(format!("--define:UNTIL={ROWS}")).arg("--define:process.env.NODE_ENV=\"production\"");
    esbuild.args(["--define:global=window", "--alias:react-custom-scrollbars-2=./scrollbars.js"]);
    esbuild.args(["--loader:.svg=dataurl", "--loader:.ttf=empty", "--loader:.woff2=dataurl"]);
    tools::run(esbuild.current_dir(place).stdin(Stdio::null()))?;

    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=15000"]);
    chromium.arg(format!("--window-size={},{}", SIZE.0, SIZE.1));
    chromium.arg(format!("--user-data-dir={}", place.join("profile").display()));
    chromium.arg("--screenshot=picture.png").arg(place.join("index.html"));
    let output = chromium.current_dir(place).stdin(Stdio::null()).output().context("cannot run chromium")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("Error: ") {
        bail!("{}: {}\n{said}", tools::shown(&chromium), output.status);
    }
    let picture = place.join("picture.png");
    let size = fs::metadata(&picture).context("chromium has drawn nothing")?.len();
    ensure!(size <= MOST, "{size} bytes are more than {MOST}");
    fs::copy(picture, out).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(())
}
