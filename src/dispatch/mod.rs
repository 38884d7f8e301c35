//! Dispatch: owns lines, paces, claims, sends, records. One per worker process.
//!
//! Read `send.rs` first: it is the life of one message's call. Around it:
//! `lease` keeps this process's partitions → `scan` and jobs tell of ready rows → `reader` fetches them →
//! `dispatcher` holds a `line` actor for each active line, which paces and picks from its `queue` → `recorder`
//! commits claims and results → `send` makes the call.
//!
//! The dispatcher is one task without locks; everything it learns arrives as an [`Event`].

mod cancel;
mod clock;
mod dispatcher;
mod expiry;
mod lease;
mod line;
mod queue;
mod reader;
mod recorder;
mod scan;
mod send;
mod settled;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::broker::{JobDelivery, SharedBroker};
use crate::feedback::Feedback;
use crate::graph::GraphClient;
use crate::message::{BreakerState, Lane, LineId, MessageId, Partition};
use crate::policy::retry::RetryPolicy;
use crate::settings::{LimitSettings, On5xx, OnAmbiguous, Settings};
use crate::store::{ClaimedRow, Flow, FlowRead, HeldRecipient, LineRecord, ReadyRow, SharedStore};
use lease::{LeaseKeeper, SendUntil};
use recorder::{Progress, Recorder};
use scan::Scanner;

/// What the dispatcher learns.
enum Event {
    /// Partitions are ours from now on.
    Gained {
        partitions: Vec<Partition>,
        held: Vec<HeldRecipient>,
    },
    /// Partitions are to be let go; `stopped` is answered when nothing of them will be sent any more.
    Lost {
        partitions: Vec<Partition>,
        stopped: oneshot::Sender<()>,
    },
    /// Ready rows that were announced.
    Rows(Vec<ReadyRow>),
    /// The next rows of flows.
    Flows(Vec<(FlowRead, Vec<ReadyRow>)>),
    FlowsFailed(Vec<Flow>),
    /// A scan's findings: flows of these partitions with ready rows, and their lowest.
    Ready {
        scanned: Vec<Partition>,
        flows: Vec<(Flow, MessageId)>,
    },
    /// Rows that were scheduled, or waited for their next try, are due.
    Promoted(Vec<(LineId, Lane, MessageId)>),
    /// Records of the lines asked for; those missing do not exist.
    Lines {
        asked: Vec<LineId>,
        records: Vec<LineRecord>,
        pause_written: bool,
    },
    ClaimsAnswered(Vec<(LineId, MessageId, bool)>),
    /// Claimed rows of our partitions, as the log has them.
    Claimed(Vec<ClaimedRow>),
    /// Of the rows asked about, those that still hold their recipients.
    StillHeld {
        asked: Vec<MessageId>,
        held: Vec<MessageId>,
    },
    /// Results that waited for the log are written.
    LogIsBack,
}

/// What dispatch is built from.
pub struct Dispatch {
    pub worker: String,
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub feedback: Feedback,
    pub jobs: mpsc::Receiver<JobDelivery>,
    pub graph: GraphClient,
    pub options: DispatchOptions,
    /// The partitions held, for health checks.
    pub held: watch::Sender<usize>,
    /// Whether calls go to Graph, for health checks.
    pub breaker: watch::Sender<BreakerState>,
}

/// The settings dispatch obeys.
#[derive(Debug, Clone)]
pub struct DispatchOptions {
    pub concurrency: usize,
    pub lease: Duration,
    /// The longest time for which a row is claimed.
    pub call_deadline: Duration,
    pub retry: RetryPolicy,
    pub limits: LimitSettings,
    pub grace: Duration,
}

impl DispatchOptions {
    pub fn of(settings: &Settings) -> DispatchOptions {
        DispatchOptions {
            concurrency: settings.dispatch.concurrency,
            lease: settings.dispatch.lease,
            call_deadline: send::call_deadline(settings.graph.timeout.max(settings.graph.media_timeout)),
            retry: RetryPolicy {
                base: settings.retry.base,
                cap: settings.retry.cap,
                max_attempts: settings.dispatch.max_attempts,
                retry_ambiguous: settings.dispatch.on_ambiguous == OnAmbiguous::Retry,
                retry_5xx: settings.dispatch.on_5xx == On5xx::Retry,
            },
            limits: settings.limits.clone(),
            grace: settings.shutdown.grace,
        }
    }
}

