//! `serve`, `ingest` and `worker`: one process of the program, until it receives a stop signal.

use crate::app::{App, Role};
use crate::settings::Settings;
use crate::shutdown;
use crate::telemetry;

/// Files that are open besides those of calls, requests and the database: listeners, the broker, the log.
const OTHER_FILES: u64 = 64;

pub async fn run(settings: &Settings, role: Role) -> anyhow::Result<()> {
    telemetry::log_panics();
    tokio::spawn(telemetry::report_drops());
    let stop = shutdown::on_signal(telemetry::finish)?;
    raise_file_limit(settings, role);
    // A database that does not answer delays the start for minutes, and no work is there yet that has to be
    // finished.
    let Some(app) = stop.run_until_cancelled(App::start(settings, role)).await.transpose()? else {
        tracing::info!("stopped before the start was complete");
        return Ok(());
    };
    app.run_until(stop).await
}

/// Raise the number of files that may be open as far as the system allows, and warn where that is too low.
fn raise_file_limit(settings: &Settings, role: Role) {
    let needed = files_needed(settings, role);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "limit of open files is low: under full load calls and connections fail; raise it (ulimit -Hn, \
             LimitNOFILE=), or lower dispatch.concurrency and http.max_connections_per_address"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "limit of open files cannot be raised"),
    }
}

/// Return the number of files needed: a call, a connection of one client and a session of the database hold
/// one each.
fn files_needed(settings: &Settings, role: Role) -> u64 {
    let calls = if role == Role::Ingest { 0 } else { settings.dispatch.concurrency };
    let requests = if role == Role::Worker { 0 } else { settings.http.max_connections_per_address };
    (calls as u64)
        .saturating_add(requests as u64)
        .saturating_add(u64::from(settings.database.max_connections))
        .saturating_add(OTHER_FILES)
}
