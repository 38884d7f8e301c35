//! `serve`, `ingest` and `worker`: one process of the program, until it receives a stop signal.

use rlimit::Resource;
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::app::{App, Role};
use crate::edge::OTHER_FILES;
use crate::settings::Settings;
use crate::shutdown::{self, Hangup};
use crate::telemetry;

pub async fn run(settings: &Settings, role: Role) -> anyhow::Result<()> {
    telemetry::log_panics();
    tokio::spawn(telemetry::report_drops());
    let hangup = if settings.has_certificates() { Hangup::Reloads } else { Hangup::Stops };
    protect_memory();
    let stop = shutdown::on_signal(hangup, telemetry::finish)?;
    raise_file_limit(settings, role);
    // A database that does not answer delays the start for minutes, and no work is there yet that has to be
    // finished.
    let Some(app) = stop.run_until_cancelled(App::start(settings, role)).await.transpose()? else {
        tracing::info!("stopped before the start was complete");
        return Ok(());
    };
    app.run_until(stop).await
}

/// Keep the memory, which holds tokens and passwords, out of core dumps and from debuggers of the same user.
fn protect_memory() {
    if let Err(error) = rlimit::setrlimit(Resource::CORE, 0, 0) {
        tracing::warn!(%error, "core dumps cannot be switched off: one would hold tokens and passwords; set ulimit -c 0");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "memory cannot be protected: other programs of this user can read tokens and passwords");
    }
}

/// Raise the number of files that may be open as far as the system allows, and warn where that is too low.
fn raise_file_limit(settings: &Settings, role: Role) {
    let needed = files_needed(settings, role);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "limit of open files is low: under full load calls wait, and connections of senders are closed; raise it \
             (ulimit -Hn, LimitNOFILE=), or lower dispatch.concurrency, http.max_connections and \
             http.max_connections_per_address"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "limit of open files cannot be raised"),
    }
}

/// Return the number of files needed: a call, a connection of a client and a session of the database hold one
/// each. Without `http.max_connections`, one client alone may hold as many connections as it may.
fn files_needed(settings: &Settings, role: Role) -> u64 {
    let calls = if role == Role::Ingest { 0 } else { settings.dispatch.concurrency };
    let requests = match (role, settings.http.max_connections) {
        (Role::Worker, _) => 0,
        (_, 0) => settings.http.max_connections_per_address,
        (_, most) => most,
    };
    (calls as u64)
        .saturating_add(requests as u64)
        .saturating_add(u64::from(settings.database.max_connections))
        .saturating_add(OTHER_FILES)
}
