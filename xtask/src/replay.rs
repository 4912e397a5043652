//! `cargo xtask replay`

mod words;

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use responder_leadership::record::{Begin, Entry, Replay};

/// Go through what `responder run --record FILE` wrote, and check that every decision is made again
///
/// Prints a line for each event and each of its effects, with the seconds since the start. At the first decision that
/// this source makes differently, or that was changed in the file, it says both and ends with exit code 1. A last line that
/// was cut off, as when the agent was killed, is left out.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the agent wrote
    file: PathBuf,
    /// Print the machine's state as JSON: after line LINE of the file, or at its end
    #[arg(long, value_name = "LINE", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    state: Option<usize>,
    /// Only say whether every decision is made again
    #[arg(long)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let shown = arguments.file.display();
    let text = fs::read(&arguments.file).with_context(|| format!("cannot read the record {shown}"))?;
    let text = String::from_utf8_lossy(&text);
    // Nothing else is wanted on standard output where a state is.
    let quiet = arguments.quiet || arguments.state.is_some();
    let mut out = std::io::stdout().lock();
    let played = play(&text, arguments.state.filter(|line| *line > 0), |line| {
        if quiet { Ok(()) } else { writeln!(out, "{line}") }
    });
    let played = match played {
        // Whoever read the output has had enough.
        Err(error) if is_closed(&error) => return Ok(ExitCode::SUCCESS),
        other => other.with_context(|| format!("the record {shown}"))?,
    };
    if arguments.state.is_some() {
        writeln!(out, "{}", serde_json::to_string_pretty(played.replay.machine())?)?;
    }
    if let Some(difference) = &played.difference {
        writeln!(std::io::stderr(), "{shown}: {difference}")?;
        return Ok(ExitCode::FAILURE);
    }
    let cut = if played.cut_off { "; the last line is cut off, and was left out" } else { "" };
    writeln!(std::io::stderr(), "{shown}: {} events, every decision made again{cut}", played.events)?;
    Ok(ExitCode::SUCCESS)
}

fn is_closed(error: &anyhow::Error) -> bool {
    let io: Option<&std::io::Error> = error.downcast_ref();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// How a record went.
struct Played {
    replay: Replay,
    events: usize,
    /// The first decision that was not made again.
    difference: Option<String>,
    cut_off: bool,
}

/// Goes through a record to its end, to line `last`, or to the first difference; `tell` is given the timeline.
fn play(
    text: &str,
    last: Option<usize>,
    mut tell: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Played> {
    let lines: Vec<&str> = text.lines().collect();
    let Some((first, entries)) = lines.split_first() else {
        bail!("is empty; the agent writes its first line when it has heard of the cluster");
    };
    let begin: Begin = serde_json::from_str(first)
        .context("line 1 is not the beginning of a record, or is of another version of the agent")?;
    tell(&words::begin(&begin))?;
    let claims = begin.settings.claims;
    let mut played = Played { replay: Replay::new(begin), events: 0, difference: None, cut_off: false };
    let mut start = None;
    for (index, line) in entries.iter().enumerate() {
        let number = index + 2;
        if last.is_some_and(|last| number > last) {
            break;
        }
        let entry: Entry = match serde_json::from_str(line) {
            Ok(entry) => entry,
            // An agent ends its lines.
            Err(_) if number == lines.len() && !text.ends_with('\n') => {
                played.cut_off = true;
                break;
            }
            Err(error) => return Err(error).with_context(|| format!("line {number} cannot be read")),
        };
        let start = *start.get_or_insert(entry.at);
        let effects = played.replay.step(&entry);
        played.events += 1;
        let at = entry.at.saturating_sub(start).as_secs_f64();
        tell(&format!("{at:>11.6}  {}", words::event(&entry.event, claims)))?;
        for effect in &entry.effects {
            tell(&format!("{:>11}  → {}", "", words::effect(effect)))?;
        }
        if effects != entry.effects {
            let lists = |effects| serde_json::to_string(effects).context("an effect has no JSON");
            played.difference = Some(format!(
                "line {number}, {at:.6} s after the start: another decision is made\n  recorded: {}\n  replayed: {}",
                lists(&entry.effects)?,
                lists(&effects)?
            ));
            break;
        }
    }
    Ok(played)
}

#[cfg(test)]
mod tests;
