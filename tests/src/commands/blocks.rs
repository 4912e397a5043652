//! Blocks between fences, and what in them is a command.

use std::fmt;

/// Blocks without a label are commands if they begin with one of these; with another beginning they are what
/// programs print, or drawings.
const PROGRAMS: [&str; 6] = ["bpftool", "cargo", "kubectl", "promtool", "responder", "sudo"];

/// Constructs of the shell that end with a word of their own.
const CONSTRUCTS: [(&str, &str); 4] =
    [("for ", "done"), ("while ", "done"), ("if ", "fi"), ("case ", "esac")];

/// A command, of several lines if the shell takes it as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The document.
    pub document: String,
    /// Where in it, from 1.
    pub line: usize,
    /// As it is written, without a comment at its end.
    pub text: String,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.document, self.line, self.text)
    }
}

/// Commands that belong together, and what some of them are said to print.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Block {
    /// The commands.
    pub commands: Vec<Command>,
    /// Lines below the commands, or those of a block without commands that follows at once.
    pub shown: Vec<String>,
}

/// What is between two fences.
struct Fenced<'a> {
    label: &'a str,
    /// Of the first line.
    number: usize,
    lines: Vec<&'a str>,
    /// Whether only empty lines are between it and the block before.
    follows: bool,
}

/// All that is fenced, without the indentation that the fences have.
fn fenced(text: &str) -> Vec<Fenced<'_>> {
    let mut found: Vec<Fenced<'_>> = Vec::new();
    let (mut indent, mut follows) = (None, false);
    for (index, line) in text.lines().enumerate() {
        let rest = line.trim_start();
        match (rest.strip_prefix("```"), indent) {
            (Some(label), None) => {
                indent = Some(line.len() - rest.len());
                found.push(Fenced { label: label.trim(), number: index + 2, lines: Vec::new(), follows });
            }
            (Some(_), Some(_)) => (indent, follows) = (None, true),
            (None, Some(indent)) => {
                let line = line.get(indent..).filter(|_| line.trim().len() + indent <= line.len());
                found.last_mut().into_iter().for_each(|last| last.lines.push(line.unwrap_or(rest)));
            }
            (None, None) => follows = follows && rest.is_empty(),
        }
    }
    found
}

impl Fenced<'_> {
    fn has_prompts(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("$ "))
    }

    fn has_commands(&self) -> bool {
        let first = self.lines.first().and_then(|line| line.split_whitespace().next());
        match self.label {
            "console" | "sh" => true,
            "" => self.has_prompts() || first.is_some_and(|word| PROGRAMS.contains(&word)),
            _ => false,
        }
    }

    fn block(&self, document: &str) -> Block {
        let mut block = Block::default();
        let mut lines = self.lines.iter().enumerate();
        while let Some((index, line)) = lines.next() {
            let first = match line.strip_prefix("$ ") {
                Some(command) => command,
                None if self.has_prompts() => {
                    block.shown.push((*line).to_owned());
                    continue;
                }
                None if line.trim().is_empty() => continue,
                None => line,
            };
            let mut text = first.to_owned();
            while is_open(&text)
                && let Some((_, line)) = lines.next()
            {
                text = format!("{text}\n{line}");
            }
            let (document, line) = (document.to_owned(), self.number + index);
            block.commands.push(Command { document, line, text: without_comment(&text).to_owned() });
        }
        block
    }
}

/// Whether the next line belongs to it, too.
fn is_open(text: &str) -> bool {
    let last = text.lines().last().unwrap_or_default();
    let construct = CONSTRUCTS.iter().find(|(begin, _)| text.starts_with(begin));
    let document = text.split_once("<<").map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default());
    text.ends_with('\\')
        || construct.is_some_and(|(_, end)| last != *end)
        || document.is_some_and(|end| !text.contains('\n') || last != end.trim_matches('\''))
}

/// Without what the shell takes for a comment at the end of a line; of several lines all.
fn without_comment(text: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (index, c) in text.char_indices().take_while(|_| !text.contains('\n')) {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '#' && before.is_whitespace() => return text[..index].trim_end(),
            None => {}
        }
        before = c;
    }
    text.trim_end()
}

/// The blocks of a document that have commands.
#[must_use]
pub fn blocks(document: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut before = false;
    for fenced in fenced(text) {
        let has_commands = fenced.has_commands();
        if has_commands {
            found.push(fenced.block(document));
        } else if before && fenced.follows && fenced.label.is_empty() {
            let shown = fenced.lines.iter().map(|line| (*line).to_owned());
            found.last_mut().into_iter().for_each(|block| block.shown.extend(shown.clone()));
        }
        before = has_commands;
    }
    found
}

/// The text of each block of YAML that is a whole `kustomization.yaml`.
#[must_use]
pub fn manifests(text: &str) -> Vec<String> {
    let yaml = fenced(text).into_iter().filter(|fenced| fenced.label == "yaml");
    yaml.map(|fenced| fenced.lines.join("\n") + "\n")
        .filter(|text| text.contains("kind: Kustomization"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        let blocks = blocks("a.md", text);
        blocks.into_iter().flat_map(|block| block.commands).map(|command| command.text).collect()
    }

    #[test]
    fn prompts_commands_and_output() {
        let text = "words\n```console\n$ one a   # why\nshown\n$ two '# no' b#c\n```\n$ not here\n";
        let block = &blocks("a.md", text)[0];
        assert_eq!(block.commands[0].to_string(), "a.md:3: one a");
        assert_eq!(block.commands[1].to_string(), "a.md:5: two '# no' b#c");
        assert_eq!(block.shown, ["shown"]);
        assert_eq!(commands("```sh\none\n\n  two\n```\n"), ["one", "  two"]);
    }

    #[test]
    fn blocks_without_a_label() {
        assert_eq!(commands("```\nkubectl a\nwhatever b\n```\n"), ["kubectl a", "whatever b"]);
        assert_eq!(commands("```\nAgent  running\n```\n```yaml\na: b\n```\n"), [""; 0]);
        assert_eq!(commands("```\nsomething\n$ whatever\n```\n"), ["whatever"]);
    }

    #[test]
    fn what_follows_is_what_is_shown() {
        let shown = |text: &str| blocks("a.md", text)[0].shown.clone();
        assert_eq!(shown("```sh\na\n```\n\n```\nb\nc\n```\n"), ["b", "c"]);
        assert_eq!(shown("```sh\na\n```\n\nwords\n\n```\nb\n```\n"), [""; 0]);
        assert_eq!(shown("```sh\na\n```\n\n```yaml\nb\n```\n"), [""; 0]);
    }

    #[test]
    fn several_lines_are_one_command() {
        let text = "```sh\nfor a in b; do\n  c\ndone\ncat > f <<'E'\n# x\nE\nd \\\n  e\ng <<E\nh\nE\n```\n";
        let expected = ["for a in b; do\n  c\ndone", "cat > f <<'E'\n# x\nE", "d \\\n  e", "g <<E\nh\nE"];
        assert_eq!(commands(text), expected);
    }

    #[test]
    fn blocks_within_lists() {
        assert_eq!(
            commands("1. x\n\n   ```console\n   $ a\n     b\n   ```\n   ```console\n   $ c\n   ```\n"),
            ["a", "c"]
        );
    }

    #[test]
    fn manifests_are_whole() {
        let text = "```yaml\nkind: Kustomization\nresources: []\n```\n```yaml\na: b\n```\n";
        assert_eq!(manifests(text), ["kind: Kustomization\nresources: []\n"]);
    }
}
