//! The broker of a single process: the same contract as RabbitMQ over channels of this process.
//!
//! At most one job per partition is out at a time; later jobs are merged and follow once that one is
//! acknowledged. Memory is so bounded by the longest job of each partition, and an unread channel holds no
//! part up. Nothing is stored: after a restart the owner's scans find the work in the database.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::interface::MAX_QUEUED_REPLIES;
use super::{Arrivals, Broker, BrokerState, IntakeBatch, JobDelivery, Rejected};
use crate::domain::{AccountId, Job, PARTITIONS, Partition, Reply, ReplyTo};
use crate::metrics::METRICS;

/// One place for the job of each partition that can be out, and as many again for threads that reserve a
/// place and have nothing to put there, so that another thread's publish never goes without.
const CHANNEL_CAPACITY: usize = 2 * PARTITIONS as usize;

/// The queue inside this process.
pub struct EmbeddedBroker {
    address: String,
    queue: Arc<EmbeddedQueue>,
}

impl EmbeddedBroker {
    pub fn open() -> (Arc<EmbeddedBroker>, Arrivals) {
        let (jobs_out, jobs) = mpsc::channel(CHANNEL_CAPACITY);
        let (replies_out, replies) = mpsc::channel(MAX_QUEUED_REPLIES);
        let queue = EmbeddedQueue(Mutex::new(EmbeddedState {
            out: Some(ArrivalSenders { jobs: jobs_out, replies: replies_out }),
            wanted: BTreeSet::new(),
            pending: BTreeMap::new(),
            unacked: BTreeSet::new(),
        }));
        let address = format!("embedded.{}", Uuid::now_v7());
        (Arc::new(EmbeddedBroker { address, queue: Arc::new(queue) }), Arrivals { jobs, replies })
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn publish(&self, partition: Partition, job: Job) {
        self.queue.state().wait(partition, job);
        self.queue.deliver();
    }

    fn consume(&self, partitions: &[Partition]) {
        self.queue.state().wanted = partitions.iter().copied().collect();
        self.queue.deliver();
    }

    fn reply_address(&self) -> &str {
        &self.address
    }

    fn reply(&self, address: &str, reply: Reply) {
        let replies = self.queue.state().out.as_ref().map(|out| out.replies.clone());
        let delivered =
            address == self.address && replies.is_some_and(|replies| replies.try_send(reply).is_ok());
        if !delivered {
            tracing::debug!(address, "a reply found nobody to take it; its outcome stands in the log");
        }
    }

    fn take_in(&self, _longest_body: usize) -> Option<mpsc::Receiver<IntakeBatch>> {
        None
    }

    /// No client is connected but this process. A row that came over RabbitMQ may still end here, where an
    /// operator has changed `broker.url` meanwhile.
    fn answer(&self, to: &ReplyTo, _envelope: Vec<u8>) {
        METRICS.broker.answers_dropped.increment(1);
        tracing::debug!(queue = to.queue, "an answer to a producer cannot be sent over the embedded queue");
    }

    async fn reject(&self, _rejected: Rejected) -> bool {
        false
    }

    fn event(&self, _account: AccountId, _key: &str, _event: Vec<u8>) {}

    fn state(&self) -> BrokerState {
        if self.queue.state().out.is_some() { BrokerState::Up } else { BrokerState::Down }
    }

    /// End the arrivals. Pending jobs have no consumer left, as the consumer is this process.
    async fn close(&self, _grace: Duration) {
        self.queue.state().out = None;
    }
}

struct EmbeddedQueue(Mutex<EmbeddedState>);

struct EmbeddedState {
    /// `None` once closed.
    out: Option<ArrivalSenders>,
    wanted: BTreeSet<Partition>,
    pending: BTreeMap<Partition, Job>,
    /// Partitions with a job in the channel or in the consumer's hands.
    unacked: BTreeSet<Partition>,
}

#[derive(Clone)]
struct ArrivalSenders {
    jobs: mpsc::Sender<JobDelivery>,
    replies: mpsc::Sender<Reply>,
}

impl EmbeddedQueue {
    fn state(&self) -> MutexGuard<'_, EmbeddedState> {
        self.0.lock()
    }

