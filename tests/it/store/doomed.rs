//! Waiting rows that are ended without a call (expired, or of a cancelled campaign), and rows that this version cannot read.

use std::time::Duration;

use meta_dispatch::channel::{Medium, MessageKind};
use meta_dispatch::domain::{
    AccountId, CampaignState, ErrorKind, Lane, LineId, Partition, RowId, Status, Submission,
};
use meta_dispatch::store::{Change, ChangeKind, DoomedRow, MessageFilter};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{
    Backend, Fixture, HOUR, LEASE, LONG_AGO, all_partitions, bulk, claim, retry, text, unknown,
};

impl Fixture {
    async fn expired(&self, partitions: &[Partition]) -> Vec<DoomedRow> {
        let mut rows = self.store.expired_rows(partitions, 100).await.expect("scans work");
        rows.sort_by_key(|row| row.id);
        rows
    }

    async fn cancelled(&self, limit: u32) -> Vec<DoomedRow> {
        let mut rows = self.store.cancelled_rows(&all_partitions(), limit).await.expect("scans work");
        rows.sort_by_key(|row| row.id);
        rows
    }

    async fn cancel(&self, campaign: &str) {
        let state = CampaignState::Cancelled;
        self.store.set_campaign(AccountId(1), campaign, state).await.expect("states can be written");
    }

    /// Ends rows without a call; how many it were.
    async fn end(&self, rows: &[DoomedRow], kind: &ChangeKind) -> usize {
        let changes: Vec<Change> =
            rows.iter().map(|row| Change::waiting(row.id, row.fence, kind.clone())).collect();
        self.record("w", &changes, &[]).await.changed.iter().filter(|changed| **changed).count()
    }
}

fn ids(rows: &[DoomedRow]) -> Vec<RowId> {
    rows.iter().map(|row| row.id).collect()
}

#[apply(on_both)]
async fn expired_rows_are_found_with_their_waiters(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let valid_for = Duration::ZERO;
    let logged = fixture
        .log(&[
            Submission { valid_for, waiter: Some("q/7".into()), ..text("ann") },
            text("bob"),
            Submission { valid_for, kind: MessageKind::Image, ..text("cleo") },
            Submission { valid_for, ..bulk("dan", "paused") },
            Submission { valid_for, line: LineId(2), ..text("eve") },
            Submission { valid_for, send_at: Some(OffsetDateTime::now_utc() + LEASE), ..text("fay") },
        ])
        .await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'paused', 'paused')").await;
    let found = fixture.expired(&[LineId(1).partition()]).await;
    assert_eq!(ids(&found), [logged[0], logged[2], logged[3]], "a campaign that is paused, too");
    assert_eq!((found[0].dest.as_str(), found[0].waiter.as_deref()), ("ann", Some("q/7")));
    assert_eq!((found[0].line, found[0].lane, found[0].fence), (LineId(1), Lane::High, 0));
    assert_eq!((found[1].medium, found[2].lane), (Medium::Media, Lane::Bulk));
    assert_eq!(ids(&fixture.expired(&[LineId(2).partition()]).await), [logged[4]]);
    assert_eq!(fixture.end(&found, &ChangeKind::Expire).await, 3);
    let row = fixture.row(logged[0]).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    assert!(row.done_at.is_some());
    assert_eq!(fixture.row(logged[1]).await.status, Status::Pending);
    assert_eq!(fixture.end(&found, &ChangeKind::Expire).await, 0, "once");
    assert!(fixture.expired(&[LineId(1).partition()]).await.is_empty());
}

#[apply(on_both)]
async fn work_with_a_valid_row_is_put_off(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let soon = Submission { valid_for: Duration::from_millis(300), ..text("ann") };
    let logged = fixture.log(&[soon, text("bob")]).await;
    let all = all_partitions();
    assert!(fixture.expired(&all).await.is_empty());
    tokio::time::sleep(Duration::from_millis(400)).await;
    let found = fixture.expired(&all).await;
    assert_eq!(ids(&found), [logged[0]]);
    assert_eq!(ids(&fixture.expired(&all).await), [logged[0]], "until it has ended");
    fixture.end(&found, &ChangeKind::Expire).await;
    assert!(fixture.expired(&all).await.is_empty());
    assert_eq!(fixture.ready_ids().await, [logged[1]]);
    fixture.execute(&format!("update cdls set expires_at = {LONG_AGO} where dest = 'bob'")).await;
    assert!(fixture.expired(&all).await.is_empty(), "the work is not looked at before its time");
    fixture.execute(&format!("update work set expires_at = {LONG_AGO}")).await;
    let found = fixture.expired(&all).await;
    assert_eq!(ids(&found), [logged[1]]);
    fixture.end(&found, &ChangeKind::Expire).await;
    assert!(fixture.expired(&all).await.is_empty());
    assert_eq!(fixture.rows_of("work").await, 0, "no row is left in it");
}

