//! Where logs go: standard error, a line each, as text for people or JSON for programs.

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use super::{Common, noting, tell};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Has logs written: warnings, with -v what happens to each stream, with -vv more, with -q nothing.
pub fn start(format: LogFormat, common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::OFF,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let log = fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // It would complain on standard error of a standard error that takes nothing.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Something that is as it was asked to be, and may surprise.
pub fn note(format: LogFormat, what: &str, common: &Common) {
    match format {
        LogFormat::Json => tracing::warn!("{what}"),
        LogFormat::Text => noting(common)(what),
    }
}

/// Something is not as it should be.
pub fn warn(format: LogFormat, what: &str, common: &Common) {
    match format {
        LogFormat::Json => tracing::warn!("{what}"),
        LogFormat::Text if !common.quiet => tell(format_args!("warning: {what}")),
        LogFormat::Text => (),
    }
}
