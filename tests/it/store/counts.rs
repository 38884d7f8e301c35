//! Campaigns are counted by the statements that change their rows; what they say is what the log says.

use std::collections::HashMap;
use std::time::Duration;

use meta_dispatch::channel::{Medium, MessageKind};
use meta_dispatch::domain::{AccountId, CampaignState, ErrorKind, LineId, RowId, Status, Submission};
use meta_dispatch::store::{
    CampaignFilter, CampaignPlace, Change, ChangeKind, ErrorCount, IdRange, LogFilter, Receipts, Resend,
    Resolution, Selection,
};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{
    Backend, Fixture, HOUR, LONG_AGO, all_partitions, bulk, error, failed, retry, sent, text, unknown,
    wait_for_line,
};

type Counts = HashMap<(i64, Medium, Status), i64>;

fn on_line(line: i64, dest: &str) -> Submission {
    Submission { line: LineId(line), ..bulk(dest, "c") }
}

fn image(line: i64, dest: &str) -> Submission {
    Submission { kind: MessageKind::Image, ..on_line(line, dest) }
}

impl Fixture {
    async fn counts(&self, cp_id: &str) -> Counts {
        let counts = self.store.campaign_counts(AccountId(1), cp_id).await.expect("the counters answer");
        let groups: Counts =
            counts.iter().map(|count| ((count.line.0, count.medium, count.status), count.rows)).collect();
        assert_eq!(groups.len(), counts.len(), "a group is told once: {counts:?}");
        groups
    }

    /// The campaign's counters, which are what the log says.
    async fn counted(&self) -> Counts {
        let filter = LogFilter { cp_id: Some("c".into()), ..LogFilter::default() };
        let log = self.store.log_after(&filter, RowId(0), 10_000).await.expect("the log answers");
        let mut expected = Counts::new();
        for row in log.iter().filter(|row| row.cdcs_id == AccountId(1)) {
            *expected.entry((row.v8l_id.0, row.mtype.medium(), row.status)).or_default() += 1;
        }
        let counts = self.counts("c").await;
        assert_eq!(counts, expected);
        counts
    }

    async fn rate(&self, window: Duration) -> f64 {
        self.store.campaign_rate(AccountId(1), "c", window).await.expect("it answers")
    }

    /// Folds every counter.
    async fn fold(&self) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        while self.store.fold_counts(Duration::ZERO, 3).await.expect("counters can be folded") >= 3 {}
    }
}

#[apply(on_both)]
async fn group_by_line_medium_and_status(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[on_line(1, "a"), on_line(1, "b"), image(1, "c"), image(2, "d")]).await;
    fixture.log(&[bulk("a", "other"), Submission { account: AccountId(2), ..on_line(9, "a") }]).await;
    fixture.called(on_line(1, "e"), sent()).await;
    let expected = Counts::from([
        ((1, Medium::Text, Status::Ok), 1),
        ((1, Medium::Text, Status::Pending), 2),
        ((1, Medium::Media, Status::Pending), 1),
        ((2, Medium::Media, Status::Pending), 1),
    ]);
    assert_eq!(fixture.counted().await, expected);
    assert!(fixture.counts("nothing").await.is_empty());
}

#[apply(on_both)]
async fn follow_every_change_of_a_row(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let tomorrow = Some(OffsetDateTime::now_utc() + 24 * HOUR);
    fixture.log(&[on_line(1, "waits"), Submission { send_at: tomorrow, ..image(2, "scheduled") }]).await;
    fixture.counted().await;
    for kind in [sent(), failed(), retry(HOUR), unknown(), wait_for_line(), ChangeKind::Release] {
        fixture.claimed(on_line(1, "sending")).await;
        fixture.counted().await;
        let id = fixture.called(on_line(1, "ended"), kind.clone()).await;
        fixture.counted().await;
        fixture.change(id, sent()).await;
        fixture.counted().await;
        fixture.change(id, kind).await;
        fixture.counted().await;
    }
    let waits = fixture.log_one(on_line(2, "expires")).await;
    assert!(fixture.change_at(waits, 0, ChangeKind::Expire).await);
    fixture.counted().await;
    let retried = fixture.called(on_line(1, "retried"), retry(Duration::ZERO)).await;
    fixture.all_due().await;
    fixture.promote().await;
    fixture.counted().await;
    assert!(fixture.change(retried, ChangeKind::Cancel).await);
    let counts = fixture.counted().await;
    assert_eq!(counts[&(1, Medium::Text, Status::Cancelled)], 1);
    assert_eq!(counts[&(1, Medium::Text, Status::Sending)], 6);
}

