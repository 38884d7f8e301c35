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
        tracing::info!("stop signal: finishing calls in flight");
        cancel.cancel();
        next().await;
        tracing::warn!("second stop signal: exiting now; calls in flight have an unknown outcome");
        std::process::exit(TOLD_TWICE);
    });
    Ok(token)
}
