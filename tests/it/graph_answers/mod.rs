//! The effect of Graph's answers on a line and on waiting callers: whose refusal it is, whose failure, and who is told.

mod fairness;
mod overrides;
mod scopes;
mod shown;
mod told;
mod unknown;

use meta_dispatch::domain::LineId;
use meta_dispatch::store::LineRecord;

use crate::support::pipeline::{Pipeline, eventually};

impl Pipeline {
    async fn line_record(&self, line: LineId) -> LineRecord {
        self.store.lines(&[line]).await.expect("the store answers").remove(0)
    }

    /// Waits until the line's record shows a pause whose reason holds this text.
    async fn until_paused(&self, line: LineId, text: &str) {
        eventually(&format!("a pause that names {text}"), || async {
            let record = self.line_record(line).await;
            let is_shown = record.pause_left.is_some()
                && record.pause_reason.as_deref().is_some_and(|reason| reason.contains(text));
            if is_shown { Ok(()) } else { Err(format!("{record:?}")) }
        })
        .await;
    }

    async fn resume(&self, line: LineId) {
        assert!(self.store.resume_line(line).await.expect("the store answers"));
    }

    /// Calls that Graph saw for recipients whose name begins so.
    fn calls_to(&self, start: &str) -> usize {
        self.simulator.calls().iter().filter(|call| call.dest.starts_with(start)).count()
    }
}
