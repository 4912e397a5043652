//! `cargo xtask fuzz`

mod frames;
pub(crate) mod instrument;
mod report;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::target_dir;

use self::report::Report;
use crate::{
    build::{self, cargo, executables_of, workspace},
    step::{say, step},
    tools::{self, Consent, on_path},
    total::Total,
};

/// Look for bytes from outside that break something
///
/// Fuzzes, guided by coverage, what takes bytes from outside: frames (the programs as they run on a host, against the model),
/// the static file, Leases, Services and other objects, netlink, and what commands hear on the segment. What breaks
/// something is kept below target/fuzzing. docs/fuzzing.md says more. Needs a C++ compiler; nothing is run as root but
/// --kernel-frames.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz [default: everything]
    targets: Vec<String>,
    /// How long each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run the target on this file, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "minimise")]
    replay: Option<PathBuf>,
    /// Then put what has the same coverage with the fewest files into the corpus of the source
    #[arg(long)]
    minimise: bool,
    /// Compare so many frames in the kernel with the model, and nothing else (as root, or through sudo)
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["targets", "replay", "minimise"])]
    kernel_frames: Option<u64>,
    /// How many of these frames on one host
    #[arg(long, value_name = "COUNT", default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..))]
    per_host: u64,
    /// Where frames and hosts come from [default: others each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Names of targets, as `fuzz/src/lib.rs` has them.
const TARGETS: [&str; 6] = ["frames", "config", "lease", "objects", "netlink", "heard"];

