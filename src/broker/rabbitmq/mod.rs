//! The queue over RabbitMQ.
//!
//! Three connections, each with a supervisor of its own: `publisher` (a connection that the broker has
//! blocked carries nothing, not even acknowledgements), `consumer`, and `answers` to producers; a process
//! that takes submissions has a fourth, `intake`. `outbox` and `outgoing` hold messages to publish,
//! `topology` declares exchanges and queues, `connection` connects and reconnects, `acks` and `replies` serve
//! the consumer, `submissions` the intake. No other module uses lapin.

mod acks;
mod answers;
mod connection;
mod consumer;
mod intake;
mod outbox;
mod outgoing;
mod publisher;
pub mod reach;
pub mod rejected;
mod replies;
mod submissions;
mod topology;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Arrivals, Broker, BrokerError, BrokerState, IntakeBatch, IntakeState, JobDelivery, MAX_QUEUED_REPLIES,
    Rejected,
};
use crate::domain::{JOB_VERSION, Job, Partition, Reply, ReplyTo};
use answers::{AnswerPublisher, DroppedAnswers};
use connection::{Endpoint, Session, supervise};
use consumer::JobConsumer;
use intake::{Intake, IntakeHealth};
use outbox::Outbox;
use outgoing::Outgoing;
use publisher::Publisher;
use replies::ReplyListener;

/// Jobs read from the broker that wait for the dispatcher.
const MAX_QUEUED_JOBS: usize = 64;
/// Answers to producers that wait to be published; more are dropped.
const MAX_QUEUED_ANSWERS: usize = 4096;
/// Events that wait to be published; more are dropped.
const MAX_QUEUED_EVENTS: usize = 10_000;
/// Refused submissions that wait to be published; further ones wait for a place.
const MAX_QUEUED_REJECTED: usize = 256;
/// How long the broker may take to confirm a refused submission.
const REJECTED_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of the time for closing that is reserved for the connections, where jobs stay unpublished.
const CLOSE_RESERVE: Duration = Duration::from_millis(500);

/// The RabbitMQ broker. Dropping it stops its connections without publishing what is pending; see
/// [`Broker::close`].
pub struct RabbitBroker {
    address: String,
    outbox: Arc<Outbox>,
    wanted: watch::Sender<BTreeSet<Partition>>,
    own_replies: mpsc::Sender<Reply>,
    other_replies: mpsc::Sender<Outgoing>,
    answers: mpsc::Sender<Outgoing>,
    dropped_answers: Arc<DroppedAnswers>,
    events: mpsc::Sender<Outgoing>,
    rejected: mpsc::Sender<Outgoing>,
    endpoint: Endpoint,
    health: Arc<ConnectionHealth>,
    intake: Arc<IntakeHealth>,
    stop_consuming: CancellationToken,
    stop_publishing: CancellationToken,
    /// Ends the connections at once, whatever they wait for: a silent server would delay each of their steps
    /// for seconds.
    cut: CancellationToken,
    connections: TaskTracker,
}

