//! What this program is called: `responder`, or `kubectl responder` where kubectl has started it as its plugin.

use std::{borrow::Cow, ffi::OsStr, path::Path, sync::OnceLock};

/// The file name by which kubectl finds its plugin.
const PLUGIN_FILE: &str = "kubectl-responder";
const OWN_NAME: &str = "responder";
const PLUGIN_NAME: &str = "kubectl responder";

/// Commands that do their work from any machine. The others are about the host that they run on.
const ANYWHERE: [&str; 7] = ["status", "watch", "why", "drain", "rebalance", "claims", "check --cluster"];

/// How it was called.
static CALLED: OnceLock<Called> = OnceLock::new();

/// How this program was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Called {
    /// By its own name.
    Itself,
    /// As a plugin of kubectl.
    Plugin,
}

impl Called {
    /// By the first of its arguments.
    #[must_use]
    pub fn by(first: Option<&OsStr>) -> Self {
        let file = first.map(Path::new).and_then(Path::file_name);
        if file == Some(OsStr::new(PLUGIN_FILE)) { Self::Plugin } else { Self::Itself }
    }

    /// What people type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Itself => OWN_NAME,
            Self::Plugin => PLUGIN_NAME,
        }
    }

    /// Text that names commands, with the names that people type.
    #[must_use]
    pub fn speak(self, text: &str) -> Cow<'_, str> {
        if self == Self::Itself {
            return text.into();
        }
        let mut spoken = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(OWN_NAME) {
            let (before, from) = rest.split_at(at);
            spoken += before;
            let after = &from[OWN_NAME.len()..];
            let is_word = !spoken.ends_with(|c: char| c.is_alphanumeric() || "-_/.".contains(c));
            let is_command = after.strip_prefix(' ').is_some_and(|command| {
                ANYWHERE.iter().any(|name| {
                    let end = command.strip_prefix(name).map(|end| end.chars().next());
                    end.is_some_and(|end| !end.is_some_and(char::is_alphanumeric))
                })
            });
            let already = spoken.ends_with("kubectl ");
            spoken += if is_word && is_command && !already { PLUGIN_NAME } else { OWN_NAME };
            rest = after;
        }
        spoken += rest;
        spoken.into()
    }
}

/// Takes note of how this program was called. Without it: by its own name.
pub fn set(called: Called) {
    CALLED.get_or_init(|| called);
}

/// How this program was called.
#[must_use]
pub fn called() -> Called {
    CALLED.get().copied().unwrap_or(Called::Itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_says_how() {
        let by = |name: &str| Called::by(Some(OsStr::new(name)));
        assert_eq!(by("kubectl-responder"), Called::Plugin);
        assert_eq!(by("/usr/local/bin/kubectl-responder"), Called::Plugin);
        for own in ["responder", "/usr/bin/responder", "kubectl-responder-old", ""] {
            assert_eq!(by(own), Called::Itself, "{own}");
        }
        assert_eq!(Called::by(None), Called::Itself);
    }

    #[test]
    fn commands_have_the_name_that_was_typed() {
        let speak = |text| Called::Plugin.speak(text).into_owned();
        for (text, spoken) in [
            ("undo it by `responder drain --undo`", "undo it by `kubectl responder drain --undo`"),
            ("(`responder rebalance` moves them)", "(`kubectl responder rebalance` moves them)"),
            ("  responder status --json", "  kubectl responder status --json"),
            ("`responder check --cluster`", "`kubectl responder check --cluster`"),
            ("kubectl responder why 1", "kubectl responder why 1"),
            // What is about a host, and what is no command.
            ("`responder run`, `responder check`", "`responder run`, `responder check`"),
            ("a responder statuses", "a responder statuses"),
            ("l2-responder drain", "l2-responder drain"),
            ("namespace l2-responder", "namespace l2-responder"),
            ("responder", "responder"),
            ("", ""),
        ] {
            assert_eq!(speak(text), spoken);
            assert_eq!(Called::Itself.speak(text), text);
        }
    }
}
