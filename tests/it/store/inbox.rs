//! The inbox of Meta's webhooks.

use std::time::Duration;

use meta_dispatch::store::{InboxClaim, InboxState, NewWebhook, SharedStore};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO};

const CLAIM: InboxClaim = InboxClaim { rows: 10, bytes: 1_000, length: HOUR };

async fn keep(store: &SharedStore, bodies: &[&'static [u8]]) {
    let webhooks: Vec<NewWebhook> =
        bodies.iter().map(|body| NewWebhook { body: (*body).into(), app: Some("1".into()) }).collect();
    store.keep_webhooks(&webhooks).await.expect("bodies can be kept");
}

/// Claim bodies; return their ids and bodies.
async fn claim(store: &SharedStore, claim: InboxClaim) -> Vec<(i64, Vec<u8>)> {
    let claimed = store.claim_webhooks(claim).await.expect("the store answers");
    claimed.into_iter().map(|webhook| (webhook.id, webhook.body)).collect()
}

async fn state(store: &SharedStore) -> InboxState {
    store.inbox_state().await.expect("the store answers")
}

#[apply(on_both)]
async fn body_is_claimed_once_and_deleted_when_applied(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert!(claim(store, CLAIM).await.is_empty());
    keep(store, &[b"\xff\x00 raw", b"second"]).await;
    let claimed = store.claim_webhooks(CLAIM).await.expect("the store answers");
    let bodies: Vec<&[u8]> = claimed.iter().map(|webhook| webhook.body.as_slice()).collect();
    assert_eq!(bodies, [&b"\xff\x00 raw"[..], b"second"]);
    assert!(claimed.iter().all(|webhook| webhook.tries == 1 && webhook.app.as_deref() == Some("1")));
    assert!(claim(store, CLAIM).await.is_empty(), "they are claimed");
    assert_eq!((state(store).await.waiting, state(store).await.aside), (2, 0));
    assert!(state(store).await.oldest.is_some());
    store.delete_webhooks(&[claimed[0].id, claimed[1].id]).await.expect("the store answers");
    assert_eq!(state(store).await, InboxState::default());
}

#[apply(on_both)]
async fn claim_is_bounded_by_rows_and_bytes(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    keep(store, &[b"0123456789", b"0123456789", b"0123456789", b"3"]).await;
    assert_eq!(claim(store, InboxClaim { bytes: 1, ..CLAIM }).await.len(), 1, "the first in any case");
    assert_eq!(claim(store, InboxClaim { bytes: 11, ..CLAIM }).await.len(), 2);
    keep(store, &[b"4", b"5"]).await;
    assert_eq!(claim(store, InboxClaim { rows: 2, ..CLAIM }).await.len(), 2);
    assert_eq!(claim(store, CLAIM).await.len(), 1);
}

#[apply(on_both)]
async fn claim_ends_by_itself_and_by_release(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    keep(store, &[b"body"]).await;
    let id = claim(store, CLAIM).await[0].0;
    fixture.execute(&format!("update webhook_inbox set claimed_until = {LONG_AGO}")).await;
    let again = store.claim_webhooks(CLAIM).await.expect("the store answers");
    assert_eq!((again[0].id, again[0].tries), (id, 2), "its process has died");
    store.release_webhooks(&[id]).await.expect("the store answers");
    let again = store.claim_webhooks(CLAIM).await.expect("the store answers");
    assert_eq!(again[0].tries, 2, "the try before does not count");
}

#[apply(on_both)]
async fn body_that_is_set_aside_is_not_claimed(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    keep(store, &[b"poison", b"body"]).await;
    let id = claim(store, CLAIM).await[0].0;
    store.set_webhook_aside(id, "for a test").await.expect("the store answers");
    fixture.execute("update webhook_inbox set claimed_until = null").await;
    assert_eq!(claim(store, CLAIM).await.len(), 1);
    assert_eq!((state(store).await.waiting, state(store).await.aside), (1, 1));
    assert_eq!(store.drop_aside_webhooks(HOUR).await.expect("the store answers"), 0);
    fixture
        .execute(&format!("update webhook_inbox set aside_at = {LONG_AGO} where aside_at is not null"))
        .await;
    assert_eq!(store.drop_aside_webhooks(HOUR).await.expect("the store answers"), 1);
    assert_eq!(state(store).await.aside, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn two_processes_claim_different_bodies() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let store = &fixture.store;
    for _ in 0..20 {
        keep(store, &[b"one", b"two", b"three", b"four", b"five"]).await;
    }
    let few = InboxClaim { rows: 3, length: Duration::from_secs(60), ..CLAIM };
    let all = async || {
        let mut ids = Vec::new();
        loop {
            let claimed = claim(store, few).await;
            if claimed.is_empty() {
                return ids;
            }
            ids.extend(claimed.into_iter().map(|(id, _)| id));
        }
    };
    let (mut one, two) = tokio::join!(all(), all());
    one.extend(two);
    let claimed = one.len();
    one.sort_unstable();
    one.dedup();
    assert_eq!(one.len(), claimed, "none is claimed twice");
}
