//! Logs, on stderr. What they hold is ids, names, numbers and causes; never inputs or outputs.

use std::io;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {cause}; write it as \"info\" or \"info,sagad=debug\"")]
    Filter { filter: String, cause: String },
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    Already,
}

/// Checks a filter such as `info,sagad=debug`.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let cause = |cause: String| TelemetryError::Filter { filter: filter.to_owned(), cause };
    if filter.trim().is_empty() {
        return Err(cause("it is empty".to_owned()));
    }
    EnvFilter::try_new(filter).map_err(|error| cause(error.to_string()))
}

/// Sends the process's logs to stderr. Once a process.
///
/// # Errors
/// The filter cannot be read, or logging is set up already.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?).with_writer(io::stderr);
    let done = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    done.map_err(|_| TelemetryError::Already)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(parse_filter("info,sagad=debug").is_ok());
        for wrong in ["", "  ", "info,sagad=loud", "=="] {
            let error = parse_filter(wrong).unwrap_err().to_string();
            assert!(error.starts_with("log filter"), "{error}");
        }
    }
}