/// It is ended by the one who claimed it, or settled.
#[apply(on_both)]
async fn row_that_waits_for_no_turn_does_not_expire(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.called(text("ann"), unknown()).await;
    fixture.called(text("bob"), retry(HOUR)).await;
    fixture.execute(&format!("update cdls set expires_at = {LONG_AGO}")).await;
    fixture.execute(&format!("update work set expires_at = {LONG_AGO}")).await;
    assert!(fixture.expired(&all_partitions()).await.is_empty());
}

#[apply(on_both)]
async fn row_to_retry_expires_when_due(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(HOUR)).await;
    fixture.execute(&format!("update cdls set expires_at = {LONG_AGO}")).await;
    fixture.all_due().await;
    fixture.promote().await;
    let found = fixture.expired(&all_partitions()).await;
    assert_eq!(ids(&found), [id]);
    assert_eq!(found[0].fence, 1);
    assert_eq!(fixture.end(&found, &ChangeKind::Expire).await, 1);
}

#[apply(on_both)]
async fn expired_rows_behind_ended_work_are_found_at_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut logged = Vec::new();
    for dest in ["a", "b", "c"] {
        logged.push(fixture.log_one(Submission { valid_for: Duration::ZERO, ..text(dest) }).await);
    }
    for id in logged {
        let found = fixture.store.expired_rows(&all_partitions(), 1).await.expect("scans work");
        assert_eq!(ids(&found), [id]);
        assert_eq!(fixture.end(&found, &ChangeKind::Expire).await, 1);
    }
    assert!(fixture.expired(&all_partitions()).await.is_empty());
}

#[apply(on_both)]
async fn only_rows_of_the_cancelled_campaign_are_found(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let logged = fixture
        .log(&[
            bulk("a", "c"),
            Submission { waiter: Some("q/1".into()), line: LineId(2), ..bulk("b", "c") },
            Submission { send_at: Some(OffsetDateTime::now_utc() + HOUR), ..bulk("d", "c") },
            bulk("e", "other"),
            text("f"),
            Submission { account: AccountId(2), ..bulk("g", "c") },
        ])
        .await;
    let again = fixture.called(bulk("again", "c"), retry(HOUR)).await;
    let unknown = fixture.called(bulk("unknown", "c"), unknown()).await;
    assert!(fixture.cancelled(100).await.is_empty(), "the campaign runs");
    fixture.cancel("c").await;
    let found = fixture.cancelled(100).await;
    assert_eq!(ids(&found), [logged[0], logged[1], logged[2], again]);
    assert_eq!((found[1].line, found[1].waiter.as_deref()), (LineId(2), Some("q/1")));
    assert_eq!((found[3].fence, found[3].dest.as_str()), (1, "again"));
    assert_eq!(fixture.end(&found, &ChangeKind::Cancel).await, 4);
    let row = fixture.row(again).await;
    assert_eq!((row.status, row.next_at, row.done_at.is_some()), (Status::Cancelled, None, true));
    assert_eq!(fixture.row(unknown).await.status, Status::Unknown, "Graph may have taken it");
    assert_eq!(fixture.row(logged[3]).await.status, Status::Pending);
    assert_eq!(fixture.rows_of("cdls_open").await, 1);
    assert!(fixture.cancelled(100).await.is_empty());
}

#[apply(on_both)]
async fn cancelled_rows_come_by_batch_and_partition(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for n in 0..5 {
        fixture.log(&[bulk(&format!("d{n}"), "c")]).await;
    }
    fixture.cancel("c").await;
    let elsewhere = fixture.store.cancelled_rows(&[Partition(2)], 100).await.expect("scans work");
    assert!(elsewhere.is_empty());
    let mut ended = 0;
    while ended < 5 {
        // The work of the rows before is still in the queue, and comes first.
        let found = fixture.cancelled(2).await;
        assert!(!found.is_empty(), "{ended} of 5 rows were ended");
        ended += fixture.end(&found, &ChangeKind::Cancel).await;
    }
    assert!(fixture.cancelled(2).await.is_empty());
}

