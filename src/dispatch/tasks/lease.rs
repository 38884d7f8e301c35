//! Keeps this process's share of the partitions: renews, takes free ones, gives a surplus back.
//!
//! Exactness rests on three rules: a claim checks the lease in the database; this process stops sending a
//! margin before its leases end, by its own monotonic clock ([`SendUntil`]); a new owner's limiters start
//! drained. Together they keep the calls of two owners out of any one-second window.
//!
//! A worker that cannot serve its partitions gives them all back while another worker can: its calls do not
//! reach Graph, or its scans fail, for two leases. The last worker keeps trying. Partitions that it cannot
//! take over go back by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::scan::Failures;
use super::share::{ShareStep, WorkerCensus, wanted};
use crate::broker::SharedBroker;
use crate::dispatch::event::Event;
use crate::domain::{BreakerState, Partition, Serving};
use crate::graph::GraphClient;
use crate::metrics::METRICS;
use crate::store::{LeaseReport, SchemaState, SharedStore, StoreError};

/// The pause between looks for free partitions while a worker holds fewer than its share.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Partitions that cannot be served for this many leases are given back.
const UNSERVED_LEASES: u32 = 2;
/// The age of a transaction that is worth a warning, now and then.
const OLD_SNAPSHOT: Duration = Duration::from_secs(15 * 60);
const WARN_EVERY: Duration = Duration::from_secs(3600);
/// Held recipients read when partitions are taken over; those of retries due later are not held.
const MAX_HELD_RECIPIENTS: u32 = 100_000;

/// The time until which this process may begin calls of each partition's lines: a margin before its lease
/// ends.
#[derive(Clone, Default)]
pub struct SendUntil(Arc<Mutex<BTreeMap<Partition, Instant>>>);

impl SendUntil {
    pub fn allows(&self, partition: Partition, now: Instant) -> bool {
        let until = self.0.lock();
        until.get(&partition).is_some_and(|until| now < *until)
    }

    /// Whether any partition's lines may send.
    pub fn allows_any(&self, now: Instant) -> bool {
        let until = self.0.lock();
        until.values().any(|until| now < *until)
    }

    /// Allow sending for the partitions held, and no others, until then.
    pub fn set(&self, held: &BTreeSet<Partition>, until: Instant) {
        let mut all = self.0.lock();
        all.retain(|partition, _| held.contains(partition));
        all.extend(held.iter().map(|partition| (*partition, until)));
    }

    fn add(&self, partitions: &[Partition], until: Instant) {
        let mut all = self.0.lock();
        all.extend(partitions.iter().map(|partition| (*partition, until)));
    }
}

/// The task that keeps the leases.
pub struct LeaseKeeper {
    pub worker: String,
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub graph: GraphClient,
    pub lease: Duration,
    /// The time before the end of a lease after which no call begins.
    pub margin: Duration,
    /// Recipients whose retry is due within this time are held back; recipients of a retry that Graph itself
    /// put off for longer are not.
    pub held_within: Duration,
    pub events: mpsc::UnboundedSender<Event>,
    /// The partitions owned, for scans.
    pub owned: watch::Sender<Vec<Partition>>,
    /// Their number, for health checks.
    pub serving: watch::Sender<Serving>,
    pub send_until: SendUntil,
    pub breaker: watch::Receiver<BreakerState>,
    /// The time since which scans of the owned partitions fail.
    pub scans: Failures,
}

/// The state that the keeper remembers from one renewal to the next.
#[derive(Default)]
struct KeeperState {
    knows_schema: bool,
    /// The time since which calls do not reach Graph.
    away_since: Option<Instant>,
    /// Whether the partitions were given up: none is taken before Graph is reached again.
    is_away: bool,
    /// Whether the partitions were given up: none is taken before scans succeed again.
    is_blind: bool,
    /// The partitions whose scans failed then.
    unseen: Vec<Partition>,
    /// Owned partitions, by the database, that this process does not serve, and the time since which it does
    /// not.
    unserved: BTreeMap<Partition, Instant>,
    /// When the operator was warned of an old snapshot.
    warned: Option<Instant>,
}

/// Return the time before the end of a lease after which no call begins: its connection may take
/// `connect_timeout`.
pub fn margin(lease: Duration, connect_timeout: Duration) -> Duration {
    (lease / 5).max(connect_timeout + Duration::from_millis(250)).min(lease * 2 / 5)
}

