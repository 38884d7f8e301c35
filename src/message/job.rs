//! The job: what RabbitMQ carries from ingest to the worker that owns a partition.
//!
//! A job names new work by its number in the queue. It carries no text, no recipient and no secret, and losing one loses
//! nothing: the owner of the partition finds the work in the database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lane, LineId, Medium, MessageId, Outcome, Partition, WorkId};

/// Version of the job's body. A worker discards jobs of a version it does not know; the work is found by scans.
pub const JOB_VERSION: u8 = 2;

/// Work one job names at most; what is beyond is found by a scan, which the job asks for with `more`.
pub const MAX_JOB_WORK: usize = 256;

/// New work of one flow (line, lane, medium, campaign): `rows` messages, the first of them `first`.
///
/// Written as an array of seven: `[work_id, v8l_id, priority, media, campaign, first_id, rows]`.
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
}

type Written = (WorkId, LineId, Lane, bool, String, MessageId, u32);

impl From<Written> for JobWork {
    fn from((work, line, lane, media, campaign, first, rows): Written) -> JobWork {
        let medium = if media { Medium::Media } else { Medium::Text };
        JobWork { work, line, lane, medium, campaign, first, rows }
    }
}

impl From<JobWork> for Written {
    fn from(JobWork { work, line, lane, medium, campaign, first, rows }: JobWork) -> Written {
        (work, line, lane, medium == Medium::Media, campaign, first, rows)
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
}

impl Job {
    /// The job of a partition that announces nothing yet.
    pub fn empty() -> Job {
        Job { v: JOB_VERSION, work: Vec::new(), more: false }
    }

    /// Adds another job's work, as far as there is room.
    pub fn merge(&mut self, other: Job) {
        let room = MAX_JOB_WORK.saturating_sub(self.work.len());
        self.more |= other.more || other.work.len() > room;
        self.work.extend(other.work.into_iter().take(room));
    }

    /// How many messages it announces.
    pub fn rows(&self) -> u32 {
        self.work.iter().fold(0, |rows, work| rows.saturating_add(work.rows))
    }

    /// The jobs that announce freshly committed work: one per partition, in order of partition.
    pub fn announcing(work: impl IntoIterator<Item = JobWork>) -> Vec<(Partition, Job)> {
        let mut jobs: BTreeMap<Partition, Job> = BTreeMap::new();
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
