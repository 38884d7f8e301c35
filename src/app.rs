//! The assembly of the parts: opens the store and the broker, and runs the roles of one process.
//!
//! The only place that starts long-lived tasks. If one of them ends before the stop of the process, the
//! process stops: a supervisor starts a whole one again.

mod listeners;
mod rows;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;

use crate::broker::{self, JobDelivery, SharedBroker};
use crate::dispatch::{Dispatch, DispatchOptions};
use crate::domain::{BreakerState, Serving};
use crate::feedback::Feedback;
use crate::graph::GraphClient;
use crate::ops;
use crate::settings::{AdminAddress, Settings};
use crate::store::{self, SchemaState, SharedStore, StoreError};
use crate::tasks::every;

/// The longest time that a stop takes beyond the grace, whatever hangs: half a second less than is promised,
/// for the end of the process itself. Dispatch takes three seconds of it where results cannot be written.
const BEYOND_GRACE: Duration = Duration::from_millis(4_500);
/// How long the parts that have nothing more to send may take to close, where the deadline leaves so much.
const CLOSING: Duration = Duration::from_secs(4);

/// The work of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// HTTP and workers in one process.
    Serve,
    Ingest,
    Worker,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Serve => "serve",
            Role::Ingest => "ingest",
            Role::Worker => "worker",
        }
    }

    fn takes_requests(self) -> bool {
        self != Role::Worker
    }

    fn sends(self) -> bool {
        self != Role::Ingest
    }
}

/// A running process.
pub struct App {
    /// The address of the send endpoints.
    pub http: Option<SocketAddr>,
    pub admin: AdminAddress,
    pub store: SharedStore,
    tasks: JoinMap<&'static str, ()>,
    /// The send endpoints; ends when the requests in flight are answered.
    requests: Option<JoinHandle<()>>,
    dispatch: Option<JoinHandle<()>>,
    broker: SharedBroker,
    stopping: CancellationToken,
    /// Cancelled when no part needs health checks and replies any more.
    ended: CancellationToken,
    grace: Duration,
}

/// The parts that the roles share, while a process is put together.
struct Parts<'a> {
    settings: &'a Settings,
    role: Role,
    store: SharedStore,
    broker: SharedBroker,
    feedback: Feedback,
    tasks: JoinMap<&'static str, ()>,
    /// Hears of bodies of webhooks that this process has put into the inbox.
    webhooks_arrived: Arc<Notify>,
    stopping: CancellationToken,
    ended: CancellationToken,
}

impl Parts<'_> {
    fn dispatch(
        &self,
        jobs: mpsc::Receiver<JobDelivery>,
        serving: watch::Sender<Serving>,
        breaker: watch::Sender<BreakerState>,
    ) -> Result<JoinHandle<()>> {
        let dispatch = Dispatch {
            worker: uuid::Uuid::now_v7().simple().to_string(),
            store: self.store.clone(),
            broker: self.broker.clone(),
            feedback: self.feedback.clone(),
            jobs,
            graph: GraphClient::new(&self.settings.graph)?,
            options: DispatchOptions::of(self.settings),
            serving,
            breaker,
        };
        Ok(tokio::spawn(dispatch.run(self.stopping.clone())))
    }

    /// Count rows, make room for new ones and drop old ones.
    fn look_after_rows(&mut self) {
        let keep = self.settings.log.keep;
        self.keep_running("watch", ops::watch_rows(self.store.clone(), self.role.sends()));
        self.keep_running("page tokens", ops::watch_page_tokens(self.store.clone(), self.role.sends()));
        self.repeat("room", rows::make_room);
        self.repeat("counts", rows::fold_counts);
        if !keep.is_zero() {
            self.repeat("old rows", move |store| rows::drop_old(store, keep));
        }
    }

    /// Repeat a job until the process has ended.
    fn repeat<F>(&mut self, name: &'static str, mut job: impl FnMut(SharedStore) -> F + Send + 'static)
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        let store = self.store.clone();
        self.keep_running(name, every(self.ended.clone(), move || job(store.clone())));
    }

    /// Run a task that has no work to finish, until the process has ended: a task that waits for an answer of
    /// the database then is cut.
    fn keep_running(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tasks.spawn(name, async move {
            ended.run_until_cancelled(task).await;
        });
    }
}

