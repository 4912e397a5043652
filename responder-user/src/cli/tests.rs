//! The configuration reference, and what is said of the plugin.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Arg, Command};

use super::*;

const BEGIN: &str =
    "<!-- Made from the code: RESPONDER_BLESS=1 cargo test -p responder-user configuration -->\n";
const END: &str = "<!-- The end of it. -->\n";

/// A table for each heading of a command's flags.
fn reference(command: &Command) -> String {
    let mut text = format!("\n## {}\n", command.get_bin_name().unwrap_or_default());
    if let Some(about) = command.get_about() {
        text += &format!("\n{about}\n");
    }
    let shown = || command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help");
    let positional: Vec<_> = shown().filter(|arg| arg.is_positional()).collect();
    if !positional.is_empty() {
        text += "\n| argument | what |\n|---|---|\n";
        for arg in positional {
            let name = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
            text += &format!("| `{name}` | {} |\n", what(arg));
        }
    }
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in shown().filter(|arg| !arg.is_positional()) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            text += &format!("\n### {heading}\n");
        }
        text += "\n| flag | variable | default | what |\n|---|---|---|---|\n";
        let of_it = shown().filter(|arg| !arg.is_positional() && arg.get_help_heading() == heading);
        text.extend(of_it.map(row));
    }
    text
}

fn row(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let name = arg.get_value_names().filter(|_| takes).map(|names| names.join(" "));
    // A pattern of choices needs no name.
    let choices = arg.get_possible_values();
    let value = match name {
        Some(_) if !choices.is_empty() => {
            format!(" {}", choices.iter().map(|choice| choice.get_name()).collect::<Vec<_>>().join("\\|"))
        }
        Some(name) if arg.is_require_equals_set() => format!("[={name}]"),
        Some(name) => format!(" {name}"),
        None => String::new(),
    };
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match default.join(",") {
        _ if !takes => "off".to_owned(),
        none if none.is_empty() => String::new(),
        some => format!("`{some}`"),
    };
    format!("| {short}`--{long}{value}` | {variable} | {default} | {} |\n", what(arg))
}

fn what(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    help.trim_end_matches('.').replace('|', "\\|").replace('\n', " ")
}

fn all() -> Vec<Command> {
    let mut command = command(Called::Itself);
    command.build();
    command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect()
}

#[test]
fn the_configuration_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let tables: String = all().iter().map(reference).collect();
    let wanted = format!("{before}{BEGIN}{tables}\n{END}{after}");
    if std::env::var_os("RESPONDER_BLESS").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert_eq!(document, wanted, "RESPONDER_BLESS=1 writes it anew");
    }
}

/// A unit is part of the configuration.
#[test]
fn flags_with_a_value_say_what_it_is() {
    let names: BTreeSet<_> = all()
        .iter()
        .flat_map(|command| command.get_arguments().cloned().collect::<Vec<_>>())
        .filter(|arg| arg.get_action().takes_values() && arg.get_possible_values().is_empty())
        .flat_map(|arg| arg.get_value_names().unwrap_or_default().to_vec())
        .map(|name| name.to_string())
        .collect();
    let known = [
        "ADDRESS",
        "ADDRESSES",
        "CLASS",
        "DIR",
        "FILE",
        "GROUPS",
        "INTERFACE",
        "LEVEL",
        "NAME",
        "NUMBER",
        "PACKETS",
        "PORT",
        "PREFIX",
        "TIME",
        "WHICH",
    ];
    let unknown: Vec<_> = names.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "say in docs/configuration.md what {unknown:?} is");
}

#[test]
fn the_plugin_speaks_of_itself() {
    let mut plugin = command(Called::Plugin);
    let help = plugin.render_help().to_string();
    assert!(help.contains("Usage: kubectl responder <COMMAND>"), "{help}");
    for shown in ["status", "watch", "why", "drain", "rebalance", "claims", "check"] {
        assert!(help.contains(&format!("\n  {shown} ")), "{shown}: {help}");
    }
    for hidden in OF_A_HOST {
        assert!(!help.contains(&format!("\n  {hidden} ")), "{hidden}: {help}");
    }
    let error = plugin.try_get_matches_from(["kubectl-responder", "drain", "--nod", "n1"]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Usage: kubectl responder drain"), "{text}");
    let text = command(Called::Plugin)
        .try_get_matches_from(["kubectl-responder", "drain", "--help"])
        .unwrap_err()
        .to_string();
    assert!(text.contains("  kubectl responder drain --node n1"), "{text}");
}

/// A variable in a ConfigMap may say 1, yes or on.
#[test]
fn every_switch_takes_the_usual_words_from_its_variable() {
    fn switches(command: &Command) -> Vec<Arg> {
        let own = command.get_arguments().filter(|argument| {
            matches!(argument.get_action(), clap::ArgAction::SetTrue) && argument.get_env().is_some()
        });
        own.cloned().chain(command.get_subcommands().flat_map(switches)).collect()
    }
    let all = switches(&<Cli as clap::CommandFactory>::command());
    assert!(all.len() > 5, "{} switches", all.len());
    for switch in all {
        let words: Vec<_> = switch.get_value_parser().possible_values().into_iter().flatten().collect();
        assert!(words.iter().any(|word| word.get_name() == "1"), "{}", switch.get_id());
    }
}
