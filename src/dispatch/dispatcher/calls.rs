//! Calls: begun, ended, and what an ended call means for its line; and the end of all calls when the process stops.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Dispatcher;
use crate::dispatch::Event;
use crate::dispatch::line::{CallEnd, DEMANDED, Line, PlannedCall, Steps};
use crate::dispatch::send::{Finished, Ticket, send};
use crate::dispatch::upkeep::Order;
use crate::failpoint;
use crate::message::{LineId, MessageId};
use crate::metrics::{CallOutcome, METRICS};
use crate::policy::classify::{CallResult, PauseDemand, PauseTarget};
use crate::store::{Change, ChangeKind, PauseScope, ReadyRow};

impl Dispatcher {
    pub(super) fn finish_calls(&mut self, first: Result<Finished, tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(finished) = next {
            match finished {
                Ok(finished) => self.finish(finished),
                Err(error) => {
                    tracing::error!(%error, "task of a call failed: its row is settled after the deadline")
                }
            }
            next = self.calls.try_join_next();
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { ticket, change, pause, health } = finished;
        let row = ticket.row.clone();
        self.tickets.remove(&row.id);
        count_ended(&change, self.tickets.len());
        let now = Instant::now();
        self.hear(&ticket, health, now);
        let end = match &change.kind {
            ChangeKind::Retry { .. } => CallEnd::Postponed,
            ChangeKind::WaitForLine { .. } | ChangeKind::Release => CallEnd::Returns,
            _ => CallEnd::Ended,
        };
        let mut ended = None;
        if let Some(line) = self.line(row.line) {
            ended = line.call_ended(&row, end);
            if matches!(change.kind, ChangeKind::Sent { .. }) {
                line.succeeded(ticket.begun);
            }
        }
        if let ChangeKind::Retry { after, .. } = change.kind {
            self.watch_held(now + after, row.id, row.line, row.lane, row.dest.clone());
        }
        if end == CallEnd::Returns {
            let attempts = row.attempts - i32::from(matches!(change.kind, ChangeKind::Release));
            self.returning.insert(row.id, ReadyRow { attempts, ..(*row).clone() });
        }
        self.change(change, row.lane, row.waiter.clone());
        self.work_ended(ended);
        if let Some(demand) = pause {
            self.pause(row.line, &demand, ticket.begun, now);
        }
    }

    /// Rows that were given back are ready again, if the log says so too.
    pub(super) fn returned(&mut self, rows: Vec<(MessageId, i32, bool)>) {
        for (id, fence, is_written) in rows {
            let Some(row) = self.returning.remove(&id) else { continue };
            let Some(line) = self.line(row.line) else { continue };
            if is_written {
                let valid_for = row.valid_for;
                line.queue.give_back(ReadyRow { fence, valid_for, ..row });
            } else {
                let ended = line.queue.end(row.lane, &row.dest, id);
                self.work_ended(ended);
            }
        }
    }

    fn pause(&mut self, line: LineId, demand: &PauseDemand, begun: Instant, now: Instant) {
        let Some(actor) = self.line(line) else { return };
        let Some(length) = actor.pause(demand, begun, now) else { return };
        tracing::warn!(%line, ?length, reason = %demand.reason, "pause demanded by Graph: sending paused");
        let scope = match demand.target {
            PauseTarget::Line => PauseScope::Line(line),
            PauseTarget::App => {
                self.lines.values_mut().for_each(|line| line.pause_with_app(demand, length, now));
                PauseScope::App
            }
        };
        // Gone only when the process ends.
        let _ = self.channels.orders.send(Order::Pause {
            scope,
            length,
            reason: format!("{DEMANDED}{}", demand.reason),
        });
    }

    pub(super) fn begin(&mut self, call: PlannedCall) {
        let ticket = Ticket::of(&call, self.breaker.begun(call.begun.into_std()));
        self.tickets.insert(ticket.id(), ticket.clone());
        METRICS.dispatch.in_flight.set(self.tickets.len() as f64);
        self.calls.spawn(send(self.send_context.clone(), ticket, call));
    }

    /// Gives claimed rows back, waits for calls in flight, and calls those that outlast the grace unknown. `quiet` is
    /// told when no further call can begin, so that another worker may take the lines over.
    pub(super) async fn drain(mut self, quiet: oneshot::Sender<()>) {
        let until = Instant::now() + self.options.grace;
        let mut quiet = Some(quiet);
        self.abandon_all();
        loop {
            failpoint::hit("in_drain");
            if self.reserved + self.abandoned.len() == 0 {
                // Nobody listens if the hand-over has given up.
                quiet.take().map(|quiet| quiet.send(()));
                if self.tickets.is_empty() {
                    break;
                }
            }
            tokio::select! {
                Some(finished) = self.calls.join_next() => self.finish_calls(finished),
                Some(event) = self.channels.inbox.recv() => match event {
                    Event::ClaimsAnswered(answers) => {
                        self.claims_answered(answers);
                        self.abandon_all();
                    }
                    Event::Lost { stopped, .. } => drop(stopped),
                    _ => {}
                },
                () = tokio::time::sleep_until(until) => break,
            }
        }
        while let Some(finished) = self.calls.try_join_next() {
            self.finish_calls(finished);
        }
        self.calls.abort_all();
        let outlasted = CallResult::Cut { reason: "the process stopped before Graph answered".into() };
        for (_, ticket) in std::mem::take(&mut self.tickets) {
            let finished = ticket.conclude(&outlasted, &self.send_context.policy);
            count_ended(&finished.change, 0);
            let row = finished.ticket.row;
            self.change(finished.change, row.lane, row.waiter.clone());
        }
    }

    fn abandon_all(&mut self) {
        let mut steps = Steps::default();
        self.lines.values_mut().for_each(|line| line.abandon(&mut steps));
        self.carry_out(steps);
        self.reserved = self.lines.values().map(Line::reserved).sum();
    }
}

/// Counts a call that has ended, and those that are left.
fn count_ended(change: &Change, in_flight: usize) {
    let outcome = match &change.kind {
        ChangeKind::Sent { .. } => CallOutcome::Ok,
        ChangeKind::Failed { .. } | ChangeKind::Expire | ChangeKind::Cancel | ChangeKind::Unsendable => {
            CallOutcome::Error
        }
        ChangeKind::Retry { .. } => CallOutcome::Retry,
        ChangeKind::Unknown { .. } => CallOutcome::Unknown,
        ChangeKind::WaitForLine { .. } | ChangeKind::Release => CallOutcome::Line,
    };
    METRICS.dispatch.ended(outcome);
    METRICS.dispatch.in_flight.set(in_flight as f64);
}
