//! What each event changes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use crate::broker::JobDelivery;
use crate::dispatch::Event;
use crate::dispatch::line::Steps;
use crate::dispatch::reader::Request;
use crate::dispatch::send::orphaned;
use crate::dispatch::upkeep::Order;
use crate::failpoint;
use crate::message::{JobLine, Lane, LineId, MessageId, Partition, Status};
use crate::store::{Change, ClaimedRow, Flow, HeldRecipient, LineRecord, RangeRead, ReadyRow};

/// Rows of a line and lane that have become ready at once and are asked for by their ids.
const FETCHED_ONE_BY_ONE: usize = 8;

impl Dispatcher {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Gained { partitions, held } => self.gain(partitions, held),
            Event::Lost { partitions, stopped } => {
                self.lose(&partitions);
                // The keeper is gone only when the process ends.
                let _ = stopped.send(());
            }
            Event::Rows(rows) => rows.into_iter().for_each(|row| self.offer(row)),
            Event::Flows(reads) => {
                for (read, rows) in reads {
                    if let Some(line) = self.line(read.flow.line) {
                        line.queue.read(&read, rows);
                    }
                }
            }
            Event::FlowsFailed(flows) => {
                for flow in flows {
                    if let Some(line) = self.line(flow.line) {
                        line.queue.read_failed(&flow);
                    }
                }
            }
            Event::Ready { scanned, flows } => {
                self.unscanned.retain(|partition| !scanned.contains(partition));
                self.found(flows);
            }
            Event::Promoted(rows) => self.promoted(rows),
            Event::Lines { asked, records, pause_written } => self.configure(asked, records, pause_written),
            Event::ClaimsAnswered(answers) => self.claims_answered(answers),
            Event::Claimed(rows) => self.settle_claimed(rows),
            Event::StillHeld { asked, held } => self.release_held(asked, held),
            // That it arrived has woken the loop.
            Event::LogIsBack => {}
        }
    }

    fn gain(&mut self, partitions: Vec<Partition>, held: Vec<HeldRecipient>) {
        self.unscanned.extend(partitions.iter().filter(|partition| !self.owned.contains(partition)));
        self.owned.extend(partitions);
        let now = Instant::now();
        for recipient in held {
            self.line_or_new(recipient.line).hold(&recipient);
            // A call of the owner before us may end at any moment; a retry is not due before its time.
            let wait = if recipient.status == Status::Sending { Duration::ZERO } else { recipient.wait };
            self.watch_held(now + wait, recipient.by, recipient.line, recipient.lane, recipient.dest);
        }
    }

    fn lose(&mut self, partitions: &[Partition]) {
        self.owned.retain(|partition| !partitions.contains(partition));
        self.unscanned.retain(|partition| !partitions.contains(partition));
        let gone: Vec<LineId> =
            self.lines.keys().copied().filter(|line| partitions.contains(&line.partition())).collect();
        for id in gone {
            if let Some(mut line) = self.lines.remove(&id) {
                self.reserved -= line.reserved();
                self.abandoned.extend(line.open_claims());
                let mut steps = Steps::default();
                line.abandon(&mut steps);
                self.record_changes(steps.changes);
            }
            self.forget_wake(id);
        }
    }

    /// Whether what is announced of a line may be read now: it is ours, and a scan has found what is older.
    fn hears_of(&self, line: LineId) -> bool {
        let partition = line.partition();
        self.owned.contains(&partition) && !self.unscanned.contains(&partition)
    }

    /// Takes a job and those that wait behind it, and acknowledges: what they told is noted, and the log has it.
    pub(super) fn take_jobs(&mut self, first: JobDelivery) {
        let mut next = Some(first);
        while let Some(delivery) = next {
            for JobLine(line, lane, first, last, rows) in delivery.job.lines.iter().copied() {
                if self.hears_of(line) {
                    let actor = self.line_or_new(line);
                    if let Some(read) = actor.announced(lane, first, last, rows) {
                        self.request(Request::Range(read));
                    }
                }
            }
            failpoint::hit("before_job_ack");
            delivery.ack();
            next = self.channels.jobs.try_recv().ok();
        }
    }

    fn offer(&mut self, row: ReadyRow) {
        if self.owns(row.line) {
            self.line_or_new(row.line).queue.offer(row);
        }
    }

    /// Rows that have become ready: few of a line are fetched one by one, in order, so that none overtakes another of
    /// its recipient; many by reading their flows again.
    fn promoted(&mut self, rows: Vec<(LineId, Lane, MessageId)>) {
        let mut ids_of: BTreeMap<(LineId, Lane), Vec<MessageId>> = BTreeMap::new();
        for (line, lane, id) in rows {
            if self.hears_of(line) {
                ids_of.entry((line, lane)).or_default().push(id);
            }
        }
        for ((line, lane), mut ids) in ids_of {
            ids.sort_unstable();
            let lowest = ids.first().copied();
            let queue = &mut self.line_or_new(line).queue;
            match lowest.filter(|_| ids.len() > FETCHED_ONE_BY_ONE) {
                Some(lowest) => queue.expect(lane, lowest),
                None => ids.into_iter().for_each(|id| {
                    self.request(Request::Range(RangeRead { line, lane, first: id, last: id, limit: 1 }));
                }),
            }
        }
    }

    fn found(&mut self, flows: Vec<(Flow, MessageId)>) {
        for (flow, lowest) in flows {
            if self.owns(flow.line) {
                self.line_or_new(flow.line).queue.found(&flow, lowest);
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
                    let _ = self.channels.orders.send(Order::Resume(record.id));
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

    pub(super) fn claims_answered(&mut self, answers: Vec<(LineId, MessageId, bool)>) {
        let now = Instant::now();
        for (id, message, made) in answers {
            if let Some(fence) = self.abandoned.remove(&message) {
                if made {
                    self.record_changes(vec![(Change::Release { id: message, fence }, None)]);
                }
                continue;
            }
            self.reserved -= usize::from(!made);
            if let Some(line) = self.line(id)
                && let Some((lane, dest)) = line.claim_answered(message, made)
            {
                self.watch_held(now, message, id, lane, dest);
            }
        }
    }

    /// Settles claims that have no call: our own that were never written, and those whose worker is gone.
    fn settle_claimed(&mut self, rows: Vec<ClaimedRow>) {
        if self.progress.is_stalled() {
            return;
        }
        for row in rows {
            let ours = row.worker == self.worker;
            let in_hand = self.tickets.contains_key(&row.id)
                || self.lines.get(&row.line).is_some_and(|line| line.queue.in_call(row.id));
            if in_hand {
                continue;
            }
            let (id, fence) = (row.id, row.fence);
            let released = row.overdue && failpoint::defect("dead_claims_released");
            let change = if ours || released {
                Change::Release { id, fence }
            } else if row.overdue {
                orphaned(&row, &self.options.retry)
            } else {
                continue;
            };
            self.record_changes(vec![(change, row.waiter)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::dispatcher::fixture::Fixture;
    use crate::message::Job;

    const LINE: LineId = LineId(1);

    #[tokio::test]
    async fn what_is_announced_in_a_partition_is_read_only_after_its_first_scan() {
        let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
        let partition = LINE.partition();
        let announce = |dispatcher: &mut Dispatcher, id| {
            let lines = vec![JobLine(LINE, Lane::High, MessageId(id), MessageId(id), 1)];
            dispatcher.take_jobs(JobDelivery::new(partition, Job { lines, ..Job::empty() }, || {}));
        };
        let mut is_read = || {
            std::iter::from_fn(|| asked.try_recv().ok()).any(|request| matches!(request, Request::Range(_)))
        };

        dispatcher.handle(Event::Gained { partitions: vec![partition], held: Vec::new() });
        announce(&mut dispatcher, 7);
        dispatcher.handle(Event::Promoted(vec![(LINE, Lane::High, MessageId(8))]));
        assert!(!is_read(), "older rows may wait");
        dispatcher.handle(Event::Ready { scanned: Vec::new(), flows: Vec::new() });
        announce(&mut dispatcher, 9);
        assert!(!is_read(), "a scan of other partitions");
        dispatcher.handle(Event::Ready { scanned: vec![partition], flows: Vec::new() });
        announce(&mut dispatcher, 10);
        assert!(is_read());
    }
}