impl RabbitBroker {
    /// Start to connect in the background, and retry for ever. Fails only if the URL is malformed.
    pub fn open(url: &SecretString) -> Result<(Arc<RabbitBroker>, Arrivals), BrokerError> {
        let endpoint = Endpoint::parse(url)?;
        let (jobs_out, jobs) = mpsc::channel::<JobDelivery>(MAX_QUEUED_JOBS);
        let (own_replies, replies) = mpsc::channel(MAX_QUEUED_REPLIES);
        let (other_replies, outgoing_replies) = mpsc::channel(MAX_QUEUED_REPLIES);
        let (answers, outgoing_answers) = mpsc::channel(MAX_QUEUED_ANSWERS);
        let (events, outgoing_events) = mpsc::channel(MAX_QUEUED_EVENTS);
        let (rejected, outgoing_rejected) = mpsc::channel(MAX_QUEUED_REJECTED);
        let (wanted, wanted_now) = watch::channel(BTreeSet::new());
        let broker = Arc::new(RabbitBroker {
            address: topology::new_reply_queue(),
            outbox: Arc::default(),
            wanted,
            own_replies: own_replies.clone(),
            other_replies,
            answers,
            dropped_answers: Arc::default(),
            events,
            rejected,
            endpoint,
            health: Arc::default(),
            intake: Arc::default(),
            stop_consuming: CancellationToken::new(),
            stop_publishing: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
        });
        let publisher = Publisher {
            outbox: broker.outbox.clone(),
            replies: outgoing_replies,
            events: outgoing_events,
            rejected: outgoing_rejected,
            health: broker.health.clone(),
        };
        let answers = AnswerPublisher::new(outgoing_answers, broker.dropped_answers.clone());
        let consumer = JobConsumer {
            wanted: wanted_now,
            jobs: jobs_out,
            replies: ReplyListener { queue: broker.address.clone(), replies: own_replies },
            health: broker.health.clone(),
        };
        broker.connect(publisher, &broker.stop_publishing);
        broker.connect(answers, &broker.stop_publishing);
        broker.connect(consumer, &broker.stop_consuming);
        broker.connections.close();
        Ok((broker, Arrivals { jobs, replies }))
    }

    /// Keep a session running until `stop`, and at the longest until all are cut.
    fn connect(&self, session: impl Session + 'static, stop: &CancellationToken) {
        let supervised = supervise(self.endpoint.clone(), session, stop.clone());
        self.connections.spawn(self.cut.clone().run_until_cancelled_owned(supervised));
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    fn publish(&self, partition: Partition, job: Job) {
        self.outbox.add(partition, job);
    }

    fn consume(&self, partitions: &[Partition]) {
        self.wanted.send_replace(partitions.iter().copied().collect());
    }

    fn reply_address(&self) -> &str {
        &self.address
    }

    fn reply(&self, address: &str, reply: Reply) {
        let taken = if address == self.address {
            self.own_replies.try_send(reply).is_ok()
        } else {
            Outgoing::reply(address, &reply)
                .is_some_and(|outgoing| self.other_replies.try_send(outgoing).is_ok())
        };
        if !taken {
            tracing::debug!(address, "a reply was dropped; its outcome stands in the log");
        }
    }

    fn take_in(&self, longest_body: usize) -> Option<mpsc::Receiver<IntakeBatch>> {
        // One batch waits while one is committed; further submissions stay with the broker.
        let (batches_out, batches) = mpsc::channel(1);
        self.intake.shut("not connected to RabbitMQ yet");
        self.connect(Intake::new(batches_out, longest_body, self.intake.clone()), &self.stop_consuming);
        Some(batches)
    }

    fn answer(&self, to: &ReplyTo, envelope: Vec<u8>) {
        let taken =
            Outgoing::answer(to, envelope).is_some_and(|outgoing| self.answers.try_send(outgoing).is_ok());
        if !taken {
            tracing::debug!(queue = to.queue, "an answer to a producer was dropped");
            self.dropped_answers.add(1);
        }
    }

    async fn reject(&self, rejected: Rejected) -> bool {
        let (confirmed, is_confirmed) = oneshot::channel();
        let outgoing = Outgoing::rejected(rejected, confirmed);
        let published = async {
            self.rejected.send(outgoing).await.ok()?;
            is_confirmed.await.ok()
        };
        timeout(REJECTED_TIMEOUT, published).await.ok().flatten().unwrap_or(false)
    }

    fn event(&self, key: &str, event: Vec<u8>) {
        let taken = Outgoing::event(key, event).is_some_and(|event| self.events.try_send(event).is_ok());
        if !taken {
            tracing::debug!(key, "an event was dropped; the log has what it told");
        }
    }

    fn state(&self) -> BrokerState {
        self.health.state()
    }

    fn intake(&self) -> IntakeState {
        self.intake.state()
    }

    async fn close(&self, grace: Duration) {
        let until = Instant::now() + grace;
        self.stop_consuming.cancel();
        if timeout(grace.saturating_sub(CLOSE_RESERVE), self.outbox.emptied()).await.is_err() {
            tracing::warn!("jobs not published before the stop: scans find their work");
        }
        self.stop_publishing.cancel();
        if timeout_at(until, self.connections.wait()).await.is_err() {
            tracing::warn!("RabbitMQ connections exceeded the grace: cut");
        }
        self.cut.cancel();
    }
}

impl Drop for RabbitBroker {
    fn drop(&mut self) {
        self.stop_consuming.cancel();
        self.stop_publishing.cancel();
    }
}

/// The health of the connections that carry jobs, for [`Broker::state`]: without the other connections
/// answers and submissions wait.
#[derive(Default)]
struct ConnectionHealth {
    publishing: AtomicBool,
    consuming: AtomicBool,
    blocked: AtomicBool,
}

impl ConnectionHealth {
    fn set_publishing(&self, up: bool) {
        self.publishing.store(up, Ordering::Relaxed);
    }

