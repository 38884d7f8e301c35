//! The process log: lines on standard error, as `log.filter` and `log.format` demand.
//!
//! One thread writes the lines, behind a bounded queue. A reader that has stopped reading (a pipe, a terminal
//! after Ctrl-S) holds up that thread and nothing else: lines that find no place are dropped and counted.
//!
//! Never here: tokens, page tokens and message texts. Each log statement of the program takes care of that; statements
//! of libraries that print what they send and receive are withheld, whatever the filter says.

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::metrics::METRICS;
use crate::settings::{LogFormat, LogSettings, SettingsError};

/// Lines that wait to be written: a burst, and a few megabytes of memory.
const QUEUED_LINES: usize = 8_192;
/// How often dropped lines are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long the last lines may take at the program's end: a part of the half second that `app` leaves for the
/// end.
const LAST_LINES: Duration = Duration::from_millis(400);

/// The finest level of each target and of the modules below it; no filter lifts it. At trace, lapin prints every frame as
/// numbers, and with it tokens, texts and the password of the broker. sqlx prints lines of a password file and parameters
/// of a URL, and reqwest its proxy.
const FINEST: [(&str, LevelFilter); 3] = [
    ("meta_dispatch", LevelFilter::TRACE),
    ("sqlx_postgres::options", LevelFilter::ERROR),
    ("reqwest", LevelFilter::INFO),
];
/// The finest level of all other targets.
const FINEST_OF_OTHERS: LevelFilter = LevelFilter::DEBUG;

/// The log of this process, until it ends.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    dropped: ErrorCounter,
    written: Arc<AtomicU64>,
    /// The guard of the queue: dropping it writes the waiting lines.
    queue: WorkerGuard,
}

/// Start logging. `default` is the filter in force where `log.filter` is empty, such as `info`.
///
/// # Errors
/// A filter that cannot be read, or a second call in the same process.
pub fn install(settings: &LogSettings, default: &'static str) -> Result<(), SettingsError> {
    let filter = match settings.filter.as_str() {
        "" => EnvFilter::new(default),
        filter => filter.parse().map_err(|error| SettingsError::of("log.filter", error))?,
    };
    let written = Arc::new(AtomicU64::new(0));
    let writer = CountedWriter { to: io::stderr(), written: written.clone() };
    let (lines, queue) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES).finish(writer);
    let dropped = lines.error_counter();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        // A line that cannot be written (a full disk) is lost; reporting it on standard error would panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => log.finish().with(filter_fn(may_be_logged)).try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(filter_fn(may_be_logged)).try_init(),
    }
    .map_err(|error| SettingsError::of("log", error))?;
    *LOG.lock() = Some(Log { dropped, written, queue });
    Ok(())
}

/// Whether a statement may be logged at all.
fn may_be_logged(statement: &Metadata<'_>) -> bool {
    let target = statement.target();
    let is_within = |module: &str| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let finest =
        FINEST.iter().find(|(module, _)| is_within(module)).map_or(FINEST_OF_OTHERS, |(_, level)| *level);
    *statement.level() <= finest
}

/// Log panics from now on: standard error, where they are printed otherwise, may be stuck.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let at = panic.location().map(ToString::to_string);
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        let backtrace = std::backtrace::Backtrace::capture();
        let is_captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        let backtrace = is_captured.then(|| backtrace.to_string());
        tracing::error!(at, reason, backtrace, "panic: a defect of this program");
    }));
}

/// Count dropped lines, and report them when lines are written again. Runs for ever.
pub async fn report_drops() {
    let parts = LOG.lock().as_ref().map(|log| (log.dropped.clone(), log.written.clone()));
    let Some((counter, written)) = parts else { return };
    let mut drops = LineDrops::default();
    let mut tick = tokio::time::interval(COUNT_EVERY);
    loop {
        tick.tick().await;
        let dropped = counter.dropped_lines();
        METRICS.log.dropped.absolute(dropped as u64);
        if let Some(lines) = drops.look(dropped, written.load(Ordering::Relaxed)) {
            tracing::warn!(lines, "log lines dropped: standard error was not read");
            if counter.dropped_lines() != dropped {
                // This line may be dropped too.
                drops.unreported += lines;
            }
        }
    }
}

