//! `cargo xtask test`

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode},
};

use anyhow::{Context as _, Result};
use ebpf_build::{Kind, Request, Wanted, target_dir};

use crate::{
    build::{self, Executable, cargo, workspace},
    ebpf, fuzz, image, kubernetes,
    leftovers::{MARK, Snapshot},
    peers, prometheus, root,
    step::{say, step},
    tools::{self, Consent},
    total::{Reader, Total, read},
    vm,
};

/// Run the tests: everything, or with --quick what needs neither root nor packages
///
/// Installs the Debian packages that the tests need (asking, at a terminal), builds everything, and runs unit
/// and property tests, then as root those with real kernels, namespaces and tools; also builds the eBPF objects
/// with each toolchain that can be had and has the kernel verify them. What cannot run here is named as skipped
/// above the total, which is the last line.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only unit and property tests: no root, nothing installed
    #[arg(long)]
    quick: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// Only tests whose names contain one of these
    filter: Vec<String>,
}

/// What the tests use, as Debian's packages.
const PACKAGES: [&str; 19] = [
    "arp-scan",
    "bpftool",
    "conntrack",
    "ethtool",
    "iproute2",
    "iptables",
    "iputils-arping",
    "iputils-ping",
    "ipv6toolkit",
    "jq",
    "keepalived",
    "ndisc6",
    "netsniff-ng",
    "nftables",
    "openssl",
    "tcpdump",
    "thc-ipv6",
    "procps",
    "xdp-tools",
];

/// Names the file to which tests write why they skip themselves.
const SKIP_LOG: &str = "RESPONDER_SKIP_LOG";

/// Their integration tests need root.
const PRIVILEGED: [&str; 2] = ["tests", "tests/lab"];

/// Tests that measure times or flood links get in each other's way; two at once use both of the usual CI's cores.
const THREADS: &str = "2";

/// After so many seconds a test program hangs, and fails.
const LIMIT: &str = "1200";

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let consent = match Consent::new(arguments.yes) {
        // Installing what it needs is what this command says it does.
        Consent::Withheld => Consent::Given,
        given @ (Consent::Given | Consent::Ask) => given,
    };
    let mark = process::id().to_string();
    let before = Snapshot::take(&mark);
    let mut run = Run {
        filter: &arguments.filter,
        skip_log: target_dir(&workspace()).join(format!("skipped-{mark}")),
        environment: vec![(MARK, mark.into())],
        total: Total::default(),
    };
    fs::create_dir_all(target_dir(&workspace()))?;
    fs::write(&run.skip_log, "").with_context(|| format!("cannot write {}", run.skip_log.display()))?;
    run.environment.push((SKIP_LOG, run.skip_log.clone().into()));
    let result = match arguments.quick {
        true => run.quick(),
        false => run.everything(consent),
    };
    let skipped = fs::read_to_string(&run.skip_log).context("cannot read which tests were skipped")?;
    fs::remove_file(&run.skip_log)?;
    result?;
    run.total.take_out_skipped(&skipped);

    step("nothing left behind", || {
        let left = before.new_since();
        if left.is_empty() {
            run.total.passed();
        }
        for thing in left {
            say(format!("still there: {thing}"));
            run.total.failed(format!("nothing left behind: {thing}"));
        }
        Ok(())
    })?;
    println!("{}", run.total);
    Ok(if run.total.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run<'a> {
    filter: &'a [String],
    skip_log: PathBuf,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    total: Total,
}

