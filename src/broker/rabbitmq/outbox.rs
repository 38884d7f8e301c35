//! The jobs to be published, and those published and not confirmed yet. Never here: the network.
//!
//! At most one job of a partition is out; later ones are merged and follow once it is confirmed. A job that
//! comes back (unroutable, or unconfirmed when a session ends) is merged with the waiting one. The outbox so
//! holds at most two jobs of a partition, each of a bounded length, however long the broker is away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::{Job, Partition};
use crate::metrics::METRICS;

#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<OutboxState>,
    /// Wakes the one publisher.
    filled: Notify,
    /// Wakes the task that waits for the end.
    emptied: Notify,
}

#[derive(Default)]
struct OutboxState {
    pending: BTreeMap<Partition, Job>,
    out: BTreeMap<Partition, UnconfirmedJob>,
    /// The partition that was served last: the next one is the one after it, so that all have their turn.
    last: Option<Partition>,
}

struct UnconfirmedJob {
    id: Uuid,
    job: Job,
}

/// A job on its way to the broker. The id goes into `message_id`.
pub(super) struct OutgoingJob {
    pub(super) id: Uuid,
    pub(super) partition: Partition,
    pub(super) job: Job,
}

impl Outbox {
    pub(super) fn add(&self, partition: Partition, job: Job) {
        self.state().wait(partition, job);
        self.filled.notify_one();
    }

    /// Return the next job that may be published: of a partition that has none out.
    pub(super) fn take_next(&self) -> Option<OutgoingJob> {
        let mut state = self.state();
        let partition = state.next()?;
        state.last = Some(partition);
        let job = state.pending.remove(&partition)?;
        let id = Uuid::now_v7();
        state.out.insert(partition, UnconfirmedJob { id, job: job.clone() });
        METRICS.broker.published.increment(1);
        Some(OutgoingJob { id, partition, job })
    }

    /// Whether a job may be published.
    pub(super) fn has_next(&self) -> bool {
        self.state().next().is_some()
    }

    /// Note that the broker has this job. Without effect if it has come back meanwhile.
    pub(super) fn confirmed(&self, partition: Partition, id: Uuid) {
        self.state().take_out(partition, id);
        self.notify();
    }

    /// Take a job back that the broker could not route. `body` is the returned body, for a job that is no
    /// longer out.
    pub(super) fn came_back(
        &self,
        partition: Partition,
        id: Option<Uuid>,
        body: impl FnOnce() -> Option<Job>,
    ) {
        let mut state = self.state();
        if let Some(job) = id.and_then(|id| state.take_out(partition, id)).or_else(body) {
            state.put_back(partition, job);
            METRICS.broker.returned.increment(1);
        }
        drop(state);
        self.notify();
    }

    /// Take all jobs back at the end of a session: jobs that are out may be lost.
    pub(super) fn take_all_back(&self) {
        let mut state = self.state();
        for (partition, out) in std::mem::take(&mut state.out) {
            state.put_back(partition, out.job);
            METRICS.broker.returned.increment(1);
        }
        drop(state);
        self.notify();
    }

    /// Wait until there may be a job to take.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Wait until everything was confirmed. For one waiter.
    pub(super) async fn emptied(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }

    fn is_empty(&self) -> bool {
        let state = self.state();
        state.pending.is_empty() && state.out.is_empty()
    }

    fn notify(&self) {
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock()
    }
}

impl OutboxState {
    /// Take an announcement in.
    fn wait(&mut self, partition: Partition, job: Job) {
        METRICS.broker.announced.increment(1);
        match self.pending.entry(partition) {
            Entry::Occupied(waiting) => {
                METRICS.broker.merged.increment(1);
                waiting.into_mut().merge(job);
            }
            Entry::Vacant(place) => {
                place.insert(job);
            }
        }
    }

    /// Put a returned job before later ones: it announces the older work.
    fn put_back(&mut self, partition: Partition, mut job: Job) {
        if let Some(later) = self.pending.remove(&partition) {
            job.merge(later);
        }
        self.pending.insert(partition, job);
    }

    fn next(&self) -> Option<Partition> {
        let is_free = |partition: &&Partition| !self.out.contains_key(partition);
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let following = self.pending.range((after, Bound::Unbounded)).map(|(partition, _)| partition);
        following.chain(self.pending.keys()).find(is_free).copied()
    }

    fn take_out(&mut self, partition: Partition, id: Uuid) -> Option<Job> {
        if self.out.get(&partition).is_some_and(|out| out.id == id) {
            self.out.remove(&partition).map(|out| out.job)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Medium;
    use crate::domain::{JobWork, Lane, LineId, MAX_JOB_WORK, RowId, WorkId};

    const SEVEN: Partition = Partition(7);

    fn job(work: &[i64]) -> Job {
        let named = |&work| JobWork {
            work: WorkId(work),
            line: LineId(7),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
            first: RowId(work),
            rows: 1,
            messages: Vec::new(),
        };
        Job { work: work.iter().map(named).collect(), ..Job::empty() }
    }

    #[test]
    fn keeps_one_job_of_a_partition_out() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[1]));
        let out = outbox.take_next().unwrap();
        outbox.add(SEVEN, job(&[2]));
        outbox.add(SEVEN, job(&[3]));
        outbox.add(Partition(8), Job::empty());

        assert_eq!(outbox.take_next().unwrap().partition, Partition(8));
        assert!(outbox.take_next().is_none());
        outbox.confirmed(SEVEN, out.id);
        assert_eq!(outbox.take_next().unwrap().job, job(&[2, 3]));
    }

    #[test]
    fn publishes_a_returned_job_again() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[5]));
        let first = outbox.take_next().unwrap();
        outbox.came_back(SEVEN, Some(first.id), || Some(job(&[5])));
        let second = outbox.take_next().unwrap();
        outbox.confirmed(SEVEN, first.id);

        assert_eq!(second.job, job(&[5]));
        assert!(!outbox.is_empty(), "the second is still out");
        outbox.confirmed(SEVEN, second.id);
        assert!(outbox.is_empty());
    }

    #[test]
    fn reads_a_late_return_from_its_body() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[5]));
        let taken = outbox.take_next().unwrap();
        outbox.confirmed(SEVEN, taken.id);
        outbox.came_back(SEVEN, Some(taken.id), || Some(taken.job));

        assert_eq!(outbox.take_next().unwrap().job, job(&[5]));
    }

    #[test]
    fn merges_lost_jobs_with_waiting_ones() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[5]));
        outbox.take_next().unwrap();
        outbox.add(SEVEN, job(&[6]));
        outbox.take_all_back();

        assert_eq!(outbox.take_next().unwrap().job, job(&[5, 6]));
        assert!(outbox.take_next().is_none());
    }

    #[test]
    fn asks_for_a_scan_after_a_long_outage() {
        let outbox = Outbox::default();
        for work in 0..10_000 {
            outbox.add(SEVEN, job(&[work]));
        }

        let waiting = outbox.take_next().unwrap().job;
        assert_eq!(waiting.work.len(), MAX_JOB_WORK);
        assert!(waiting.more);
        outbox.take_all_back();
        assert_eq!(outbox.take_next().unwrap().job, waiting);
    }
}
