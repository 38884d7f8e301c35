//! The publishing connection: jobs and refused submissions with confirms, replies to processes without.
//!
//! No publish waits for another: each job is a future of its own, so all partitions are on their way at once.
//! A session gives up after 5 s without a confirm, except while the broker has blocked the connection (memory
//! or disk alarm), when jobs wait and merge. Jobs also wait and merge while many rows are announced: a job
//! costs the broker, and the worker that reads its rows, much more than a row in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{Link, Session, SessionError};
use super::health::ConnectionHealth;
use super::jobs::read_job;
use super::outbox::{Outbox, OutgoingJob};
use super::outgoing::Outgoing;
use super::topology;
use crate::domain::Partition;
use crate::failpoint;

const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Messages that are no jobs, written at a time; the others wait in their channels, which are bounded too.
const MAX_OUTGOING: usize = 256;
/// How long the next job waits after one, and how much longer for each row the one announced, up to a number:
/// 800 jobs a second while each announces a row, 300 when they announce ten and more.
const AFTER_A_JOB: Duration = Duration::from_micros(1_000);
const AFTER_A_ROW: Duration = Duration::from_micros(200);
const ROWS_WAITED_FOR: u32 = 10;
/// Jobs after a pause do not wait for this long.
const MAX_SAVED_PAUSE: Duration = Duration::from_millis(16);
const PERSISTENT: u8 = 2;

/// The publisher of the outbox, of messages to other processes, and of refused submissions.
pub(super) struct Publisher {
    pub(super) outbox: Arc<Outbox>,
    /// Messages to other processes.
    pub(super) replies: mpsc::Receiver<Outgoing>,
    /// Refused submissions, each confirmed.
    pub(super) rejected: mpsc::Receiver<Outgoing>,
    pub(super) health: Arc<ConnectionHealth>,
}

#[async_trait]
impl Session for Publisher {
    fn purpose(&self) -> Cow<'static, str> {
        "publishing".into()
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let ended = self.publish_until(link, stop).await;
        self.outbox.take_all_back();
        self.health.set_blocked(false);
        ended
    }

    fn connected(&self, connected: bool) {
        self.health.set_publishing(connected);
    }
}

impl Publisher {
    async fn publish_until(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let jobs = link.channel().await?;
        timeout(CONFIRM_TIMEOUT, jobs.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(|_| SessionError::Timeout("confirm.select"))??;
        let outlets = OtherChannels::open(link).await?;
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut in_flight = PublishesInFlight::new(jobs);

        loop {
            let next_job = self.publish_jobs(&mut in_flight);
            tokio::select! {
                () = stop.cancelled() => return self.write_last_replies(in_flight, &outlets).await,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "RabbitMQ blocked the connection: jobs wait and merge");
                        self.block(&mut in_flight, true);
                    }
                    Event::ConnectionUnblocked => self.block(&mut in_flight, false),
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some(done) = in_flight.futures.next() => match done {
                    PublishEnd::Job { partition, id, returned } => {
                        self.settle(&mut in_flight, partition, id, returned?);
                    }
                    PublishEnd::Outgoing(written) => {
                        in_flight.outgoing -= 1;
                        written?;
                    }
                },
                () = self.outbox.filled(), if !in_flight.blocked => {}
                () = sleep_until(next_job.unwrap_or_else(Instant::now)), if next_job.is_some() => {}
                Some(reply) = self.replies.recv(), if in_flight.may_write() => in_flight.write(&outlets.plain, reply),
                Some(refused) = self.rejected.recv(), if in_flight.may_write() => {
                    in_flight.write(&outlets.confirming, refused);
                }
                _ = check.tick() => in_flight.check(link)?,
            }
        }
    }

    /// Publish the jobs that may go now. If others have to wait for their turn, return the end of the wait.
    fn publish_jobs(&self, in_flight: &mut PublishesInFlight) -> Option<Instant> {
        while !in_flight.blocked && self.outbox.has_next() {
            if Instant::now() < in_flight.next_job {
                return Some(in_flight.next_job);
            }
            if let Some(outgoing_job) = self.outbox.take_next() {
                in_flight.publish(outgoing_job);
            }
        }
        None
    }

    fn block(&self, in_flight: &mut PublishesInFlight, blocked: bool) {
        in_flight.set_blocked(blocked);
        self.health.set_blocked(blocked);
    }

    /// Settle a publish. A message that came back may hang on the confirm of another one: lapin hands out
    /// waiting returns with whichever confirm is processed next. A return is therefore recognised by its own
    /// `message_id` and body.
    fn settle(
        &self,
        in_flight: &mut PublishesInFlight,
        partition: Partition,
        id: Uuid,
        returned: Option<Box<BasicReturnMessage>>,
    ) {
        in_flight.since.remove(&id);
        if let Some(message) = returned {
            self.take_back(in_flight, &message);
        }
        self.outbox.confirmed(partition, id);
    }

    fn take_back(&self, in_flight: &mut PublishesInFlight, message: &BasicReturnMessage) {
        let Some(partition) = topology::work_partition(message.routing_key.as_str()) else { return };
        tracing::warn!(queue = %message.routing_key, "work queue missing: declared again");
        in_flight.declared.remove(&partition);
        let id = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
        self.outbox.came_back(partition, id, || read_job(&message.data).ok());
    }

    /// Write the outcomes that were handed over before the stop.
    async fn write_last_replies(
        &mut self,
        mut in_flight: PublishesInFlight,
        outlets: &OtherChannels,
    ) -> Result<(), SessionError> {
        if in_flight.blocked {
            return Ok(());
        }
        while let Ok(reply) = self.replies.try_recv() {
            in_flight.write(&outlets.plain, reply);
        }
        let written = async {
            while in_flight.outgoing > 0 {
                if let Some(PublishEnd::Outgoing(written)) = in_flight.futures.next().await {
                    in_flight.outgoing -= 1;
                    written?;
                }
            }
            Ok(())
        };
        timeout(CONFIRM_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("a reply"))?
    }
}

