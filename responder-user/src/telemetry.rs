//! The log: on standard error, at the level of `RESPONDER_LOG` (default `info`).
//!
//! An ownership change is INFO, what somebody should look at WARN, what stops something ERROR; nothing is
//! logged for a packet above TRACE.

use std::{
    io::{IsTerminal as _, stderr},
    sync::OnceLock,
};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

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

/// Whether programs read what is on standard error, so that the last words are to be a log line, too.
#[must_use]
pub fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormat::Json)
}

/// Starts logging. To be called once.
pub fn init(format: LogFormat, ebpf_log: bool) {
    FORMAT.get_or_init(|| format);
    let default = if ebpf_log { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = EnvFilter::builder().with_env_var("RESPONDER_LOG").with_default_directive(default.into());
    // Every end of a watch is a warning to kube; those that matter are logged by who follows.
    let filter = match "kube_client=error".parse() {
        Ok(quiet) if std::env::var_os("RESPONDER_LOG").is_none() => {
            filter.from_env_lossy().add_directive(quiet)
        }
        Ok(_) | Err(_) => filter.from_env_lossy(),
    };
    let builder = fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal() && !no_color()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Whether the user wants no colours (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
}
