//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was told twice to stop.
const TOLD_TWICE: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping: finishing what is in flight");
        cancel.cancel();
        next().await;
        tracing::warn!("told twice to stop: what is in flight has an unknown outcome");
        std::process::exit(TOLD_TWICE);
    });
    Ok(token)
}
