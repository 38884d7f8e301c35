//! Dispatch: owns lines, paces, claims, sends, records. One per worker process.
//!
//! Read `send.rs` first: it is the life of one message's call. Around it:
//! `lease` keeps this process's partitions → `scan` and jobs tell of ready rows → `reader` fetches them →
//! `dispatcher` holds a `line` actor for each active line, which paces and picks from its `queue` → `recorder`
//! commits claims and results → `send` makes the call.
//!
//! The dispatcher is one task without locks; everything it learns arrives as an [`Event`].

mod clock;
mod dispatcher;
mod doomed;
mod lease;
mod line;
mod memory;
mod queue;
mod reader;
mod recorder;
mod scan;
mod send;
mod settled;
mod share;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::{JobDelivery, SharedBroker};
use crate::feedback::Feedback;
use crate::graph::GraphClient;
use crate::message::{BreakerState, LineId, MessageId, Partition, Serving, WorkId};
use crate::policy::retry::RetryPolicy;
use crate::settings::{LimitSettings, On5xx, OnAmbiguous, Settings};
use crate::store::{
    ChangeKind, ClaimedRow, DispatchStore, DoomedRow, Flow, FlowPage, FlowRead, HeldRecipient, LineRecord,
    Position, SharedStore, WorkHead, WorkRead,
};
use lease::{LeaseKeeper, SendUntil};
use recorder::{Progress, Recorder};
use scan::{Failures, Scanner};

/// How long a stopping process waits for a lease that is being renewed. The connection is then free for the hand-over.
const RENEWAL: Duration = Duration::from_secs(2);
/// Results may be written, and leases handed over, for this long after the grace of calls has passed. `app` gives a stop
/// five seconds after the grace: the rest is for the parts that close afterwards.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// How long the other tasks may take to notice the end.
const MOMENT: Duration = Duration::from_millis(100);

/// What the dispatcher learns.
enum Event {
    /// Partitions are ours since this time.
    Gained {
        at: Instant,
        partitions: Vec<Partition>,
        held: Vec<HeldRecipient>,
        claims: Vec<ClaimedRow>,
    },
    /// Partitions are to be let go; `stopped` is answered when nothing of them will be sent any more.
    Lost {
        partitions: Vec<Partition>,
        stopped: oneshot::Sender<()>,
    },
    /// Work that is there, found by a scan or made of rows whose time has come.
    Work(Vec<WorkHead>),
    /// Work that was asked for; work that has ended, or whose campaign does not run, was not read.
    WorkRead {
        asked: Vec<(LineId, WorkId)>,
        read: Vec<WorkRead>,
    },
    WorkUnread(Vec<(LineId, WorkId)>),
    /// The next work of flows.
    Flows(Vec<(FlowRead, FlowPage)>),
    FlowsUnread(Vec<Flow>),
    /// A full look, and when it began: flows of these partitions that have work, and their first.
    Ready {
        began: Instant,
        scanned: Vec<Partition>,
        flows: Vec<(Flow, Position)>,
    },
    /// Records of the lines asked for; those missing do not exist.
    Lines {
        asked: Vec<LineId>,
        records: Vec<LineRecord>,
        pause_written: bool,
    },
    ClaimsAnswered(Vec<(LineId, MessageId, bool)>),
    /// Rows that were given back, with the fence of the claim that ended so, and whether that is in the log.
    Returned(Vec<(MessageId, i32, bool)>),
    /// Claimed rows of our partitions, as the database has them.
    Claimed(Vec<ClaimedRow>),
    /// Of the rows asked about, those that have not ended.
    StillHeld {
        asked: Vec<MessageId>,
        held: Vec<MessageId>,
    },
    /// Waiting rows to be ended without a call. `written` is answered when that is in the log, with whether any was.
    Doomed {
        rows: Vec<DoomedRow>,
        kind: ChangeKind,
        written: oneshot::Sender<bool>,
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
    pub serving: watch::Sender<Serving>,
    /// Whether calls go to Graph, for health checks.
    pub breaker: watch::Sender<BreakerState>,
}

/// The settings dispatch obeys.
#[derive(Debug, Clone)]
pub struct DispatchOptions {
    pub concurrency: usize,
    /// In bytes, of rows in hand.
    pub memory: u64,
    pub lease: Duration,
    /// How long before the end of a lease the last call may begin.
    pub lease_margin: Duration,
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
            memory: settings.dispatch.memory.as_u64(),
            lease: settings.dispatch.lease,
            lease_margin: lease::margin(settings.dispatch.lease, settings.graph.connect_timeout),
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
    /// written. Takes no longer than the grace, [`LAST_WRITES`] and a [`MOMENT`], whatever hangs; no task outlives it.
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
        let failures = Failures::default();
        let look = Arc::new(Notify::new());
        let due = Arc::new(Notify::new());
        let queue: Arc<dyn DispatchStore> = self.store.clone();