#[apply(on_both)]
async fn follow_a_batch_over_several_campaigns(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut ids = Vec::new();
    for dest in ["a", "b", "d"] {
        ids.push(fixture.claimed(on_line(1, dest)).await);
    }
    ids.push(fixture.claimed(bulk("e", "other")).await);
    ids.push(fixture.claimed(text("f")).await);
    let kinds = [sent(), failed(), unknown(), sent(), retry(HOUR)];
    let changes: Vec<Change> =
        ids.iter().zip(kinds).map(|(id, kind)| Change::waiting(*id, 1, kind)).collect();
    assert_eq!(fixture.record("w", &changes, &[]).await.changed, [true; 5]);
    fixture.counted().await;
    assert_eq!(fixture.counts("other").await, Counts::from([((1, Medium::Text, Status::Ok), 1)]));
    assert_eq!(fixture.record("w", &changes, &[]).await.changed, [false; 5], "again");
    fixture.counted().await;
}

#[apply(on_both)]
async fn follow_operations_of_operators(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for resolution in [Resolution::Ok { message_id: None }, Resolution::Error, Resolution::Retry] {
        fixture.called(on_line(1, "ann"), unknown()).await;
        let settled = fixture
            .store
            .resolve(IdRange::ALL, &Selection::default(), &resolution, 10)
            .await
            .expect("settled");
        assert_eq!(settled.len(), 1);
        fixture.counted().await;
    }
    let resend = Resend { status: Status::Error, cp_id: None, valid_for: HOUR };
    let copies = fixture
        .store
        .resend(IdRange::ALL, &Selection::default(), &resend, 10)
        .await
        .expect("rows are copied");
    assert_eq!(copies.len(), 1);
    let counts = fixture.counted().await;
    assert_eq!(counts[&(1, Medium::Text, Status::Pending)], 1);
}

#[apply(on_both)]
async fn include_messages_logged_at_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let logged = (0..8).map(async |n| {
        for m in 0..5 {
            let row = |i: i64| on_line(1 + i % 2, &format!("d{n}-{m}-{i}"));
            fixture.log(&(0..40).map(row).collect::<Vec<_>>()).await;
        }
    });
    futures::future::join_all(logged).await;
    assert_eq!(fixture.counted().await.values().sum::<i64>(), 1_600);
}

#[apply(on_both)]
async fn folding_changes_none_and_takes_old_ones_only(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for dest in ["a", "b", "d"] {
        fixture.called(on_line(1, dest), sent()).await;
        fixture.called(image(2, dest), retry(HOUR)).await;
    }
    let before = fixture.counted().await;
    let deltas = fixture.rows_of("campaign_delta").await;
    assert!(deltas > 0);
    assert_eq!(fixture.store.fold_counts(HOUR, 100).await.expect("counters can be folded"), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(fixture.store.fold_counts(Duration::ZERO, 2).await.expect("counters can be folded"), 2);
    assert_eq!(fixture.counted().await, before);
    fixture.fold().await;
    assert_eq!(fixture.rows_of("campaign_delta").await, 0);
    assert_eq!(fixture.counted().await, before);
    fixture.called(on_line(1, "e"), failed()).await;
    fixture.counted().await;
    fixture.fold().await;
    fixture.counted().await;
}

#[apply(on_both)]
async fn may_be_folded_by_several_at_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for n in 0..40 {
        fixture.log_one(on_line(1 + n % 2, &format!("d{n}"))).await;
    }
    futures::future::join_all((0..4).map(|_| fixture.fold())).await;
    fixture.fold().await;
    assert_eq!(fixture.counted().await.values().sum::<i64>(), 40);
    assert_eq!(fixture.rows_of("campaign_delta").await, 0);
}

