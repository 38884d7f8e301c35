//! The job: a message on RabbitMQ from ingest to the worker that owns a partition.
//!
//! A job names new work by its number in the queue, and carries the messages of small work, so that the
//! worker need not read them. A job carries no secret, and losing one loses nothing: the owner of the
//! partition finds the work in the database. The messages of a job are not trusted: a claim checks each row
//! in the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AccountId, Lane, LineId, Outcome, Partition, RowId, WorkId};
use crate::channel::{Medium, MessageKind};

/// Version of the job's body. A worker discards jobs of an unknown version; scans find the work.
pub const JOB_VERSION: u8 = 2;

/// How much work one job names at most; a scan, which the job asks for with `more`, finds the rest.
pub const MAX_JOB_WORK: usize = 256;

/// How many bytes of recipients, texts and waiters one job carries at most; work beyond is named only.
pub const MAX_JOB_BYTES: usize = 32 * 1024;

/// New work of one flow (line, lane, medium, campaign): `rows` messages, the first of them `first`.
///
/// Written as an array of eight: `[work_id, v8l_id, priority, media, campaign, first_id, rows, messages]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireWork", into = "WireWork")]
pub struct JobWork {
    pub work: WorkId,
    pub line: LineId,
    pub lane: Lane,
    pub medium: Medium,
    /// The campaign; empty for none.
    pub campaign: String,
    pub first: RowId,
    pub rows: u32,
    /// All messages of the work in order of id, or none.
    pub messages: Vec<JobMessage>,
}

type WireWork = (WorkId, LineId, Lane, bool, String, RowId, u32, Vec<JobMessage>);

impl From<WireWork> for JobWork {
    fn from((work, line, lane, media, campaign, first, rows, messages): WireWork) -> JobWork {
        let medium = if media { Medium::Media } else { Medium::Text };
        JobWork { work, line, lane, medium, campaign, first, rows, messages }
    }
}

impl From<JobWork> for WireWork {
    fn from(work: JobWork) -> WireWork {
        let JobWork { work, line, lane, medium, campaign, first, rows, messages } = work;
        (work, line, lane, medium == Medium::Media, campaign, first, rows, messages)
    }
}

impl JobWork {
    /// Return the bytes of recipients, texts and waiters.
    fn bytes(&self) -> usize {
        let waiter = |message: &JobMessage| message.waiter.as_ref().map_or(0, String::len);
        let of = |message: &JobMessage| message.dest.len() + message.mdata.len() + waiter(message);
        self.messages.iter().map(of).sum()
    }
}

/// A new message, with the values that its worker needs.
///
/// Written as an array of seven: `[cdls_id, cdcs_id, mtype, dest, mdata, valid_ms, waiter]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireMessage", into = "WireMessage")]
pub struct JobMessage {
    pub id: RowId,
    pub account: AccountId,
    pub kind: MessageKind,
    pub dest: String,
    pub mdata: String,
    /// How long the message was valid when it was logged.
    pub valid_ms: i64,
    pub waiter: Option<String>,
}

type WireMessage = (RowId, AccountId, MessageKind, String, String, i64, Option<String>);

impl From<WireMessage> for JobMessage {
    fn from((id, account, kind, dest, mdata, valid_ms, waiter): WireMessage) -> JobMessage {
        JobMessage { id, account, kind, dest, mdata, valid_ms, waiter }
    }
}

impl From<JobMessage> for WireMessage {
    fn from(message: JobMessage) -> WireMessage {
        let JobMessage { id, account, kind, dest, mdata, valid_ms, waiter } = message;
        (id, account, kind, dest, mdata, valid_ms, waiter)
    }
}

/// New work of one partition, from one commit or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub v: u8,
    pub work: Vec<JobWork>,
    /// Whether there is work that the job does not name.
    #[serde(default)]
    pub more: bool,
    /// Whether messages were scheduled: the next due time may have changed.
    #[serde(default)]
    pub due: bool,
}

impl Job {
    /// Return a job of a partition that announces nothing yet.
    pub fn empty() -> Job {
        Job { v: JOB_VERSION, work: Vec::new(), more: false, due: false }
    }

    /// Add another job's work, as far as there is room.
    pub fn merge(&mut self, other: Job) {
        let room = MAX_JOB_WORK.saturating_sub(self.work.len());
        self.more |= other.more || other.work.len() > room;
        self.due |= other.due;
        let mut carried: usize = self.work.iter().map(JobWork::bytes).sum();
        for mut work in other.work.into_iter().take(room) {
            if carried + work.bytes() > MAX_JOB_BYTES {
                work.messages.clear();
            }
            carried += work.bytes();
            self.work.push(work);
        }
    }

    /// Return the number of announced messages.
    pub fn rows(&self) -> u32 {
        self.work.iter().fold(0, |rows, work| rows.saturating_add(work.rows))
    }

    /// Return the jobs that announce freshly committed work, messages scheduled on lines, and lines with work
    /// that is not named: one per partition, in order of partition.
    pub fn announcing(
        work: impl IntoIterator<Item = JobWork>,
        scheduled: impl IntoIterator<Item = LineId>,
        unnamed: impl IntoIterator<Item = LineId>,
    ) -> Vec<(Partition, Job)> {
        let mut jobs: BTreeMap<Partition, Job> = BTreeMap::new();
        for line in scheduled {
            jobs.entry(line.partition()).or_insert_with(Job::empty).due = true;
        }
        for line in unnamed {
            jobs.entry(line.partition()).or_insert_with(Job::empty).more = true;
        }
        for work in work {
            let job = jobs.entry(work.line.partition()).or_insert_with(Job::empty);
            job.merge(Job { work: vec![work], ..Job::empty() });
        }
        jobs.into_iter().collect()
    }
}

/// A message from the broker that is no job: the outcome for a waiter of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The ticket after the slash of the row's `waiter`.
    pub ticket: String,
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(id: i64, text: usize) -> JobWork {
        let message = JobMessage {
            id: RowId(id),
            account: AccountId(1),
            kind: MessageKind::Text,
            dest: "2531".into(),
            mdata: "x".repeat(text),
            valid_ms: 1_000,
            waiter: Some("r/1".into()),
        };
        JobWork {
            work: WorkId(id),
            line: LineId(7),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
            first: RowId(id),
            rows: 1,
            messages: vec![message],
        }
    }

    #[test]
    fn reads_back_a_written_job() {
        let job = Job { work: vec![work(1, 3)], more: true, ..Job::empty() };
        let written = serde_json::to_string(&job).expect("it can be written");
        assert_eq!(
            written,
            r#"{"v":2,"work":[[1,7,"high",false,"",1,1,[[1,1,"text","2531","xxx",1000,"r/1"]]]],"more":true,"due":false}"#
        );
        assert_eq!(serde_json::from_str::<Job>(&written).expect("it can be read"), job);
    }

    #[test]
    fn only_names_work_beyond_the_byte_limit() {
        let mut job = Job::empty();
        for id in 1..=3 {
            // The recipient and the waiter have seven bytes.
            job.merge(Job { work: vec![work(id, MAX_JOB_BYTES / 2 - 7)], ..Job::empty() });
        }
        let carried: Vec<usize> = job.work.iter().map(|work| work.messages.len()).collect();
        assert_eq!((carried, job.rows(), job.more), (vec![1, 1, 0], 3, false));
    }
}