        // A task that is gone, after a panic, would leave the others waiting for it: then all stop. A task that is not waited
        // for any more is aborted: it would keep a connection that another needs, or write after the end.
        let shutdown = shutdown.child_token();
        let spawn = |task: BoxFuture<'static, ()>| {
            let gone = shutdown.clone().drop_guard();
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _gone = gone;
                task.await;
            }))
        };
        let recorder = spawn(
            Recorder {
                worker: self.worker.clone(),
                store: queue.clone(),
                feedback: self.feedback.clone(),
                entries: recorder_inbox,
                events: events.clone(),
                due: due.clone(),
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
        let ender =
            spawn(doomed::run(queue.clone(), owned.subscribe(), events.clone(), background.clone()).boxed());
        let teller = spawn(settled::run(self.store.clone(), self.feedback, background.clone()).boxed());
        let scanner = spawn(
            Scanner {
                store: queue,
                broker: self.broker.clone(),
                owned: owned.subscribe(),
                events: events.clone(),
                look: look.clone(),
                due: due.clone(),
                failures: failures.clone(),
            }
            .run(shutdown.clone())
            .boxed(),
        );
        let keeper = spawn(
            LeaseKeeper {
                worker: self.worker.clone(),
                store: self.store.clone(),
                broker: self.broker.clone(),
                graph: self.graph.clone(),
                lease: self.options.lease,
                margin: self.options.lease_margin,
                held_within: self.options.call_deadline.max(self.options.retry.cap),
                breaker: self.breaker.subscribe(),
                scans: failures,
                events,
                owned,
                serving: self.serving,
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
            dispatcher::Channels { inbox, jobs: self.jobs, entries, requests, orders, look, due },
            progress,
            send_until,
            self.breaker,
        );
        let (quiet, is_quiet) = oneshot::channel();
        let hand_over = async {
            shutdown.cancelled().await;
            let until = Instant::now() + grace + LAST_WRITES;
            let handed_over = async {
                // A task that panicked was reported by the panic hook; its work is over either way.
                let _ = timeout(RENEWAL, keeper).await;
                let _ = is_quiet.await;
                self.broker.consume(&[]);
                self.store.withdraw_worker(&self.worker).await
            };
            if !matches!(timeout_at(until, handed_over).await, Ok(Ok(()))) {
                tracing::warn!("cannot hand over leases: other workers wait until they expire");
            }
            until
        };
        let (until, ()) = tokio::join!(hand_over, dispatcher.run(shutdown.clone(), quiet));

        // The dispatcher's end of the recorder's channel is gone: results that are left are written, while time lasts.
        if timeout_at(until, recorder).await.is_err() {
            tracing::error!("cannot write the log within the grace: rows in flight are settled later");
        }
        background.cancel();
        // A task that hangs is aborted.
        let _ = timeout(MOMENT, join_all([reader, upkeep, ender, teller, scanner])).await;
    }
}

/// Shared by every call.
type SharedSendContext = Arc<send::SendContext>;
