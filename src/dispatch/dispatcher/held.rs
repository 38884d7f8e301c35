//! Recipients that wait behind a row of theirs.
//!
//! A held row comes back by itself when it is promoted or found by a scan. Rows that ended otherwise (expired,
//! cancelled, settled by an operator) are found by asking the log; and so are rows that were given back, which a scan
//! does not find while an older row of their flow is in hand: they are read again before their recipient is let go.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::{Dispatcher, HELD_SLACK};
use crate::dispatch::reader::Request;
use crate::message::{Lane, LineId, MessageId};
use crate::store::RangeRead;

/// A recipient whose held row the log is asked about.
pub(super) struct AskedHeld {
    line: LineId,
    lane: Lane,
    dest: String,
    /// Whether the row itself was asked for as well: had it been ready, it would be in hand.
    is_read: bool,
}

impl Dispatcher {
    pub(super) fn watch_held(&mut self, due: Instant, by: MessageId, line: LineId, lane: Lane, dest: String) {
        // What was asked about before is of the past.
        self.asked_held.remove(&by);
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
        for ((_, by), (line, lane, dest)) in due {
            if let Entry::Vacant(vacant) = self.asked_held.entry(by) {
                vacant.insert(AskedHeld { line, lane, dest, is_read: false });
                asked.push(by);
            }
        }
        self.request(Request::StillHeld(asked));
    }

    pub(super) fn release_held(&mut self, asked: Vec<MessageId>, held: Vec<MessageId>) {
        let held: HashSet<MessageId> = held.into_iter().collect();
        let now = Instant::now();
        let mut again = Vec::new();
        for by in asked {
            let Some(recipient) = self.asked_held.remove(&by) else { continue };
            let AskedHeld { line, lane, dest, is_read } = recipient;
            if held.contains(&by) {
                self.watch_held(now, by, line, lane, dest);
                continue;
            }
            let Some(actor) = self.line(line).filter(|actor| actor.queue.is_held_by(lane, &dest, by)) else {
                continue;
            };
            if is_read {
                actor.queue.settle(lane, &dest, by);
            } else {
                self.request(Request::Range(RangeRead { line, lane, first: by, last: by, limit: 1 }));
                self.asked_held.insert(by, AskedHeld { line, lane, dest, is_read: true });
                again.push(by);
            }
        }
        if !again.is_empty() {
            // Answered after the reads: the reader keeps this order.
            self.request(Request::StillHeld(again));
        }
    }
}
