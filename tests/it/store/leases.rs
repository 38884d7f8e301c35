//! Which worker owns which partition.

use std::collections::BTreeSet;
use std::time::Duration;

use meta_dispatch::domain::Partition;
use meta_dispatch::store::LeaseReport;
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::pipeline::eventually;
use crate::support::store::{Backend, Fixture, LEASE};

impl Fixture {
    async fn renew(&self, worker: &str, ttl: Duration) -> LeaseReport {
        self.store.renew_leases(worker, ttl, false).await.expect("leases are kept")
    }

    async fn acquire(&self, worker: &str, ttl: Duration, at_most: usize) -> Vec<Partition> {
        self.store.acquire_leases(worker, ttl, at_most).await.expect("leases are kept")
    }
}

#[apply(on_both)]
async fn share_and_give_back_partitions(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let report = fixture.renew("a", LEASE).await;
    assert_eq!((report.held.len(), report.workers, report.free), (0, 1, 64));
    let first = fixture.acquire("a", LEASE, 40).await;
    assert_eq!(first.len(), 40);
    assert!(fixture.renew("b", LEASE).await.held.is_empty());
    let second = fixture.acquire("b", LEASE, 40).await;
    assert_eq!(second.len(), 24, "what is left");
    let report = fixture.renew("a", LEASE).await;
    assert_eq!((report.held.len(), report.workers, report.free), (40, 2, 0));
    assert!(report.held.is_sorted());
    let both: BTreeSet<Partition> = first.iter().chain(&second).copied().collect();
    assert_eq!(both.len(), 64, "nobody has another's");

    fixture.store.release_leases("a", &[first[0]]).await.expect("leases are kept");
    fixture.store.release_leases("a", &[second[0]]).await.expect("another's is left alone");
    assert_eq!(fixture.renew("b", LEASE).await.free, 1);
    assert_eq!(fixture.acquire("b", LEASE, 64).await, [first[0]]);
    fixture.store.withdraw_worker("a").await.expect("leases are kept");
    let report = fixture.renew("b", LEASE).await;
    assert_eq!((report.workers, report.free), (1, 39));
    assert_eq!(fixture.renew("a", LEASE).await.held, [], "it begins again");
}

#[apply(on_both)]
async fn expired_lease_is_taken_and_not_prolonged(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let short = Duration::from_millis(500);
    fixture.renew("a", short).await;
    assert_eq!(fixture.acquire("a", short, 64).await.len(), 64);
    fixture.renew("b", LEASE).await;
    assert!(fixture.acquire("b", LEASE, 64).await.is_empty());
    let taken = eventually("a's lease to run out", || async {
        let taken = fixture.acquire("b", LEASE, 10).await;
        if taken.is_empty() { Err("none is free".into()) } else { Ok(taken) }
    })
    .await;
    assert_eq!(taken.len(), 10);
    let report = fixture.renew("a", LEASE).await;
    assert!(report.held.is_empty(), "its partitions are free: {report:?}");
    assert_eq!((report.workers, report.free), (2, 54));
    assert_eq!(fixture.acquire("a", LEASE, 64).await.len(), 54);
}

#[apply(on_both)]
async fn stalled_worker_reacquires_free_partitions(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let short = Duration::from_millis(100);
    fixture.renew("a", short).await;
    fixture.acquire("a", short, 64).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let report = fixture.renew("a", LEASE).await;
    assert_eq!((report.held.len(), report.free), (0, 64));
    assert_eq!(fixture.acquire("a", LEASE, 64).await.len(), 64);
    assert_eq!(fixture.renew("a", LEASE).await.held.len(), 64);
}

#[apply(on_both)]
async fn acquiring_needs_a_renewal_first(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    assert!(fixture.acquire("ghost", LEASE, 64).await.is_empty());
    fixture.renew("a", LEASE).await;
    assert_eq!(fixture.acquire("a", LEASE, 64).await.len(), 64);
}

#[apply(on_both)]
async fn unable_workers_are_counted_apart(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.renew("a", LEASE).await;
    let away = fixture.store.renew_leases("b", LEASE, true).await.expect("leases are kept");
    assert_eq!((away.workers, away.able), (2, 1));
    assert_eq!(fixture.renew("b", LEASE).await.able, 2);
}

#[apply(on_both)]
async fn concurrent_workers_share_free_partitions(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let workers: Vec<String> = (0..8).map(|n| format!("w{n}")).collect();
    for worker in &workers {
        fixture.renew(worker, LEASE).await;
    }
    let taken =
        futures::future::join_all(workers.iter().map(|worker| fixture.acquire(worker, LEASE, 10))).await;
    let all: Vec<Partition> = taken.into_iter().flatten().collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (64, 64));
}

/// A transaction that stays open keeps the database from forgetting old versions of rows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_shows_the_oldest_transactions_age() {
    use sqlx::Connection;
    let fixture = Fixture::create(Backend::Postgres).await;
    let url = fixture.database().url();
    let mut other = sqlx::PgConnection::connect(url).await.expect("PostgreSQL answers");
    let old = "begin isolation level repeatable read; select count(*) from cdls";
    sqlx::raw_sql(old).execute(&mut other).await.expect("a snapshot is taken");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let age = fixture.renew("a", LEASE).await.oldest_snapshot.expect("there is one");
    assert!(age >= Duration::from_secs(1), "{age:?}");
    let sqlite = Fixture::create(Backend::Sqlite).await;
    assert_eq!(sqlite.renew("a", LEASE).await.oldest_snapshot, None);
}
