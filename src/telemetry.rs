//! What the program logs of itself: to standard error, as `log.filter` and `log.format` say.
//!
//! Never here: tokens, page tokens and message texts. Those who log take care of it; no filter could.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogFormat, LogSettings, SettingsError};

/// Starts logging. `default` is the filter in force where `log.filter` is empty, such as `info`.
///
/// # Errors
/// A filter that cannot be read, or a second call in the same process.
pub fn install(settings: &LogSettings, default: &'static str) -> Result<(), SettingsError> {
    let filter = match settings.filter.as_str() {
        "" => EnvFilter::new(default),
        filter => filter.parse().map_err(|error| SettingsError::of("log.filter", error))?,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written (a full disk) is lost; saying so on standard error would panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => log.finish().try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|error| SettingsError::of("log", error))
}