impl App {
    /// Open everything and start the role's tasks. Database and broker may be down; the process is not ready
    /// until the database answers.
    pub async fn start(settings: &Settings, role: Role) -> Result<App> {
        settings.check_names().await?;
        for (key, reason) in settings.without_effect() {
            tracing::warn!(key, reason, "setting without effect");
        }
        let store = open_store(settings, role).await?;
        let (broker, arrivals) = broker::open(&settings.broker).await?;
        let (feedback, events) = Feedback::new(broker.clone(), store.clone(), settings.events.publish);
        let mut parts = Parts {
            settings,
            role,
            store,
            broker,
            feedback,
            tasks: JoinMap::new(),
            webhooks_arrived: Arc::default(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        if let Some(events) = events {
            parts.tasks.spawn("events", events.run(parts.ended.clone()));
        }
        let (serves, serving) = watch::channel(Serving::default());
        let (breaker, graph) = watch::channel(BreakerState::default());
        // First, so that a process that takes messages in can be asked for its health.
        let admin = parts.serve_admin(serving, graph).await?;
        let (http, requests) = match role.takes_requests() {
            true => Some(parts.take_requests(arrivals.replies).await?).unzip(),
            false => (None, None),
        };
        let dispatch = match role.sends() {
            true => Some(parts.dispatch(arrivals.jobs, serves, breaker)?),
            false => None,
        };
        if role.sends() {
            parts.apply_webhooks();
        }
        parts.look_after_rows();
        tracing::info!(role = role.name(), http = http.map(tracing::field::display), %admin, "started");
        let Parts { store, broker, tasks, stopping, ended, .. } = parts;
        let grace = settings.shutdown.grace;
        Ok(App { http, admin, store, tasks, requests, dispatch, broker, stopping, ended, grace })
    }

    /// Run until `stop` is cancelled, then drain. An error if a task ended by itself.
    pub async fn run_until(mut self, stop: CancellationToken) -> Result<()> {
        let failed = tokio::select! {
            () = stop.cancelled() => None,
            task = self.tasks.join_next() => Some(task.map_or("a task", |(name, _)| name)),
            () = finished(&mut self.dispatch) => Some("dispatch"),
            () = finished(&mut self.requests) => Some("http"),
        };
        self.stop().await;
        match failed {
            Some(task) => bail!("{task} ended unexpectedly; the process stops"),
            None => Ok(()),
        }
    }

    /// Stop taking requests, drain calls in flight, write the known results, and close everything: within the
    /// grace and [`BEYOND_GRACE`], as all parts have one deadline, counted from here.
    pub async fn stop(mut self) {
        let grace_ends = Instant::now() + self.grace;
        let deadline = grace_ends + BEYOND_GRACE;
        self.stopping.cancel();
        let (drained, answered) =
            tokio::join!(ends_by(deadline, self.dispatch.take()), ends_by(grace_ends, self.requests.take()));
        if !drained {
            tracing::error!("dispatch exceeded the grace: rows in flight are settled later");
        }
        if !answered {
            tracing::warn!("requests exceeded the grace: connections cut");
        }
        // From here on no part commits submissions, hears replies or asks for health.
        self.ended.cancel();
        let closed_by = deadline.min(Instant::now() + CLOSING);
        // The tasks use broker and database to the end, so these close after them, in the second half of the
        // time.
        let tasks = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(left_until(closed_by) / 2, tasks).await.is_err() {
            tracing::warn!("tasks exceeded the grace: aborted");
            self.tasks.abort_all();
        }
        let (closed, ()) =
            tokio::join!(timeout_at(closed_by, self.store.close()), self.broker.close(left_until(closed_by)));
        if closed.is_err() {
            tracing::warn!("database connections exceeded the grace: left open");
        }
        tracing::info!("stopped");
    }
}

/// Wait for a task, if there is one, and end it if it goes on until the deadline. Return whether it ended by
/// itself.
async fn ends_by(deadline: Instant, task: Option<JoinHandle<()>>) -> bool {
    let Some(mut task) = task else { return true };
    let is_over = timeout_at(deadline, &mut task).await.is_ok();
    task.abort();
    is_over
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Wait for a task; for ever if there is none.
async fn finished(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(running) => {
            // A panic was reported by the panic hook.
            let _ = running.await;
            *task = None;
        }
        None => std::future::pending().await,
    }
}

async fn open_store(settings: &Settings, role: Role) -> Result<SharedStore> {
    let url = settings.database.url.expose_secret();
    if role != Role::Serve {
        if url.starts_with("sqlite:") {
            bail!(
                "setting database.url: `{}` needs postgres://…; SQLite serves one process, `serve`",
                role.name()
            );
        }
        if settings.broker.url.expose_secret() == "embedded" {
            bail!(
                "setting broker.url: `{}` needs amqp://…; the embedded queue serves one process, `serve`",
                role.name()
            );
        }
    }
    let store = store::open_for_serving(&settings.database).await?;
    match store.schema().await {
        Ok(SchemaState::Older) => {
            tracing::error!(
                "database schema missing or too old: process not ready; run `meta-dispatch migrate`"
            );
        }
        Ok(SchemaState::Current | SchemaState::Newer) => {}
        Err(error @ StoreError::Invalid(_)) => return Err(error.into()),
        Err(error @ StoreError::Denied(_)) => tracing::error!(%error, "database refuses the role: retrying"),
        Err(error) => tracing::error!(%error, "database unreachable: retrying"),
    }
    Ok(store)
}
