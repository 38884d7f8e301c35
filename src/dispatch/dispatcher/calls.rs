//! Begins and ends calls, applies the effect of an ended call on its line, and ends all calls when the
//! process stops.

use rand::Rng;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::event::{Event, ReturnedRow};
use crate::dispatch::line::{
    CallEnd, EndedCall, GRAPH_PAUSE_PREFIX, Line, LineActions, PlannedCall, Suspect,
};
use crate::dispatch::send::{CallInFlight, Finished, send};
use crate::dispatch::tasks::upkeep::PauseOrder;
use crate::domain::LineId;
use crate::failpoint;
use crate::metrics::{CallOutcome, METRICS};
use crate::policy::classify::{
    CallResult, Judgement, PauseDemand, PauseTarget, Verdict, is_unknown_attachment,
};
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
        let Finished { in_flight, change, judgement, usage, health, is_failure } = finished;
        let row = in_flight.row.clone();
        self.in_flight.remove(&row.id);
        let now = Instant::now();
        self.report_health(&in_flight, health, now);
        self.learn_attachment(&in_flight, judgement.as_ref(), now);
        self.learn_budgets(&in_flight, judgement.as_ref(), usage, now);
        let change = match judgement {
            Some(judgement) => self.learn(&in_flight, change, judgement, is_failure, now),
            None => change,
        };
        count_ended(&change, self.in_flight.len());
        let end = match &change.kind {
            ChangeKind::Retry { .. } | ChangeKind::Suspected { .. } => CallEnd::Postponed,
            ChangeKind::WaitForLine { .. } | ChangeKind::Release => CallEnd::Returns,
            _ => CallEnd::Ended,
        };
        let mut ended = None;
        if let Some(line) = self.line(row.line) {
            ended = line.call_ended(&row, end);
            match &change.kind {
                ChangeKind::WaitForLine { .. } => line.queue.avoid(row.id),
                ChangeKind::Suspected { error, .. } => line.suspect(Suspect {
                    id: row.id,
                    fence: row.fence,
                    lane: row.lane,
                    dest: row.dest.clone(),
                    waiter: row.waiter.clone(),
                    refused_at: now,
                    error: error.clone(),
                }),
                _ => {}
            }
        }
        if let ChangeKind::Retry { after, .. } | ChangeKind::Suspected { after, .. } = change.kind {
            self.watch_held(now + after, row.id, row.line, row.lane, row.dest.clone());
        }
        if end == CallEnd::Returns {
            let attempts = row.attempts - i32::from(matches!(change.kind, ChangeKind::Release));
            self.returning.insert(row.id, ReadyRow { attempts, ..(*row).clone() });
        }
        self.learn_reach(&change, &row);
        self.change(change, row.lane, row.waiter.clone());
        self.work_ended(ended);
    }

    /// Apply the evidence of an ended call about the id of its asset.
    fn learn_attachment(&mut self, in_flight: &CallInFlight, judgement: Option<&Judgement>, now: Instant) {
        let Some(id) = in_flight.attachment_id.as_ref() else { return };
        if judgement.is_none_or(|judgement| !is_unknown_attachment(&judgement.error)) {
            return;
        }
        METRICS.attachments.refused_ids.increment(1);
        if let Some(line) = self.line(in_flight.line())
            && line.attachment_refused(&in_flight.row, id, now)
        {
            tracing::info!(line = %in_flight.line(), "id of an attachment refused: asset is uploaded again");
        }
    }

    /// Apply the evidence of an ended call about its line: pauses, a trial, a rest, suspects. Return the
    /// row's change, which may depend on that.
    fn learn(
        &mut self,
        in_flight: &CallInFlight,
        change: Change,
        mut judgement: Judgement,
        is_failure: Option<bool>,
        now: Instant,
    ) -> Change {
        let row = &in_flight.row;
        let unknown_refusals = self.options.unknown_refusals;
        let Some(line) = self.line(row.line) else { return change };
        let call = EndedCall { row, begun: in_flight.begun, judgement: &judgement, is_failure };
        let learnt = line.learn(&call, unknown_refusals, now, rand::rng().random());
        if let Some(rest) = learnt.rest {
            let rest_seconds = rest.as_secs_f64();
            tracing::warn!(line = %row.line, rest_seconds, "calls of the line keep failing: line rests, then tries one");
            self.count_resting(now);
        }
        if learnt.is_lines {
            judgement.verdict = Verdict::Suspect;
        }
        if let Some(demand) = &judgement.pause
            && judgement.verdict != Verdict::Unlisted
        {
            self.pause(row.line, demand, &row.dest, in_flight.begun, now);
        }
        self.refuse(row.line, learnt.refused);
        if judgement.verdict != Verdict::Suspect {
            return change;
        }
        let paused_for = self.lines.get(&row.line).map(|line| line.paused_for(now)).unwrap_or_default();
        in_flight.suspected(&judgement, paused_for, &self.send_context.policy)
    }

    /// End messages without another call: Graph refused them, and has taken another message of their line
    /// since.
    fn refuse(&mut self, line: LineId, suspects: Vec<Suspect>) {
        for Suspect { id, fence, lane, dest, waiter, error, .. } in suspects {
            if self.may_end(line, id, lane, &dest, fence) {
                tracing::info!(cdls_id = %id, %line, "another message was sent: the refused one ends as ERROR");
                self.change(Change::waiting(id, fence, ChangeKind::Refuse { error }), lane, waiter);
            }
        }
    }

    /// Make rows that were given back ready again, if the log agrees.
    pub(super) fn returned(&mut self, rows: Vec<ReturnedRow>) {
        for ReturnedRow { id, fence, is_written } in rows {
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

    fn pause(&mut self, line: LineId, demand: &PauseDemand, dest: &str, begun: Instant, now: Instant) {
        let Some(actor) = self.line(line) else { return };
        let Some(length) = actor.pause(demand, dest, begun, now) else { return };
        tracing::warn!(%line, pause_seconds = length.as_secs_f64(), reason = %demand.reason, "pause demanded by Graph: sending paused");
        let scope = match demand.target {
            PauseTarget::Line => PauseScope::Line(line),
            PauseTarget::App => {
                self.lines.values_mut().for_each(|line| line.pause_with_app(demand, length, now));
                PauseScope::App
            }
        };
        // The receiver is gone only when the process ends.
        let _ = self.channels.orders.send(PauseOrder::Pause {
            scope,
            length,
            reason: format!("{GRAPH_PAUSE_PREFIX}{}", demand.reason),
        });
    }

    pub(super) fn begin(&mut self, call: PlannedCall) {
        let breaker = self.breakers.of_mut(call.sender.endpoint.host());
        let mut in_flight = CallInFlight::of(&call, breaker.begun(call.row.line, call.begun.into_std()));
        in_flight.tickets = self.budgets.tickets(in_flight.line());
        self.in_flight.insert(in_flight.id(), in_flight.clone());
        METRICS.dispatch.in_flight.set(self.in_flight.len() as f64);
        self.calls.spawn(send(self.send_context.clone(), in_flight, call));
    }

    /// Give claimed rows back, wait for calls in flight, and end those that outlast the grace as UNKNOWN.
    /// `quiet` is answered when no further call can begin, so that another worker may take the lines over.
    pub(super) async fn drain(mut self, quiet: oneshot::Sender<()>) {
        let until = Instant::now() + self.options.grace;
        let mut quiet = Some(quiet);
        self.abandon_all();
        loop {
            failpoint::hit("in_drain");
            if self.reserved + self.abandoned.len() == 0 {
                // The receiver is gone if the hand-over has given up.
                quiet.take().map(|quiet| quiet.send(()));
                if self.in_flight.is_empty() {
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
        for (_, in_flight) in std::mem::take(&mut self.in_flight) {
            let finished = in_flight.conclude(&outlasted, &self.send_context);
            count_ended(&finished.change, 0);
            let row = finished.in_flight.row;
            self.change(finished.change, row.lane, row.waiter.clone());
        }
    }

    fn abandon_all(&mut self) {
        let mut actions = LineActions::default();
        self.lines.values_mut().for_each(|line| line.abandon(&mut actions));
        self.carry_out(actions);
        self.reserved = self.lines.values().map(Line::reserved).sum();
    }
}

/// Count a call that has ended, and the calls in flight.
fn count_ended(change: &Change, in_flight: usize) {
    let outcome = match &change.kind {
        ChangeKind::Sent { .. } => CallOutcome::Ok,
        ChangeKind::Failed { .. }
        | ChangeKind::Expire
        | ChangeKind::Refuse { .. }
        | ChangeKind::Cancel
        | ChangeKind::Unsendable
        | ChangeKind::Withheld { .. } => CallOutcome::Error,
        ChangeKind::Retry { .. } | ChangeKind::Suspected { .. } => CallOutcome::Retry,
        ChangeKind::Unknown { .. } => CallOutcome::Unknown,
        ChangeKind::WaitForLine { .. } | ChangeKind::Release => CallOutcome::Line,
    };
    METRICS.dispatch.ended(outcome);
    METRICS.dispatch.in_flight.set(in_flight as f64);
}