/// The channels for messages that are no jobs.
struct OtherChannels {
    plain: Channel,
    confirming: Channel,
}

impl OtherChannels {
    async fn open(link: &Link) -> Result<OtherChannels, SessionError> {
        let (plain, confirming) = (link.channel().await?, link.channel().await?);
        timeout(CONFIRM_TIMEOUT, confirming.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(|_| SessionError::Timeout("confirm.select"))??;
        Ok(OtherChannels { plain, confirming })
    }
}

/// The messages that one session has on their way.
struct PublishesInFlight {
    channel: Channel,
    next_job: Instant,
    futures: FuturesUnordered<BoxFuture<'static, PublishEnd>>,
    /// The time at which each job was published, or the broker last unblocked.
    since: BTreeMap<Uuid, Instant>,
    /// Messages that are no jobs.
    outgoing: usize,
    /// Work queues declared on this connection.
    declared: HashSet<Partition>,
    blocked: bool,
}

enum PublishEnd {
    Job { partition: Partition, id: Uuid, returned: Result<Option<Box<BasicReturnMessage>>, SessionError> },
    Outgoing(lapin::Result<()>),
}

impl PublishesInFlight {
    fn new(channel: Channel) -> PublishesInFlight {
        PublishesInFlight {
            channel,
            next_job: Instant::now(),
            futures: FuturesUnordered::new(),
            since: BTreeMap::new(),
            outgoing: 0,
            declared: HashSet::new(),
            blocked: false,
        }
    }

    fn publish(&mut self, outgoing_job: OutgoingJob) {
        let OutgoingJob { id, partition, .. } = outgoing_job;
        let now = Instant::now();
        let rows = outgoing_job.job.rows().min(ROWS_WAITED_FOR);
        let saved_up = now.checked_sub(MAX_SAVED_PAUSE).unwrap_or(now);
        self.next_job = self.next_job.max(saved_up) + AFTER_A_JOB + AFTER_A_ROW * rows;
        let declare = self.declared.insert(partition);
        let channel = self.channel.clone();
        self.since.insert(id, now);
        self.futures.push(Box::pin(async move {
            let returned = publish(channel, declare, outgoing_job).await;
            PublishEnd::Job { partition, id, returned }
        }));
    }

    fn may_write(&self) -> bool {
        !self.blocked && self.outgoing < MAX_OUTGOING
    }

    fn write(&mut self, channel: &Channel, outgoing: Outgoing) {
        self.outgoing += 1;
        let written = outgoing.publish(channel.clone());
        self.futures.push(Box::pin(async move { PublishEnd::Outgoing(written.await) }));
    }

    fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        let now = Instant::now();
        self.since.values_mut().for_each(|since| *since = now);
    }

    fn check(&self, link: &Link) -> Result<(), SessionError> {
        if !link.is_open() || !self.channel.status().connected() {
            return Err(SessionError::Closed);
        }
        let overdue = self.since.values().any(|since| since.elapsed() > CONFIRM_TIMEOUT);
        if overdue && !self.blocked {
            return Err(SessionError::Timeout("a published job"));
        }
        Ok(())
    }
}

/// Publish a job; resolve when the broker has confirmed it, with a message that came back, if one did: see
/// `settle`.
async fn publish(
    channel: Channel,
    declare: bool,
    outgoing_job: OutgoingJob,
) -> Result<Option<Box<BasicReturnMessage>>, SessionError> {
    if declare {
        topology::declare_work_queue(&channel, outgoing_job.partition).await?;
    }
    let body = serde_json::to_vec(&outgoing_job.job).expect("a job is numbers and words");
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(outgoing_job.id.to_string().into());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let queue = topology::work_queue(outgoing_job.partition);
    let confirm = channel.basic_publish("".into(), queue.clone(), options, &body, properties).await?;
    failpoint::hit("after_publish");
    let confirmation = confirm.await?;
    failpoint::hit("after_confirm");
    match confirmation {
        Confirmation::Ack(returned) => Ok(returned.map(Box::new)),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(SessionError::Refused(queue.to_string())),
    }
}
