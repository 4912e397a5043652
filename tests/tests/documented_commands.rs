//! The commands of README, docs and runbooks are run as they are written there, in a cluster with real nodes, on a host,
//! or on files alone: each of them, once, or it is said why not.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "documented_commands/cluster.rs"]
mod cluster;
#[path = "documented_commands/files.rs"]
mod files;
#[path = "documented_commands/host.rs"]
mod host;
#[path = "documented_commands/runner.rs"]
mod runner;
#[path = "documented_commands/tables.rs"]
mod tables;

use runner::all_blocks;
use tables::{CODES, OTHERS, SILENT, TABLE, entry};

#[test]
fn every_command_is_run_or_it_is_said_why_not() {
    let commands: Vec<_> = all_blocks().into_iter().flat_map(|block| block.commands).collect();
    assert!(commands.len() > 80, "{} commands", commands.len());
    let unknown: Vec<_> = commands.iter().filter(|command| entry(command).is_none()).collect();
    assert!(unknown.is_empty(), "give them lines in tables.rs: {unknown:#?}");

    let begins = commands.iter().filter_map(|command| Some(entry(command)?.0)).collect::<Vec<_>>();
    let unused: Vec<_> = TABLE
        .iter()
        .map(|(begin, _)| begin)
        .chain(OTHERS.iter().map(|(document, _)| document))
        .filter(|begin| !begins.contains(begin))
        .collect();
    assert!(unused.is_empty(), "no document has them any more: {unused:#?}");
    for begin in CODES.iter().map(|(text, _)| text).chain(SILENT) {
        assert!(commands.iter().any(|command| command.text.starts_with(begin)), "no document has {begin}");
    }
}