#[apply(on_both)]
async fn old_cancellation_is_not_scanned_for_ever(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log_one(bulk("a", "c")).await;
    fixture.cancel("c").await;
    let swept = async || fixture.number("select count(*) from campaign where swept").await;
    let found = fixture.cancelled(100).await;
    fixture.execute(&format!("update campaign set changed_at = {LONG_AGO}")).await;
    assert_eq!(fixture.cancelled(100).await, found);
    assert_eq!(swept().await, 0, "a row of it waits");
    fixture.end(&found, &ChangeKind::Cancel).await;
    fixture.execute("delete from work").await;
    assert!(fixture.cancelled(100).await.is_empty());
    fixture.cancelled(100).await;
    assert_eq!(swept().await, 1);
}

/// A row that a later version wrote, with a word this one does not know.
#[apply(on_both)]
async fn unreadable_row_is_left_out_of_every_list(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let expiring = |dest: &str| Submission { valid_for: Duration::ZERO, ..bulk(dest, "c") };
    let logged = fixture.log(&[text("strange"), text("b"), expiring("strange"), expiring("d")]).await;
    let claimed = [fixture.claimed(text("strange")).await, fixture.claimed(text("f")).await];
    let again =
        [fixture.called(text("strange"), retry(HOUR)).await, fixture.called(text("h"), retry(HOUR)).await];
    fixture.execute("update cdls set mtype = 'hologram', class = 'telepathy' where dest = 'strange'").await;

    assert!(fixture.ready_ids().await.contains(&logged[1]));
    assert!(!fixture.ready_ids().await.contains(&logged[0]));
    let log = fixture.store.log_after(&Default::default(), RowId(0), 100).await.expect("the log answers");
    assert_eq!(log.len(), 4);
    assert_eq!(fixture.store.log_newest(&Default::default(), 100).await.expect("it answers").len(), 4);
    assert_eq!(fixture.store.log_rows(&logged).await.expect("it answers").len(), 2);
    let filter = MessageFilter { dest: Some("strange".into()), ..MessageFilter::default() };
    let listed = fixture.store.messages(AccountId(1), &filter, RowId(i64::MAX), 9).await;
    assert!(listed.expect("it answers").is_empty());
    let found = fixture.expired(&all_partitions()).await;
    assert!(ids(&found).contains(&logged[3]));
    fixture.cancel("c").await;
    assert!(ids(&fixture.cancelled(100).await).contains(&logged[3]));
    let open = fixture.store.open_claims(&all_partitions()).await.expect("claims can be read");
    assert!(open.iter().any(|row| row.id == claimed[1]));
    let held = fixture.store.held_recipients(&all_partitions(), 2 * HOUR, 100).await.expect("scans work");
    assert!(held.iter().any(|held| held.by == again[1]));
    fixture.all_due().await;
    let promoted = fixture.promote().await;
    assert!(!promoted.work.is_empty());
    let readable = fixture.ready().await;
    let readable = readable.iter().find(|row| row.id == again[1]).expect("it is ready again");
    assert_eq!(fixture.claims("w", &[claim(readable)]).await, [true]);
}

#[apply(on_both)]
async fn unreadable_line_is_left_out_of_every_list(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    // As a later version's schema allows it.
    match backend {
        Backend::Postgres => {
            fixture.execute("alter table cd_v8_line drop constraint cd_v8_line_v8l_class_check").await;
            fixture.execute("update cd_v8_line set v8l_class = 'telepathy' where v8l_id = 1").await;
        }
        Backend::Sqlite => {
            fixture
                .execute("pragma ignore_check_constraints = on; update cd_v8_line set v8l_class = 'telepathy' where v8l_id = 1")
                .await;
        }
    }
    let ids =
        |lines: Vec<meta_dispatch::store::LineRecord>| lines.iter().map(|line| line.id.0).collect::<Vec<_>>();
    assert_eq!(ids(fixture.store.all_lines().await.expect("the store answers")), [2]);
    assert_eq!(ids(fixture.store.lines(&[LineId(1), LineId(2)]).await.expect("the store answers")), [2]);
}
