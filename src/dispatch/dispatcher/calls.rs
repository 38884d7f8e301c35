//! Calls: begun, ended, and what an ended call means for its line; and the end of all calls when the process stops.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Dispatcher;
use crate::dispatch::Event;
use crate::dispatch::line::{DEMANDED, Line, PlannedCall, Steps};
use crate::dispatch::send::{Finished, Ticket, send};
use crate::dispatch::upkeep::Order;
use crate::failpoint;
use crate::message::LineId;
use crate::metrics::{CallOutcome, METRICS};
use crate::policy::classify::{CallResult, PauseDemand, PauseTarget};
use crate::store::{Change, PauseScope};

impl Dispatcher {
    pub(super) fn finish_calls(&mut self, first: Result<Finished, tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(finished) = next {
            match finished {
                Ok(finished) => self.finish(finished),
                Err(error) => {
                    tracing::error!(%error, "a call's task failed; its row is settled after its deadline")
                }
            }
            next = self.calls.try_join_next();
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { ticket, change, waiter, pause, health, sent } = finished;
        self.tickets.remove(&ticket.id);
        count_ended(&change, self.tickets.len());
        let now = Instant::now();
        self.hear(&ticket, health, now);
        let held_for = match &change {
            Change::Retry { after, .. } => Some(*after),
            Change::WaitForLine { .. } | Change::Release { .. } => Some(Duration::ZERO),
            _ => None,
        };
        if let Some(line) = self.line(ticket.line) {
            line.call_ended(ticket.medium, ticket.lane, &ticket.dest, ticket.id, held_for.is_some());
            if sent {
                line.succeeded(ticket.begun);
            }
        }
        if let Some(after) = held_for {
            self.watch_held(now + after, ticket.id, ticket.line, ticket.lane, ticket.dest);
        }
        self.record_changes(vec![(change, waiter)]);
        if let Some(demand) = pause {
            self.pause(ticket.line, &demand, ticket.begun, now);
        }
    }

    fn pause(&mut self, line: LineId, demand: &PauseDemand, begun: Instant, now: Instant) {
        let Some(actor) = self.line(line) else { return };
        let Some(length) = actor.pause(demand, begun, now) else { return };
        tracing::warn!(%line, ?length, reason = %demand.reason, "an answer demands a pause: nothing is sent meanwhile");
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
        self.tickets.insert(ticket.id, ticket.clone());
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
            self.record_changes(vec![(finished.change, finished.waiter)]);
        }
    }

    fn abandon_all(&mut self) {
        let mut steps = Steps::default();
        self.lines.values_mut().for_each(|line| line.abandon(&mut steps));
        self.record_changes(steps.changes);
        self.reserved = self.lines.values().map(Line::reserved).sum();
    }
}

/// Counts a call that has ended, and those that are left.
fn count_ended(change: &Change, in_flight: usize) {
    let outcome = match change {
        Change::Sent { .. } => CallOutcome::Ok,
        Change::Failed { .. } | Change::Expire { .. } | Change::Unsendable { .. } => CallOutcome::Error,
        Change::Retry { .. } => CallOutcome::Retry,
        Change::Unknown { .. } => CallOutcome::Unknown,
        Change::WaitForLine { .. } | Change::Release { .. } | Change::Crashed { .. } => CallOutcome::Line,
    };
    METRICS.dispatch.ended(outcome);
    METRICS.dispatch.in_flight.set(in_flight as f64);
}
