//! An idle process writes nothing.

use super::*;
use crate::store::{EnquiryStore, OperatorStore};

async fn pages_written(fixture: &Fixture) -> u64 {
    std::fs::metadata(fixture.folder.path().join("log.db-wal")).unwrap().len()
}

#[tokio::test]
async fn writes_nothing_while_idle() {
    let fixture = Fixture::with_worker().await;
    fixture.insert(Submission { cp_id: Some("natal".into()), ..text_to("ana") }).await;
    fixture.insert(Submission { send_at: Some(in_an_hour()), ..text_to("ana") }).await;
    let (store, all) = (&fixture.store, every_partition());
    // No other connection may write now: one that tries waits for five seconds, and fails.
    let mut other = store.writer.acquire().await.unwrap();
    sqlx::raw_sql("begin immediate").execute(&mut *other).await.unwrap();
    let before = pages_written(&fixture).await;
    store.renew_leases(WORKER, HOUR, false).await.unwrap();
    assert!(store.promote_due(&all, None, 10).await.unwrap().work.is_empty());
    assert!(store.expired_rows(&all, 10).await.unwrap().is_empty());
    assert!(store.cancelled_rows(&all, 10).await.unwrap().is_empty());
    assert!(store.take_settled(10).await.unwrap().is_empty());
    assert_eq!(store.forget_claims().await.unwrap(), 0);
    assert_eq!(store.forget_expired(10).await.unwrap(), 0);
    assert_eq!(store.fold_counts(HOUR, 10).await.unwrap(), 0);
    assert_eq!(pages_written(&fixture).await, before);
}
