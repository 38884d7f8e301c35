//! `serve`, `ingest` and `worker`: one process of the program, until it is told to stop.

use crate::app::{App, Role};
use crate::settings::Settings;
use crate::shutdown;

pub async fn run(settings: &Settings, role: Role) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    // A database that does not answer holds the start up for minutes, and nothing is there yet that has to be finished.
    let Some(app) = stop.run_until_cancelled(App::start(settings, role)).await.transpose()? else {
        tracing::info!("stopped before the start was complete");
        return Ok(());
    };
    app.run_until(stop).await
}
