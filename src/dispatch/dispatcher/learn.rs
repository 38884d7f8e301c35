//! Applies each event to the lines. Never here: claims, calls, or which row is next.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Dispatcher;
use crate::broker::JobDelivery;
use crate::dispatch::event::{ClaimAnswer, Event};
use crate::dispatch::line::LineActions;
use crate::dispatch::send::orphaned;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recorder::{Barrier, Entry};
use crate::dispatch::tasks::upkeep::PauseOrder;
use crate::domain::{JobMessage, JobWork, Lane, LineId, Partition, RowId, WorkId};
use crate::failpoint;
use crate::store::{
    Change, ChangeKind, ClaimedRow, DoomedRow, Flow, HeldRecipient, LineRecord, Position, ReadyRow, WorkHead,
    WorkRead,
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
            Event::ClaimsAnswered(answers) => self.claims_answered(answers),
            Event::Returned(rows) => self.returned(rows),
            Event::Claimed(rows) => self.settle_claimed(rows),
            Event::StillHeld { asked, held } => self.release_held(asked, held),
            Event::Doomed { rows, kind, written } => self.end_doomed(rows, kind, written),
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

    /// Take a job and the jobs behind it, and acknowledge them: their content is noted, and the queue keeps
    /// it.
    pub(super) fn take_jobs(&mut self, first: JobDelivery) {
        let mut next = Some(first);
        while let Some(delivery) = next {
            if delivery.job.more {
                // This and later jobs wait for the look: work of the same lines may exist that the job does
                // not name.
                if self.owned.contains(&delivery.partition) {
                    self.unscanned.insert(delivery.partition, Instant::now());
                }
                self.channels.look.notify_one();
            }
            for mut work in delivery.job.work.iter().cloned() {
                let messages = std::mem::take(&mut work.messages);
                let head = head_of(work);
                if self.wants(&head) {
                    self.take_or_read(head, messages);
                }
            }
            if delivery.job.due {
                self.channels.due.notify_one();
            }
            failpoint::hit("before_job_ack");
            delivery.ack();
            next = self.channels.jobs.try_recv().ok();
        }
    }

    fn announced(&mut self, head: &WorkHead) {
        if self.wants(head) {
            self.read(head.flow.line, head.position.work);
        }
    }

    /// Whether announced work is to be read at once.
    fn wants(&mut self, head: &WorkHead) -> bool {
        let id = head.flow.line;
        if !self.owns(id) {
            return false;
        }
        let is_scanned = !self.unscanned.contains_key(&id.partition());
        let line = self.line_or_new(id);
        if !is_scanned {
            // Older rows may wait, and would be overtaken.
            line.queue.note_news(head);
            return false;
        }
        let may_read = line.may_read(Instant::now());
        line.queue.announced(head, may_read)
    }

    fn read(&mut self, line: LineId, work: WorkId) {
        self.line_or_new(line).queue.asked(work);
        self.request(Request::Work(line, work));
    }

    /// Take work whose messages a job carries; read it if the job only names it, or while older work is being
    /// read.
    fn take_or_read(&mut self, head: WorkHead, messages: Vec<JobMessage>) {
        let WorkHead { position, flow, rows } = head;
        let line = flow.line;
        let queue = &self.line_or_new(line).queue;
        // A row that holds its recipient was tried before: the job comes a second time.
        let is_repeated =
            messages.iter().any(|message| queue.is_held_by(flow.lane, &message.dest, message.id));
        if messages.len() != rows as usize || is_repeated || queue.is_asking() {
            self.read(line, position.work);
            return;
        }
        let rows = messages.into_iter().map(|message| ready(message, position.work, &flow)).collect();
        let read = WorkRead { position, flow, rows };
        let ended = self.line_or_new(line).queue.read_work(position.work, Some(read));
        self.work_ended(ended);
    }

    fn work_read(&mut self, asked: Vec<(LineId, WorkId)>, read: Vec<WorkRead>) {
        let mut read: HashMap<WorkId, WorkRead> =
            read.into_iter().map(|read| (read.position.work, read)).collect();
        for (line, work) in asked {
            if self.owns(line) {
                let ended = self.line_or_new(line).queue.read_work(work, read.remove(&work));
                self.work_ended(ended);
            }
        }
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
                if line.configure(&record, &self.options.limits, pause_written, now) {
                    // Gone only when the process ends.
                    let _ = self.channels.orders.send(PauseOrder::Resume(record.id));
                }
                self.dirty.insert(record.id);
            }
        }
        for id in missing {
            if let Some(line) = self.line(id) {
                line.deconfigure();
            }
        }
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

/// Return the row of a message that has had no call yet.
fn ready(message: JobMessage, work: WorkId, flow: &Flow) -> ReadyRow {
    let JobMessage { id, account, kind, dest, mdata, valid_ms, waiter } = message;
    ReadyRow {
        id,
        work,
        line: flow.line,
        account,
        lane: flow.lane,
        kind,
        cp_id: Some(flow.campaign.clone()).filter(|campaign| !campaign.is_empty()),
        dest,
        mdata,
        fence: 0,
        attempts: 0,
        tries: 0,
        valid_for: time::Duration::milliseconds(valid_ms),
        waiter,
    }
}

fn head_of(JobWork { work, line, lane, medium, campaign, first, rows, .. }: JobWork) -> WorkHead {
    WorkHead { position: Position { first, work }, flow: Flow { line, lane, medium, campaign }, rows }
}

#[cfg(test)]
mod tests;
