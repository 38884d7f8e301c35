//! Rows whose time has come become work again.

use std::collections::BTreeSet;
use std::time::Duration;

use meta_dispatch::domain::{LineId, Partition, RowId, Status, Submission};
use meta_dispatch::store::{Promoted, WorkHead};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::pipeline::eventually;
use crate::support::store::{
    Backend, Fixture, HOUR, LONG_AGO, all_partitions, bulk, claim, failed, retry, sent, text,
};

fn tomorrow() -> Option<OffsetDateTime> {
    Some(OffsetDateTime::now_utc() + 24 * HOUR)
}

impl Fixture {
    async fn rows_in(&self, work: &[WorkHead]) -> Vec<RowId> {
        let numbers: Vec<_> = work.iter().map(|head| head.position.work).collect();
        let read = self.store.read_work(&numbers).await.expect("work can be read");
        let mut ids: Vec<RowId> = read.iter().flat_map(|work| &work.rows).map(|row| row.id).collect();
        ids.sort();
        ids
    }

    async fn promote_at_most(&self, limit: u32) -> Promoted {
        self.store.promote_due(&all_partitions(), None, limit).await.expect("scans work")
    }
}

#[apply(on_both)]
async fn scheduled_row_is_ready_at_its_time(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let at = OffsetDateTime::now_utc() + Duration::from_millis(700);
    let id = fixture.log_one(Submission { send_at: Some(at), ..text("later") }).await;
    let nothing = fixture.promote().await;
    assert!(nothing.work.is_empty() && !nothing.more);
    let next = nothing.next.expect("a row is scheduled");
    assert!(next <= Duration::from_millis(900), "{next:?}");
    let promoted = eventually("the row to be due", || async {
        let promoted = fixture.promote().await;
        if promoted.work.is_empty() { Err("nothing is due".into()) } else { Ok(promoted) }
    })
    .await;
    assert!(OffsetDateTime::now_utc() + Duration::from_millis(50) >= at);
    assert_eq!((promoted.work.len(), promoted.work[0].rows, promoted.next), (1, 1, None));
    assert_eq!(fixture.rows_in(&promoted.work).await, [id]);
    assert_eq!(fixture.ready_ids().await, [id]);
    assert_eq!((fixture.rows_of("work").await, fixture.rows_of("cdls_open").await), (1, 0));
    assert!(fixture.promote().await.work.is_empty(), "it is ready once");
}

#[apply(on_both)]
async fn row_to_retry_says_retry_until_its_call_ends(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(HOUR)).await;
    assert!(fixture.ready().await.is_empty());
    assert!(fixture.promote().await.work.is_empty());
    fixture.all_due().await;
    let promoted = fixture.promote().await;
    assert_eq!(fixture.rows_in(&promoted.work).await, [id]);
    assert_eq!(fixture.row(id).await.status, Status::Retry);
    let ready = fixture.ready().await;
    assert_eq!((ready.len(), ready[0].fence, ready[0].attempts, ready[0].tries), (1, 1, 1, 1));
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    assert_eq!(fixture.row(id).await.status, Status::Sending);
    assert!(fixture.change_at(id, 2, sent()).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts, row.next_at), (Status::Ok, 2, None));
}

/// The work in which it was ready a try before is there until its owner has removed it.
#[apply(on_both)]
async fn waiting_retry_is_not_ready_in_its_former_work(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(Duration::ZERO)).await;
    fixture.all_due().await;
    fixture.promote().await;
    let ready = fixture.ready().await;
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    assert!(fixture.change_at(id, 2, retry(HOUR)).await);
    assert!(fixture.ready().await.is_empty());
    fixture.all_due().await;
    fixture.promote().await;
    let ready: BTreeSet<(RowId, i32)> = fixture.ready().await.iter().map(|row| (row.id, row.fence)).collect();
    assert_eq!(ready, BTreeSet::from([(id, 2)]));
}

