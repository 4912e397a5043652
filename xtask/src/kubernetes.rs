//! A real control plane for the tests: built once from its Go modules, and kept.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::workspace,
    go::{self, Go},
    kept::kept,
    step::{say, step},
    tools::{self, Consent, on_path},
};

/// The environment variable in which tests find the programs' directory; whoever sets it has built them.
pub(crate) const VARIABLE: &str = "RESPONDER_KUBE_BIN";

/// As in `xtask/kubernetes/go.mod`. The API server says that it is this version only if it is told.
const KUBERNETES: [&str; 3] = ["1", "36", "3"];
/// As in `xtask/kubernetes/go.mod`.
const ETCD: &str = "3.6.8";

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 7] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
];

/// Programs of nodes that run pods, and Debian's packages that have them.
const RUNTIME: [(&str, &str); 2] = [("containerd", "containerd"), ("runc", "runc")];
/// Where the CNI plugins may be, which are Debian's `containernetworking-plugins`.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Build kube-apiserver, etcd, kubelet and what else the tests of a cluster run, and print their directory
///
/// They are built once (some minutes; 0.6 GB of sources and 3 GB of results in Go's own caches) and kept outside of the tree. Uses
/// a Go that is new enough, or installs one there.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    println!("{}", ensure(Consent::new(arguments.yes))?.display());
    Ok(ExitCode::SUCCESS)
}

/// The directory of the programs, which are built unless they have been.
///
/// # Errors
///
/// There is no Go and it may not or cannot be installed, the modules cannot be downloaded, or the build fails.
pub(crate) fn ensure(consent: Consent) -> Result<PathBuf> {
    if let Some(set) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let set = PathBuf::from(set);
        return match missing(&set) {
            None => Ok(set),
            Some(program) => bail!("{VARIABLE}={} has no {program}", set.display()),
        };
    }
    let kubernetes = KUBERNETES.join(".");
    kept(&format!("kubernetes-{kubernetes}-etcd-{ETCD}-nodes"), |place| {
        let go = go::ensure(consent)?;
        say(format!("{go} builds Kubernetes {kubernetes} and etcd {ETCD}, once: 6 minutes on two cores"));
        for (program, package) in PROGRAMS {
            step(program, || build(&go, package, &place.join(program)))?;
        }
        Ok(place.to_owned())
    })
}

/// Installs what runs the pods of real nodes, unless it is there, whoever has put it there.
///
/// # Errors
///
/// As [`tools::install`].
pub(crate) fn ensure_runtime(consent: Consent) -> Result<()> {
    let mut packages: Vec<&str> = RUNTIME
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !PLUGINS.iter().any(|dir| Path::new(dir).join("bridge").is_file()) {
        packages.push("containernetworking-plugins");
    }
    tools::install(&packages, consent)
}

/// The first program that is not in a directory.
fn missing(dir: &Path) -> Option<&'static str> {
    PROGRAMS.iter().map(|(program, _)| *program).find(|program| !dir.join(program).is_file())
}

/// Builds one program, saying how far it is.
fn build(go: &Go, package: &str, out: &Path) -> Result<()> {
    let [major, minor, _] = KUBERNETES;
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}",
        KUBERNETES.join(".")
    );
    let mut command = Command::new(&go.program);
    command.current_dir(workspace().join("xtask/kubernetes"));
    // As the files there say, whatever this user's settings are.
    command.envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOTOOLCHAIN", "local")]);
    command.args(["build", "-v", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &flags, "-o"]);
    command.arg(out).arg(package).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", go.program.display()))?;
    let told = child.stderr.take().context("no pipe from go")?;
    let mut lines = Vec::new();
    for line in BufReader::new(told).lines() {
        lines.push(line?);
        // A line for each module that is downloaded and each package that is compiled.
        if lines.len() % 250 == 0 {
            say(format!("{} modules and packages", lines.len()));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let last = &lines[lines.len().saturating_sub(20)..];
        bail!("{package} cannot be built ({status}):\n{}", last.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_are_those_of_the_module() {
        let module = fs::read_to_string(workspace().join("xtask/kubernetes/go.mod")).unwrap();
        let wanted =
            [format!("k8s.io/kubernetes v{}", KUBERNETES.join(".")), format!("etcd/server/v3 v{ETCD}")];
        for wanted in wanted {
            let required = |line: &str| line.trim().trim_end_matches(" // indirect").ends_with(&wanted);
            assert!(module.lines().any(required), "{wanted} in {module}");
        }
        let staging = format!(" v0.{}.{}", KUBERNETES[1], KUBERNETES[2]);
        let replaced = module.lines().filter(|line| line.contains(" => "));
        assert!(replaced.clone().count() > 30);
        assert!(replaced.clone().all(|line| line.ends_with(&staging)), "{staging}");
    }
}
