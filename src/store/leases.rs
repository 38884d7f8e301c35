//! The owners of the partitions: one row a worker, by the database's clock.
//!
//! A worker whose lease runs out is removed by the worker that takes its partitions over; from then on no
//! claim of the first is committed. Never here: how many partitions a worker should have.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::Partition;

/// The partitions of a worker after a renewal, and the state of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseReport {
    /// The partitions held, in order.
    pub held: Vec<Partition>,
    /// The number of living workers, this one included.
    pub workers: usize,
    /// The number of living workers that can serve lines; this one counts by its own report.
    pub able: usize,
    /// The number of partitions that no living worker holds.
    pub free: usize,
    /// The number of other workers that can serve lines and hold fewer partitions than 64 divided by `able`.
    pub below_share: usize,
    /// The time for which the oldest transaction of any session has kept the database from forgetting old
    /// versions of rows; `None` where that does not matter.
    pub oldest_snapshot: Option<Duration>,
}

/// The statements of the keeper of leases.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Note that `worker` is alive and prolong its lease, in one statement. A lease that has run out is not
    /// prolonged: its partitions are free, and are acquired again. `unable`: the worker cannot serve lines,
    /// as its calls do not reach Graph or its scans fail.
    async fn renew_leases(
        &self,
        worker: &str,
        ttl: Duration,
        unable: bool,
    ) -> Result<LeaseReport, StoreError>;

    /// Remove workers whose lease has run out, and take at most `at_most` partitions that no worker holds.
    /// Only for a worker that has renewed before.
    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Partition>, StoreError>;

    /// Give partitions back at once.
    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError>;

    /// Withdraw `worker`: give back all its partitions and forget that it was alive.
    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError>;
}
