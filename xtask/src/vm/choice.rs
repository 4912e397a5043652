//! Which tests run in the machines.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::report::COMMAND;
use crate::build::{self, Executable, workspace};

/// Test programs that run in the machines, by the beginnings of their names.
const PROGRAMS: [&str; 16] = [
    "acceptance",
    "agent_attach",
    "agent_bursts",
    "agent_detach",
    "agent_environment",
    "agent_fence",
    "agent_groups",
    "agent_links",
    "agent_log",
    "agent_takeover",
    "coexist",
    "egress",
    "layout",
    "net_",
    "tools_kernel",
    "vm_",
];

/// Those of these need what is outside of the machines.
pub(super) const OUTSIDE: &str = "vm_cluster::";

/// The tests that are part of `cargo xtask test`: one of each kind.
const SHORT: [&str; 11] = [
    "acceptance::deadlines",
    "acceptance::owned",
    "agent_attach::native_by_link",
    "agent_attach::generic_by_netlink",
    "agent_bursts::a_linux_neighbour_follows_at_once_even_within_its_locktime",
    "agent_environment::check_says_what_works_and_what_not",
    "agent_fence::a_stopped_agent_falls_silent_and_returns",
    "agent_log::there_is_no_line_for_a_packet",
    "agent_takeover::killed_and_followed_by_link",
    "egress::claims_leave_only_while_the_vip_is_owned",
    "vm_nic::virtio_native_by_link",
];

/// A test program and those of its tests that are wanted.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) package: PathBuf,
    /// Empty: all.
    only: Vec<String>,
    tests: Vec<String>,
}

/// Builds the test programs and chooses those tests whose names (`PROGRAM::TEST`) contain one of these; all if there are none.
///
/// # Errors
///
/// They do not build.
pub(super) fn choose_by(filter: &[String]) -> Result<Vec<Chosen>> {
    // What is before `::` is the end of a program's name: no other has to be built.
    let ends: Option<Vec<&str>> = filter.iter().map(|part| Some(part.split_once("::")?.0)).collect();
    let programs = match ends.filter(|ends| !ends.is_empty()) {
        Some(ends) => {
            programs()?.into_iter().filter(|name| ends.iter().any(|end| name.ends_with(end))).collect()
        }
        None => Vec::new(),
    };
    choose(&programs, |name| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str())))
}

/// The names of all test programs.
fn programs() -> Result<Vec<String>> {
    let dir = workspace().join("tests/tests");
    let files = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let sources = paths.iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    Ok(sources.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect())
}

/// Builds these test programs (none: all) and chooses those tests that are `wanted`.
fn choose(only: &[String], wanted: impl Fn(&str) -> bool) -> Result<Vec<Chosen>> {
    let mut arguments = vec!["--package", "responder-tests"];
    arguments.extend(only.iter().flat_map(|name| ["--test", name]));
    let programs = build::tests(&arguments)?;
    let ours = |program: &&Executable| {
        program.integration && PROGRAMS.iter().any(|begin| program.target.starts_with(begin))
    };
    let mut chosen = Vec::new();
    for program in programs.iter().filter(ours) {
        let all = tests_of(&program.path)?;
        let tests: Vec<String> =
            all.iter().filter(|test| wanted(&format!("{}::{test}", program.target))).cloned().collect();
        if tests.is_empty() {
            continue;
        }
        chosen.push(Chosen {
            name: program.target.clone(),
            path: program.path.clone(),
            package: program.package.clone(),
            only: if tests.len() == all.len() { Vec::new() } else { tests.clone() },
            tests,
        });
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(chosen)
}

/// Those of [`SHORT`].
///
/// # Errors
///
/// They do not build, or one of them is not there any more.
pub(super) fn choose_short() -> Result<Vec<Chosen>> {
    let names = SHORT.iter().filter_map(|test| Some(test.split_once("::")?.0.to_owned()));
    let names: BTreeSet<String> = names.collect();
    let chosen = choose(&Vec::from_iter(names), |name| SHORT.contains(&name))?;
    let found: usize = chosen.iter().map(|program| program.tests.len()).sum();
    ensure!(found == SHORT.len(), "{found} of {} tests are there: {}", SHORT.len(), SHORT.join(", "));
    Ok(chosen)
}

fn tests_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} does not list its tests", program.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// What a machine does.
#[derive(Debug)]
pub(super) enum Plan {
    /// Runs tests, each program for so many seconds at most.
    Tests(Vec<Chosen>, u64),
    /// Runs one command of a shell.
    Command(String, u64),
}

impl Plan {
    pub(super) fn programs(&self) -> &[Chosen] {
        match self {
            Self::Tests(programs, _) => programs,
            Self::Command(..) => &[],
        }
    }

    /// The names of all tests in it: `PROGRAM::TEST`.
    pub(super) fn tests(&self) -> Vec<String> {
        let names = |program: &Chosen| {
            program.tests.iter().map(|test| format!("{}::{test}", program.name)).collect::<Vec<_>>()
        };
        self.programs().iter().flat_map(names).collect()
    }

    /// As the first process of a machine reads it: name, seconds, program and arguments, with tabs between them.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Command(command, limit) => format!("{COMMAND}\t{limit}\t/bin/sh\t-c\t{command}\n"),
            Self::Tests(programs, limit) => programs
                .iter()
                .map(|program| {
                    let only = match program.only.as_slice() {
                        [] => String::new(),
                        only => format!("\t--exact\t{}", only.join("\t")),
                    };
                    format!(
                        "{0}\t{limit}\t/vm/tests/{0}{only}\t--test-threads=1\t--show-output\n",
                        program.name
                    )
                })
                .collect(),
        }
    }
}
