//! The log as people and dashboards read it.

use std::time::Duration;

use meta_dispatch::domain::{AccountId, LineId, RowId, Status, Submission};
use meta_dispatch::store::{LogFilter, MessageFilter, Scope};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, bulk, claim, failed, retry, sent, text, unknown};

impl Fixture {
    async fn newest(&self, filter: &LogFilter, limit: u32) -> Vec<RowId> {
        let rows = self.store.log_newest(filter, limit).await.expect("the log answers");
        rows.iter().map(|row| row.cdls_id).collect()
    }
}

#[apply(on_both)]
async fn account_sees_its_own_rows_only(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.log_one(text("ann")).await;
    let seen = async |scope| fixture.store.log_row(scope, id).await.expect("the log answers").is_some();
    assert!(seen(Scope::Account(AccountId(1))).await && seen(Scope::Operator).await);
    assert!(!seen(Scope::Account(AccountId(2))).await);
}

#[apply(on_both)]
async fn reads_by_id_leave_out_missing_rows(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[text("ann"), text("bob"), text("cleo")]).await;
    let wanted = [ids[1], RowId(999_999), ids[0], RowId(77_000_000)];
    let mut rows = fixture.store.log_rows(&wanted).await.expect("the store answers");
    rows.sort_by_key(|row| row.cdls_id);
    let found: Vec<_> = rows.iter().map(|row| (row.cdls_id, row.dest.as_str())).collect();
    assert_eq!(found, [(ids[0], "ann"), (ids[1], "bob")]);
    assert!(fixture.store.log_rows(&[]).await.expect("the store answers").is_empty());
}

#[apply(on_both)]
async fn reads_forwards_backwards_and_filtered(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let sent = fixture.called(text("ann"), sent()).await;
    let ids = fixture
        .log(&[text("bob"), bulk("cleo", "spring"), Submission { line: LineId(2), ..text("dan") }])
        .await;
    let everything = LogFilter::default();
    assert_eq!(fixture.newest(&everything, 2).await, [ids[2], ids[1]]);
    for (filter, expected) in [
        (LogFilter { line: Some(LineId(2)), ..everything.clone() }, ids[2]),
        (LogFilter { status: Some(Status::Ok), ..everything.clone() }, sent),
        (LogFilter { cp_id: Some("spring".into()), ..everything.clone() }, ids[1]),
    ] {
        assert_eq!(fixture.newest(&filter, 9).await, [expected], "{filter:?}");
        let after = fixture.store.log_after(&filter, RowId(0), 9).await.expect("the log answers");
        assert!(after.iter().map(|row| row.cdls_id).eq([expected]), "{filter:?}");
    }
    let rows = fixture.store.log_after(&everything, sent, 2).await.expect("the log answers");
    assert!(rows.iter().map(|row| row.cdls_id).eq([ids[0], ids[1]]));
}

/// The claim stands beside the log; each way to the row shows it.
#[apply(on_both)]
async fn claimed_row_is_sending_in_every_view(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let waiting = fixture.log_one(bulk("bob", "c")).await;
    let id = fixture.claimed(bulk("ann", "c")).await;
    let store = &fixture.store;
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts), (Status::Sending, 1));
    let age = OffsetDateTime::now_utc() - row.sent_at.expect("the time of the call");
    assert!(age.abs() < Duration::from_secs(5), "{age}");
    assert_eq!(store.log_rows(&[id]).await.expect("it answers")[0].status, Status::Sending);
    for (status, expected) in [(Status::Sending, id), (Status::Pending, waiting)] {
        let filter = LogFilter { status: Some(status), ..LogFilter::default() };
        assert_eq!(fixture.newest(&filter, 9).await, [expected], "{status}");
        let after = store.log_after(&filter, RowId(0), 9).await.expect("it answers");
        assert!(after.iter().map(|row| (row.cdls_id, row.status)).eq([(expected, status)]), "{status}");
        let filter = MessageFilter { statuses: vec![status], ..MessageFilter::default() };
        let listed = store.messages(AccountId(1), &filter, RowId(i64::MAX), 9).await.expect("it answers");
        assert!(listed.iter().map(|row| (row.cdls_id, row.status)).eq([(expected, status)]), "{status}");
        let counts = store.campaign_counts(AccountId(1), "c").await.expect("it answers");
        assert!(counts.iter().any(|count| (count.status, count.rows) == (status, 1)), "{counts:?}");
    }
    let stats = store.log_stats(None).await.expect("it answers");
    let shown: Vec<(Status, i64)> = stats.iter().map(|cell| (cell.status, cell.rows)).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.contains(&(Status::Sending, 1)) && shown.contains(&(Status::Pending, 1)), "{shown:?}");
}