#[apply(on_both)]
async fn show_when_the_newest_waiting_row_is_due(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let not_before = async || {
        let counts = fixture.store.campaign_counts(AccountId(1), "c").await.expect("it answers");
        let mut lines: Vec<_> = counts.iter().map(|count| (count.line.0, count.not_before)).collect();
        lines.sort();
        lines
    };
    fixture.log(&[on_line(1, "a")]).await;
    assert_eq!(not_before().await, [(1, None)]);
    let in_an_hour = OffsetDateTime::now_utc() + HOUR;
    let in_an_hour = in_an_hour.replace_millisecond(0).expect("a millisecond");
    let scheduled = |line, dest| Submission { send_at: Some(in_an_hour), ..on_line(line, dest) };
    fixture.log(&[scheduled(1, "b"), on_line(2, "d")]).await;
    assert_eq!(not_before().await, [(1, Some(in_an_hour)), (2, None)]);
    fixture.all_due().await;
    fixture.store.promote_due(&all_partitions(), None, 10).await.expect("scans work");
    assert_eq!(not_before().await, [(1, None), (2, None)], "it is ready");
}

#[apply(on_both)]
async fn rate_counts_calls_answered_within_the_window(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let window = Duration::from_secs(20);
    assert_eq!(fixture.rate(window).await, 0.0);
    for n in 0..4 {
        fixture.called(on_line(1, &format!("d{n}")), if n % 2 == 0 { sent() } else { failed() }).await;
        fixture.called(on_line(2, &format!("d{n}")), unknown()).await;
        fixture.called(on_line(2, &format!("r{n}")), retry(HOUR)).await;
    }
    let expired = fixture.log_one(on_line(1, "expired")).await;
    assert!(fixture.change_at(expired, 0, ChangeKind::Expire).await);
    let rate = fixture.rate(window).await;
    assert!((rate - 0.2).abs() < 0.001, "{rate}");
    let exhausted = ChangeKind::Failed { kind: ErrorKind::Exhausted, error: error(), ambiguous: false };
    fixture.called(on_line(1, "exhausted"), exhausted).await;
    let rate = fixture.rate(window).await;
    assert!((rate - 0.25).abs() < 0.001, "{rate}");
    fixture.execute("update campaign_delta set at = '2020-01-01T00:00:00.000Z'").await;
    assert_eq!(fixture.rate(window).await, 0.0);
}

#[apply(on_both)]
async fn end_with_a_cancelled_campaign(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[on_line(1, "a"), on_line(2, "b")]).await;
    fixture.claimed(on_line(1, "sending")).await;
    let state = CampaignState::Cancelled;
    fixture.store.set_campaign(AccountId(1), "c", state).await.expect("states can be written");
    let doomed = fixture.store.cancelled_rows(&all_partitions(), 100).await.expect("scans work");
    let waiting = doomed.iter().filter(|row| row.dest != "sending");
    let changes: Vec<Change> =
        waiting.map(|row| Change::waiting(row.id, row.fence, ChangeKind::Cancel)).collect();
    assert_eq!(fixture.record("w", &changes, &[]).await.changed, [true, true]);
    let counts = fixture.counted().await;
    assert_eq!(counts.keys().map(|(_, _, status)| *status).collect::<Vec<_>>().len(), 3);
    assert_eq!(counts[&(1, Medium::Text, Status::Sending)], 1);
}

#[apply(on_both)]
async fn errors_are_counted_by_code_and_kind(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let errors = async |cp_id: &str| {
        let errors = fixture.store.campaign_errors(AccountId(1), cp_id).await.expect("the counters answer");
        let told = |error: &ErrorCount| (error.error_code, error.error_subcode, error.error_kind, error.rows);
        errors.iter().map(told).collect::<Vec<_>>()
    };
    assert!(errors("c").await.is_empty());
    for dest in ["a", "b"] {
        fixture.called(on_line(1, dest), failed()).await;
    }
    fixture.called(bulk("a", "other"), failed()).await;
    fixture.called(text("no campaign"), failed()).await;
    fixture.called(on_line(1, "sent"), sent()).await;
    fixture.called(on_line(1, "unknown"), unknown()).await;
    let expired = fixture.log_one(on_line(2, "expired")).await;
    assert!(fixture.change_at(expired, 0, ChangeKind::Expire).await);
    let resolve = Resolution::Error;
    fixture.store.resolve(IdRange::ALL, &Selection::default(), &resolve, 10).await.expect("settled");
    let refused = (Some(1200), Some(2018024), Some(ErrorKind::Refused), 2);
    let mut expected = vec![
        refused,
        (None, None, Some(ErrorKind::Expired), 1),
        (Some(1200), Some(2018024), Some(ErrorKind::Resolved), 1),
    ];
    for _ in 0..2 {
        let mut counted = errors("c").await;
        assert_eq!(counted.first(), Some(&refused), "the most frequent first");
        counted.sort_by_key(|error| (error.2.map(|kind| kind.as_str()), error.3));
        expected.sort_by_key(|error| (error.2.map(|kind| kind.as_str()), error.3));
        assert_eq!(counted, expected);
        fixture.fold().await;
    }
    assert_eq!(errors("other").await.len(), 1);
    let receipts = fixture.store.campaign_receipts(AccountId(1), "c").await.expect("the counters answer");
    assert_eq!(receipts, Receipts::default());
}

