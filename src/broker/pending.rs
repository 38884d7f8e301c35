//! A job that still grows. Adding to it costs the same however many lines it holds, which matters while a broker
//! is away and every commit is merged into what waits.

use std::collections::HashMap;

use crate::message::{JOB_VERSION, Job, JobLine, Lane, LineId};

/// Announcements of one partition that wait to be published.
#[derive(Default)]
pub(super) struct PendingJob {
    lines: Vec<JobLine>,
    places: HashMap<(LineId, Lane), usize>,
}

impl PendingJob {
    pub(super) fn merge(&mut self, job: Job) {
        for line in job.lines {
            match self.places.get(&(line.0, line.1)) {
                Some(&place) => self.lines[place].join(line),
                None => {
                    self.places.insert((line.0, line.1), self.lines.len());
                    self.lines.push(line);
                }
            }
        }
    }

    pub(super) fn into_job(self) -> Job {
        Job { v: JOB_VERSION, lines: self.lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    fn line(line: i64, lane: Lane, first: i64, last: i64, n: u32) -> JobLine {
        JobLine(LineId(line), lane, MessageId(first), MessageId(last), n)
    }

    fn job(lines: Vec<JobLine>) -> Job {
        Job { v: JOB_VERSION, lines }
    }

    #[test]
    fn the_same_line_and_lane_is_joined_and_others_stand_beside_it() {
        let mut pending = PendingJob::default();
        pending.merge(job(vec![line(7, Lane::High, 10, 12, 3), line(7, Lane::Bulk, 11, 11, 1)]));
        pending.merge(job(vec![line(71, Lane::High, 5, 6, 2), line(7, Lane::High, 4, 11, 2)]));

        assert_eq!(
            pending.into_job(),
            job(vec![
                line(7, Lane::High, 4, 12, 5),
                line(7, Lane::Bulk, 11, 11, 1),
                line(71, Lane::High, 5, 6, 2),
            ])
        );
    }

    #[test]
    fn merging_agrees_with_the_job_s_own_merge() {
        let jobs =
            || (0..200).map(|i| job(vec![line(i % 9, Lane::ALL[(i % 2) as usize], 1_000 - i, 1_000 + i, 1)]));
        let mut pending = PendingJob::default();
        let mut plain = Job::empty();
        jobs().for_each(|job| pending.merge(job));
        jobs().for_each(|job| plain.merge(job));

        assert_eq!(pending.into_job(), plain);
    }
}
