//! Changes of a row's state: which rows each matches, and what it writes.

use std::time::Duration;

use meta_dispatch::domain::{AccountId, ErrorDetail, ErrorKind, RowId, Status};
use meta_dispatch::store::{Change, ChangeKind, Claim, IdRange, Record, Resolution, Selection};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{
    Backend, Fixture, HOUR, bulk, claim, error, failed, first_claim, retry, sent, suspected, text, unknown,
    wait_for_line,
};

#[apply(on_both)]
async fn changes_leave_only_permitted_states(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let changes = [
        ("sent", sent(), Status::Ok),
        ("failed", failed(), Status::Error),
        ("retry", retry(HOUR), Status::Retry),
        ("suspected", suspected(HOUR), Status::Retry),
        ("unknown", unknown(), Status::Unknown),
        ("wait for line", wait_for_line(), Status::Pending),
        ("release", ChangeKind::Release, Status::Pending),
    ];
    for (name, first, reached) in &changes {
        for (second_name, second, then) in &changes {
            let id = fixture.called(text("ann"), first.clone()).await;
            assert_eq!(fixture.row(id).await.status, *reached, "{name}");
            // Only a late success still counts, and only while nobody has settled the row.
            let late = *second_name == "sent"
                && matches!(reached, Status::Unknown | Status::Retry | Status::Pending);
            assert_eq!(fixture.change(id, second.clone()).await, late, "{name}, then {second_name}");
            let expected = if late { *then } else { *reached };
            assert_eq!(fixture.row(id).await.status, expected, "{name}, then {second_name}");
        }
    }
    let id = fixture.claimed(text("bob")).await;
    for fence in [2, 7] {
        assert!(
            !fixture.change_at(id, fence, sent()).await,
            "only the holder of the fence writes the result"
        );
    }
}

#[apply(on_both)]
async fn changes_write_the_columns_of_dashboards(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(Duration::from_secs(60))).await;
    let row = fixture.row(id).await;
    assert_eq!((row.error_code, row.error_subcode, row.status_code), (Some(1200), Some(2018024), 400));
    assert_eq!((row.error_message.as_deref(), row.fbtrace_id.as_deref()), (Some("try later"), Some("Axy")));
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 1));
    assert_eq!((row.error_kind, row.done_at), (None, None));
    let wait = row.next_at.expect("a time") - OffsetDateTime::now_utc();
    assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(60), "{wait}");

    let late = ChangeKind::Sent { http_status: 200, graph_id: "m_9".into() };
    assert!(fixture.change(id, late).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.status_code, row.message_id.as_deref()), (Status::Ok, 200, Some("m_9")));
    assert_eq!((row.error_code, row.error_message, row.next_at), (None, None, None));
    assert_eq!(row.attempts, 1, "the call was counted before");
    assert!(row.done_at.is_some());

    let id = fixture.called(text("bob"), ChangeKind::Release).await;
    assert_eq!(fixture.row(id).await.attempts, 0, "the call was never begun");
    let again = fixture.ready().await.into_iter().find(|row| row.id == id).expect("it is ready again");
    assert_eq!((again.fence, again.attempts, again.tries), (1, 0, 0));
    assert!(fixture.change(id, ChangeKind::Expire).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.error_kind, row.attempts), (Status::Error, Some(ErrorKind::Expired), 0));
}

#[apply(on_both)]
async fn call_time_is_when_the_call_began(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ann")).await;
    let begun = std::time::Instant::now().checked_sub(Duration::from_secs(10));
    let change = Change { begun, ..Change::waiting(id, 1, sent()) };
    assert_eq!(fixture.record("w", &[change], &[]).await.changed, [true]);
    let row = fixture.row(id).await;
    let took = row.done_at.expect("it has ended") - row.sent_at.expect("it was sent");
    assert!((took - Duration::from_secs(10)).abs() < Duration::from_secs(1), "{took}");
}

#[apply(on_both)]
async fn row_waiting_for_its_line_stays_in_its_work(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), wait_for_line()).await;
    let ready = fixture.ready().await;
    assert_eq!((ready.len(), ready[0].id, ready[0].fence, ready[0].attempts), (1, id, 1, 1));
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    assert!(fixture.change_at(id, 2, sent()).await);
    assert_eq!(fixture.row(id).await.attempts, 2);
}