impl Run<'_> {
    fn quick(&mut self) -> Result<()> {
        let programs = step("build", || build::tests(&[]))?;
        for program in programs.iter().filter(|program| !is_privileged(program)) {
            self.program(program, false)?;
        }
        self.flaws()?;
        self.documentation()
    }

    /// Plants faults into the leadership machine, in a build of its own.
    fn flaws(&mut self) -> Result<()> {
        let arguments = ["--package", "responder-sim", "--features", "flaws", "--test", "flaws"];
        for program in step("build with planted faults", || build::tests(&arguments))? {
            self.program(&program, false)?;
        }
        Ok(())
    }

    fn everything(&mut self, consent: Consent) -> Result<()> {
        step("tools", || {
            self.tools(consent);
            Ok(())
        })?;
        // Without it, tests skip themselves that need it.
        match step("control plane", || kubernetes::ensure(consent)) {
            Ok(dir) => self.environment.push((kubernetes::VARIABLE, dir.into())),
            Err(error) => say(format!("{error:#}")),
        }
        if let Err(error) = kubernetes::ensure_runtime(consent) {
            say(format!("{error:#}"));
        }
        for program in [prometheus::PROMTOOL, prometheus::SERVER] {
            match step(program.name, || prometheus::ensure(program, consent)) {
                Ok(path) => self.environment.push((program.variable, path.into())),
                Err(error) => say(format!("{error:#}")),
            }
        }
        match step("other announcers", || peers::ensure(consent)) {
            Ok(dir) => self.environment.push((peers::VARIABLE, dir.into())),
            Err(error) => say(format!("{error:#}")),
        }
        let objects = ebpf::build(Wanted::Auto, consent, &Request::new(&workspace()))?;
        self.environment.push(("RESPONDER_BPF_DIR", Request::new(&workspace()).out.into()));
        let agent = step("agent", build::agent)?;
        self.environment.push(("RESPONDER_BIN", agent.into()));
        match step("image", || image::ensure(consent)) {
            Ok(archive) => self.environment.push(("RESPONDER_IMAGE", archive.into())),
            Err(error) => say(format!("{error:#}")),
        }
        let programs = step("build", || build::tests(&[]))?;
        let integration = step("build", || build::tests(&["--package", "responder-tests"]))?;

        for program in programs.iter().filter(|program| !is_privileged(program)) {
            self.program(program, false)?;
        }
        self.flaws()?;
        self.documentation()?;
        for kind in [Kind::Rustup, Kind::Debian] {
            self.toolchain(kind, consent)?;
        }
        self.bpftool(&objects)?;
        self.monitoring("alerts", || prometheus::alerts(consent));
        self.monitoring("dashboard", || prometheus::dashboard(consent));
        for program in programs.iter().filter(|program| is_privileged(program)) {
            self.program(program, true)?;
        }
        for program in integration.iter().filter(|program| !vm::is_for_machines(program)) {
            self.program(program, program.integration)?;
        }
        let filter = self.filter;
        fuzz::short(consent, &mut self.total, |name| is_wanted(filter, name));
        if self.wants("vm-test") {
            vm::short(consent, &self.environment, &mut self.total)?;
        }
        self.demos()
    }

    /// Installs what the tests use. What cannot be installed makes those tests skip themselves that need it.
    fn tools(&mut self, consent: Consent) {
        if let Err(error) = tools::install(&PACKAGES, consent) {
            say(format!("{error:#}"));
        }
        match tools::arping_habets(consent) {
            Ok(program) => self.environment.push(("RESPONDER_ARPING_HABETS", program.into())),
            Err(error) => say(format!("{error:#}")),
        }
        if root::is_possible()
            && let Err(error) = root::ensure_bpffs()
        {
            say(format!("{error:#}"));
        }
    }

    /// Builds with one kind of toolchain, into a directory of its own, and has the kernel verify the result.
    fn toolchain(&mut self, kind: Kind, consent: Consent) -> Result<()> {
        let name = format!("toolchain_{kind}");
        if !self.wants(&name) {
            return Ok(());
        }
        let out = target_dir(&workspace()).join(format!("bpf-{kind}"));
        let request = Request { out, ..Request::new(&workspace()) };
        let choice = match step(&name, || crate::toolchain::ensure(Wanted::Only(kind), consent)) {
            Ok(choice) => choice,
            Err(error) => {
                self.total.skipped(name, format!("{error:#}").replace('\n', " "));
                return Ok(());
            }
        };
        let objects = step("eBPF objects", || ebpf_build::build(&choice, &request));
        let verified = objects.and_then(|objects| {
            if !root::is_possible() {
                return Ok(false);
            }
            let mut command = root::command(env::current_exe()?, &[])?;
            tools::run(command.arg("verify-ebpf").args(objects))?;
            Ok(true)
        });
        match verified {
            Ok(true) => self.total.passed(),
            Ok(false) => self.total.skipped(name, "built, but only root can have the kernel verify it"),
            Err(error) => {
                say(format!("{error:#}"));
                self.total.failed(name);
            }
        }
        Ok(())
    }

    /// Tests a part of deploy/monitoring.
    fn monitoring(&mut self, name: &str, test: impl FnOnce() -> Result<Option<String>>) {
        if !self.wants(name) {
            return;
        }
        match test() {
            Ok(None) => self.total.passed(),
            Ok(Some(reason)) => self.total.skipped(name, reason),
            Err(error) => {
                say(format!("{error:#}"));
                self.total.failed(name);
            }
        }
    }

    /// Plays both demos, which check every claim that they show.
    fn demos(&mut self) -> Result<()> {
        self.demo("demo_standalone", &["demo", "--standalone", "--yes"])?;
        let control_plane = self.environment.iter().any(|(name, _)| *name == kubernetes::VARIABLE);
        match control_plane || !self.wants("demo_cluster") {
            true => self.demo("demo_cluster", &["demo", "--yes"]),
            false => {
                self.total.skipped("demo_cluster", "needs the control plane, which could not be built");
                Ok(())
            }
        }
    }

    fn demo(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        if !root::is_possible() {
            self.total.skipped(name, "needs root");
            return Ok(());
        }
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments);
        let known = [kubernetes::VARIABLE, SKIP_LOG];
        let environment = self.environment.iter().filter(|(name, _)| known.contains(name));
        command.envs(environment.map(|(name, value)| (name, value)));
        match step(name, || tools::run(&mut command)) {
            Ok(()) => self.total.passed(),
            Err(error) => {
                say(format!("{error:#}"));
                self.total.failed(name);
            }
        }
        Ok(())
    }

    /// Loads the objects without the agent, as an operator would.
    fn bpftool(&mut self, objects: &[PathBuf]) -> Result<()> {
        let name = "bpftool_loads";
        if !self.wants(name) {
            return Ok(());
        }
        let Some(bpftool) = tools::on_path("bpftool") else {
            self.total.skipped(name, "needs bpftool");
            return Ok(());
        };
        if !root::is_possible() {
            self.total.skipped(name, "needs root");
            return Ok(());
        }
        // The log map is of a kind that bpftool does not make.
        let loadable = objects.iter().filter(|object| !object.ends_with("responder-log.o"));
        let pins = format!("{}/rsp-{}-bpftool", root::BPFFS, process::id());
        let result = step("bpftool loads the objects", || {
            tools::run(root::command("mkdir", &[])?.arg(&pins))?;
            let loaded = loadable.enumerate().try_for_each(|(index, object)| {
                let place = format!("{pins}/{index}");
                let mut command = root::command(&bpftool, &[])?;
                command.args(["prog", "loadall"]).arg(object).args([
                    &place,
                    "pinmaps",
                    &format!("{place}-maps"),
                ]);
                tools::run(&mut command)
            });
            tools::run(root::command("rm", &[])?.args(["-r", &pins]))?;
            loaded
        });
        match result {
            Ok(()) => self.total.passed(),
            Err(error) => {
                say(format!("{error:#}"));
                self.total.failed(name);
            }
        }
        Ok(())
    }

    /// Runs one test program, as root if it is privileged and that can be had.
    fn program(&mut self, program: &Executable, privileged: bool) -> Result<()> {
        let package = program.package.strip_prefix(workspace()).unwrap_or(&program.package);
        let name = format!("{}: {}", package.display(), program.target);
        let mut environment: Vec<(&str, &OsStr)> =
            self.environment.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        environment.push(("CARGO_MANIFEST_DIR", program.package.as_os_str()));
        let mut command = if privileged && root::is_possible() {
            environment.push(("RUST_TEST_THREADS", THREADS.as_ref()));
            root::command("timeout", &environment)?
        } else {
            let mut command = Command::new("timeout");
            command.envs(environment);
            command
        };
        command.args(["--foreground", "--kill-after=30", LIMIT]).arg(&program.path).args(self.filter);
        command.current_dir(&program.package);
        step(&name, || read(&mut command, Reader::new(&name), &mut self.total))
    }

    /// Examples in the documentation.
    fn documentation(&mut self) -> Result<()> {
        let mut command = cargo();
        command.args(["test", "--quiet", "--doc", "--"]).args(self.filter);
        let name = "documentation";
        step(name, || read(&mut command, Reader::new(name), &mut self.total))
    }

    fn wants(&self, name: &str) -> bool {
        is_wanted(self.filter, name)
    }
}

fn is_wanted(filter: &[String], name: &str) -> bool {
    filter.is_empty() || filter.iter().any(|part| name.contains(part))
}

fn is_privileged(program: &Executable) -> bool {
    program.integration
        && PRIVILEGED.iter().any(|package| program.package == workspace().join(Path::new(package)))
}
