//! The job: what RabbitMQ carries from ingest to the worker that owns a partition.
//!
//! A job names new work by its number in the queue, and carries the messages of small work, so that the worker need not read
//! them. It carries no secret, and losing one loses nothing: the owner of the partition finds the work in the database. The messages of
//! a job are not trusted: a claim looks at each row in the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AccountId, Lane, LineId, Medium, MessageId, MessageKind, Outcome, Partition, WorkId};

/// Version of the job's body. A worker discards jobs of a version it does not know; the work is found by scans.
pub const JOB_VERSION: u8 = 2;

/// Work one job names at most; what is beyond is found by a scan, which the job asks for with `more`.
pub const MAX_JOB_WORK: usize = 256;

/// Bytes of recipients and texts that one job carries at most; work beyond is named only.
pub const MAX_JOB_BYTES: usize = 32 * 1024;

/// New work of one flow (line, lane, medium, campaign): `rows` messages, the first of them `first`.
///
/// Written as an array of eight: `[work_id, v8l_id, priority, media, campaign, first_id, rows, messages]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct JobWork {
    pub work: WorkId,
    pub line: LineId,
    pub lane: Lane,
    pub medium: Medium,
    /// Empty: none.
    pub campaign: String,
    pub first: MessageId,
    pub rows: u32,
    /// All of its messages in order of id, or none.
    pub messages: Vec<JobMessage>,
}

type Written = (WorkId, LineId, Lane, bool, String, MessageId, u32, Vec<JobMessage>);

impl From<Written> for JobWork {
    fn from((work, line, lane, media, campaign, first, rows, messages): Written) -> JobWork {
        let medium = if media { Medium::Media } else { Medium::Text };
        JobWork { work, line, lane, medium, campaign, first, rows, messages }
    }
}

impl From<JobWork> for Written {
    fn from(work: JobWork) -> Written {
        let JobWork { work, line, lane, medium, campaign, first, rows, messages } = work;
        (work, line, lane, medium == Medium::Media, campaign, first, rows, messages)
    }
}

impl JobWork {
    /// Bytes it carries.
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.dest.len() + message.mdata.len()).sum()
    }
}

/// A new message, as its worker needs it.
///
/// Written as an array of seven: `[cdls_id, cdcs_id, mtype, dest, mdata, valid_ms, waiter]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenMessage", into = "WrittenMessage")]
pub struct JobMessage {
    pub id: MessageId,
    pub account: AccountId,
    pub kind: MessageKind,
    pub dest: String,
    pub mdata: String,
    /// How long it was valid when it was logged.
    pub valid_ms: i64,
    pub waiter: Option<String>,
}

type WrittenMessage = (MessageId, AccountId, MessageKind, String, String, i64, Option<String>);

impl From<WrittenMessage> for JobMessage {
    fn from((id, account, kind, dest, mdata, valid_ms, waiter): WrittenMessage) -> JobMessage {
        JobMessage { id, account, kind, dest, mdata, valid_ms, waiter }
    }
}

impl From<JobMessage> for WrittenMessage {
    fn from(message: JobMessage) -> WrittenMessage {
        let JobMessage { id, account, kind, dest, mdata, valid_ms, waiter } = message;
        (id, account, kind, dest, mdata, valid_ms, waiter)
    }
}

/// New work of one partition, from one commit or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub v: u8,
    pub work: Vec<JobWork>,
    /// There is work that the job does not name.
    #[serde(default)]
    pub more: bool,
    /// Messages were scheduled: the next time that one is due may have changed.
    #[serde(default)]
    pub due: bool,
}

impl Job {
    /// The job of a partition that announces nothing yet.
    pub fn empty() -> Job {
        Job { v: JOB_VERSION, work: Vec::new(), more: false, due: false }
    }

    /// Adds another job's work, as far as there is room.
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

    /// How many messages it announces.
    pub fn rows(&self) -> u32 {
        self.work.iter().fold(0, |rows, work| rows.saturating_add(work.rows))
    }

    /// The jobs that announce freshly committed work, messages scheduled on lines, and lines with work that is not named: one
    /// per partition, in order of partition.
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

/// What a process hears from the broker besides jobs: the outcome for one of its own waiters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The ticket that stands after the slash of the row's `waiter`.
    pub ticket: String,
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(id: i64, text: usize) -> JobWork {
        let message = JobMessage {
            id: MessageId(id),
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
            first: MessageId(id),
            rows: 1,
            messages: vec![message],
        }
    }

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let job = Job { work: vec![work(1, 3)], more: true, ..Job::empty() };
        let written = serde_json::to_string(&job).expect("it can be written");
        assert_eq!(
            written,
            r#"{"v":2,"work":[[1,7,"high",false,"",1,1,[[1,1,"text","2531","xxx",1000,"r/1"]]]],"more":true,"due":false}"#
        );
        assert_eq!(serde_json::from_str::<Job>(&written).expect("it can be read"), job);
    }

    #[test]
    fn work_beyond_the_bytes_of_a_job_is_named_only() {
        let mut job = Job::empty();
        for id in 1..=3 {
            job.merge(Job { work: vec![work(id, MAX_JOB_BYTES / 2 - 4)], ..Job::empty() });
        }
        let carried: Vec<usize> = job.work.iter().map(|work| work.messages.len()).collect();
        assert_eq!((carried, job.rows(), job.more), (vec![1, 1, 0], 3, false));
    }
}
