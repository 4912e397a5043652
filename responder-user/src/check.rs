//! `responder check`: what will work on this host and what will not, and why; `--cluster`: the same of a cluster.

pub mod cluster;
mod host;
mod kernel;
mod links;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use crate::program;

pub use host::{ShiftedClock, explain_unfit};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with a limit.
    Limited,
    /// Does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: "kernel", "capabilities", "eth0", …
    pub about: String,
    /// How it stands.
    pub verdict: Verdict,
    /// The facts, and the way out where there is one.
    pub text: String,
}

impl Finding {
    fn new(about: &str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { about: about.to_owned(), verdict, text: text.into() }
    }
}

/// Looks at the host and at `interfaces` (all Ethernet interfaces if empty) and prints what it finds.
///
/// # Errors
///
/// If the links cannot be listed. A host that is not fit is no error, but exit code 4.
pub async fn run(bpffs: &Path, interfaces: &[String], json: bool) -> Result<ExitCode> {
    let mut findings = host::check(bpffs);
    findings.extend(links::check(bpffs, interfaces).await?);
    print_and_judge(&findings, json)
}

/// Prints, and says by the exit code whether something is bad.
pub(crate) fn print_and_judge(findings: &[Finding], json: bool) -> Result<ExitCode> {
    match print(findings, json) {
        // Whoever read the output has had enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    Ok(ExitCode::from(if bad { 4 } else { 0 }))
}

fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, findings)?;
        return writeln!(out);
    }
    for Finding { about, verdict, text } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Bad => "BAD    ",
        };
        writeln!(out, "{mark}  {about:<16} {}", program::called().speak(text))?;
    }
    Ok(())
}
