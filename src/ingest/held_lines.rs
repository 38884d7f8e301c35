//! The lines of waiting requests, looked at every second: a request is told when its line can send no more before
//! somebody acts, whoever has stopped it. Never here: the answer to the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::LineId;
use crate::edge::Directory;

/// The pause between looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The lines that requests of this process wait for.
#[derive(Clone, Default)]
pub struct HeldLines(Arc<Mutex<HashMap<LineId, WatchedLine>>>);

struct WatchedLine {
    /// The number of requests.
    waiting: usize,
    /// The reason why the line is held up, as of the last look.
    reason: watch::Sender<Option<Arc<str>>>,
}

/// A request's watch over its line, until it is dropped.
pub struct LineWatch {
    line: LineId,
    reason: watch::Receiver<Option<Arc<str>>>,
    lines: HeldLines,
}

impl HeldLines {
    pub fn watch(&self, line: LineId) -> LineWatch {
        let mut lines = self.0.lock();
        let watched =
            lines.entry(line).or_insert_with(|| WatchedLine { waiting: 0, reason: watch::Sender::new(None) });
        watched.waiting += 1;
        LineWatch { line, reason: watched.reason.subscribe(), lines: self.clone() }
    }

    /// Look at the lines that are watched, all at once. Return the pause before the next look.
    pub async fn look(&self, directory: &Directory) -> Duration {
        let lines: Vec<LineId> = self.0.lock().keys().copied().collect();
        if lines.is_empty() {
            return LOOK_EVERY;
        }
        match directory.held_up_of(&lines).await {
            Ok(reasons) => self.note(&lines, &reasons),
            Err(error) => tracing::debug!(%error, "lines cannot be read: waiting requests are told later"),
        }
        LOOK_EVERY
    }

    /// Note the reasons of the lines that were looked at; a line without one sends.
    fn note(&self, looked_at: &[LineId], reasons: &HashMap<LineId, Arc<str>>) {
        let lines = self.0.lock();
        for line in looked_at {
            if let Some(watched) = lines.get(line) {
                watched.reason.send_replace(reasons.get(line).cloned());
            }
        }
    }
}

impl LineWatch {
    /// Wait until the line is held up; return the reason.
    pub async fn held_up(&mut self) -> Arc<str> {
        loop {
            let reason = self.reason.borrow_and_update().clone();
            if let Some(reason) = reason {
                return reason;
            }
            if self.reason.changed().await.is_err() {
                // The line is in the map as long as this watch.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for LineWatch {
    fn drop(&mut self) {
        let mut lines = self.lines.0.lock();
        if let Some(watched) = lines.get_mut(&self.line) {
            watched.waiting -= 1;
            if watched.waiting == 0 {
                lines.remove(&self.line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LINE: LineId = LineId(7);

    fn paused() -> HashMap<LineId, Arc<str>> {
        HashMap::from([(LINE, Arc::from("The line is paused."))])
    }

    #[tokio::test]
    async fn waiting_request_is_told_when_its_line_is_held_up() {
        let lines = HeldLines::default();
        let (mut first, mut second) = (lines.watch(LINE), lines.watch(LINE));
        let mut other = lines.watch(LineId(8));
        lines.note(&[LINE, LineId(8)], &HashMap::new());
        assert!(first.held_up().now_or_never().is_none());
        lines.note(&[LINE, LineId(8)], &paused());
        assert_eq!(&*first.held_up().await, "The line is paused.");
        assert_eq!(&*second.held_up().await, "The line is paused.");
        assert_eq!(&*second.held_up().await, "The line is paused.", "as long as it is");
        assert!(other.held_up().now_or_never().is_none());
        lines.note(&[LINE], &HashMap::new());
        assert!(second.held_up().now_or_never().is_none(), "it was resumed");
    }

    #[test]
    fn line_is_watched_as_long_as_a_request_waits() {
        let lines = HeldLines::default();
        let (first, second) = (lines.watch(LINE), lines.watch(LINE));
        drop(first);
        assert_eq!(lines.0.lock().len(), 1);
        drop(second);
        assert!(lines.0.lock().is_empty());
    }
}