    /// Deliver pending jobs of consumed partitions, one per partition. The lock is never held while a
    /// delivery is made or dropped, because an unacknowledged one comes back here.
    fn deliver(self: &Arc<Self>) {
        loop {
            let Some(jobs) = self.state().out.as_ref().map(|out| out.jobs.clone()) else { return };
            // Fails only without a reader: see CHANNEL_CAPACITY.
            let Ok(place) = jobs.try_reserve_owned() else { return };
            let Some((partition, job)) = self.state().take_next() else { return };
            let unacked = UnackedJob { queue: Arc::downgrade(self), partition, unacked: Some(job.clone()) };
            place.send(JobDelivery::new(partition, job, move || unacked.acknowledge()));
        }
    }
}

impl EmbeddedState {
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

    fn take_next(&mut self) -> Option<(Partition, Job)> {
        let next =
            |partition: &&Partition| self.wanted.contains(partition) && !self.unacked.contains(partition);
        let partition = *self.pending.keys().find(next)?;
        let job = self.pending.remove(&partition)?;
        self.unacked.insert(partition);
        METRICS.broker.published.increment(1);
        Some((partition, job))
    }
}

/// The content of a delivery: dropped without an acknowledgement, it puts its job back.
struct UnackedJob {
    queue: Weak<EmbeddedQueue>,
    partition: Partition,
    unacked: Option<Job>,
}

impl UnackedJob {
    fn acknowledge(mut self) {
        self.unacked = None;
    }
}

impl Drop for UnackedJob {
    fn drop(&mut self) {
        let Some(queue) = self.queue.upgrade() else { return };
        let mut state = queue.state();
        state.unacked.remove(&self.partition);
        if let Some(job) = self.unacked.take() {
            state.put_back(self.partition, job);
        }
        drop(state);
        queue.deliver();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Medium;
    use crate::domain::{JobWork, Lane, LineId, MAX_JOB_WORK, RowId, WorkId};

    fn job(line: i64, work: i64) -> Job {
        let work = JobWork {
            work: WorkId(work),
            line: LineId(line),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
            first: RowId(work),
            rows: 1,
            messages: Vec::new(),
        };
        Job { work: vec![work], ..Job::empty() }
    }

    #[test]
    fn merges_jobs_of_an_unread_channel() {
        let (broker, mut arrivals) = EmbeddedBroker::open();
        broker.consume(&Partition::all().collect::<Vec<_>>());
        for id in 0..10_000 {
            broker.publish(LineId(id % 64).partition(), job(id % 64, id));
        }

        let mut rows = 0;
        let mut deliveries = 0;
        while let Ok(delivery) = arrivals.jobs.try_recv() {
            rows += delivery.job.rows();
            deliveries += 1;
            delivery.ack();
        }
        assert_eq!(rows, 10_000);
        assert_eq!(deliveries, 128, "one that went out at once and one that was merged, for each partition");
    }

    #[test]
    fn asks_for_a_scan_beyond_the_longest_job() {
        let (broker, mut arrivals) = EmbeddedBroker::open();
        for work in 0..1_000 {
            broker.publish(Partition(7), job(7, work));
        }
        broker.consume(&[Partition(7)]);

        let delivery = arrivals.jobs.try_recv().unwrap();
        assert_eq!(delivery.job.work.len(), MAX_JOB_WORK);
        assert!(delivery.job.more);
    }

    #[test]
    fn survives_dropped_arrivals() {
        let (broker, arrivals) = EmbeddedBroker::open();
        broker.consume(&[Partition(7)]);
        broker.publish(Partition(7), job(7, 1));
        drop(arrivals);
        broker.publish(Partition(7), job(7, 2));
    }
}
