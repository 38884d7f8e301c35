//! Leases of partitions.

use super::*;
use crate::store::Lease;

const ENDED: Duration = Duration::ZERO;

#[tokio::test]
async fn a_partition_is_held_by_one_worker_until_it_is_released() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let a = store.acquire_leases("a", HOUR, 3).await.unwrap();
    assert_eq!(a, [0, 1, 2].map(|n| Lease { partition: Partition(n), epoch: 1 }));
    let b = store.acquire_leases("b", HOUR, 100).await.unwrap();
    assert_eq!(b.len(), 61);
    assert!(store.acquire_leases("c", HOUR, 1).await.unwrap().is_empty());

    store.release_leases("b", &[Partition(0)]).await.unwrap();
    assert!(store.acquire_leases("c", HOUR, 1).await.unwrap().is_empty(), "not b's to release");
    store.release_leases("a", &[Partition(1)]).await.unwrap();
    let c = store.acquire_leases("c", HOUR, 5).await.unwrap();
    assert_eq!(c, [Lease { partition: Partition(1), epoch: 2 }]);
}

#[tokio::test]
async fn a_renewal_prolongs_what_is_held_and_counts_who_is_alive() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let alone = store.renew_leases("a", HOUR).await.unwrap();
    assert_eq!((alone.held.len(), alone.workers), (0, 1));
    store.acquire_leases("a", HOUR, 2).await.unwrap();
    assert_eq!(store.renew_leases("b", HOUR).await.unwrap().workers, 2);
    let report = store.renew_leases("a", HOUR).await.unwrap();
    assert_eq!(report.held, [0, 1].map(|n| Lease { partition: Partition(n), epoch: 1 }));

    store.withdraw_worker("a").await.unwrap();
    let report = store.renew_leases("b", HOUR).await.unwrap();
    assert_eq!((report.held.len(), report.workers), (0, 1));
    assert_eq!(store.acquire_leases("b", HOUR, 64).await.unwrap().len(), 64);
}

#[tokio::test]
async fn a_lease_that_has_ended_is_not_renewed_but_acquired_with_a_new_epoch() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    store.acquire_leases("a", ENDED, 1).await.unwrap();
    assert!(store.renew_leases("a", HOUR).await.unwrap().held.is_empty());
    let again = store.acquire_leases("b", HOUR, 1).await.unwrap();
    assert_eq!(again, [Lease { partition: Partition(0), epoch: 2 }]);
}

#[tokio::test]
async fn a_worker_that_is_gone_is_forgotten() {
    let fixture = Fixture::new().await;
    fixture.store.renew_leases("gone", ENDED).await.unwrap();
    assert_eq!(fixture.store.renew_leases("a", HOUR).await.unwrap().workers, 1);
}