#[apply(on_both)]
async fn receipts_stand_beside_the_states(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.called(on_line(1, "a"), sent()).await;
    for (status, rows) in [("DELIVERED", 2), ("READ", 1)] {
        let told = format!("1, 'c', 1, false, '{status}', {rows}, {LONG_AGO}");
        let columns = "cdcs_id, cp_id, v8l_id, media, status, rows, at";
        fixture.execute(&format!("insert into campaign_delta ({columns}) values ({told})")).await;
    }
    for _ in 0..2 {
        let receipts = fixture.store.campaign_receipts(AccountId(1), "c").await.expect("it answers");
        assert_eq!(receipts, Receipts { delivered: 2, read: 1 });
        assert_eq!(fixture.counts("c").await, Counts::from([((1, Medium::Text, Status::Ok), 1)]));
        fixture.fold().await;
    }
}

#[apply(on_both)]
async fn campaigns_are_listed_newest_first(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for label in ["a", "b", "c"] {
        fixture.called(bulk("ann", label), sent()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.log_one(bulk("bob", "b")).await;
    fixture.log_one(Submission { account: AccountId(2), line: LineId(9), ..bulk("ann", "theirs") }).await;
    let state = CampaignState::Paused;
    fixture.store.set_campaign(AccountId(1), "a", state).await.expect("states can be written");
    let list = async |filter: CampaignFilter, limit: u32| {
        let found = fixture.store.campaigns(AccountId(1), &filter, limit).await.expect("it answers");
        found.into_iter().map(|label| label.place).collect::<Vec<CampaignPlace>>()
    };
    let labels =
        |places: &[CampaignPlace]| places.iter().map(|place| place.cp_id.clone()).collect::<Vec<_>>();
    let of = |state, is_open| CampaignFilter { state, is_open, before: None };
    for _ in 0..2 {
        let all = list(CampaignFilter::default(), 10).await;
        assert_eq!(labels(&all), ["c", "b", "a"]);
        let first = list(CampaignFilter::default(), 2).await;
        assert_eq!(labels(&first), ["c", "b"]);
        let rest = CampaignFilter { before: Some(first[1].clone()), ..CampaignFilter::default() };
        assert_eq!(labels(&list(rest, 2).await), ["a"]);
        let running = Some(CampaignState::Running);
        assert_eq!(labels(&list(of(running, Some(true)), 10).await), ["b"]);
        assert_eq!(labels(&list(of(running, Some(false)), 10).await), ["c"]);
        assert_eq!(labels(&list(of(Some(CampaignState::Paused), None), 10).await), ["a"]);
        fixture.fold().await;
    }
}

#[apply(on_both)]
async fn backlog_of_a_line_is_what_waits_for_it(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let tomorrow = Some(OffsetDateTime::now_utc() + 24 * HOUR);
    fixture.log(&[text("ann"), Submission { send_at: tomorrow, ..text("bob") }]).await;
    fixture.called(text("cleo"), retry(HOUR)).await;
    fixture.called(text("dan"), sent()).await;
    fixture.called(text("eve"), unknown()).await;
    fixture.claimed(text("fay")).await;
    fixture.execute(&format!("update cdls set created_at = {LONG_AGO} where dest in ('bob', 'dan')")).await;
    let lines = [LineId(1), LineId(2)];
    let backlog = fixture.store.line_backlog(&lines).await.expect("it answers");
    assert_eq!(backlog.len(), 1, "{backlog:?}");
    assert_eq!((backlog[0].line, backlog[0].waiting), (LineId(1), 3));
    assert_eq!(backlog[0].oldest.map(|at| at.year()), Some(2020));
}
