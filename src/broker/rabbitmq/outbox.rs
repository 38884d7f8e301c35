//! What is still to be published, and what was published and not confirmed yet. Knows no network.
//!
//! At most one job of a partition is out; later ones are merged and follow once it is confirmed. Whatever comes
//! back (unroutable, or unconfirmed when a session ends) is merged with what waits. The outbox so holds at most two jobs of a
//! partition, each of a bounded length, however long the broker is away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::message::{Job, Partition};
use crate::metrics::METRICS;

#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Wakes the one publisher.
    filled: Notify,
    /// Wakes the one that waits for the end.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<Partition, Job>,
    out: BTreeMap<Partition, Out>,
    /// The partition that was served last: the next one is the one after it, so that all have their turn.
    last: Option<Partition>,
}

struct Out {
    id: Uuid,
    job: Job,
}

/// A job on its way to the broker. The id goes into `message_id`.
pub(super) struct Parcel {
    pub(super) id: Uuid,
    pub(super) partition: Partition,
    pub(super) job: Job,
}

impl Outbox {
    pub(super) fn add(&self, partition: Partition, job: Job) {
        self.state().wait(partition, job);
        self.filled.notify_one();
    }

    /// The next job that may be published: of a partition that has none out.
    pub(super) fn take_next(&self) -> Option<Parcel> {
        let mut state = self.state();
        let partition = state.next()?;
        state.last = Some(partition);
        let job = state.pending.remove(&partition)?;
        let id = Uuid::now_v7();
        state.out.insert(partition, Out { id, job: job.clone() });
        METRICS.broker.published.increment(1);
        Some(Parcel { id, partition, job })
    }

    /// Whether a job may be published.
    pub(super) fn has_next(&self) -> bool {
        self.state().next().is_some()
    }

    /// The broker has this job. Without effect if it has come back meanwhile.
    pub(super) fn confirmed(&self, partition: Partition, id: Uuid) {
        self.state().take_out(partition, id);
        self.notify();
    }

    /// The broker could not route this job. `body` is what it returned, for a job that is no longer out.
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

    /// The session has ended: what is out may be lost.
    pub(super) fn take_all_back(&self) {
        let mut state = self.state();
        for (partition, out) in std::mem::take(&mut state.out) {
            state.put_back(partition, out.job);
            METRICS.broker.returned.increment(1);
        }
        drop(state);
        self.notify();
    }

    /// Returns when there may be something to take.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Returns when everything was confirmed. For one waiter.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes an announcement in.
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

    /// Puts a job that was out before what has come since: it announces the older work.
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
    use crate::message::{JobWork, Lane, LineId, MAX_JOB_WORK, Medium, MessageId, WorkId};

    const SEVEN: Partition = Partition(7);

    fn job(work: &[i64]) -> Job {
        let named = |&work| JobWork {
            work: WorkId(work),
            line: LineId(7),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
            first: MessageId(work),
            rows: 1,
            messages: Vec::new(),
        };
        Job { work: work.iter().map(named).collect(), ..Job::empty() }
    }

    #[test]
    fn one_job_of_a_partition_is_out_and_the_others_wait_merged() {
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
    fn a_job_that_came_back_is_published_again_and_its_own_confirm_changes_nothing() {
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
    fn a_job_that_comes_back_after_its_confirm_is_read_from_what_was_returned() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[5]));
        let parcel = outbox.take_next().unwrap();
        outbox.confirmed(SEVEN, parcel.id);
        outbox.came_back(SEVEN, Some(parcel.id), || Some(parcel.job));

        assert_eq!(outbox.take_next().unwrap().job, job(&[5]));
    }

    #[test]
    fn what_was_out_when_a_session_ended_is_merged_with_what_waits() {
        let outbox = Outbox::default();
        outbox.add(SEVEN, job(&[5]));
        outbox.take_next().unwrap();
        outbox.add(SEVEN, job(&[6]));
        outbox.take_all_back();

        assert_eq!(outbox.take_next().unwrap().job, job(&[5, 6]));
        assert!(outbox.take_next().is_none());
    }

    #[test]
    fn an_outage_leaves_one_job_of_the_longest_length_that_asks_for_a_scan() {
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
