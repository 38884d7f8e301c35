//! The broker of a single process: the same contract as RabbitMQ over channels of this process.
//!
//! At most one job per partition is out at a time; what is published meanwhile is merged and follows once that one
//! is acknowledged. Memory is so bounded by the longest job of each partition, and an unread channel holds nobody up.
//! Nothing is stored: after a restart the owner's scans find the work in the database.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Arrivals, Broker, BrokerState, IntakeBatch, JobDelivery, REPLIES_HELD, Rejected};
use crate::message::{Job, PARTITIONS, Partition, Reply, ReplyTo};
use crate::metrics::METRICS;

/// One for the job of each partition that can be out, and as many again for threads that reserve a place and find
/// nothing to put there, so that these never make another one's publish go without.
const PLACES: usize = 2 * PARTITIONS as usize;

/// The queue inside this process.
pub struct EmbeddedBroker {
    address: String,
    queue: Arc<Queue>,
}

impl EmbeddedBroker {
    pub fn open() -> (Arc<EmbeddedBroker>, Arrivals) {
        let (jobs_out, jobs) = mpsc::channel(PLACES);
        let (replies_out, replies) = mpsc::channel(REPLIES_HELD);
        let queue = Queue(Mutex::new(State {
            out: Some(Out { jobs: jobs_out, replies: replies_out }),
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

    /// Nobody is connected but this process. A row that came over RabbitMQ may still end here, where an operator has
    /// changed `broker.url` meanwhile.
    fn answer(&self, to: &ReplyTo, _envelope: Vec<u8>) {
        METRICS.broker.answers_dropped.increment(1);
        tracing::debug!(queue = to.queue, "an answer to a producer cannot be sent over the embedded queue");
    }

    async fn reject(&self, _rejected: Rejected) -> bool {
        false
    }

    fn event(&self, _key: &str, _event: Vec<u8>) {}

    fn state(&self) -> BrokerState {
        if self.queue.state().out.is_some() { BrokerState::Up } else { BrokerState::Down }
    }

    /// Ends the arrivals. What is pending has nowhere to go: the process that would consume it is this one.
    async fn close(&self, _grace: Duration) {
        self.queue.state().out = None;
    }
}

struct Queue(Mutex<State>);

struct State {
    /// `None` once closed.
    out: Option<Out>,
    wanted: BTreeSet<Partition>,
    pending: BTreeMap<Partition, Job>,
    /// Partitions with a job in the channel or in the consumer's hands.
    unacked: BTreeSet<Partition>,
}

#[derive(Clone)]
struct Out {
    jobs: mpsc::Sender<JobDelivery>,
    replies: mpsc::Sender<Reply>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers what is wanted and pending, one job per partition. The lock is never held while a delivery is
    /// made or dropped, because an unacknowledged one comes back here.
    fn deliver(self: &Arc<Self>) {
        loop {
            let Some(jobs) = self.state().out.as_ref().map(|out| out.jobs.clone()) else { return };
            // Fails only when nobody reads any more: see PLACES.
            let Ok(place) = jobs.try_reserve_owned() else { return };
            let Some((partition, job)) = self.state().take_next() else { return };
            let receipt = Receipt { queue: Arc::downgrade(self), partition, unacked: Some(job.clone()) };
            place.send(JobDelivery::new(partition, job, move || receipt.acknowledge()));
        }
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

/// What a delivery holds: dropped without being acknowledged, it puts its job back.
struct Receipt {
    queue: Weak<Queue>,
    partition: Partition,
    unacked: Option<Job>,
}

impl Receipt {
    fn acknowledge(mut self) {
        self.unacked = None;
    }
}

impl Drop for Receipt {
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
    use crate::message::{JobWork, Lane, LineId, MAX_JOB_WORK, Medium, MessageId, WorkId};

    fn job(line: i64, work: i64) -> Job {
        let work = JobWork {
            work: WorkId(work),
            line: LineId(line),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
            first: MessageId(work),
            rows: 1,
            messages: Vec::new(),
        };
        Job { work: vec![work], ..Job::empty() }
    }

    #[test]
    fn a_channel_that_nobody_reads_holds_no_publisher_up_and_keeps_one_job_per_partition() {
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
    fn what_is_published_beyond_the_longest_job_is_not_named_and_asked_for() {
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
    fn arrivals_that_were_given_up_end_quietly() {
        let (broker, arrivals) = EmbeddedBroker::open();
        broker.consume(&[Partition(7)]);
        broker.publish(Partition(7), job(7, 1));
        drop(arrivals);
        broker.publish(Partition(7), job(7, 2));
    }
}
