//! Applies each event to the lines. Never here: claims, calls, or which row is next.

use std::collections::HashSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::event::{ClaimAnswer, Event};
use crate::dispatch::line::{LineActions, PauseChange};
use crate::dispatch::send::orphaned;
use crate::dispatch::tasks::recorder::{Barrier, Entry};
use crate::dispatch::tasks::upkeep::PauseOrder;
use crate::domain::{Lane, LineId, Partition, RowId};
use crate::store::{
    Change, ChangeKind, ClaimedRow, DoomedRow, Flow, HeldRecipient, LineRecord, PauseScope, Position,
    UNOPENED_FOR,
};

impl Dispatcher {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Gained { at, partitions, held, claims } => self.gain(at, partitions, held, claims),
            Event::Lost { partitions, stopped } => {
                self.lose(&partitions);
                // The lease keeper is gone only when the process ends.
                let _ = stopped.send(());
            }
            Event::Work(heads) => heads.into_iter().for_each(|head| self.announced(&head)),
            Event::WorkRead { asked, read } => self.work_read(asked, read),
            Event::WorkUnread(asked) => self.work_unread(asked),
            Event::Flows(pages) => {
                for (read, page) in pages {
                    if let Some(line) = self.line(read.flow.line) {
                        let ended = line.queue.read_flow(&read, page);
                        self.work_ended(ended);
                    }
                }
            }
            Event::FlowsUnread(flows) => {
                for flow in flows {
                    if let Some(line) = self.line(flow.line) {
                        line.queue.read_failed(&flow);
                    }
                }
            }
            Event::Ready { began, scanned, flows } => {
                let waiting = self.scanned(began, &scanned);
                self.found(flows, &waiting);
            }
            Event::Lines { asked, records, pause_written } => self.configure(asked, records, pause_written),
            Event::Unopened(lines) => self.look_at_unopened(lines),
            Event::ClaimsAnswered(answers) => self.claims_answered(answers),
            Event::Returned(rows) => self.returned(rows),
            Event::Withheld(rows) => self.withheld_answered(rows),
            Event::Closing { line, found } => self.closing_found(line, found),
            Event::Claimed(rows) => self.settle_claimed(rows),
            Event::StillHeld { asked, held } => self.release_held(asked, held),
            Event::Doomed { rows, kind, written } => self.end_doomed(rows, kind, written),
            Event::Asset { key, answer } => {
                if let Some(line) = self.line(key.line) {
                    line.asset_answered(&key, answer, Instant::now());
                }
            }
            Event::Budgets { read, rows } => self.budgets.apply(&self.worker, read, rows, Instant::now()),
            // The arrival alone wakes the loop.
            Event::LogIsBack => {}
        }
    }

    fn gain(
        &mut self,
        at: Instant,
        partitions: Vec<Partition>,
        held: Vec<HeldRecipient>,
        claims: Vec<ClaimedRow>,
    ) {
        let new = partitions.iter().filter(|partition| !self.owned.contains(partition));
        self.unscanned.extend(new.map(|partition| (*partition, at)));
        self.owned.extend(partitions);
        self.order(PauseOrder::FindUnopened);
        let now = Instant::now();
        for recipient in held {
            self.line_or_new(recipient.line).hold(&recipient);
            self.watch_held(
                now + recipient.wait,
                recipient.by,
                recipient.line,
                recipient.lane,
                recipient.dest,
            );
        }
        for claimed in &claims {
            self.keep_off(claimed, now);
        }
        self.settle_claimed(claims);
    }

    /// Keep a claimed row off its line until the claim is settled; a call of the previous owner may end at
    /// any moment.
    fn keep_off(&mut self, claimed: &ClaimedRow, now: Instant) {
        self.line_or_new(claimed.line).queue.claimed_elsewhere(
            claimed.lane,
            &claimed.dest,
            claimed.id,
            claimed.fence,
        );
        self.watch_held(now, claimed.id, claimed.line, claimed.lane, claimed.dest.clone());
    }

    fn lose(&mut self, partitions: &[Partition]) {
        self.owned.retain(|partition| !partitions.contains(partition));
        self.unscanned.retain(|partition, _| !partitions.contains(partition));
        let gone: Vec<LineId> =
            self.lines.keys().copied().filter(|line| partitions.contains(&line.partition())).collect();
        for id in gone {
            self.budgets.lose(id);
            if let Some(mut line) = self.lines.remove(&id) {
                self.reserved -= line.reserved();
                for (message, claim) in line.open_claims() {
                    self.abandoned.entry(message).or_default().push_back(claim);
                }
                let mut actions = LineActions::default();
                line.abandon(&mut actions);
                actions.returned.clear();
                self.carry_out(actions);
            }
            self.returning.retain(|_, row| row.line != id);
            self.withheld.retain(|_, row| row.line != id);
            self.forget_wake(id);
        }
    }

    /// End a look at these partitions. Lines read work that was announced meanwhile, as it may have been
    /// written after the look began. Return the partitions that waited for the look.
    fn scanned(&mut self, began: Instant, partitions: &[Partition]) -> Vec<Partition> {
        let waiting: Vec<Partition> =
            partitions.iter().copied().filter(|partition| self.unscanned.contains_key(partition)).collect();
        if waiting.is_empty() {
            return waiting;
        }
        self.unscanned.retain(|partition, since| began < *since || !waiting.contains(partition));
        for (id, line) in &mut self.lines {
            if waiting.contains(&id.partition()) {
                line.queue.scanned();
                self.dirty.insert(*id);
            }
        }
        waiting
    }

    fn found(&mut self, flows: Vec<(Flow, Position)>, waiting: &[Partition]) {
        for (flow, first) in flows {
            if self.owns(flow.line) {
                let is_first = waiting.contains(&flow.line.partition());
                self.line_or_new(flow.line).queue.found(&flow, first, is_first);
            }
        }
    }

    fn configure(&mut self, asked: Vec<LineId>, records: Vec<LineRecord>, pause_written: bool) {
        let now = Instant::now();
        let mut missing: HashSet<LineId> = asked.into_iter().collect();
        for record in records {
            missing.remove(&record.id);
            if let Some(line) = self.lines.get_mut(&record.id) {
                let options = &self.options;
                line.note_app(&record, &options.app_keys);
                self.budgets.know(record.id, record.meta_app.as_deref());
                let change = line.configure(&record, &options.limits, &options.keys, pause_written, now);
                self.dirty.insert(record.id);
                if let Some(change) = change {
                    self.order(pause_order(record.id, change));
                }
            }
        }
        for id in missing {
            if let Some(line) = self.line(id) {
                line.deconfigure();
            }
        }
    }

    /// Have the records of these lines read: a token that could not be opened may open now.
    fn look_at_unopened(&mut self, lines: Vec<LineId>) {
        for id in lines {
            if self.owns(id) {
                self.line_or_new(id);
            }
        }
    }

    fn order(&self, order: PauseOrder) {
        // The receiver is gone only when the process ends.
        let _ = self.channels.orders.send(order);
    }

    pub(super) fn claims_answered(&mut self, answers: Vec<ClaimAnswer>) {
        let now = Instant::now();
        for ClaimAnswer { line: line_id, id, is_made } in answers {
            if let Some((fence, lane)) = self.take_abandoned(id) {
                // If the claim was not made, an open claim of the row is another worker's.
                if is_made {
                    self.change(Change::release(id, fence), lane, None);
                    if let Some(line) = self.line(line_id) {
                        line.queue.claim_settled(id);
                    }
                }
                continue;
            }
            if let Some(line) = self.line(line_id)
                && line.claim_answered(id, is_made) == Some(false)
            {
                self.reserved -= 1;
                self.watch_refused(line_id, now);
            }
        }
    }

    /// Return the oldest open claim of the row: claims are answered in the order in which they were
    /// requested.
    fn take_abandoned(&mut self, id: RowId) -> Option<(i32, Lane)> {
        let asked = self.abandoned.get_mut(&id)?;
        let first = asked.pop_front();
        if asked.is_empty() {
            self.abandoned.remove(&id);
        }
        first
    }

    /// Settle claims without a call: this worker's that were never written, and those whose worker is gone.
    fn settle_claimed(&mut self, rows: Vec<ClaimedRow>) {
        if self.progress.is_stalled() {
            return;
        }
        let now = Instant::now();
        for row in rows {
            let ours = row.worker == self.worker;
            let in_hand = self.in_flight.contains_key(&row.id)
                || self.returning.contains_key(&row.id)
                || self.abandoned.contains_key(&row.id)
                || self.progress.is_aside(row.id)
                || self.lines.get(&row.line).is_some_and(|line| {
                    line.queue.in_call(row.id) || line.queue.has_ended(row.id, row.fence)
                });
            if in_hand || !self.owns(row.line) {
                continue;
            }
            self.keep_off(&row, now);
            let change = if ours {
                Change::release(row.id, row.fence)
            } else if row.overdue {
                orphaned(&row, &self.options.retry)
            } else {
                continue;
            };
            if change.stays_in_work() {
                // The look reads its work anew.
                self.channels.look.notify_one();
            }
            if let Some(line) = self.line(row.line) {
                line.queue.claim_settled(row.id);
                line.queue.ended_with(row.id, row.fence);
            }
            self.change(change, row.lane, row.waiter);
        }
    }

    /// Take a waiting row out of hand to end it without a call; return whether that is allowed: not while it
    /// is in a call, or while the result of one is on its way to the log.
    pub(super) fn may_end(&mut self, line: LineId, id: RowId, lane: Lane, dest: &str, fence: i32) -> bool {
        let is_in_call = self.in_flight.contains_key(&id)
            || self.returning.contains_key(&id)
            || self.progress.is_aside(id);
        if is_in_call || !self.owns(line) {
            return false;
        }
        self.line(line).is_none_or(|actor| actor.queue.doom(lane, dest, id, fence))
    }

    /// End waiting rows without a call, except those in a call.
    fn end_doomed(&mut self, rows: Vec<DoomedRow>, kind: ChangeKind, written: oneshot::Sender<bool>) {
        let mut is_any = false;
        for DoomedRow { id, line, lane, dest, fence, waiter, .. } in rows {
            if self.may_end(line, id, lane, &dest, fence) {
                is_any = true;
                self.change(Change::waiting(id, fence, kind.clone()), Lane::Bulk, waiter);
            }
        }
        self.entry(Entry::Barrier(Barrier { done: written, answer: is_any }));
    }
}

fn pause_order(line: LineId, change: PauseChange) -> PauseOrder {
    match change {
        PauseChange::Unopened(reason) => {
            PauseOrder::Pause { scope: PauseScope::Line(line), length: UNOPENED_FOR, reason }
        }
        PauseChange::Opened(reason) => PauseOrder::End { line, reason },
        PauseChange::Replaced => PauseOrder::Resume(line),
    }
}

#[cfg(test)]
mod tests;
