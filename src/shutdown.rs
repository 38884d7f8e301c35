//! SIGTERM, SIGINT, SIGHUP and SIGQUIT: the first asks for an orderly stop, the second ends the process at
//! once. A process with certificates reads them again on SIGHUP instead.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that received a second stop signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// The effect of SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// SIGHUP stops the process, as the other signals do; under nohup it has no effect.
    Stops,
    /// SIGHUP has no effect here: another task listens for it.
    Reloads,
}

/// Return a token that is cancelled by the first signal. `last_words` runs before the second one ends the
/// process.
pub fn on_signal(
    hangup: Hangup,
    last_words: impl FnOnce() + Send + 'static,
) -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = match hangup {
        // Under nohup a closed terminal stops nothing.
        Hangup::Stops if hangup_is_ignored() => None,
        Hangup::Stops => Some(signal(SignalKind::hangup())?),
        Hangup::Reloads => {
            // Once listened for, the signal no longer ends the process, also before the other task listens.
            let _heard = signal(SignalKind::hangup())?;
            None
        }
    };
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
                () = arrives(&mut hangup) => {}
            }
        };
        next().await;
        tracing::info!("stop signal: finishing calls in flight");
        cancel.cancel();
        next().await;
        tracing::warn!("second stop signal: exiting now; calls in flight have an unknown outcome");
        last_words();
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(token)
}

/// Wait for a signal; for ever where it is left ignored.
async fn arrives(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process was started with SIGHUP ignored. Where the system does not tell, the answer is no.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The lowest bit is that of signal 1.
    mask & 1 == 1
}
