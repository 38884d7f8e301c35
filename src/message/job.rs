//! The job: what RabbitMQ carries from ingest to the worker that owns a partition.
//!
//! A job names lines that have new rows and the ids they lie between. It carries no text, no recipient and no
//! secret, and losing one loses nothing: the owner of the partition finds the rows in the log.

use serde::{Deserialize, Serialize};

use super::{Lane, LineId, MessageId, Outcome, Partition};

/// Version of the job's body. A worker discards jobs of a version it does not know; the rows are found by scans.
pub const JOB_VERSION: u8 = 1;

/// New rows of one line and lane: `n` rows with ids between `first` and `last`, other rows among them.
///
/// Written as an array of five: `[v8l_id, priority, first_id, last_id, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine(pub LineId, pub Lane, pub MessageId, pub MessageId, pub u32);

impl JobLine {
    /// Takes in what else is announced for the same line and lane.
    pub fn join(&mut self, other: JobLine) {
        self.2 = self.2.min(other.2);
        self.3 = self.3.max(other.3);
        self.4 = self.4.saturating_add(other.4);
    }
}

/// New rows of one partition, from one commit or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub v: u8,
    pub lines: Vec<JobLine>,
}

impl Job {
    /// The job of a partition that announces nothing yet.
    pub fn empty() -> Job {
        Job { v: JOB_VERSION, lines: Vec::new() }
    }

    /// Adds another job's lines, joining what concerns the same line and lane, so that a job is never longer than
    /// twice the number of lines of its partition.
    pub fn merge(&mut self, other: Job) {
        for line in other.lines {
            match self.lines.iter_mut().find(|known| known.0 == line.0 && known.1 == line.1) {
                Some(known) => known.join(line),
                None => self.lines.push(line),
            }
        }
    }

    /// How many rows it announces.
    pub fn rows(&self) -> u32 {
        self.lines.iter().fold(0, |rows, line| rows.saturating_add(line.4))
    }

    /// The jobs that announce freshly committed rows: one per partition, in order of partition.
    pub fn announcing(rows: impl IntoIterator<Item = (LineId, Lane, MessageId)>) -> Vec<(Partition, Job)> {
        let mut jobs: std::collections::BTreeMap<Partition, Job> = Default::default();
        for (line, lane, id) in rows {
            let job = jobs.entry(line.partition()).or_insert_with(Job::empty);
            job.merge(Job { v: JOB_VERSION, lines: vec![JobLine(line, lane, id, id, 1)] });
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