#[apply(on_both)]
async fn ended_rows_are_not_made_ready(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let late = fixture.called(text("ann"), retry(HOUR)).await;
    assert!(fixture.change(late, sent()).await, "the success was late");
    assert_eq!(fixture.rows_of("cdls_open").await, 0, "a final row stands nowhere");
    fixture.called(text("bob"), failed()).await;
    let ended = fixture.called(text("cleo"), retry(HOUR)).await;
    fixture.execute(&format!("update cdls set status = 'OK' where cdls_id = {ended}")).await;
    fixture.all_due().await;
    let promoted = fixture.promote().await;
    assert!(fixture.rows_in(&promoted.work).await.is_empty());
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
}

#[apply(on_both)]
async fn rows_become_work_by_flow_in_order_of_id(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let send_at = tomorrow();
    let mut given: Vec<Submission> =
        (0..70).map(|n| Submission { send_at, ..text(&format!("d{n}")) }).collect();
    given.push(Submission { send_at, ..bulk("ann", "spring") });
    let ids = fixture.log(&given).await;
    // Due in another order than they were logged in.
    fixture.all_due().await;
    fixture.execute("update cdls_open set due_at = '2020-01-02T00:00:00.000Z' where cdls_id % 2 = 0").await;
    let promoted = fixture.promote().await;
    assert_eq!(fixture.rows_in(&promoted.work).await, ids);
    let mut sizes: Vec<(&str, u32)> =
        promoted.work.iter().map(|head| (head.flow.campaign.as_str(), head.rows)).collect();
    sizes.sort();
    assert_eq!(sizes, [("", 6), ("", 64), ("spring", 1)]);
    assert_eq!(fixture.ready_ids().await, ids);
}

#[apply(on_both)]
async fn busy_partition_does_not_hold_up_another(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let row = |line, n: usize| Submission {
        line: LineId(line),
        send_at: tomorrow(),
        ..text(&format!("{line} {n}"))
    };
    fixture.log(&(0..30).map(|n| row(1, n)).collect::<Vec<_>>()).await;
    let others = fixture.log(&[row(2, 0), row(2, 1)]).await;
    fixture.execute(&format!("update cdls_open set due_at = {LONG_AGO} where v8l_id = 1")).await;
    fixture.execute("update cdls_open set due_at = '2020-01-01T00:00:01.000Z' where v8l_id = 2").await;
    let promoted = fixture.promote_at_most(10).await;
    assert!(promoted.more);
    assert_eq!(promoted.work.iter().map(|head| head.rows).sum::<u32>(), 10);
    let ready = fixture.rows_in(&promoted.work).await;
    assert!(others.iter().all(|id| ready.contains(id)), "{ready:?}");
    while fixture.promote_at_most(10).await.more {}
    assert_eq!(fixture.ready().await.len(), 32);
}

#[apply(on_both)]
async fn scan_is_limited_to_partitions_and_time(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log_one(Submission { send_at: tomorrow(), ..text("ann") }).await;
    fixture.all_due().await;
    let promote = async |partition, from| {
        fixture.store.promote_due(&[partition], from, 10).await.expect("scans work").work.len()
    };
    let (here, elsewhere) = (LineId(1).partition(), Partition(2));
    assert_eq!(promote(elsewhere, None).await, 0);
    assert_eq!(promote(here, Some(OffsetDateTime::now_utc() - HOUR)).await, 0, "it was due years ago");
    assert_eq!(promote(here, None).await, 1);
}

/// The next look begins where this one ended.
#[apply(on_both)]
async fn scan_returns_the_time_reached(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let row = |n| Submission { send_at: tomorrow(), ..text(&format!("d{n}")) };
    let ids = fixture.log(&[row(1), row(2)]).await;
    fixture.execute(&format!("update cdls_open set due_at = {LONG_AGO} where cdls_id = {}", ids[0])).await;
    let promoted = fixture.promote().await;
    assert_eq!(promoted.work.len(), 1);
    let reached = promoted.reached.expect("a time was reached");
    assert!(reached.year() >= 2020, "{reached}");
    let next = promoted.next.expect("a row is scheduled");
    assert!(next > 23 * HOUR && next <= 24 * HOUR, "{next:?}");
    fixture.execute("update cdls_open set due_at = '2019-01-01T00:00:00.000Z'").await;
    let skipped = fixture.store.promote_due(&all_partitions(), Some(reached), 10).await.expect("scans work");
    assert!(skipped.work.is_empty(), "it looks at nothing due before");
}
