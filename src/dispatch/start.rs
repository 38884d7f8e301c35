//! Starts the parts of a worker, and stops them in order.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::dispatcher::{Channels, Dispatcher};
use super::event::Event;
use super::line::UploadOrder;
use super::options::DispatchOptions;
use super::send::SendContext;
use super::tasks::lease::{LeaseKeeper, SendUntil};
use super::tasks::reconcile::Reconciling;
use super::tasks::recorder::{Entry, Recorder, WriteProgress};
use super::tasks::refresh::TokenKeeper;
use super::tasks::scan::{Failures, Scanner};
use super::tasks::uploads::Uploader;
use super::tasks::{budgets, doomed, echoes, reader, recipients, settled, upkeep};
use crate::broker::{JobDelivery, SharedBroker};
use crate::domain::{BreakerState, Partition, Serving};
use crate::feedback::Feedback;
use crate::graph::GraphClient;
use crate::policy::Backoff;
use crate::policy::retry::RetryPolicy;
use crate::settings::OnUnfetchable;
use crate::store::SharedStore;

/// The time for which a stopping process waits for a lease that is being renewed. The connection is then free
/// for the hand-over.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which results may be written, and leases handed over, after the grace of calls. `app` gives a
/// stop five seconds after the grace: the rest is for the parts that close afterwards.
const FINAL_WRITES_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that the other tasks may take to notice the end.
const TASKS_TIMEOUT: Duration = Duration::from_millis(100);

/// The parts of dispatch.
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

/// The tasks around the dispatcher.
struct Tasks {
    recorder: AbortOnDropHandle<()>,
    keeper: AbortOnDropHandle<()>,
    /// The tasks that only have to notice the end.
    others: Vec<AbortOnDropHandle<()>>,
}

/// The state that the tasks share, and their way to the dispatcher.
struct Shared {
    events: mpsc::UnboundedSender<Event>,
    progress: WriteProgress,
    send_until: SendUntil,
    owned: watch::Sender<Vec<Partition>>,
    failures: Failures,
    look: Arc<Notify>,
    due: Arc<Notify>,
}

impl Dispatch {
    /// Run until `shutdown`, or until one of the tasks ends by itself, then drain: claimed rows whose calls
    /// have not begun are given back, the partitions are handed over, calls in flight are awaited for the
    /// grace, and results are written. The drain takes no longer than the grace, [`FINAL_WRITES_TIMEOUT`] and
    /// a [`TASKS_TIMEOUT`], even if a task hangs; no task outlives it.
    pub async fn run(self, shutdown: CancellationToken) {
        let shutdown = shutdown.child_token();
        let background = CancellationToken::new();
        let (worker, store, broker) = (self.worker.clone(), self.store.clone(), self.broker.clone());
        let grace = self.options.grace;
        let (dispatcher, Tasks { recorder, keeper, others }) = self.start(&shutdown, &background);
        let (quiet, is_quiet) = oneshot::channel();
        let hand_over = async {
            shutdown.cancelled().await;
            let until = Instant::now() + grace + FINAL_WRITES_TIMEOUT;
            let handed_over = async {
                // A task that panicked was reported by the panic hook; its work is over either way.
                let _ = timeout(RENEWAL_TIMEOUT, keeper).await;
                let _ = is_quiet.await;
                broker.consume(&[]);
                store.withdraw_worker(&worker).await
            };
            if !matches!(timeout_at(until, handed_over).await, Ok(Ok(()))) {
                tracing::warn!("cannot hand over leases: other workers wait until they expire");
            }
            until
        };
        let (until, ()) = tokio::join!(hand_over, dispatcher.run(shutdown.clone(), quiet));

        // The dispatcher's end of the recorder's channel is gone: the remaining results are written, while
        // time lasts.
        if timeout_at(until, recorder).await.is_err() {
            tracing::error!("cannot write the log within the grace: rows in flight are settled later");
        }
        background.cancel();
        // A task that hangs is aborted.
        let _ = timeout(TASKS_TIMEOUT, join_all(others)).await;
    }

