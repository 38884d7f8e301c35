//! What keeps a message from being logged twice, on both databases.

use std::time::Duration;

use meta_dispatch::domain::{AccountId, Submission};
use meta_dispatch::store::{BatchItem, Idempotency, IdempotencyKey, Inserted, NewMessage};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, text};

const DAY: Duration = Duration::from_secs(86_400);

fn plain(dest: &str) -> NewMessage {
    NewMessage::from(text(dest))
}

fn keyed(key: &str, hash: &[u8], kept: Duration) -> NewMessage {
    let key = IdempotencyKey { key: key.into(), request_hash: hash.to_vec(), kept };
    NewMessage { idempotency: Some(Idempotency::Key(key)), ..plain("ann") }
}

fn at(batch: i64, line: i64) -> NewMessage {
    NewMessage { idempotency: Some(Idempotency::Item(BatchItem { batch, number: line })), ..plain("ann") }
}

fn within(dest: &str, seconds: u64) -> NewMessage {
    NewMessage { httpdup: Some(Duration::from_secs(seconds)), ..plain(dest) }
}

impl Fixture {
    async fn accept(&self, messages: &[NewMessage]) -> Vec<Inserted> {
        self.store.accept(messages).await.expect("messages can be logged").inserted
    }

    async fn logged(&self) -> usize {
        let rows = self.store.log_newest(&Default::default(), 1_000).await;
        rows.expect("the log answers").len()
    }
}

#[apply(on_both)]
async fn key_is_logged_once_within_and_across_commits(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let first = fixture
        .accept(&[
            plain("x"),
            keyed("a", b"1", DAY),
            keyed("a", b"1", DAY),
            keyed("a", b"2", DAY),
            keyed("b", b"1", DAY),
        ])
        .await;
    let [Inserted::New(_), Inserted::New(a), Inserted::Replay(again), Inserted::KeyReused, Inserted::New(b)] =
        first[..]
    else {
        panic!("{first:?}")
    };
    assert!(a == again && a < b);
    let theirs = keyed("a", b"1", DAY);
    let theirs =
        NewMessage { submission: Submission { account: AccountId(2), ..theirs.submission }, ..theirs };
    let second = fixture.accept(&[keyed("b", b"2", DAY), keyed("a", b"1", DAY), theirs, plain("y")]).await;
    assert!(matches!(
        second[..],
        [Inserted::KeyReused, Inserted::Replay(id), Inserted::New(_), Inserted::New(_)] if id == a
    ));
    assert_eq!(fixture.logged().await, 5);
    let known = fixture.store.remembered_key(AccountId(1), "a").await.expect("the store answers");
    assert_eq!(known.map(|known| (known.request_hash, known.id)), Some((b"1".to_vec(), a)));
    assert_eq!(fixture.store.remembered_key(AccountId(2), "b").await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn expired_key_is_free_and_forgotten(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let gone = Duration::ZERO;
    let first = fixture.accept(&[keyed("a", b"1", gone), keyed("b", b"1", gone)]).await;
    assert_eq!(fixture.store.remembered_key(AccountId(1), "a").await.expect("the store answers"), None);
    let second = fixture.accept(&[keyed("a", b"2", DAY)]).await;
    assert!(matches!((first[0], second[0]), (Inserted::New(old), Inserted::New(new)) if old < new));
    let batch = fixture.store.open_batch(AccountId(1), "old", gone).await.expect("batches can be opened");
    fixture.accept(&[at(batch, 1), at(batch, 2), at(batch, 3)]).await;
    assert_ne!(fixture.store.open_batch(AccountId(1), "old", DAY).await.expect("it can be opened"), batch);
    let mut steps = 0;
    while fixture.store.forget_expired(2).await.expect("what expired can be forgotten") >= 2 {
        steps += 1;
        assert!(steps < 10, "it comes to an end");
    }
    let left = fixture.store.batch_items(batch, 0, 10).await.expect("the store answers");
    assert!(left.is_empty());
    assert!(fixture.store.remembered_key(AccountId(1), "a").await.expect("the store answers").is_some());
}

#[apply(on_both)]
async fn batch_line_is_logged_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let open = |account, name: &'static str| fixture.store.open_batch(AccountId(account), name, DAY);
    let batch = open(1, "monday").await.expect("batches can be opened");
    assert_eq!(open(1, "monday").await.expect("batches can be opened"), batch);
    let other = open(2, "monday").await.expect("batches can be opened");
    assert_ne!(other, batch);
    let first = fixture.accept(&[at(batch, 1), at(batch, 2), at(batch, 2), at(other, 1)]).await;
    let [Inserted::New(one), Inserted::New(two), Inserted::Replay(again), Inserted::New(_)] = first[..]
    else {
        panic!("{first:?}")
    };
    assert_eq!(two, again);
    let second = fixture.accept(&[at(batch, 2), at(batch, 3)]).await;
    let [Inserted::Replay(again), Inserted::New(three)] = second[..] else { panic!("{second:?}") };
    assert_eq!(two, again);
    let lines = fixture.store.batch_items(batch, 2, 9).await.expect("the store answers");
    assert_eq!(lines, [(2, two), (3, three)]);
    assert!(one < two && fixture.logged().await == 4);
}

#[apply(on_both)]
async fn window_refuses_the_next_message_to_a_recipient(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let first =
        fixture.accept(&[within("ann", 60), within("ann", 60), within("bob", 60), plain("ann")]).await;
    assert!(matches!(first[..], [Inserted::New(_), Inserted::Duplicate, Inserted::New(_), Inserted::New(_)]));
    let refused = NewMessage { httpdup: Some(Duration::from_secs(60)), ..keyed("k", b"1", DAY) };
    let second = fixture.accept(&[refused.clone(), refused, within("cid", 1)]).await;
    assert!(matches!(second[..], [Inserted::Duplicate, Inserted::Duplicate, Inserted::New(_)]));
    // A message that was not logged is not remembered.
    assert!(matches!(fixture.accept(&[keyed("k", b"2", DAY)]).await[0], Inserted::New(_)));
    fixture.execute("update http_duplicate set accepted_at = '2020-01-01T00:00:00.000Z'").await;
    assert!(matches!(fixture.accept(&[within("ann", 600)]).await[0], Inserted::New(_)));
    assert!(matches!(fixture.accept(&[within("ann", 600)]).await[0], Inserted::Duplicate));
    while fixture.store.forget_expired(1).await.expect("what expired can be forgotten") >= 1 {}
    assert!(matches!(fixture.accept(&[within("ann", 600)]).await[0], Inserted::Duplicate));
}
