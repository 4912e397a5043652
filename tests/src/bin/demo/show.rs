//! What the demo prints: scenes, commands with their output, and claims with what was measured.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::Result;

/// Columns that commands' output is folded to.
const WIDTH: usize = 110;
/// Where the text of a line may begin that is continued below it.
const TEXT: usize = 30;

/// Prints to standard output, and remembers every claim.
pub(super) struct Show {
    colour: bool,
    scene: usize,
    title: String,
    claims: Vec<Claim>,
}

struct Claim {
    scene: String,
    text: String,
    measured: String,
    holds: bool,
}

impl Show {
    /// In colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: io::stdout().is_terminal() && !no_colour,
            scene: 0,
            title: String::new(),
            claims: Vec::new(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Does something that takes a while.
    pub(super) fn step<T>(&self, title: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        print_line(&format!("==> {title}"));
        let start = Instant::now();
        let done = run()?;
        print_line(&format!("    done in {:.1} s", start.elapsed().as_secs_f64()));
        Ok(done)
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, title: &str) {
        self.scene += 1;
        self.title = format!("{}. {title}", self.scene);
        print_line(&format!("\n{}", self.paint("1", &self.title)));
    }

    /// Explains; lines as they are, indented.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            print_line(format!("   {line}").trim_end());
        }
    }

    /// A command as typed on `node`, and what it printed.
    pub(super) fn command(&self, node: &str, command: &str, output: &str) {
        print_line(&format!("   {} {command}", self.paint("36", &format!("{node}#"))));
        for line in output.lines().filter(|l| !l.trim().is_empty()) {
            fold(&format!("     {}", line.trim_end()))
                .iter()
                .for_each(|part| print_line(&self.paint("2", part)));
        }
    }

    /// A claim, whether it holds, and the figure that shows it.
    pub(super) fn claim(&mut self, text: &str, measured: impl Into<String>, holds: bool) {
        let measured = measured.into();
        print_line(&format!("   {} {text}: {measured}", self.mark(holds)));
        self.claims.push(Claim { scene: self.title.clone(), text: text.to_owned(), measured, holds });
    }

    /// Whether every claim so far holds.
    pub(super) fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    fn mark(&self, holds: bool) -> String {
        if holds { self.paint("32", "ok    ") } else { self.paint("1;31", "FAILED") }
    }

    /// The closing table. True if every claim held.
    pub(super) fn close(&self) -> bool {
        print_line(&format!("\n{}", self.paint("1", "What was measured")));
        let width = self.claims.iter().map(|c| c.text.chars().count()).max().unwrap_or(0);
        let mut scene_before = "";
        for Claim { scene, text, measured, holds } in &self.claims {
            if scene != scene_before {
                print_line(&self.paint("2", &format!("  {scene}")));
                scene_before = scene;
            }
            print_line(&format!("   {} {text:width$}  {measured}", self.mark(*holds)));
        }
        let failed = self.claims.iter().filter(|c| !c.holds).count();
        let total = self.claims.len();
        let verdict = match failed {
            0 => self.paint("32", &format!("All {total} claims hold.")),
            _ => self.paint("1;31", &format!("{failed} of {total} claims do not hold.")),
        };
        print_line(&format!("\n{verdict}"));
        failed == 0
    }
}

/// Breaks a line that is too long between words; the rest goes below where its text begins: behind the last gap of a
/// table's columns.
fn fold(line: &str) -> Vec<String> {
    let gaps =
        line.char_indices().zip(line.chars().skip(1)).filter(|((_, one), next)| *one == ' ' && *next != ' ');
    let indent = gaps
        .map(|((place, _), _)| place + 1)
        .take_while(|place| *place <= TEXT)
        .filter(|place| line.get(..*place).is_some_and(|head| head.ends_with("  ")))
        .last()
        .unwrap_or_default();
    let (mut lines, mut last) = (Vec::new(), String::new());
    let (head, text) = line.split_at_checked(indent).unwrap_or(("", line));
    last.push_str(head);
    for word in text.split_inclusive(' ') {
        if (last.clone() + word).trim_end().chars().count() > WIDTH && last.trim_end().len() > indent {
            lines.push(last.trim_end().to_owned());
            last = " ".repeat(indent);
        }
        last.push_str(word);
    }
    lines.push(last.trim_end().to_owned());
    lines
}

/// A time in milliseconds, as exact as it is worth.
pub(super) fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Whoever reads may have gone (`| head`); the demo goes on to its verdict and exit code.
fn print_line(line: &str) {
    writeln!(io::stdout().lock(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_their_text() {
        let short = "     NAME   READY";
        assert_eq!(fold(short), [short]);
        let words = "word ".repeat(30);
        let folded = fold(&format!("     ok    ranges     {words}"));
        assert_eq!(folded.len(), 2, "{folded:?}");
        assert!(
            folded[0].starts_with("     ok    ranges     word ") && folded[0].len() <= WIDTH,
            "{folded:?}"
        );
        assert!(folded[1].starts_with(&format!("{}word", " ".repeat(22))), "{folded:?}");
        let wide = "x".repeat(200);
        assert_eq!(fold(&format!("     {wide}")), [format!("     {wide}")]);
    }
}
