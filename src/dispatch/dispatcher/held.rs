//! Recipients that wait behind a row of theirs.
//!
//! A held row comes back by itself when it is promoted or found by a scan. Rows that ended otherwise (expired,
//! cancelled, settled by an operator) are found by asking the log.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Dispatcher, HELD_SLACK};
use crate::dispatch::reader::Request;
use crate::message::{Lane, LineId, MessageId};

impl Dispatcher {
    pub(super) fn watch_held(&mut self, due: Instant, by: MessageId, line: LineId, lane: Lane, dest: String) {
        self.held.insert((due + HELD_SLACK, by), (line, lane, dest));
    }

    /// Asks the log about rows whose time has passed.
    pub(super) fn ask_held(&mut self, now: Instant) {
        let later = self.held.split_off(&(now, MessageId(i64::MAX)));
        let due = std::mem::replace(&mut self.held, later);
        if due.is_empty() {
            return;
        }
        let mut asked = Vec::with_capacity(due.len());
        for ((_, by), recipient) in due {
            asked.push(by);
            self.asked_held.insert(by, recipient);
        }
        self.request(Request::StillHeld(asked));
    }

    pub(super) fn release_held(&mut self, asked: Vec<MessageId>, held: Vec<MessageId>) {
        let held: HashSet<MessageId> = held.into_iter().collect();
        let now = Instant::now();
        for by in asked {
            let Some((line, lane, dest)) = self.asked_held.remove(&by) else { continue };
            if held.contains(&by) {
                self.watch_held(now, by, line, lane, dest);
            } else if let Some(actor) = self.line(line)
                && !actor.queue.in_call(by)
            {
                actor.queue.settle(lane, &dest, by);
            }
        }
    }
}
