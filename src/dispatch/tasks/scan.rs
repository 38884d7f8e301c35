//! Looks through the queue for rows that no job named: work, rows whose time has come, claims without a call.
//!
//! The scans are why losing a job, a queue or the whole broker loses no message: every owner scans its own
//! partitions. Each scan runs by itself, so that a failing or slow one stops no other, and begins where it
//! was last complete, with an overlap for transactions that commit late and a full look as a net. Worst
//! delays: work without a job 2 s (250 ms while the broker is away), a row that is due 750 ms, a claim
//! without a call 5 s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerState, SharedBroker};
use crate::dispatch::event::Event;
use crate::domain::{Partition, WorkId};
use crate::failpoint;
use crate::metrics::METRICS;
use crate::store::{DispatchStore, StoreError};

const NEW_EVERY: Duration = Duration::from_secs(2);
const NEW_EVERY_WITHOUT_BROKER: Duration = Duration::from_millis(250);
const NEW_AT_ONCE: u32 = 5_000;
/// A net: schedules and retries give the time of the next due row.
const DUE_EVERY: Duration = Duration::from_secs(5);
const DUE_EVERY_WITHOUT_BROKER: Duration = Duration::from_millis(500);
/// The least pause between looks at due rows, unless more are due.
const DUE_REST: Duration = Duration::from_millis(100);
const DUE_AT_ONCE: u32 = 1_000;
const CLAIMS_EVERY: Duration = Duration::from_secs(5);
/// The pause between removals of claims of workers that are gone.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// The pause between full looks, and between looks at due rows from the beginning.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// A full look takes at most one part in this many of the time.
const SHARE: u32 = 30;
/// The next look finds transactions that commit this late.
const OVERLAP: Duration = Duration::from_secs(10);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The parts that scans need.
#[derive(Clone)]
pub struct Scanner {
    pub store: Arc<dyn DispatchStore>,
    pub broker: SharedBroker,
    /// The partitions scanned.
    pub owned: watch::Receiver<Vec<Partition>>,
    pub events: mpsc::UnboundedSender<Event>,
    /// Notified when there is reason for a full look.
    pub look: Arc<Notify>,
    /// Notified when a row was scheduled or put off.
    pub due: Arc<Notify>,
    pub failures: Failures,
}

/// The scans, each with a timer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scan {
    All,
    New,
    Due,
    Claims,
}

/// The time since which each failing scan fails.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<Scan, Instant>>>);

impl Failures {
    pub fn are_any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// Return the time since which an essential scan fails. The scan for due rows is none: other rows go on,
    /// and one row may be at fault.
    pub fn since(&self) -> Option<Instant> {
        let failing = self.0.lock();
        failing.iter().filter(|(scan, _)| **scan != Scan::Due).map(|(_, since)| *since).min()
    }

    fn failed(&self, scan: Scan) {
        self.0.lock().entry(scan).or_insert_with(Instant::now);
    }

    /// Record that the scan succeeded, or has no partitions to look at.
    fn ended(&self, scan: Scan) {
        self.0.lock().remove(&scan);
    }
}