impl LeaseKeeper {
    /// Renew every 0.3 of a lease, and look for free partitions every second while some are lacking, until
    /// `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut state = KeeperState::default();
        loop {
            let pause = match self.turn(&mut state).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "cannot renew leases: sending stops when they expire");
                    self.pause(false)
                }
            };
            self.show(&state);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn show(&self, state: &KeeperState) {
        let leases = self.owned.borrow().len();
        let unscanned = if self.scans.are_any() { leases } else { 0 };
        let unserved = state.unserved.len() + unscanned;
        METRICS.dispatch.unserved.set(unserved as f64);
        self.serving.send_replace(Serving { leases, unserved });
    }

    async fn turn(&self, state: &mut KeeperState) -> Result<Duration, StoreError> {
        if !state.knows_schema {
            // On a schema older than this program's, results of calls could not be written: no partition is
            // taken before `migrate` has run. Later versions only add to it.
            state.knows_schema = self.store.schema().await? != SchemaState::Older;
            return Ok(if state.knows_schema { Duration::ZERO } else { self.pause(false) });
        }
        let has_share = self.keep(state).await?;
        Ok(self.pause(has_share))
    }

    fn pause(&self, has_share: bool) -> Duration {
        let renewal = self.lease * 3 / 10;
        if has_share { renewal } else { renewal.min(LOOK_EVERY) }
    }

    /// Renew, and come nearer to the share; return whether it has been reached.
    async fn keep(&self, state: &mut KeeperState) -> Result<bool, StoreError> {
        self.look_at_graph(state).await;
        self.look_at_scans(state).await;
        let is_unable = state.is_away || state.is_blind;
        let asked = Instant::now();
        // The timeout leaves time for another connection, if this one's server has vanished.
        let renewing = self.store.renew_leases(&self.worker, self.lease, is_unable);
        let report = tokio::time::timeout(self.lease / 2, renewing)
            .await
            .map_err(|_| StoreError::Unavailable("no answer within half a lease".into()))??;
        look_at_snapshot(report.oldest_snapshot, state);
        let held: BTreeSet<Partition> = report.held.iter().copied().collect();
        self.send_until.set(&held, asked + self.lease - self.margin);
        self.compare(&held, state).await?;

        match wanted(share_of(&report, is_unable), held.len()) {
            ShareStep::Keep => Ok(true),
            ShareStep::Release(surplus) => {
                let surplus: Vec<Partition> = held.iter().rev().take(surplus).copied().collect();
                self.let_go(&surplus).await;
                self.store.release_leases(&self.worker, &surplus).await?;
                Ok(false)
            }
            ShareStep::Take(lacking) => {
                let asked = Instant::now();
                let taken = self.store.acquire_leases(&self.worker, self.lease, lacking).await?;
                self.send_until.add(&taken, asked + self.lease - self.margin);
                let has_share = taken.len() == lacking;
                self.take(taken, state).await?;
                Ok(has_share)
            }
        }
    }

    /// Compare the partitions held by the database with those that this process serves.
    async fn compare(&self, held: &BTreeSet<Partition>, state: &mut KeeperState) -> Result<(), StoreError> {
        let lost: Vec<Partition> =
            self.owned.borrow().iter().copied().filter(|partition| !held.contains(partition)).collect();
        if !lost.is_empty() {
            tracing::warn!(partitions = lost.len(), "leases lost: other workers own these partitions");
            self.let_go(&lost).await;
        }
        // Owned by the database, and not known here: the answer to a take-over was lost, or reading their
        // rows failed.
        let unknown: Vec<Partition> =
            held.iter().copied().filter(|partition| !self.owned.borrow().contains(partition)).collect();
        if let Err(error) = self.take(unknown, state).await {
            self.give_up_unserved(state).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn take(&self, partitions: Vec<Partition>, state: &mut KeeperState) -> Result<(), StoreError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        for partition in &partitions {
            state.unserved.entry(*partition).or_insert(now);
        }
        let claims = self.store.open_claims(&partitions).await?;
        let held = self.store.held_recipients(&partitions, self.held_within, MAX_HELD_RECIPIENTS).await?;
        tracing::info!(partitions = partitions.len(), claims = claims.len(), "partitions taken over");
        state.unserved.retain(|partition, _| !partitions.contains(partition));
        let mut owned: BTreeSet<Partition> = self.owned.borrow().iter().copied().collect();
        owned.extend(&partitions);
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(Event::Gained { at: now, partitions, held, claims });
        self.publish(owned);
        Ok(())
    }

    /// Give back partitions that have not been served for too long.
    async fn give_up_unserved(&self, state: &mut KeeperState) -> Result<(), StoreError> {
        let too_long = self.lease * UNSERVED_LEASES;
        let unserved: Vec<Partition> =
            state.unserved.iter().filter(|(_, since)| since.elapsed() > too_long).map(|(p, _)| *p).collect();
        if unserved.is_empty() {
            return Ok(());
        }
        tracing::error!(partitions = unserved.len(), "cannot serve partitions: released to other workers");
        state.unserved.retain(|partition, _| !unserved.contains(partition));
        self.store.release_leases(&self.worker, &unserved).await
    }

    /// Find out whether calls reach Graph: not, while the breaker has been open for two leases. A worker
    /// without partitions makes no calls and sends Graph a request of its own.
    async fn look_at_graph(&self, state: &mut KeeperState) {
        let breaker = *self.breaker.borrow();
        if state.is_away {
            // Without partitions no call closes the breaker. While it rests, a line would wait here.
            state.is_away = match breaker {
                BreakerState::Open => true,
                BreakerState::Closed | BreakerState::Stalled if !self.owned.borrow().is_empty() => false,
                _ => !self.graph.answers(self.lease / 2).await,
            };
            if !state.is_away {
                tracing::info!("Graph reachable again: taking partitions");
                state.away_since = None;
            }
            return;
        }
        // Trials prove nothing before they have closed the breaker.
        let is_open = matches!(breaker, BreakerState::Open | BreakerState::HalfOpen);
        state.away_since = if is_open { state.away_since.or(Some(Instant::now())) } else { None };
        let is_late = state.away_since.is_some_and(|since| since.elapsed() >= self.lease * UNSERVED_LEASES);
        if !is_late {
            return;
        }
        // The breaker closes only after many answers: a worker with little traffic reaches Graph long before.
        state.is_away = breaker == BreakerState::Open || !self.graph.answers(self.lease / 2).await;
        if state.is_away {
            tracing::error!("Graph unreachable: partitions released to workers that reach Graph");
        } else {
            state.away_since = None;
        }
    }

    /// Find out whether scans succeed: not, while one of them has failed for two leases. A worker without
    /// partitions makes none, and tries them on the partitions it had.
    async fn look_at_scans(&self, state: &mut KeeperState) {
        let since = self.scans.since();
        if state.is_blind {
            let owns_none = self.owned.borrow().is_empty();
            state.is_blind = if owns_none { !self.can_scan(&state.unseen).await } else { since.is_some() };
            if !state.is_blind {
                tracing::info!("scans succeed again: taking partitions");
            }
        } else if since.is_some_and(|since| since.elapsed() >= self.lease * UNSERVED_LEASES) {
            state.is_blind = true;
            state.unseen = self.owned.borrow().clone();
            tracing::error!("scans keep failing: partitions released to workers whose scans succeed");
        }
    }

    async fn can_scan(&self, partitions: &[Partition]) -> bool {
        let scans = async {
            self.store.ready_flows(partitions, true).await?;
            self.store.new_work(partitions, None, 1).await?;
            self.store.open_claims_since(partitions).await.map(drop)
        };
        matches!(tokio::time::timeout(self.lease / 2, scans).await, Ok(Ok(())))
    }

    /// Let partitions go once the dispatcher has stopped sending for them.
    async fn let_go(&self, partitions: &[Partition]) {
        let mut owned: BTreeSet<Partition> = self.owned.borrow().iter().copied().collect();
        owned.retain(|partition| !partitions.contains(partition));
        self.publish(owned);
        let (stopped, wait) = oneshot::channel();
        let _ = self.events.send(Event::Lost { partitions: partitions.to_vec(), stopped });
        let _ = wait.await;
    }

    fn publish(&self, owned: BTreeSet<Partition>) {
        let owned: Vec<Partition> = owned.into_iter().collect();
        self.broker.consume(&owned);
        self.serving.send_modify(|serving| serving.leases = owned.len());
        METRICS.dispatch.leases.set(owned.len() as f64);
        self.owned.send_replace(owned);
    }
}

/// Show the age of the oldest snapshot, and warn of one that keeps dead rows for long.
fn look_at_snapshot(age: Option<Duration>, state: &mut KeeperState) {
    let age = age.unwrap_or_default();
    METRICS.dispatch.snapshot_age.set(age.as_secs_f64());
    let is_warned = state.warned.is_some_and(|at| at.elapsed() < WARN_EVERY);
    if age >= OLD_SNAPSHOT && !is_warned {
        state.warned = Some(Instant::now());
        tracing::warn!(
            age_seconds = age.as_secs(),
            "old transaction open: the database keeps old row versions; end a forgotten transaction \
             (pg_stat_activity, pg_replication_slots)"
        );
    }
}

/// Return the workers among whom partitions are dealt, as this one sees them; `None` for a worker that cannot
/// serve lines while another can.
fn share_of(report: &LeaseReport, is_unable: bool) -> Option<WorkerCensus> {
    let LeaseReport { free, below_share, .. } = *report;
    match (is_unable, report.able) {
        (true, 0) => Some(WorkerCensus { workers: report.workers.max(1), free, below_share }),
        (true, _) => None,
        (false, able) => Some(WorkerCensus { workers: able.max(1), free, below_share }),
    }
}
