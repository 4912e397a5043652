//! Runs the commands of a stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command as Program,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::Process;
use responder_tests::commands::{Block, Command, Desk, blocks, documents, shapes};

use super::tables::{CODES, How, Place, SILENT, Stage, entry, stage};

/// How long a command may take, however busy the machine.
const DEADLINE: Duration = Duration::from_secs(100);

/// The blocks of all documents.
pub(crate) fn all_blocks() -> Vec<Block> {
    documents().unwrap().iter().flat_map(|(path, text)| blocks(path, text)).collect()
}

/// Runs commands as the documents show them, each once, and remembers what they print.
pub(crate) struct Runner<'a> {
    /// Where files and programs are.
    pub(crate) desk: Desk,
    /// Starts a program at a place.
    spawn: Box<dyn Fn(Place, Program) -> Result<Process> + 'a>,
    blocks: Vec<Block>,
    /// What each command printed.
    printed: BTreeMap<String, String>,
    failures: Vec<String>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(desk: Desk, spawn: impl Fn(Place, Program) -> Result<Process> + 'a) -> Self {
        let (blocks, printed) = (all_blocks(), BTreeMap::new());
        Self { desk, spawn: Box::new(spawn), blocks, printed, failures: Vec::new() }
    }

    /// Runs the commands of a stage, and `between` before those of each further document. What goes on without an end is
    /// ended afterwards.
    pub(crate) fn stage(&mut self, now: Stage, between: &dyn Fn()) {
        let mut seen = BTreeSet::new();
        let commands = self.blocks.iter().flat_map(|block| block.commands.clone());
        let mut commands: Vec<Command> = commands
            .filter(|command| stage(command) == Some(now) && seen.insert(command.text.clone()))
            .collect();
        assert!(!commands.is_empty(), "no command for {now:?}");
        // Who follows what happens begins before it happens.
        commands.sort_by_key(|command| !matches!(entry(command), Some((_, How::Follow(..)))));
        let (mut running, mut document) = (Vec::new(), commands[0].document.clone());
        for command in commands {
            if document != command.document {
                document.clone_from(&command.document);
                between();
            }
            let begin = Instant::now();
            let result = match entry(&command).map(|(_, how)| how) {
                Some(How::Run(_, place)) => self.run(&command, place),
                Some(How::Serve(_, place)) => self.start(&command, place).and_then(|mut process| {
                    process.wait_line(DEADLINE, |line| line.contains("ready"))?;
                    running.push((command.clone(), process));
                    Ok(())
                }),
                Some(How::Follow(_, place)) => {
                    self.start(&command, place).map(|process| running.push((command.clone(), process)))
                }
                Some(How::Not(_)) | None => Ok(()),
            };
            println!("{:>6.1} s  {command}", begin.elapsed().as_secs_f64());
            self.failures.extend(result.err().map(|error| format!("{command}\n{error:#}")));
        }
        for (command, mut process) in running {
            let told = process.wait_line(DEADLINE, |line| !line.is_empty()).and_then(|_| {
                let ended = process.try_wait()?;
                ensure!(ended.is_none(), "it has ended\n{}", process.last_words());
                process.kill().map(|_| ())
            });
            self.failures.extend(told.err().map(|error| format!("{command}\n{error:#}")));
            self.printed.insert(command.text, process.stdout());
        }
    }

    fn start(&self, command: &Command, place: Place) -> Result<Process> {
        (self.spawn)(place, self.desk.command(&command.text))
    }

    fn run(&mut self, command: &Command, place: Place) -> Result<()> {
        let output = self.start(command, place)?.finish(DEADLINE)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        let wanted = CODES.iter().find(|(text, _)| *text == command.text).map_or(0, |(_, code)| *code);
        ensure!(output.code() == Some(wanted), "{}, not {wanted}\n{said}", output.status);
        let is_silent = SILENT.iter().any(|begin| command.text.starts_with(begin));
        ensure!(is_silent || !output.stdout.trim().is_empty(), "it prints nothing\n{said}");
        self.printed.insert(command.text.clone(), output.stdout);
        Ok(())
    }

    /// Compares what was shown with what was printed. Panics with all that was wrong.
    pub(crate) fn finish(self) {
        let mut failures = self.failures;
        for block in self.blocks.iter().filter(|block| !block.shown.is_empty()) {
            let printed: Vec<&String> =
                block.commands.iter().filter_map(|command| self.printed.get(&command.text)).collect();
            let shown = shapes(block.shown.iter().map(String::as_str));
            let is_like = |text: &&String| {
                let seen = shapes(text.lines());
                shown.iter().all(|shape| seen.contains(shape))
            };
            if !printed.is_empty() && !printed.iter().any(is_like) {
                failures.push(format!("{}\nshown: {shown:#?}\nprinted: {printed:#?}", block.commands[0]));
            }
        }
        assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n\n"));
    }

    /// Whether a command has failed.
    pub(crate) fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }
}

/// What a stage needs; without it there is no use in going on.
pub(crate) fn must<T>(result: Result<T>, what: &str) -> T {
    result.with_context(|| what.to_owned()).unwrap()
}