#[apply(on_both)]
async fn results_and_claims_are_answered_in_order(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let first = fixture.claimed(text("ann")).await;
    let ids = fixture.log(&[text("ann"), text("bob"), text("cleo")]).await;
    let nobody = RowId(999_999);
    let recorded = fixture
        .record(
            "w",
            &[Change::release(nobody, 1), Change::waiting(first, 1, sent())],
            &[first_claim(ids[2]), first_claim(nobody), first_claim(ids[0])],
        )
        .await;
    assert_eq!((recorded.changed, recorded.claimed), (vec![false, true], vec![true, false, true]));
    assert_eq!(fixture.row(ids[1]).await.status, Status::Pending);
    let nothing = fixture.record("w", &[], &[]).await;
    assert!(nothing.changed.is_empty() && nothing.claimed.is_empty());
}

/// Ranges of the log are named in statements; a batch may touch several.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn batch_may_span_ranges_and_a_dropped_one() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.own_all("w").await;
    let mut ids = fixture.log(&[text("a"), text("b")]).await;
    fixture.execute("select setval('cdls_id_seq', 10000000)").await;
    fixture.store.ensure_room().await.expect("room can be made");
    ids.extend(fixture.log(&[text("c"), text("d")]).await);
    let claims: Vec<Claim> = ids.iter().map(|id| first_claim(*id)).collect();
    assert_eq!(fixture.claims("w", &claims).await, [true; 4]);
    let changes = |kind: ChangeKind, ids: &[RowId]| -> Vec<Change> {
        ids.iter().map(|id| Change::waiting(*id, 1, kind.clone())).collect()
    };
    let recorded = fixture.record("w", &changes(sent(), &[ids[3], ids[0]]), &[]).await;
    assert_eq!(recorded.changed, [true, true]);
    fixture.execute("drop table cdls_0").await;
    let recorded = fixture.record("w", &changes(retry(HOUR), &[ids[1], ids[2]]), &[]).await;
    assert_eq!(recorded.changed, [false, true], "the row of the range that was dropped is gone");
    let again = fixture.record("w", &[], &[Claim { fence: 0, ..claims[1] }]).await;
    assert_eq!(again.claimed, [false]);
}

#[apply(on_both)]
async fn late_success_wins_over_an_operators_retry(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), unknown()).await;
    let settled = fixture.store.resolve(IdRange::ALL, &Selection::default(), &Resolution::Retry, 10).await;
    assert_eq!(settled.expect("rows can be settled"), [id]);
    let recorded = fixture.record("w", &[Change::waiting(id, 1, sent())], &[]).await;
    assert_eq!((recorded.changed, recorded.late), (vec![true], 1));
    assert_eq!(fixture.row(id).await.status, Status::Ok);
    assert_eq!(fixture.rows_of("cdls_open").await, 0, "it is not tried again");
    let id = fixture.claimed(text("bob")).await;
    let recorded = fixture.record("w", &[Change::waiting(id, 1, sent())], &[]).await;
    assert_eq!((recorded.changed, recorded.late), (vec![true], 0), "in time");
}

/// The row is ready again, and the success of the call before arrives.
#[apply(on_both)]
async fn late_success_wins_over_the_next_claim(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(Duration::ZERO)).await;
    fixture.all_due().await;
    fixture.promote().await;
    let ready = fixture.ready().await;
    let late = Change::waiting(id, 1, sent());
    let recorded = fixture.record("w", &[late], &[]).await;
    assert_eq!((recorded.changed, recorded.late), (vec![true], 1));
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [false], "it has ended");
    assert!(fixture.ready().await.is_empty());
}

#[apply(on_both)]
async fn unknown_row_is_open_until_settled(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), unknown()).await;
    let open = "select count(*) from cdls_open where kind = 'unknown' and due_at is null";
    assert_eq!(fixture.number(open).await, 1);
    assert!(fixture.ready().await.is_empty() && fixture.promote().await.work.is_empty());
    assert!(fixture.change(id, sent()).await, "the success was late");
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
}

/// A worker may know an old record of the line; what it says of it is true only if the log agrees.
#[apply(on_both)]
async fn row_is_unsendable_only_on_a_foreign_line(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    assert!(!fixture.change_at(ids[0], 0, ChangeKind::Unsendable).await);
    assert_eq!(fixture.row(ids[0]).await.status, Status::Pending);
    fixture.execute("update cd_v8_line set cdcs_id = 2 where v8l_id = 1").await;
    assert!(fixture.change_at(ids[0], 0, ChangeKind::Unsendable).await);
    let row = fixture.row(ids[0]).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Line)));
    fixture.execute("delete from cd_v8_line where v8l_id = 1").await;
    assert!(fixture.change_at(ids[1], 0, ChangeKind::Unsendable).await, "a line that is gone is nobody's");
}