/// The longest input, in bytes: beyond a page there is only more of the same.
const LONGEST: u32 = 4096;
/// What takes longer than that many seconds hangs.
const HANGS: u32 = 10;
/// How long each target is fuzzed in the tests, in seconds.
const SHORT: u32 = 2;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(count) = arguments.kernel_frames {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return frames::run(count, arguments.seed.unwrap_or(now.as_secs()), arguments);
    }
    let mut targets: Vec<&str> = arguments.targets.iter().map(String::as_str).collect();
    if let Some(unknown) = targets.iter().find(|name| !TARGETS.contains(name)) {
        bail!("{unknown} is no target; there are {}", TARGETS.join(", "));
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    let fuzzer = Fuzzer::build(Consent::new(arguments.yes), Some("fuzz"))?;
    if let Some(file) = &arguments.replay {
        let [target] = *targets else { bail!("name the target that {} is for", file.display()) };
        let status = fuzzer.command(target)?.arg(file).status();
        return Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut broken = Vec::new();
    for target in targets {
        let found = step(target, || fuzzer.look(target, arguments.seconds));
        match found {
            Ok(report) => say(report.to_string()),
            Err(error) => {
                say(format!("{error:#}"));
                broken.push(target);
                continue;
            }
        }
        if arguments.minimise {
            step(&format!("{target}: corpus"), || fuzzer.minimise(target))?;
        }
    }
    ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Fuzzes each target for a moment.
pub(crate) fn short(consent: Consent, total: &mut Total, wants: impl Fn(&str) -> bool) {
    let names = TARGETS.map(|target| format!("fuzz_{target}"));
    if !names.iter().any(|name| wants(name)) {
        return;
    }
    let fuzzer = match Fuzzer::build(consent, None) {
        Ok(fuzzer) => fuzzer,
        Err(error) if compiler().is_none() => {
            total.skipped("fuzz", format!("{error:#}").replace('\n', " "));
            return;
        }
        Err(error) => {
            say(format!("{error:#}"));
            total.failed("fuzz");
            return;
        }
    };
    for (target, name) in TARGETS.into_iter().zip(&names).filter(|(_, name)| wants(name)) {
        match step(name, || fuzzer.look(target, SHORT)) {
            Ok(report) => {
                say(report.to_string());
                total.passed();
            }
            Err(error) => {
                say(format!("{error:#}"));
                total.failed(name);
            }
        }
    }
}

/// The C++ compiler that builds libFuzzer.
fn compiler() -> Option<PathBuf> {
    env::var_os("CXX").map(PathBuf::from).or_else(|| on_path("c++"))
}

/// The built fuzzer, and where it works.
struct Fuzzer {
    program: PathBuf,
    /// What was found, and in `seeds` what to begin with.
    place: PathBuf,
}

impl Fuzzer {
    fn build(consent: Consent, profile: Option<&str>) -> Result<Self> {
        if compiler().is_none() {
            step("C++ compiler", || tools::install(&["g++", "libc6-dev"], consent))?;
        }
        let place = target_dir(&workspace()).join("fuzzing");
        let seeds = step("seeds", || {
            build::executables(&["build", "--package", "responder-fuzz", "--bin", "seeds"])
        })?;
        let seeds = seeds.into_iter().find(|program| program.target == "seeds");
        tools::run(Command::new(seeds.context("cargo built no seeds")?.path).arg(place.join("seeds")))?;
        let built = step("fuzzer", || {
            let mut command = cargo();
            command.args([
                "build",
                "--package",
                "responder-fuzz",
                "--features",
                "libfuzzer",
                "--bin",
                "fuzz",
            ]);
            if let Some(profile) = profile {
                command.args(["--profile", profile]);
            }
            command.env("RUSTC_WORKSPACE_WRAPPER", env::current_exe()?).env(instrument::VARIABLE, "1");
            executables_of(&mut command)
        })?;
        let program = built.into_iter().find(|program| program.target == "fuzz");
        Ok(Self { program: program.context("cargo built no fuzzer")?.path, place })
    }

    fn command(&self, target: &str) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.env("RESPONDER_FUZZ_TARGET", target).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
        fs::create_dir_all(self.found(target))
            .with_context(|| format!("cannot make {}", self.found(target).display()))?;
        Ok(command)
    }

    /// What had new coverage in earlier runs.
    fn found(&self, target: &str) -> PathBuf {
        self.place.join("corpus").join(target)
    }

    /// The same in the source: little.
    fn kept(target: &str) -> PathBuf {
        workspace().join("fuzz/corpus").join(target)
    }

    /// Fuzzes a target.
    fn look(&self, target: &str, seconds: u32) -> Result<Report> {
        let log = self.place.join(format!("{target}.log"));
        let mut command = self.command(target)?;
        command.arg(self.found(target)).arg(Self::kept(target)).arg(self.place.join("seeds").join(target));
        command.args([format!("-max_total_time={seconds}"), format!("-timeout={HANGS}")]);
        command.args([format!("-max_len={LONGEST}"), "-print_final_stats=1".to_owned()]);
        command.args(["-rss_limit_mb=2048", "-use_value_profile=1", "-reload=0"]);
        let prefix = self.place.join(format!("{target}-"));
        command.arg(format!("-artifact_prefix={}", prefix.display()));
        command.stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let status = command.status().with_context(|| format!("cannot run `{}`", tools::shown(&command)))?;
        let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        if status.success() {
            return Report::read(&said).with_context(|| format!("{} has no end", log.display()));
        }
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
        let file = report::artifact(&said).unwrap_or("FILE");
        bail!("{last}\n{target} broke ({status}). Again: cargo xtask fuzz {target} --replay {file}")
    }

    /// Makes the corpus in the source anew, out of all that there is.
    fn minimise(&self, target: &str) -> Result<()> {
        let (kept, new) = (Self::kept(target), self.place.join("minimal").join(target));
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new)?;
        let mut command = self.command(target)?;
        // By edges alone: how often each is taken would multiply the files.
        command.args(["-set_cover_merge=1", "-use_counters=0", &format!("-max_len={LONGEST}")]);
        command.arg(&new).arg(&kept).arg(self.found(target)).arg(self.place.join("seeds").join(target));
        command
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.place.join(format!("{target}-merge.log")))?);
        tools::run(&mut command)?;
        replace(&kept, &new)?;
        say(format!("{} files in {}", fs::read_dir(&kept)?.count(), kept.display()));
        Ok(())
    }
}

/// Puts the files of a directory in the place of those of another.
fn replace(old: &Path, new: &Path) -> Result<()> {
    if old.exists() {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    fs::create_dir_all(old)?;
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        fs::copy(entry.path(), old.join(entry.file_name()))?;
    }
    Ok(())
}
