//! Scenarios one after the other, and the table of what was measured.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::Account;

use super::{Installation, SCENARIOS, Scenario, scenarios::Answers, vips};

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The longest time in which a VIP was not answered.
    pub silence: Duration,
    /// How many questions were not answered, and how many were asked.
    pub unanswered: (usize, usize),
    /// How many questions more than one node answered.
    pub doubles: usize,
    /// What was seen, in words; or what went wrong.
    pub said: Result<String, String>,
}

/// What came of all.
#[derive(Clone, Debug, Default)]
pub struct Played(pub Vec<Row>);

impl Played {
    /// What went wrong.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failed = |row: &Row| Some(format!("{}: {}", row.name, row.said.as_ref().err()?));
        self.0.iter().filter_map(failed).collect()
    }
}

/// Plays the scenarios that are `wanted`, in their order; the first and what comes of it are what the others need. After
/// one that failed, none is played. `tell` is given each row at once.
pub fn play(
    installation: &mut Installation,
    wanted: &dyn Fn(&Scenario) -> bool,
    tell: &dyn Fn(&Row),
) -> Played {
    let mut played = Played::default();
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario)) {
        let row = one(installation, scenario);
        tell(&row);
        let failed = row.said.is_err();
        played.0.push(row);
        if failed {
            break;
        }
    }
    played
}

fn one(installation: &mut Installation, scenario: &Scenario) -> Row {
    installation.observer.forget();
    let (begin, since) = (Instant::now(), installation.observer.round());
    let result = (scenario.play)(installation);
    let accounts: Vec<Account> =
        vips().iter().map(|vip| installation.observer.account(*vip, since)).collect();
    let asked = accounts.iter().map(|account| account.rounds.len()).sum();
    let unanswered = accounts.iter().map(Account::unanswered).sum();
    let doubles = accounts.iter().map(|account| account.doubles().len()).sum();
    let silence = accounts.iter().map(|account| account.longest_silence().0).max().unwrap_or_default();
    let judged = result.and_then(|said| {
        let seen = || accounts.iter().map(ToString::to_string).collect::<String>();
        ensure!(doubles == 0, "{doubles} questions were answered by two nodes\n{}", seen());
        let all_answered = scenario.answers != Answers::All || unanswered == 0;
        ensure!(all_answered, "{unanswered} questions were not answered, for up to {silence:?}\n{}", seen());
        installation.check_health()?;
        Ok(said)
    });
    let said = judged.with_context(|| installation.diagnosis());
    Row {
        name: scenario.name,
        took: begin.elapsed(),
        silence,
        unanswered: (unanswered, asked),
        doubles,
        said: said.map_err(|error| format!("{error:#}")),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, took, silence, unanswered: (unanswered, asked), doubles, said } = self;
        let said = match said {
            Ok(said) => said.as_str(),
            Err(_) => "FAILED",
        };
        write!(
            f,
            "{name:<16} {:>6.1} s {:>9.1} ms {:>15} {doubles:>12}  {said}",
            took.as_secs_f64(),
            silence.as_secs_f64() * 1e3,
            format!("{unanswered} of {asked}"),
        )
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>8} {:>12} {:>15} {:>12}  what was seen",
            "scenario", "took", "max silence", "unanswered", "two answered"
        )?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