#[apply(on_both)]
async fn repeated_change_changes_nothing_more(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = [fixture.claimed(text("ann")).await, fixture.claimed(text("bob")).await];
    let changes = [
        Change::waiting(ids[0], 1, retry(HOUR)),
        Change::waiting(ids[1], 1, ChangeKind::WaitForLine { error: error(), ambiguous: true }),
    ];
    let record = Record {
        worker: "w",
        changes: &changes,
        claims: &[],
        claim_no: 99,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    assert_eq!(fixture.recorded(record).await.changed, [true, true]);
    let before = (fixture.row(ids[0]).await, fixture.row(ids[1]).await);
    assert_eq!(fixture.recorded(record).await.changed, [false, false]);
    if backend == Backend::Postgres {
        let repeated = Record { repeated: true, ..record };
        assert_eq!(fixture.recorded(repeated).await.changed, [true, true], "the first answer was lost");
    }
    let after = (fixture.row(ids[0]).await, fixture.row(ids[1]).await);
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert_eq!(fixture.rows_of("cdls_open").await, 1);
}

/// The refusal may be the message's or its line's: it waits behind another message, and each refusal is counted.
#[apply(on_both)]
async fn suspect_row_waits_for_its_time_and_counts(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(bulk("ann", "spring"), suspected(Duration::from_secs(60))).await;
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.status_code, row.error_code), (Status::Retry, 400, Some(1200)), "{row:?}");
    assert_eq!((row.error_message.as_deref(), row.error_kind), (Some("try later"), None));
    assert_eq!((row.attempts, row.ambiguous_attempts, row.done_at), (1, 0, None));
    let wait = row.next_at.expect("a time") - OffsetDateTime::now_utc();
    assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(60), "{wait}");
    assert_eq!(fixture.rows_of("cdls_open").await, 1);
    assert!(fixture.ready().await.is_empty());

    fixture.all_due().await;
    fixture.promote().await;
    let ready = fixture.ready().await;
    assert_eq!((ready.len(), ready[0].fence, ready[0].attempts, ready[0].tries), (1, 1, 1, 1));
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    let again = ChangeKind::Suspected { after: HOUR, error: error(), ambiguous: true };
    assert!(fixture.change_at(id, 2, again).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Retry, 2, 1));
    fixture.all_due().await;
    fixture.promote().await;
    assert_eq!(fixture.ready().await[0].tries, 2);
}

/// Graph has taken another message of the line: the refused one ends with the error of its own call.
#[apply(on_both)]
async fn refused_row_ends_without_another_call(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(bulk("ann", "spring"), suspected(HOUR)).await;
    let before = fixture.row(id).await;
    let refusal = ErrorDetail { code: Some(368), subcode: None, message: "abusive".into(), ..error() };
    let refuse = || ChangeKind::Refuse { error: refusal.clone() };
    for fence in [0, 2] {
        assert!(!fixture.change_at(id, fence, refuse()).await, "another state of the row");
    }
    assert!(fixture.change(id, refuse()).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
    assert_eq!((row.error_code, row.error_subcode, row.status_code), (Some(368), None, 400));
    assert_eq!(row.error_message.as_deref(), Some("abusive"));
    assert_eq!((row.attempts, row.sent_at, row.next_at), (1, before.sent_at, None), "no call was made");
    assert!(row.done_at.is_some());
    assert_eq!(fixture.rows_of("cdls_open").await, 0, "it is not tried again");
    assert!(fixture.promote().await.work.is_empty() && fixture.ready().await.is_empty());
    assert!(!fixture.change(id, refuse()).await && !fixture.change(id, sent()).await, "it has ended");

    let counts = fixture.store.campaign_counts(AccountId(1), "spring").await.expect("the counters answer");
    let counted: Vec<(Status, i64)> = counts.iter().map(|count| (count.status, count.rows)).collect();
    assert_eq!(counted, [(Status::Error, 1)]);
    let errors = fixture.store.campaign_errors(AccountId(1), "spring").await.expect("the counters answer");
    assert_eq!((errors.len(), errors[0].error_code, errors[0].rows), (1, Some(368), 1));
}

/// The row came back from its wait, and another message was sent before its call began.
#[apply(on_both)]
async fn refused_row_ends_also_when_it_is_ready_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), suspected(HOUR)).await;
    fixture.all_due().await;
    fixture.promote().await;
    let ready = fixture.ready().await;
    assert!(fixture.change(id, ChangeKind::Refuse { error: error() }).await);
    assert_eq!(fixture.row(id).await.status, Status::Error);
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [false], "it has ended");
    assert!(fixture.ready().await.is_empty());
}
