//! Work that jobs and events announce: taken into hand at once, read, or left to a look.

use std::collections::HashMap;

use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::broker::JobDelivery;
use crate::dispatch::tasks::reader::Request;
use crate::domain::{JobMessage, JobWork, LineId, WorkId};
use crate::failpoint;
use crate::store::{Contact, Flow, Position, ReadyRow, WorkHead, WorkRead};

impl Dispatcher {
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

    pub(super) fn announced(&mut self, head: &WorkHead) {
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
        if self.options.recipients.are_any() {
            self.line_or_new(line).queue.asked(position.work);
            self.request(Request::Carried(line, read));
            return;
        }
        let ended = self.line_or_new(line).queue.read_work(position.work, Some(read));
        self.work_ended(ended);
    }

    pub(super) fn work_read(&mut self, asked: Vec<(LineId, WorkId)>, read: Vec<WorkRead>) {
        let mut read: HashMap<WorkId, WorkRead> =
            read.into_iter().map(|read| (read.position.work, read)).collect();
        for (line, work) in asked {
            if self.owns(line) {
                let ended = self.line_or_new(line).queue.read_work(work, read.remove(&work));
                self.work_ended(ended);
            }
        }
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
        contact: Contact::default(),
    }
}

pub(super) fn head_of(JobWork { work, line, lane, medium, campaign, first, rows, .. }: JobWork) -> WorkHead {
    WorkHead { position: Position { first, work }, flow: Flow { line, lane, medium, campaign }, rows }
}
