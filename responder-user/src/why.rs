//! `responder why ADDRESS`: why this address is answered or not, and by whom, in sentences.
//!
//! * this file: the command.
//! * [`facts`]: what is known; `gather`: from where. `ask`: a node's own state, from elsewhere. `rules`: what agents announce.
//! * [`mod@explain`]: from facts to sentences, pure. `service`, `policy`: what should be; `leadership`: who should answer;
//!   `host`: who does.

mod ask;
pub mod explain;
pub mod facts;
mod gather;
mod host;
mod leadership;
mod policy;
mod rules;
mod service;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
    process::ExitCode,
};

use anyhow::Result;

use self::explain::{Answered, Explanation, Verdict, explain};
pub(crate) use self::rules::rules;
use crate::{
    operator::Where,
    program,
    status::{Paint, until_closed},
};

/// Nobody answers for the address.
const NOT_ANSWERED: u8 = 7;
/// Whether somebody does cannot be told.
const UNKNOWN: u8 = 1;
/// Nothing is known of any agent.
const NOTHING: u8 = 5;

/// What to explain, and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address, IPv4-mapped ones as IPv4.
    pub address: IpAddr,
    /// Where agents serve their state; `None`: they are not asked.
    pub metrics_port: Option<u16>,
    /// As JSON.
    pub json: bool,
    /// Which cluster.
    pub place: Where,
}

/// Explains.
///
/// # Errors
///
/// If the pins hold another layout, or the API server that is named cannot be used.
pub async fn run(bpffs: &Path, run_dir: &Path, options: Options) -> Result<ExitCode> {
    let Some(facts) = gather::facts(bpffs, run_dir, &options).await? else {
        writeln!(
            io::stderr(),
            "{}: nothing is pinned at {}, and no API server is known: run this on a node, name its --bpffs, or look at \
             a cluster by --kubeconfig",
            program::called().name(),
            bpffs.display()
        )?;
        return Ok(ExitCode::from(NOTHING));
    };
    let explanation = explain(&facts);
    let mut out = io::stdout().lock();
    let printed = if options.json {
        let written = serde_json::to_writer_pretty(&mut out, &explanation);
        written.map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        text(&mut out, &explanation, Paint::of_stdout())
    };
    until_closed(printed)?;
    Ok(match explanation.answered {
        Answered::Yes => ExitCode::SUCCESS,
        Answered::No => ExitCode::from(NOT_ANSWERED),
        Answered::Unknown => ExitCode::from(UNKNOWN),
    })
}

fn text(out: &mut impl Write, explanation: &Explanation, paint: Paint) -> io::Result<()> {
    let called = program::called();
    let sentence = match explanation.answered {
        Answered::Yes => paint.good(explanation.sentence.as_str()),
        Answered::No | Answered::Unknown => paint.bad(explanation.sentence.as_str()),
    };
    writeln!(out, "{}\n", called.speak(&sentence))?;
    for step in &explanation.steps {
        let mark = match step.verdict {
            Verdict::Ok => "ok  ".to_owned(),
            Verdict::Note => "note".to_owned(),
            Verdict::Unknown => "?   ".to_owned(),
            Verdict::Bad => paint.bad("NO  "),
        };
        writeln!(out, "{mark}  {:<10} {}", step.about, called.speak(&step.text))?;
    }
    Ok(())
}