impl Scanner {
    /// Scan until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let scans = async {
            tokio::join!(
                self.clone().scan_all(),
                self.clone().scan_new(),
                self.clone().scan_due(),
                self.clone().scan_claims()
            )
        };
        tokio::select! {
            _ = scans => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn partitions(&self) -> Vec<Partition> {
        self.owned.borrow().clone()
    }

    /// Wait for the pause, or until the owned partitions change.
    async fn wait(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = self.owned.changed() => {}
        }
    }

    fn tell(&self, event: Event) {
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(event);
    }

    fn failed(&self, scan: Scan, error: &StoreError) {
        let looked_for = match scan {
            Scan::All => "work",
            Scan::New => "new work",
            Scan::Due => "rows that are due",
            Scan::Claims => "claims without a call",
        };
        tracing::warn!(%error, "scan for {looked_for} failed: retrying");
        METRICS.dispatch.scans_failed.increment(1);
        self.failures.failed(scan);
    }

    /// Scan every flow with work, when partitions are gained (the lines that can send first), on request, and
    /// once a minute.
    async fn scan_all(mut self) {
        let mut sendable = true;
        loop {
            let partitions = self.owned.borrow_and_update().clone();
            let next;
            if !partitions.is_empty() {
                let started = Instant::now();
                match self.look_at_all(&partitions, sendable).await {
                    Ok(()) => {
                        self.failures.ended(Scan::All);
                        // Lines that cannot send come right behind the first look.
                        next = if sendable {
                            started
                        } else {
                            started + FULL_EVERY.max(started.elapsed() * SHARE)
                        };
                        sendable = false;
                    }
                    Err(error) => {
                        self.failed(Scan::All, &error);
                        next = Instant::now() + AFTER_FAILURE;
                    }
                }
            } else {
                self.failures.ended(Scan::All);
                next = Instant::now() + FULL_EVERY;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                Ok(()) = self.owned.changed() => sendable = true,
                () = self.look.notified() => sendable = true,
            }
        }
    }

    async fn look_at_all(&self, partitions: &[Partition], sendable: bool) -> Result<(), StoreError> {
        let began = Instant::now();
        let flows = self.store.ready_flows(partitions, sendable).await?;
        failpoint::hit("in_scan");
        self.tell(Event::Ready { began, scanned: partitions.to_vec(), flows });
        Ok(())
    }

    /// Scan for new work.
    async fn scan_new(mut self) {
        let mut reached = Reached::default();
        loop {
            let partitions = self.partitions();
            let mut pause = self.new_pause();
            if !partitions.is_empty() {
                match self.store.new_work(&partitions, reached.from(), NEW_AT_ONCE).await {
                    Ok(new) => {
                        self.failures.ended(Scan::New);
                        if new.is_full {
                            pause = Duration::ZERO;
                            reached.pass(new.reached);
                        }
                        reached.note(new.reached);
                        if !new.work.is_empty() {
                            self.tell(Event::Work(new.work));
                        }
                        if new.campaign_resumed {
                            self.look.notify_one();
                        }
                    }
                    Err(error) => {
                        self.failed(Scan::New, &error);
                        pause = pause.max(AFTER_FAILURE);
                    }
                }
            } else {
                self.failures.ended(Scan::New);
            }
            self.wait(pause).await;
        }
    }

    fn new_pause(&self) -> Duration {
        if self.broker.state() == BrokerState::Up { NEW_EVERY } else { NEW_EVERY_WITHOUT_BROKER }
    }

    /// Scan for rows whose time has come.
    async fn scan_due(mut self) {
        let mut from: Option<OffsetDateTime> = None;
        let mut full_at = Instant::now();
        loop {
            if self.owned.has_changed().unwrap_or(false) || Instant::now() >= full_at {
                (from, full_at) = (None, Instant::now() + FULL_EVERY);
            }
            let partitions = self.owned.borrow_and_update().clone();
            let is_told = self.broker.state() == BrokerState::Up;
            let mut pause = if is_told { DUE_EVERY } else { DUE_EVERY_WITHOUT_BROKER };
            if !partitions.is_empty() {
                match self.store.promote_due(&partitions, from, DUE_AT_ONCE).await {
                    Ok(promoted) => {
                        self.failures.ended(Scan::Due);
                        failpoint::hit("in_promote");
                        pause = if promoted.more {
                            Duration::ZERO
                        } else {
                            promoted.next.unwrap_or(pause).min(pause)
                        };
                        if !promoted.more {
                            from = promoted.reached.map(|reached| reached - OVERLAP).or(from);
                        }
                        if !promoted.work.is_empty() {
                            self.tell(Event::Work(promoted.work));
                        }
                    }
                    Err(error) => {
                        self.failed(Scan::Due, &error);
                        pause = AFTER_FAILURE;
                    }
                }
            } else {
                self.failures.ended(Scan::Due);
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause.min(DUE_REST)).await;
                self.wait_for_due(pause.saturating_sub(DUE_REST)).await;
            }
        }
    }

    /// Wait for the pause, or until the owned partitions change or the next row may be due sooner.
    async fn wait_for_due(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.due.notified() => {}
            Ok(()) = self.owned.changed() => {}
        }
    }

    /// Scan for claims without a call.
    async fn scan_claims(mut self) {
        let mut forget_at = Instant::now() + FORGET_EVERY;
        loop {
            self.wait(CLAIMS_EVERY).await;
            let partitions = self.owned.borrow_and_update().clone();
            if partitions.is_empty() {
                self.failures.ended(Scan::Claims);
                continue;
            }
            match self.store.open_claims_since(&partitions).await {
                Ok(claims) => {
                    self.failures.ended(Scan::Claims);
                    if !claims.is_empty() {
                        self.tell(Event::Claimed(claims));
                    }
                }
                Err(error) => self.failed(Scan::Claims, &error),
            }
            if Instant::now() >= forget_at {
                forget_at = Instant::now() + FORGET_EVERY;
                if let Err(error) = self.store.forget_claims().await {
                    tracing::debug!(%error, "claims of workers that are gone stay: they are removed later");
                }
            }
        }
    }
}

/// The highest numbers of work seen, and when.
#[derive(Default)]
struct Reached {
    from: Option<WorkId>,
    seen: VecDeque<(Instant, WorkId)>,
}

impl Reached {
    /// Return the position at which the next look begins.
    fn from(&self) -> Option<WorkId> {
        self.from
    }

    fn note(&mut self, reached: WorkId) {
        let now = Instant::now();
        self.from.get_or_insert(reached);
        self.seen.push_back((now, reached));
        while let Some((at, reached)) = self.seen.front().copied()
            && at + OVERLAP <= now
        {
            self.pass(reached);
            self.seen.pop_front();
        }
    }

    /// Leave out numbers up to this one from now on.
    fn pass(&mut self, reached: WorkId) {
        self.from = self.from.max(Some(reached));
    }
}