    /// Start the tasks; return the dispatcher, connected with them. `background` stops the tasks that may go
    /// on until the results are written.
    fn start(self, shutdown: &CancellationToken, background: &CancellationToken) -> (Dispatcher, Tasks) {
        // Unbounded, so that no sender waits here, and bounded by their content. `entries`: a permit's next
        // claim comes behind the result of its call before, so that results are never more than permits; rows
        // that end without a call are few while many entries wait; and while the log cannot be written lines
        // rest. `requests`: one a flow, and few a job; those that cannot be answered are dropped. `orders`:
        // few a line. `uploads`: one an asset, as long as it has no answer. `events`: answers to these, and the
        // results of scans, a thousand rows at a time; they come from the log, and cost the dispatcher less than
        // they cost the log.
        let (events, inbox) = mpsc::unbounded_channel();
        let (entries, recorder_inbox) = mpsc::unbounded_channel();
        let (requests, reader_inbox) = mpsc::unbounded_channel();
        let (orders, upkeep_inbox) = mpsc::unbounded_channel();
        let (recipients, recipients_inbox) = mpsc::unbounded_channel();
        let (uploads, uploads_inbox) = mpsc::unbounded_channel();
        let (budgets, budgets_inbox) = mpsc::unbounded_channel();
        let shared = Shared {
            events,
            progress: WriteProgress::default(),
            send_until: SendUntil::default(),
            owned: watch::Sender::new(Vec::new()),
            failures: Failures::default(),
            look: Arc::new(Notify::new()),
            due: Arc::new(Notify::new()),
        };
        let (store, events, stop) = (&self.store, &shared.events, background);
        let recorder = spawn(shutdown, self.recorder(recorder_inbox, &shared).run());
        let mut others = vec![
            spawn(
                shutdown,
                reader::run(
                    store.clone(),
                    self.options.recipients,
                    reader_inbox,
                    events.clone(),
                    stop.clone(),
                ),
            ),
            spawn(shutdown, recipients::run(store.clone(), recipients_inbox, events.clone(), stop.clone())),
            spawn(shutdown, upkeep::run(store.clone(), upkeep_inbox, events.clone(), stop.clone())),
            spawn(
                shutdown,
                doomed::run(store.clone(), shared.owned.subscribe(), events.clone(), stop.clone()),
            ),
            spawn(
                shutdown,
                budgets::run(self.worker.clone(), store.clone(), budgets_inbox, events.clone(), stop.clone()),
            ),
            spawn(shutdown, settled::run(store.clone(), self.feedback.clone(), stop.clone())),
            spawn(shutdown, self.scanner(&shared).run(shutdown.clone())),
            spawn(shutdown, self.token_keeper(&shared).run(stop.clone())),
            spawn(shutdown, self.uploader(uploads_inbox, &shared).run(stop.clone())),
        ];
        // Echoes come only where webhooks are on.
        if self.options.metadata_key.is_some() {
            let (worker, feedback) = (self.worker.clone(), self.feedback.clone());
            others.push(spawn(shutdown, echoes::run(worker, store.clone(), feedback, stop.clone())));
        }
        if let Some(reconciling) = self.reconciling(&shared) {
            others.push(spawn(shutdown, reconciling.run(stop.clone())));
        }
        let keeper = spawn(shutdown, self.keeper(&shared).run(shutdown.clone()));
        let Shared { progress, send_until, look, due, .. } = shared;
        let dispatcher = Dispatcher::new(
            self.worker,
            SendContext {
                graph: self.graph,
                policy: self.options.retry.clone(),
                codes: self.options.codes.clone(),
                metadata_key: self.options.metadata_key.clone(),
                send_until: send_until.clone(),
            },
            self.options,
            Channels {
                inbox,
                jobs: self.jobs,
                entries,
                requests,
                orders,
                recipients,
                budgets,
                uploads,
                look,
                due,
            },
            progress,
            send_until,
            self.breaker,
        );
        (dispatcher, Tasks { recorder, keeper, others })
    }

    fn recorder(&self, entries: mpsc::UnboundedReceiver<Entry>, shared: &Shared) -> Recorder {
        Recorder {
            worker: self.worker.clone(),
            store: self.store.clone(),
            feedback: self.feedback.clone(),
            entries,
            events: shared.events.clone(),
            due: shared.due.clone(),
            progress: shared.progress.clone(),
        }
    }

    fn uploader(&self, orders: mpsc::UnboundedReceiver<UploadOrder>, shared: &Shared) -> Uploader {
        let RetryPolicy { base, cap, .. } = self.options.retry;
        Uploader {
            worker: self.worker.clone(),
            store: self.store.clone(),
            graph: self.graph.clone(),
            send_until: shared.send_until.clone(),
            delays: Backoff { base, cap },
            policy: self.options.attachments.unwrap_or(OnUnfetchable::Refuse),
            orders,
            events: shared.events.clone(),
        }
    }

    fn reconciling(&self, shared: &Shared) -> Option<Reconciling> {
        Some(Reconciling {
            store: self.store.clone(),
            graph: self.graph.clone(),
            keys: self.options.keys.clone(),
            app_keys: self.options.app_keys.clone(),
            length: self.options.reconcile?,
            owned: shared.owned.subscribe(),
        })
    }

    fn scanner(&self, shared: &Shared) -> Scanner {
        Scanner {
            store: self.store.clone(),
            broker: self.broker.clone(),
            owned: shared.owned.subscribe(),
            events: shared.events.clone(),
            look: shared.look.clone(),
            due: shared.due.clone(),
            failures: shared.failures.clone(),
        }
    }

    fn token_keeper(&self, shared: &Shared) -> TokenKeeper {
        TokenKeeper {
            store: self.store.clone(),
            graph: self.graph.clone(),
            keys: self.options.keys.clone(),
            owned: shared.owned.subscribe(),
            events: shared.events.clone(),
        }
    }

    fn keeper(&self, shared: &Shared) -> LeaseKeeper {
        LeaseKeeper {
            worker: self.worker.clone(),
            store: self.store.clone(),
            broker: self.broker.clone(),
            graph: self.graph.clone(),
            lease: self.options.lease,
            margin: self.options.lease_margin,
            held_within: self.options.call_deadline.max(self.options.retry.cap),
            breaker: self.breaker.subscribe(),
            scans: shared.failures.clone(),
            events: shared.events.clone(),
            owned: shared.owned.clone(),
            serving: self.serving.clone(),
            send_until: shared.send_until.clone(),
        }
    }
}

/// Start a task. When it ends, also by a panic, all tasks stop, as the others would wait for it. When its
/// handle is dropped the task is aborted: it would keep a connection that another needs, or write after the
/// end.
fn spawn(
    shutdown: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    let gone = shutdown.clone().drop_guard();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _gone = gone;
        task.await;
    }))
}
