//! Recipients whose next message has to wait: a row of theirs is claimed, or is to be tried again.

use std::time::Duration;

use meta_dispatch::domain::{LineId, Partition, RowId, Status, Submission};
use meta_dispatch::store::HeldRecipient;
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, retry, sent, text, unknown};

const MANY: u32 = 1_000;

impl Fixture {
    async fn held(&self, within: Duration, limit: u32) -> Vec<HeldRecipient> {
        let partitions = [LineId(1).partition()];
        self.store.held_recipients(&partitions, within, limit).await.expect("scans work")
    }

    async fn still_held(&self, ids: &[RowId]) -> Vec<RowId> {
        let mut held = self.store.still_held(ids).await.expect("scans work");
        held.sort();
        held
    }
}

#[apply(on_both)]
async fn claims_and_retries_hold_recipients(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let sending = fixture.claimed(text("ann")).await;
    let again = fixture.called(text("bob"), retry(Duration::from_secs(60))).await;
    let unknown = fixture.called(text("cleo"), unknown()).await;
    let mut held = fixture.held(HOUR, MANY).await;
    held.sort_by_key(|held| held.by);
    let shown: Vec<(RowId, &str, Status)> =
        held.iter().map(|held| (held.by, held.dest.as_str(), held.status)).collect();
    assert_eq!(shown, [(sending, "ann", Status::Sending), (again, "bob", Status::Retry)]);
    assert!(held[0].wait > Duration::from_secs(3_000) && held[0].wait <= HOUR, "{:?}", held[0].wait);
    assert!(held[1].wait > Duration::from_secs(50) && held[1].wait <= Duration::from_secs(60));
    assert_eq!(fixture.still_held(&[sending, again, unknown]).await, [sending, again]);
    assert!(fixture.change(sending, sent()).await);
    assert_eq!(fixture.still_held(&[sending, again]).await, [again]);
    let elsewhere = fixture.store.held_recipients(&[Partition(2)], HOUR, MANY).await;
    assert!(elsewhere.expect("scans work").is_empty());
}

/// Due, it waits for its turn behind others that are.
#[apply(on_both)]
async fn ready_row_holds_no_recipient(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(HOUR)).await;
    fixture.all_due().await;
    assert_eq!(fixture.still_held(&[id]).await, [id]);
    fixture.promote().await;
    assert!(fixture.held(HOUR, MANY).await.is_empty());
    assert_eq!(fixture.still_held(&[id]).await, [id], "it has not ended");
}

/// A campaign of millions may be scheduled; looking for claims and retries must not walk over it.
#[apply(on_both)]
async fn scheduled_and_late_rows_hold_no_recipient(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let tomorrow = OffsetDateTime::now_utc() + 24 * HOUR;
    fixture.log_one(Submission { send_at: Some(tomorrow), ..text("scheduled") }).await;
    let sending = fixture.claimed(text("ann")).await;
    fixture.called(text("bob"), retry(2 * HOUR)).await;
    let held = fixture.held(HOUR, MANY).await;
    assert_eq!(held.iter().map(|held| held.by).collect::<Vec<_>>(), [sending]);
    assert_eq!(fixture.held(3 * HOUR, MANY).await.len(), 2);
}

#[apply(on_both)]
async fn retries_come_by_due_time_up_to_a_bound(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut ids = Vec::new();
    for minutes in [3, 1, 2] {
        ids.push(fixture.called(text("ann"), retry(Duration::from_secs(60 * minutes))).await);
    }
    let held = fixture.held(HOUR, 2).await;
    assert_eq!(held.iter().map(|held| held.by).collect::<Vec<_>>(), [ids[1], ids[2]]);
}
