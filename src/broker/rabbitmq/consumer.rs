//! The consuming connection: jobs of the partitions this process owns, and replies for its waiters.
//!
//! The set of wanted partitions may change at any time; the session adapts its consumers to the set, and
//! every new session begins from it. Never here: a job requeued because of its content, or a wait for the
//! reader of jobs that would delay acknowledgements.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::acks::AckWindow;
use super::connection::{Link, Session, SessionError};
use super::health::ConnectionHealth;
use super::jobs::read_job;
use super::replies::ReplyListener;
use super::topology;
use crate::broker::JobDelivery;
use crate::domain::Partition;

/// Unacknowledged jobs of a partition that this process holds, unread ones included.
const PREFETCH: u16 = 8;
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// For declaring and consuming all partitions at once; a loaded server takes 20 ms for each.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a job that was dropped unacknowledged rests before it is given back. Without the rest, a process
/// that drops the job while it consumes the partition would receive the job again at once, again and again.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(500);

/// The session that consumes the wanted partitions.
pub(super) struct JobConsumer {
    pub(super) wanted: watch::Receiver<BTreeSet<Partition>>,
    pub(super) jobs: mpsc::Sender<JobDelivery>,
    pub(super) replies: ReplyListener,
    pub(super) health: Arc<ConnectionHealth>,
}

#[async_trait]
impl Session for JobConsumer {
    fn purpose(&self) -> Cow<'static, str> {
        "consuming".into()
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let channel = link.channel().await?;
        timeout(ACK_TIMEOUT, channel.basic_qos(PREFETCH, BasicQosOptions::default()))
            .await
            .map_err(|_| SessionError::Timeout("basic.qos"))??;
        self.wanted.mark_changed();
        let session = JobSession::new(channel);
        tokio::select! {
            ended = session.run(&mut self.wanted, &self.jobs, stop) => ended,
            ended = self.replies.listen(link) => Err(ended),
        }
    }

    fn connected(&self, connected: bool) {
        self.health.set_consuming(connected);
    }
}

/// The consumers of one session, and the acknowledgements it owes the broker.
struct JobSession {
    channel: Channel,
    consumers: BTreeMap<Partition, ShortString>,
    incoming: SelectAll<BoxStream<'static, Incoming>>,
    /// The next job for the reader of jobs; no further one is taken from lapin meanwhile.
    held: Option<JobDelivery>,
    acks: AckWindow,
    dropped: Vec<u64>,
    settled: mpsc::UnboundedReceiver<DeliveryEnd>,
    settle: mpsc::UnboundedSender<DeliveryEnd>,
}

enum Incoming {
    Delivery(Partition, lapin::Result<Box<Delivery>>),
    /// The stream of the consumer with this tag ended.
    End(Partition, ShortString),
}

/// The end of a delivery. The channel is unbounded: the prefetch bounds it.
enum DeliveryEnd {
    Acknowledged(u64),
    Dropped(u64),
}

impl JobSession {
    fn new(channel: Channel) -> JobSession {
        let (settle, settled) = mpsc::unbounded_channel();
        JobSession {
            channel,
            consumers: BTreeMap::new(),
            incoming: SelectAll::new(),
            held: None,
            acks: AckWindow::default(),
            dropped: Vec::new(),
            settled,
            settle,
        }
    }

