//! Which worker owns which partition of the lines: one row a worker, by the database's clock.
//!
//! A worker that lets its lease run out is removed by the one who takes its partitions over; from then on no claim of its
//! is committed. Never here: how many partitions a worker should have.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::message::Partition;

/// The partitions of a worker after a renewal, and the state of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseReport {
    /// In order.
    pub held: Vec<Partition>,
    /// Workers alive, this one included.
    pub workers: usize,
    /// Of them, those that can serve lines; this one as it said.
    pub able: usize,
    /// Partitions that no living worker holds.
    pub free: usize,
    /// Other workers that can serve lines and hold fewer partitions than 64 divided by the number of those.
    pub below_share: usize,
    /// How long the oldest transaction of anybody has kept the database from forgetting old versions of rows; `None`
    /// where that does not matter.
    pub oldest_snapshot: Option<Duration>,
}

/// The questions and changes of the keeper of leases.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Says that `worker` is alive and prolongs what it holds, in one statement. A lease that has run out is not
    /// prolonged: its partitions are free, and are acquired again.
    /// `unable`: it cannot serve lines, as its calls do not reach Graph or its scans fail.
    async fn renew_leases(
        &self,
        worker: &str,
        ttl: Duration,
        unable: bool,
    ) -> Result<LeaseReport, StoreError>;

    /// Removes workers whose lease has run out, and takes at most `at_most` partitions that nobody holds. Only for a worker
    /// that has renewed before.
    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Partition>, StoreError>;

    /// Gives partitions back at once.
    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError>;

    /// Withdraws `worker`: gives back all it holds and forgets that it was alive.
    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError>;
}
