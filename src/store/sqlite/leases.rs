//! The partitions that each worker of this process owns. One process sends from the file at a time, so leases
//! need no table and an idle process writes nothing; after a restart no worker is alive.
//!
//! A claim checks its lease here inside its transaction. Partitions change hands only when the transaction
//! then in progress has ended, so that the new owner finds every claim of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::SqliteStore;
use super::error::failed;
use crate::domain::{PARTITIONS, Partition};
use crate::store::{LeaseReport, LeaseStore, StoreError};

/// The living workers of this process, each with its partitions.
#[derive(Default)]
pub struct Leases(Mutex<BTreeMap<String, Lease>>);

struct Lease {
    partitions: BTreeSet<Partition>,
    /// `None`: never, as the time is beyond the reach of this clock.
    expires_at: Option<Instant>,
    unable: bool,
}

impl Lease {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

impl Leases {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Lease>, Instant) -> T) -> T {
        // No lease is half written: each step under the lock is complete by itself.
        let mut workers = self.0.lock();
        act(&mut workers, Instant::now())
    }

    pub fn is_alive(&self, worker: &str) -> bool {
        self.with(|workers, now| workers.get(worker).is_some_and(|lease| lease.is_alive(now)))
    }

    /// Return the partitions that the worker holds at this moment.
    pub fn held(&self, worker: &str) -> BTreeSet<Partition> {
        self.with(|workers, now| {
            let lease = workers.get(worker).filter(|lease| lease.is_alive(now));
            lease.map(|lease| lease.partitions.clone()).unwrap_or_default()
        })
    }

    fn renew(&self, worker: &str, ttl: Duration, unable: bool) -> LeaseReport {
        self.with(|workers, now| {
            let mut partitions = BTreeSet::new();
            if let Some(lease) = workers.remove(worker).filter(|lease| lease.is_alive(now)) {
                partitions = lease.partitions;
            }
            let lease = Lease { partitions, expires_at: now.checked_add(ttl), unable };
            workers.insert(worker.to_owned(), lease);
            report(workers, worker, now)
        })
    }

    fn acquire(&self, worker: &str, ttl: Duration, at_most: usize) -> Vec<Partition> {
        self.with(|workers, now| {
            workers.retain(|_, lease| lease.is_alive(now));
            let held: BTreeSet<Partition> =
                workers.values().flat_map(|lease| &lease.partitions).copied().collect();
            let Some(lease) = workers.get_mut(worker) else { return Vec::new() };
            let taken: Vec<Partition> =
                Partition::all().filter(|partition| !held.contains(partition)).take(at_most).collect();
            lease.partitions.extend(&taken);
            lease.expires_at = now.checked_add(ttl);
            taken
        })
    }
}

fn report(workers: &BTreeMap<String, Lease>, worker: &str, now: Instant) -> LeaseReport {
    let alive = || workers.iter().filter(|(_, lease)| lease.is_alive(now));
    let reaching = || alive().filter(|(_, lease)| !lease.unable);
    let held: usize = alive().map(|(_, lease)| lease.partitions.len()).sum();
    let share = PARTITIONS as usize / reaching().count().max(1);
    let below_share =
        reaching().filter(|(other, lease)| *other != worker && lease.partitions.len() < share).count();
    LeaseReport {
        held: workers.get(worker).map(|lease| lease.partitions.iter().copied().collect()).unwrap_or_default(),
        workers: alive().count(),
        able: reaching().count(),
        free: (PARTITIONS as usize).saturating_sub(held),
        below_share,
        oldest_snapshot: None,
    }
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn renew_leases(
        &self,
        worker: &str,
        ttl: Duration,
        unable: bool,
    ) -> Result<LeaseReport, StoreError> {
        Ok(self.leases.renew(worker, ttl, unable))
    }

    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let taken = self.leases.acquire(worker, ttl, at_most);
        if !taken.is_empty() {
            // The transaction in progress may hold claims under the lease of the owner before.
            self.writer.acquire().await.map_err(failed)?;
        }
        Ok(taken)
    }

    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        self.leases.with(|workers, _| {
            if let Some(lease) = workers.get_mut(worker) {
                lease.partitions.retain(|held| !partitions.contains(held));
            }
        });
        Ok(())
    }

    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError> {
        self.leases.with(|workers, _| workers.remove(worker));
        Ok(())
    }
}