/// The claim is closed by the fence its row has now, and removed later.
#[apply(on_both)]
async fn ended_claim_is_not_shown(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for (kind, status) in [(sent(), Status::Ok), (retry(HOUR), Status::Retry), (unknown(), Status::Unknown)] {
        let id = fixture.called(text("ann"), kind).await;
        let row = fixture.row(id).await;
        assert_eq!((row.status, row.attempts), (status, 1));
    }
    assert_eq!(fixture.rows_of("claim").await, 3);
}

#[apply(on_both)]
async fn counts_rows_by_line_and_status(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.called(text("ann"), sent()).await;
    fixture.log(&[text("bob"), bulk("cleo", "spring"), Submission { line: LineId(2), ..text("dan") }]).await;
    let stats = async |since| {
        let stats = fixture.store.log_stats(since).await.expect("the log answers");
        stats.iter().map(|cell| (cell.v8l_id.0, cell.status, cell.rows)).collect::<Vec<_>>()
    };
    let expected = [(1, Status::Ok, 1), (1, Status::Pending, 2), (2, Status::Pending, 1)];
    assert_eq!(stats(Some(Duration::from_secs(60))).await, expected);
    assert_eq!(stats(None).await, expected);
    fixture.execute("update cdls set created_at = '2020-01-01T00:00:00.000Z' where dest = 'dan'").await;
    assert_eq!(stats(Some(Duration::from_secs(60))).await, expected[..2]);
}

#[apply(on_both)]
async fn open_rows_are_counted_and_unknown_ones_aged(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let open = async || fixture.store.open_rows().await.expect("rows can be counted");
    assert_eq!(open().await, Default::default());
    fixture.log(&[text("pending"), text("pending")]).await;
    fixture.log_one(Submission { send_at: Some(OffsetDateTime::now_utc() + HOUR), ..text("later") }).await;
    fixture.claimed(text("sending")).await;
    fixture.called(text("failed"), failed()).await;
    fixture.called(text("retry"), retry(HOUR)).await;
    fixture.called(text("young"), unknown()).await;
    let begun = std::time::Instant::now().checked_sub(Duration::from_secs(60));
    let old = fixture.claimed(text("old")).await;
    let change =
        meta_dispatch::store::Change { begun, ..meta_dispatch::store::Change::waiting(old, 1, unknown()) };
    assert_eq!(fixture.record("w", &[change], &[]).await.changed, [true]);
    let counted = open().await;
    assert_eq!((counted.sending, counted.retry, counted.unknown), (1, 1, 2));
    // Counted in the queue: its work stands until its owner has removed it.
    assert!((3..=8).contains(&counted.pending), "{counted:?}");
    let age = counted.oldest_unknown.expect("there is one");
    assert!(age >= Duration::from_secs(55) && age < Duration::from_secs(120), "{age:?}");
}

#[apply(on_both)]
async fn ready_retry_is_counted_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.called(text("ann"), retry(HOUR)).await;
    fixture.execute("delete from work").await;
    fixture.all_due().await;
    fixture.promote().await;
    let open = fixture.store.open_rows().await.expect("rows can be counted");
    assert_eq!(open.pending + open.retry, 1, "{open:?}");
    let ready = fixture.ready().await;
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    let open = fixture.store.open_rows().await.expect("rows can be counted");
    assert_eq!(open.sending, 1, "{open:?}");
}
