//! The look for rows of a line that have to go first, as their recipients' windows close soon.

use tokio::time::Instant;

use super::actor::Line;
use crate::channel::Medium;
use crate::store::ClosingLook;

/// Recipients that one look goes through.
const RECIPIENTS: u32 = 1_000;

impl Line {
    /// Return the next look; `None` while the line cannot send, or has no backlog on the bulk lane.
    pub fn closing_look(&mut self, now: Instant) -> Option<ClosingLook> {
        let account = self.sender()?.account;
        if self.paused_until(now).is_some() {
            return None;
        }
        let (text, media) = (self.text.limit.get(), self.media.limit.get());
        let limit = |medium| if medium == Medium::Text { text } else { media };
        let (flow, after, from) = self.queue.closing_look(self.id, |medium| limit(medium) as usize)?;
        let per_second = limit(flow.medium);
        Some(ClosingLook { account, flow, after, per_second, from, limit: RECIPIENTS })
    }
}
