//! `serve`, `ingest` and `worker`: one process of the program, until it is told to stop.

use crate::app::{App, Role};
use crate::settings::Settings;
use crate::shutdown;

pub async fn run(settings: &Settings, role: Role) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    App::start(settings, role).await?.run_until(stop).await
}
