//! Puts the parts together: opens the store and the broker, and runs the roles of one process.
//!
//! The only place that starts long-lived tasks. If one of them ends before the process is told to stop, the process
//! stops: a supervisor starts a whole one again.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::broker::{self, SharedBroker};
use crate::dispatch::{Dispatch, DispatchOptions};
use crate::feedback::Feedback;
use crate::graph::GraphClient;
use crate::ingest::{self, Ingest};
use crate::message::{BreakerState, Serving};
use crate::ops;
use crate::server;
use crate::settings::Settings;
use crate::store::{self, SchemaState, SharedStore};

/// How often the log's room for further ids is looked after, and how soon again where none could be made: at full speed a
/// range is used up within minutes.
const ROOM_EVERY: Duration = Duration::from_secs(10);
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// The log is looked through for rows older than `log.keep` this often.
const DROP_EVERY: Duration = Duration::from_secs(3_600);

/// Counters of campaigns that are older than this are folded into totals, so many at once, and how often. Younger ones say
/// how fast a campaign goes.
const FOLD_AGE: Duration = Duration::from_secs(120);
const FOLD_AT_ONCE: u32 = 5_000;
const FOLD_EVERY: Duration = Duration::from_secs(10);

/// A stop takes so much longer than the grace at most, whatever hangs: half a second less than is promised, for the end of
/// the process itself. Dispatch takes three seconds of it where results cannot be written.
const BEYOND_GRACE: Duration = Duration::from_millis(4_500);
/// How long the parts that have nothing to send any more may take to close, where the deadline leaves so much.
const CLOSING: Duration = Duration::from_secs(4);

/// What a process does.
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
    /// Where the send endpoints listen.
    pub http: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub store: SharedStore,
    tasks: JoinSet<&'static str>,
    /// The send endpoints; ends when the requests in flight are answered.
    requests: Option<JoinHandle<()>>,
    dispatch: Option<JoinHandle<()>>,
    broker: SharedBroker,
    stopping: CancellationToken,
    /// Cancelled when nothing depends on health checks and replies any more.
    ended: CancellationToken,
    grace: Duration,
}

impl App {
    /// Opens everything and starts the role's tasks. Database and broker may be down; the process is not ready
    /// until the database answers.
    pub async fn start(settings: &Settings, role: Role) -> Result<App> {
        for key in settings.without_effect() {
            tracing::warn!(key, "setting without effect: not built yet");
        }
        let store = open_store(settings, role).await?;
        let (broker, arrivals) = broker::open(&settings.broker).await?;
        let per_address = settings.http.max_connections_per_address;
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();

        let (feedback, events) = Feedback::new(broker.clone(), store.clone(), settings.events.publish);
        if let Some(events) = events {
            let events = events.run(ended.clone());
            tasks.spawn(async move {
                events.await;
                "events"
            });
        }

        let (http, requests) = if role.takes_requests() {
            let listener = listen(settings.http.listen, "http.listen").await?;
            let address = listener.local_addr()?;
            let ingest =
                Ingest::new(store.clone(), broker.clone(), feedback.clone(), settings, stopping.clone());
            let accept = ingest.clone().run(arrivals.replies, ended.clone());
            tasks.spawn(async move {
                accept.await;
                "ingest"
            });
            if let Some(batches) = broker.take_in(ingest::LONGEST_BODY) {
                let intake = ingest.clone().take_in(batches);
                tasks.spawn(async move {
                    intake.await;
                    "intake"
                });
            }
            let router =
                ingest::http::router(ingest.clone()).merge(api::router(ingest, store.clone(), settings));
            let serving = server::serve(listener, router, per_address, stopping.clone());
            (Some(address), Some(tokio::spawn(serving)))
        } else {
            (None, None)
        };

        let (serves, serving) = watch::channel(Serving::default());
        let (breaker, graph) = watch::channel(BreakerState::default());
        let dispatch = if role.sends() {
            let dispatch = Dispatch {
                worker: uuid::Uuid::now_v7().simple().to_string(),
                store: store.clone(),
                broker: broker.clone(),
                feedback,
                jobs: arrivals.jobs,
                graph: GraphClient::new(&settings.graph)?,
                options: DispatchOptions::of(settings),
                serving: serves,
                breaker,
            };
            Some(tokio::spawn(dispatch.run(stopping.clone())))
        } else {
            None
        };

        let listener = listen(settings.admin.listen, "admin.listen").await?;
        let admin = listener.local_addr()?;
        let router = ops::router(store.clone(), broker.clone(), serving, graph, api::document());
        let serving = server::serve(listener, router, per_address, ended.clone());
        tasks.spawn(async move {
            serving.await;
            "admin"
        });
        let watch = ops::watch_rows(store.clone(), role.sends(), ended.clone());
        keep_running(&mut tasks, "watch", watch, &ended);
        keep_running(&mut tasks, "room", keep_room(store.clone()), &ended);
        if !settings.log.keep.is_zero() {
            keep_running(&mut tasks, "old rows", drop_old(store.clone(), settings.log.keep), &ended);
        }
        keep_running(&mut tasks, "counts", fold_counts(store.clone()), &ended);
        tracing::info!(role = role.name(), http = ?http, %admin, "started");
        Ok(App {
            http,
            admin,
            store,
            tasks,
            requests,
            dispatch,
            broker,
            stopping,
            ended,
            grace: settings.shutdown.grace,
        })
    }

