//! Rows held back because an earlier row to the same recipient has not ended, and rows whose claims were
//! refused.
//!
//! A held row comes back when its time has come, or when it is given back. Rows that ended otherwise
//! (expired, cancelled, settled by an operator) are found by asking the log, which frees their recipients: within
//! seconds where other rows wait behind them.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::event_loop::Dispatcher;
use super::held_rows::HeldRow;
use crate::dispatch::tasks::reader::Request;
use crate::domain::{Lane, LineId, RowId, WorkId};

/// The rest of a refused claim before its work is read again.
const REFUSED_FOR: Duration = Duration::from_millis(250);

impl Dispatcher {
    pub(super) fn watch_held(&mut self, due: Instant, by: RowId, line: LineId, lane: Lane, dest: String) {
        self.held.watch(by, HeldRow { line, lane, dest, due }, Instant::now());
    }

    /// Ask the log about rows whose time has passed, and about those that other rows wait behind.
    pub(super) fn ask_held(&mut self, now: Instant) {
        let mut asked = Vec::new();
        while let Some((by, row)) = self.held.take_look(now) {
            let Some(queue) = self.lines.get(&row.line).map(|line| &line.queue) else { continue };
            if !queue.is_held_by(row.lane, &row.dest, by) {
                continue;
            }
            if row.is_overdue(now) || queue.has_waiting(row.lane, &row.dest) {
                self.held.asked(by, row);
                asked.push(by);
            } else {
                self.held.watch(by, row, now);
            }
        }
        if !asked.is_empty() {
            self.request(Request::StillHeld(asked));
        }
    }

    /// Free recipients whose row has ended. A row that waits comes back, or the log is asked about it again.
    pub(super) fn release_held(&mut self, asked: Vec<RowId>, held: Vec<RowId>) {
        let held: HashSet<RowId> = held.into_iter().collect();
        let now = Instant::now();
        for by in asked {
            let Some(HeldRow { line, lane, dest, due }) = self.held.take_asked(by) else { continue };
            if held.contains(&by) {
                if self.lines.get(&line).is_some_and(|line| line.queue.is_claimed_elsewhere(by)) {
                    // The call may have ended at the other worker.
                    self.channels.look.notify_one();
                }
                self.watch_held(due.max(now), by, line, lane, dest);
            } else if let Some(actor) = self.line(line) {
                actor.queue.claim_settled(by);
                if actor.queue.is_held_by(lane, &dest, by) {
                    let ended = actor.queue.end(lane, &dest, by);
                    self.work_ended(ended);
                }
            }
        }
    }

    /// Have the work of a refused claim read again after a moment.
    pub(super) fn watch_refused(&mut self, line: LineId, now: Instant) {
        if !self.refused.iter().any(|(_, waiting)| *waiting == line) {
            self.refused.insert((now + REFUSED_FOR, line));
        }
    }

    pub(super) fn ask_refused(&mut self, now: Instant) {
        while let Some((at, line)) = self.refused.first().copied()
            && at <= now
        {
            self.refused.remove(&(at, line));
            let work = self.lines.get(&line).map(|actor| actor.queue.refused_work()).unwrap_or_default();
            work.into_iter().for_each(|work| self.request(Request::Work(line, work)));
        }
    }

    /// Record work that could not be read: work of refused claims is requested again, other work is found by
    /// a scan.
    pub(super) fn work_unread(&mut self, asked: Vec<(LineId, WorkId)>) {
        let now = Instant::now();
        for (line, work) in &asked {
            if let Some(line) = self.line(*line) {
                line.queue.unread(*work);
            }
        }
        let lines: HashSet<LineId> = asked.into_iter().map(|(line, _)| line).collect();
        lines.into_iter().for_each(|line| self.watch_refused(line, now));
    }
}