/// Write the waiting lines, for a moment at most. Later lines are lost.
pub fn finish() {
    let Some(Log { queue, .. }) = LOG.lock().take() else { return };
    let (done, is_done) = mpsc::channel();
    // On a thread of its own: the guard of a stuck queue complains on standard output, which may be stuck
    // too.
    let flushing = thread::Builder::new().spawn(move || {
        drop(queue);
        // The receiver is gone if this took too long.
        let _ = done.send(());
    });
    if flushing.is_ok() {
        let _ = is_done.recv_timeout(LAST_LINES);
    }
}

/// A writer that counts its writes, to distinguish a flowing queue from a stuck one.
struct CountedWriter<W> {
    to: W,
    written: Arc<AtomicU64>,
}

impl<W: Write> Write for CountedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Dropped lines, with the count of unreported ones.
#[derive(Default)]
struct LineDrops {
    dropped: usize,
    unreported: usize,
    /// The writes at the last look, and at the last look before lines were dropped.
    written: u64,
    written_before: u64,
}

impl LineDrops {
    /// Return how many lines to report now: none while further lines are dropped, or nothing is written.
    fn look(&mut self, dropped: usize, written: u64) -> Option<usize> {
        let are_new = dropped > self.dropped;
        if are_new {
            self.unreported += dropped - self.dropped;
            self.dropped = dropped;
            self.written_before = self.written;
        }
        self.written = written;
        let is_due = !are_new && self.unreported > 0 && written > self.written_before;
        is_due.then(|| std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn frames_of_libraries_are_withheld_whatever_the_filter_says() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("trace,lapin=trace,reqwest=trace,sqlx_postgres::options=trace"))
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish()
            .with(filter_fn(may_be_logged));
        tracing::subscriber::with_default(log, || {
            tracing::trace!(target: "lapin::channels", frame = ?b"withheld", "withheld");
            tracing::trace!(target: "amq_protocol_types", "withheld");
            tracing::debug!(target: "reqwest::connect", "withheld");
            tracing::warn!(target: "sqlx_postgres::options::pgpass", "withheld");
            tracing::trace!(target: "meta_dispatch_not", "withheld");
            tracing::debug!(target: "lapin::channels", "shown 1");
            tracing::info!(target: "reqwest::connect", "shown 2");
            tracing::error!(target: "sqlx_postgres::options::pgpass", "shown 3");
            tracing::trace!("shown 4");
            tracing::trace!(target: "meta_dispatch", "shown 5");
        });
        let printed = String::from_utf8(kept.0.lock().clone()).expect("UTF-8");
        assert!(!printed.contains("withheld"), "{printed}");
        let shown = printed.lines().filter(|line| line.contains("shown")).count();
        assert_eq!(shown, 5, "{printed}");
    }

    #[test]
    fn drops_are_reported_after_a_later_write() {
        let mut drops = LineDrops::default();
        assert_eq!(drops.look(0, 10), None, "nothing was dropped");
        assert_eq!([drops.look(3, 12), drops.look(5, 12)], [None; 2], "the reader is stuck");
        assert_eq!([drops.look(5, 12), drops.look(5, 12)], [None; 2], "and still is");
        assert_eq!(drops.look(5, 13), Some(5));
        assert_eq!(drops.look(5, 20), None, "each is reported once");
    }

    #[test]
    fn drops_within_one_look_are_reported_at_the_next() {
        let mut drops = LineDrops::default();
        assert_eq!(drops.look(7, 9_000), None);
        assert_eq!(drops.look(7, 9_000), Some(7));
    }
}
