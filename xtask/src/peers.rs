//! Other announcers for the tests of migrating from them: built once from their Go modules, and kept.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::workspace,
    go::{self, Go},
    kept::kept,
    step::{say, step},
    tools::{self, Consent},
};

/// The environment variable in which tests find the directory; whoever sets it has built what is in it.
pub(crate) const VARIABLE: &str = "RESPONDER_PEERS";

/// As in `xtask/metallb/go.mod`.
const VERSION: &str = "0.15.2";
const MODULE: &str = "go.universe.tf/metallb";
/// MetalLB's programs, by the names of their packages.
const PROGRAMS: [&str; 2] = ["controller", "speaker"];
/// What its users install, in its module, without BGP by FRR.
const MANIFEST: &str = "config/manifests/metallb-native.yaml";

/// Build MetalLB's controller and speaker, which the tests of migrating from it run, and print their directory
///
/// They are built once (three minutes of two cores; 0.3 GB of sources in Go's own cache) and kept outside of the tree. Uses a Go that
/// is new enough, or installs one there. keepalived is Debian's package. kube-vip cannot be had as a Go module everywhere.
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

/// The directory with the programs and the manifest, which are built unless they have been.
///
/// # Errors
///
/// There is no Go and it may not or cannot be installed, the modules cannot be downloaded, or the build fails.
pub(crate) fn ensure(consent: Consent) -> Result<PathBuf> {
    if let Some(set) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let set = PathBuf::from(set);
        return match PROGRAMS.iter().find(|program| !set.join(program).is_file()) {
            None => Ok(set),
            Some(program) => bail!("{VARIABLE}={} has no {program}", set.display()),
        };
    }
    kept(&format!("metallb-{VERSION}"), |place| {
        let go = go::ensure(consent)?;
        say(format!("{go} builds MetalLB {VERSION}, once: three minutes on two cores"));
        for program in PROGRAMS {
            step(program, || build(&go, program, &place.join(program)))?;
        }
        manifest(&go, &place.join("metallb.yaml"))?;
        Ok(place.to_owned())
    })
}

fn go_command(go: &Go) -> Command {
    let mut command = Command::new(&go.program);
    command.current_dir(workspace().join("xtask/metallb"));
    // As the files there say, whatever this user's settings are.
    command.envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOTOOLCHAIN", "local")]);
    command
}

fn build(go: &Go, program: &str, out: &Path) -> Result<()> {
    let mut command = go_command(go);
    command.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o"]);
    tools::run(command.arg(out).arg(format!("{MODULE}/{program}")))
}

/// Copies the manifest out of the module.
fn manifest(go: &Go, out: &Path) -> Result<()> {
    let mut command = go_command(go);
    command.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", MODULE]);
    let output = command.output().with_context(|| format!("cannot run {}", go.program.display()))?;
    let dir = String::from_utf8(output.stdout)?;
    let from = Path::new(dir.trim()).join(MANIFEST);
    let text = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
    fs::write(out, text).with_context(|| format!("cannot create {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_that_of_the_module() {
        let module = fs::read_to_string(workspace().join("xtask/metallb/go.mod")).unwrap();
        let wanted = format!("{MODULE} v{VERSION}");
        assert!(module.lines().any(|line| line.trim_start_matches("require ").trim() == wanted), "{module}");
    }
}
