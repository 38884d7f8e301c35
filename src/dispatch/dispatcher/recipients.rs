//! The states of recipients, applied to the lines: rows that end because of it, and rows that go first.

use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::event::WithheldRow;
use crate::dispatch::tasks::recipients::RecipientOrder;
use crate::domain::LineId;
use crate::policy::is_unreachable;
use crate::store::{Change, ChangeKind, ClosingRows, LineRecipient, ReadyRow, Unreachable};

/// Lines whose closing windows are looked at, each time that line records are read; lines take turns.
const LINES_AT_ONCE: usize = 16;

impl Dispatcher {
    /// Note the recipient of an ended call that cannot be reached.
    pub(super) fn learn_reach(&mut self, change: &Change, row: &ReadyRow) {
        let ChangeKind::Failed { error, .. } = &change.kind else { return };
        if !is_unreachable(error) {
            return;
        }
        let recipient = LineRecipient { line: row.line, dest: row.dest.clone() };
        let called = change.begun.unwrap_or_else(std::time::Instant::now);
        self.order_for_recipients(RecipientOrder::Unreachable(Unreachable { recipient, called }));
        if self.options.recipients.unreachable
            && let Some(line) = self.line(row.line)
        {
            line.queue.cannot_reach(&row.dest);
        }
    }

    /// Let go of rows that have ended because of their recipients. Rows whose recipients are known otherwise by now are read
    /// again.
    pub(super) fn withheld_answered(&mut self, rows: Vec<WithheldRow>) {
        let now = Instant::now();
        for WithheldRow { id, is_written } in rows {
            let Some(row) = self.withheld.remove(&id) else { continue };
            let Some(line) = self.line(row.line) else { continue };
            if is_written {
                let ended = line.queue.withheld(&row);
                self.work_ended(ended);
            } else {
                line.queue.refuse(&row);
                self.watch_refused(row.line, now);
            }
        }
    }

    /// Look for rows of the bulk lane whose recipients' windows close soon, of a few lines at a time.
    pub(super) fn look_at_closing_windows(&mut self, now: Instant) {
        let mut lines: Vec<LineId> = self.lines.keys().copied().collect();
        lines.sort_unstable();
        let behind = lines.partition_point(|line| self.looked_at.is_some_and(|last| *line <= last));
        lines.rotate_left(behind);
        let mut looks = Vec::new();
        for id in lines {
            let look = self.lines.get_mut(&id).and_then(|line| line.closing_look(now));
            if let Some(look) = look {
                self.looked_at = Some(id);
                looks.push(look);
            }
            if looks.len() == LINES_AT_ONCE {
                break;
            }
        }
        if !looks.is_empty() {
            self.order_for_recipients(RecipientOrder::Closing(looks));
        }
    }

    pub(super) fn closing_found(&mut self, line: LineId, mut found: ClosingRows) {
        let is_checked = self.options.recipients.window;
        for closing in &mut found.rows {
            closing.row.contact.closes = is_checked.then_some(closing.closes);
        }
        if let Some(line) = self.line(line) {
            line.queue.closing_found(found);
        }
    }

    fn order_for_recipients(&self, order: RecipientOrder) {
        // The receiver is gone only when the process ends.
        let _ = self.channels.recipients.send(order);
    }
}
