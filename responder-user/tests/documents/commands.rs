//! Commands in the documentation are commands that there are, with flags that there are, also where they are only named.
//! tests/tests/documented_commands.rs runs those in blocks.

use clap::{Parser as _, error::ErrorKind};
use responder_user::cli::Cli;

use super::{code, documents};

/// Commands of a line: what a shell would make of it, as far as quotes, pipes, lists and comments go.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut begun, mut quote) = (String::new(), false, None);
    for c in line.chars().chain([' ']) {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => (quote, begun) = (Some(c), true),
            None if c == '#' && !begun => break,
            None if c.is_whitespace() || "|;&".contains(c) => {
                if begun {
                    commands.last_mut().unwrap().push(std::mem::take(&mut word));
                    begun = false;
                }
                if !c.is_whitespace() {
                    commands.push(Vec::new());
                }
            }
            None => {
                word.push(c);
                begun = true;
            }
        }
    }
    commands
}

/// The arguments of `responder`, if a command is one: also behind `sudo`, or in a pod.
fn arguments(command: &[String]) -> Option<&[String]> {
    let is_ours = |word: &String| word == "responder" || word.ends_with("/responder");
    let mut words = command;
    while let [first, rest @ ..] = words
        && (first == "sudo" || first.split_once('=').is_some_and(|(name, _)| name.starts_with("RESPONDER_")))
    {
        words = rest;
    }
    match words {
        [first, rest @ ..] if is_ours(first) => Some(rest),
        [first, second, rest @ ..] if first == "kubectl" && second == "responder" => Some(rest),
        [first, rest @ ..] if first == "kubectl" => {
            let inner = rest.iter().position(|word| word == "--")?;
            arguments(&rest[inner + 1..])
        }
        _ => None,
    }
}

/// What is wrong with a command line.
fn wrong(arguments: &[String]) -> Option<String> {
    let words = std::iter::once("responder").chain(arguments.iter().map(String::as_str));
    // Redirections are the shell's.
    let words = words.take_while(|word| !word.starts_with('>'));
    let error = Cli::try_parse_from(words).err()?;
    let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!fine).then(|| error.to_string())
}

#[test]
fn commands_in_blocks_are_understood() {
    let mut seen = 0;
    for (path, text) in documents() {
        let mut within = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("```") {
                within = !within;
                continue;
            }
            let line = line.trim().trim_start_matches("$ ");
            for command in commands(line).iter().filter(|_| within) {
                if let Some(arguments) = arguments(command) {
                    let wrong = wrong(arguments);
                    assert!(wrong.is_none(), "{path}:{}: {line}\n{}", number + 1, wrong.unwrap_or_default());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "{seen} commands");
}

/// In a sentence a command may be named without all of its arguments, but with no others than it has.
#[test]
fn commands_in_sentences_exist() {
    let mut seen = 0;
    for (path, text) in documents() {
        let blocks: Vec<_> = text.split("```").step_by(2).collect();
        for span in blocks.iter().flat_map(|block| block.lines()).flat_map(code) {
            for command in commands(span) {
                let Some(arguments) = arguments(&command).filter(|arguments| !arguments.is_empty()) else {
                    continue;
                };
                // `[--json]`, `IF…`, `a|b` stand for what may be there.
                if arguments.iter().any(|word| word.contains(['[', '…', '('])) {
                    continue;
                }
                let words = std::iter::once("responder").chain(arguments.iter().map(String::as_str));
                let kind = Cli::try_parse_from(words).err().map(|error| error.kind());
                let unknown = [ErrorKind::InvalidSubcommand, ErrorKind::UnknownArgument];
                assert!(kind.is_none_or(|kind| !unknown.contains(&kind)), "{path}: `{span}`: {kind:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} commands");
}

#[test]
fn lines_are_read_as_a_shell_would() {
    let found = |line: &str| {
        let commands = commands(line);
        commands.iter().filter_map(|command| arguments(command).map(<[String]>::to_vec)).collect::<Vec<_>>()
    };
    assert_eq!(found("responder status --json | jq '.a | b' # responder x"), [["status", "--json"]]);
    assert_eq!(found("sudo target/release/responder check && responder detach"), [["check"], ["detach"]]);
    assert_eq!(found("kubectl exec -n a AGENT -- responder status"), [["status"]]);
    assert_eq!(found("RESPONDER_JSON=1 kubectl responder drain --node 'n 1'"), [["drain", "--node", "n 1"]]);
    assert!(found("kubectl get pods -n responder").is_empty());
    assert!(found("echo responder").is_empty());
    assert!(wrong(&["run".to_owned(), "--nonsense".to_owned()]).is_some());
    assert!(wrong(&["claims".to_owned()]).is_some());
}