    fn set_consuming(&self, up: bool) {
        self.consuming.store(up, Ordering::Relaxed);
    }

    fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    fn state(&self) -> BrokerState {
        let up = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        match up(&self.publishing) && up(&self.consuming) {
            true if up(&self.blocked) => BrokerState::Blocked,
            true => BrokerState::Up,
            false => BrokerState::Down,
        }
    }
}

/// Why a body is not a job of this version.
#[derive(Debug, thiserror::Error)]
enum UnreadableJob {
    #[error("its version is {0}, this program knows {JOB_VERSION}")]
    Version(u64),
    #[error("its body cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

fn read_job(body: &[u8]) -> Result<Job, UnreadableJob> {
    #[derive(serde::Deserialize)]
    struct Header {
        v: u64,
    }
    let Header { v } = serde_json::from_slice(body)?;
    if v != u64::from(JOB_VERSION) {
        return Err(UnreadableJob::Version(v));
    }
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::METRICS;

    fn dropped_answers() -> u64 {
        let text = METRICS.render();
        let shown = text.lines().find_map(|line| line.strip_prefix("meta_dispatch_answers_dropped_total "));
        shown.expect("it is shown").parse().expect("a number")
    }

    #[tokio::test]
    async fn dropped_answers_are_counted() {
        let nobody = SecretString::from("amqp://127.0.0.1:1/%2f");
        let (broker, _arrivals) = RabbitBroker::open(&nobody).unwrap();
        let to = |queue: &str| ReplyTo { queue: queue.into(), correlation_id: None };
        let before = dropped_answers();
        for _ in 0..MAX_QUEUED_ANSWERS {
            broker.answer(&to("answers"), b"{}".to_vec());
        }
        assert_eq!(dropped_answers(), before, "they wait");
        broker.answer(&to("answers"), b"{}".to_vec());
        broker.answer(&to("amq.rabbitmq.reply-to.%%%.x"), b"{}".to_vec());
        assert_eq!(dropped_answers(), before + 2);
    }

    #[test]
    fn job_of_another_version_is_not_unreadable() {
        assert!(read_job(br#"{"v":2,"work":[[41,7,"high",false,"",1,2,[]]]}"#).is_ok());
        for (v, body) in
            [(1, &br#"{"v":1,"lines":[[7,"high",1,2,2]]}"#[..]), (3, br#"{"v":3,"rows":"otherwise"}"#)]
        {
            let other = read_job(body).unwrap_err();
            assert!(matches!(other, UnreadableJob::Version(version) if version == v), "{other}");
        }
        for body in
            [&b"nonsense"[..], br#"{"v":2}"#, br#"{"v":2,"work":[[41,7,"low",false,"",1,2,[]]]}"#, b"\xff"]
        {
            assert!(matches!(read_job(body), Err(UnreadableJob::Body(_))));
        }
    }
}
