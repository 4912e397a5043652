//! The log: on standard error, at the level of `RESPONDER_LOG` (default `info`), until `responder log` changes it.
//!
//! An ownership change is INFO, what somebody should look at WARN, what stops something ERROR; nothing is
//! logged for a packet above TRACE.

use std::{
    io::{IsTerminal as _, stderr},
    sync::{Mutex, OnceLock, PoisonError},
};

use clap::ValueEnum;
use tracing::{level_filters::LevelFilter, subscriber::set_global_default};
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Where the level comes from.
const VARIABLE: &str = "RESPONDER_LOG";
/// Every end of a watch is a warning to kube; those that matter are logged by who follows.
const QUIET: &str = "kube_client=error";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The format that [`init`] was given.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// What can be changed while the program runs.
static LEVEL: OnceLock<Level> = OnceLock::new();

struct Level {
    text: Mutex<String>,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

/// A level that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum BadLevel {
    /// It is none.
    #[error("{text:?} is no level: {why}; write error, warn, info, debug or trace, or info,MODULE=debug")]
    Malformed {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no log.
    #[error("this process has no log")]
    NoLog,
    /// The log is gone.
    #[error("the log cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Whether programs read what is on standard error, so that the last words are to be a log line, too.
#[must_use]
pub fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormat::Json)
}

/// Starts logging. To be called once.
pub fn init(format: LogFormat, ebpf_log: bool) {
    FORMAT.get_or_init(|| format);
    let default = if ebpf_log { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let given = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = match &given {
        // What is wrong with it is said by the library, and the rest counts.
        Some(text) => EnvFilter::builder().with_default_directive(default.into()).parse_lossy(text),
        None => parse(&default.to_string()).unwrap_or_default(),
    };
    let text = Mutex::new(given.unwrap_or_else(|| default.to_string()));
    let builder = fmt().with_env_filter(filter).with_writer(stderr);
    let installed = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(stderr().is_terminal() && !no_color()).with_filter_reloading();
            let handle = builder.reload_handle();
            LEVEL.get_or_init(|| Level { text, reload: Box::new(move |filter| handle.reload(filter)) });
            set_global_default(builder.finish())
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            LEVEL.get_or_init(|| Level { text, reload: Box::new(move |filter| handle.reload(filter)) });
            set_global_default(builder.finish())
        }
    };
    debug_assert!(installed.is_ok(), "called once");
}

/// A level alone leaves out what kube says of every watch that ends.
fn parse(text: &str) -> Result<EnvFilter, BadLevel> {
    let malformed = |why: String| BadLevel::Malformed { text: text.to_owned(), why };
    let level = |word: &str| word.parse::<LevelFilter>().ok().filter(|_| !word.is_empty());
    // The library takes any word for a module, whose lines are then the only ones.
    if let Some(word) = text.split(',').find(|word| level(word).is_none() && !word.contains('=')) {
        return Err(malformed(format!("{word:?} is none")));
    }
    let quiet = level(text).is_some_and(|level| level < LevelFilter::TRACE);
    let text = if quiet { format!("{text},{QUIET}") } else { text.to_owned() };
    EnvFilter::builder().parse(text).map_err(|error| malformed(error.to_string()))
}

/// The level as it is; `None`: there is no log.
#[must_use]
pub fn level() -> Option<String> {
    LEVEL.get().map(|level| level.text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes the level from now on.
///
/// # Errors
///
/// If it is none.
pub fn set_level(text: &str) -> Result<(), BadLevel> {
    let filter = parse(text)?;
    let level = LEVEL.get().ok_or(BadLevel::NoLog)?;
    let before = {
        let mut current = level.text.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, text.to_owned())
    };
    // At whichever of both levels it is seen.
    let told = tracing::enabled!(tracing::Level::INFO);
    if told {
        tracing::info!(from = %before, to = %text, "log level changed");
    }
    (level.reload)(filter)?;
    if !told {
        tracing::info!(from = %before, to = %text, "log level changed");
    }
    Ok(())
}

/// Whether the user wants no colours (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_from_words() {
        for good in ["error", "warn", "info", "debug", "trace", "off", "info,responder_user::cluster=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,", "loud=very", "info,x=loud", "responder_user=nine"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("info").unwrap().to_string().contains(QUIET));
        assert!(!parse("trace").unwrap().to_string().contains(QUIET));
    }
}