    async fn run(
        mut self,
        wanted: &mut watch::Receiver<BTreeSet<Partition>>,
        jobs: &mpsc::Sender<JobDelivery>,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut give_back = interval(GIVE_BACK_EVERY);
        give_back.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.finish().await,
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    self.reconcile(&wanted).await?;
                }
                place = jobs.reserve(), if self.held.is_some() => match (place, self.held.take()) {
                    (Ok(place), Some(job)) => place.send(job),
                    // The reader of jobs is gone: nothing is consumed any more.
                    _ => self.reconcile(&BTreeSet::new()).await?,
                },
                Some(settled) = self.settled.recv() => {
                    self.settle(settled);
                    self.acknowledge().await?;
                }
                Some(incoming) = self.incoming.next(), if self.held.is_none() => {
                    self.take_in(incoming)?;
                    self.acknowledge().await?;
                }
                _ = give_back.tick() => self.give_back().await?,
            }
        }
    }

    /// Consume these partitions and no others.
    async fn reconcile(&mut self, wanted: &BTreeSet<Partition>) -> Result<(), SessionError> {
        let gone: Vec<_> = self.consumers.keys().copied().filter(|known| !wanted.contains(known)).collect();
        let gone = gone.into_iter().filter_map(|partition| self.consumers.remove(&partition));
        let cancelled = try_join_all(
            gone.map(|tag| self.channel.basic_cancel(tag, BasicCancelOptions::default())).collect::<Vec<_>>(),
        );
        timeout(RECONCILE_TIMEOUT, cancelled).await.map_err(|_| SessionError::Timeout("basic.cancel"))??;

        let new: Vec<_> =
            wanted.iter().copied().filter(|partition| !self.consumers.contains_key(partition)).collect();
        let begun = try_join_all(new.into_iter().map(|partition| consume(&self.channel, partition)));
        let begun =
            timeout(RECONCILE_TIMEOUT, begun).await.map_err(|_| SessionError::Timeout("basic.consume"))??;
        for (partition, consumer) in begun {
            let tag = consumer.tag();
            self.consumers.insert(partition, tag.clone());
            let deliveries =
                consumer.map(move |delivery| Incoming::Delivery(partition, delivery.map(Box::new)));
            let end = stream::once(async move { Incoming::End(partition, tag) });
            self.incoming.push(deliveries.chain(end).boxed());
        }
        Ok(())
    }

    fn take_in(&mut self, incoming: Incoming) -> Result<(), SessionError> {
        let (partition, delivery) = match incoming {
            Incoming::Delivery(partition, delivery) => (partition, delivery?),
            Incoming::End(partition, tag) if self.consumers.get(&partition) == Some(&tag) => {
                return Err(SessionError::ConsumerEnded(topology::work_queue(partition).to_string()));
            }
            Incoming::End(..) => return Ok(()),
        };
        let tag = delivery.delivery_tag;
        if !self.consumers.contains_key(&partition) {
            // Cancelled meanwhile: the job belongs to the partition's new owner.
            self.dropped.push(tag);
            return Ok(());
        }
        match read_job(&delivery.data) {
            Ok(job) => {
                let receipt = DeliveryReceipt { tag, settle: self.settle.clone(), acknowledged: false };
                self.held = Some(JobDelivery::new(partition, job, move || receipt.acknowledge()));
            }
            Err(reason) => {
                tracing::warn!(%reason, queue = %topology::work_queue(partition), "unreadable job dropped: a scan finds its work");
                self.acks.finished(tag);
            }
        }
        Ok(())
    }

    fn settle(&mut self, settled: DeliveryEnd) {
        let mut settled = Some(settled);
        while let Some(now) = settled {
            match now {
                DeliveryEnd::Acknowledged(tag) => self.acks.finished(tag),
                DeliveryEnd::Dropped(tag) => self.dropped.push(tag),
            }
            settled = self.settled.try_recv().ok();
        }
    }

    async fn acknowledge(&mut self) -> Result<(), SessionError> {
        let acks = self
            .acks
            .take()
            .into_iter()
            .map(|ack| self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }));
        let written = try_join_all(acks.collect::<Vec<_>>());
        timeout(ACK_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("basic.ack"))??;
        Ok(())
    }

    async fn give_back(&mut self) -> Result<(), SessionError> {
        let options = BasicNackOptions { requeue: true, ..Default::default() };
        for tag in std::mem::take(&mut self.dropped) {
            self.acks.given_back(tag);
            timeout(ACK_TIMEOUT, self.channel.basic_nack(tag, options))
                .await
                .map_err(|_| SessionError::Timeout("basic.nack"))??;
        }
        Ok(())
    }

    /// Stop taking jobs and write the acknowledgements that are due; closing the connection gives the other
    /// jobs back.
    async fn finish(mut self) -> Result<(), SessionError> {
        self.reconcile(&BTreeSet::new()).await?;
        if let Ok(settled) = self.settled.try_recv() {
            self.settle(settled);
        }
        self.acknowledge().await
    }
}

async fn consume(channel: &Channel, partition: Partition) -> lapin::Result<(Partition, Consumer)> {
    topology::declare_work_queue(channel, partition).await?;
    let tag = Uuid::now_v7().to_string();
    let options = BasicConsumeOptions::default();
    let queue = topology::work_queue(partition);
    let consumer = channel.basic_consume(queue, tag.into(), options, FieldTable::default()).await?;
    Ok((partition, consumer))
}

/// The receipt of a delivery: dropped unacknowledged, it gives the job back.
struct DeliveryReceipt {
    tag: u64,
    settle: mpsc::UnboundedSender<DeliveryEnd>,
    acknowledged: bool,
}

impl DeliveryReceipt {
    fn acknowledge(mut self) {
        self.acknowledged = true;
    }
}

impl Drop for DeliveryReceipt {
    fn drop(&mut self) {
        let settled = if self.acknowledged {
            DeliveryEnd::Acknowledged(self.tag)
        } else {
            DeliveryEnd::Dropped(self.tag)
        };
        // Without effect after the session's end: the broker delivers the job again.
        let _ = self.settle.send(settled);
    }
}