    /// Runs until `stop` is cancelled, then drains. An error if a task ended by itself.
    pub async fn run_until(mut self, stop: CancellationToken) -> Result<()> {
        let failed = tokio::select! {
            () = stop.cancelled() => None,
            task = self.tasks.join_next() => Some(task.and_then(Result::ok).unwrap_or("a task")),
            () = finished(&mut self.dispatch) => Some("dispatch"),
            () = finished(&mut self.requests) => Some("http"),
        };
        self.stop().await;
        match failed {
            Some(task) => bail!("{task} ended unexpectedly; the process stops"),
            None => Ok(()),
        }
    }

    /// Stops taking requests, drains calls in flight, writes what is known, and closes everything: within the grace and
    /// [`BEYOND_GRACE`], as all parts have one deadline, counted from here.
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
        // Nothing commits submissions, hears replies or asks for health any more from here on.
        self.ended.cancel();
        let closed_by = deadline.min(Instant::now() + CLOSING);
        // The tasks use broker and database to the end, so these close behind them, in the second half of the time.
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

/// Runs a task that has nothing to finish, until `ended`: one that waits for an answer of the database then is cut.
fn keep_running(
    tasks: &mut JoinSet<&'static str>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    ended: &CancellationToken,
) {
    let ended = ended.clone();
    tasks.spawn(async move {
        ended.run_until_cancelled(task).await;
        name
    });
}

/// Waits for a task, if there is one, and ends it where it goes on until the deadline. Whether it ended by itself.
async fn ends_by(deadline: Instant, task: Option<JoinHandle<()>>) -> bool {
    let Some(mut task) = task else { return true };
    let is_over = timeout_at(deadline, &mut task).await.is_ok();
    task.abort();
    is_over
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Waits for a task; for ever where there is none.
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
        Err(error) => tracing::error!(%error, "database unreachable: retrying"),
    }
    Ok(store)
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("setting {key}: cannot listen on {address}"))
}

/// Makes room for the ids to come, now and every few seconds.
async fn keep_room(store: SharedStore) {
    loop {
        let pause = match store.ensure_room().await {
            Ok(_) => ROOM_EVERY,
            Err(error) => {
                tracing::warn!(%error, "cannot add a range to the log: retrying; `meta-dispatch migrate` also adds it");
                ROOM_AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Drops what is older than the log is kept, now and every hour.
async fn drop_old(store: SharedStore, keep: Duration) {
    loop {
        if let Err(error) = store.drop_old(keep).await {
            tracing::warn!(%error, "cannot drop rows older than log.keep: retrying in an hour");
        }
        tokio::time::sleep(DROP_EVERY).await;
    }
}

/// Folds the counters of campaigns, at once again while there are many.
async fn fold_counts(store: SharedStore) {
    loop {
        let pause = match store.fold_counts(FOLD_AGE, FOLD_AT_ONCE).await {
            Ok(rows) if rows >= u64::from(FOLD_AT_ONCE) => Duration::ZERO,
            Ok(_) => FOLD_EVERY,
            Err(error) => {
                tracing::debug!(%error, "counters of campaigns cannot be folded: they are summed row by row");
                FOLD_EVERY
            }
        };
        tokio::time::sleep(pause).await;
    }
}