impl Dispatch {
    /// Runs until `shutdown`, or until one of its tasks ends by itself, then drains: claimed rows whose calls have not
    /// begun are given back, the partitions are handed over, calls in flight are awaited for the grace, and results are
    /// written.
    pub async fn run(self, shutdown: CancellationToken) {
        // Unbounded, so that nothing waits for anything here, and bounded by what they carry. `entries`: a permit's next
        // claim stands behind the result of its call before, so results are never more than permits; rows that end
        // without a call are few while many entries wait; and while the log cannot be written lines rest. `requests`: one
        // a flow, and few a job; those that cannot be answered are dropped. `orders`: few a line. `events`: answers to
        // these, and what scans find, a thousand rows at a time; they come from the log, and cost the dispatcher less than
        // they cost the log.
        let (events, inbox) = mpsc::unbounded_channel();
        let (entries, recorder_inbox) = mpsc::unbounded_channel();
        let (requests, reader_inbox) = mpsc::unbounded_channel();
        let (orders, upkeep_inbox) = mpsc::unbounded_channel();
        let progress = Progress::default();
        let send_until = SendUntil::default();
        let owned = watch::Sender::new(Vec::new());

        // A task that is gone, after a panic, would leave the others waiting for it: then all stop.
        let shutdown = shutdown.child_token();
        let spawn = |task: BoxFuture<'static, ()>| {
            let gone = shutdown.clone().drop_guard();
            tokio::spawn(async move {
                let _gone = gone;
                task.await;
            })
        };
        let recorder = spawn(
            Recorder {
                worker: self.worker.clone(),
                store: self.store.clone(),
                feedback: self.feedback.clone(),
                entries: recorder_inbox,
                events: events.clone(),
                progress: progress.clone(),
            }
            .run()
            .boxed(),
        );
        let background = CancellationToken::new();
        let reader =
            spawn(reader::run(self.store.clone(), reader_inbox, events.clone(), background.clone()).boxed());
        let upkeep =
            spawn(upkeep::run(self.store.clone(), upkeep_inbox, events.clone(), background.clone()).boxed());
        let expiry = spawn(
            expiry::run(self.store.clone(), self.feedback.clone(), owned.subscribe(), background.clone())
                .boxed(),
        );
        let canceller =
            spawn(cancel::run(self.store.clone(), self.feedback.clone(), background.clone()).boxed());
        let teller = spawn(settled::run(self.store.clone(), self.feedback, background.clone()).boxed());
        let scanner = spawn(
            Scanner {
                store: self.store.clone(),
                broker: self.broker.clone(),
                owned: owned.subscribe(),
                events: events.clone(),
                call_deadline: self.options.call_deadline,
            }
            .run(shutdown.clone())
            .boxed(),
        );
        let keeper = spawn(
            LeaseKeeper {
                worker: self.worker.clone(),
                store: self.store.clone(),
                broker: self.broker.clone(),
                lease: self.options.lease,
                held_within: self.options.call_deadline.max(self.options.retry.cap),
                events,
                owned,
                held: self.held,
                send_until: send_until.clone(),
            }
            .run(shutdown.clone())
            .boxed(),
        );
        let grace = self.options.grace;
        let dispatcher = dispatcher::Dispatcher::new(
            self.worker.clone(),
            send::SendContext {
                graph: self.graph,
                policy: self.options.retry.clone(),
                send_until: send_until.clone(),
            },
            self.options,
            dispatcher::Channels { inbox, jobs: self.jobs, entries, requests, orders },
            progress,
            send_until,
            self.breaker,
        );
        let (quiet, is_quiet) = oneshot::channel();
        let hand_over = async {
            shutdown.cancelled().await;
            // A task that panicked was reported by the panic hook; its work is over either way.
            let _ = keeper.await;
            let _ = is_quiet.await;
            self.broker.consume(&[]);
            if let Err(error) = self.store.withdraw_worker(&self.worker).await {
                tracing::warn!(%error, "leases could not be handed over and run out by themselves");
            }
        };
        tokio::join!(dispatcher.run(shutdown.clone(), quiet), hand_over);

        // The dispatcher's end of the recorder's channel is gone: what is left is written, while the grace lasts.
        if tokio::time::timeout(grace.max(Duration::from_secs(1)), recorder).await.is_err() {
            tracing::error!(
                "the log could not be written before the end of the grace; rows in flight are settled later"
            );
        }
        background.cancel();
        for task in [reader, upkeep, expiry, canceller, teller, scanner] {
            let _ = task.await;
        }
    }
}

/// Shared by every call.
type SharedSendContext = Arc<send::SendContext>;
