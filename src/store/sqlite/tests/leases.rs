//! Leases are kept in memory: the effect on claims, and on a process that begins anew.

use super::*;

#[tokio::test]
async fn frees_every_partition_at_a_new_start() {
    let fixture = Fixture::with_worker().await;
    let next = SqliteStore::open_exclusive(&fixture.url).await.unwrap();
    let report = next.renew_leases("new", HOUR, false).await.unwrap();
    assert_eq!((report.held.len(), report.workers, report.free), (0, 1, 64));
    assert_eq!(next.acquire_leases("new", HOUR, 64).await.unwrap().len(), 64);
}

#[tokio::test]
async fn refuses_claims_after_the_lease() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(text_to("ana")).await;
    let short = Duration::from_millis(50);
    fixture.store.renew_leases(WORKER, short, false).await.unwrap();
    fixture.store.acquire_leases(WORKER, short, 64).await.unwrap();
    tokio::time::sleep(short).await;
    assert!(!fixture.claim(WORKER, id, 0).await);
    fixture.own_all(WORKER).await;
    assert!(fixture.claim(WORKER, id, 0).await);
}

/// The transaction may hold claims under the lease of the owner before.
#[tokio::test]
async fn waits_for_the_transaction_in_progress() {
    let fixture = Fixture::with_worker().await;
    let writing = fixture.store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    fixture.store.withdraw_worker(WORKER).await.unwrap();
    fixture.store.renew_leases("worker-b", HOUR, false).await.unwrap();
    let taking = fixture.store.acquire_leases("worker-b", HOUR, 64);
    tokio::pin!(taking);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut taking).await.is_err());
    writing.commit().await.unwrap();
    assert_eq!(taking.await.unwrap().len(), 64);
}

#[tokio::test]
async fn counts_workers_below_their_share() {
    let fixture = Fixture::with_worker().await;
    let report = fixture.store.renew_leases("worker-b", HOUR, false).await.unwrap();
    assert_eq!((report.below_share, report.free), (0, 0), "the one that asks is not counted");
    assert_eq!(fixture.store.renew_leases(WORKER, HOUR, false).await.unwrap().below_share, 1);
    fixture.store.renew_leases("worker-b", HOUR, true).await.unwrap();
    assert_eq!(fixture.store.renew_leases(WORKER, HOUR, false).await.unwrap().below_share, 0);
}
