//! What operators do to rows, on PostgreSQL and on SQLite: settling what is UNKNOWN, sending ended rows again.

use std::collections::HashSet;
use std::time::Duration;

use meta_dispatch::channel::MessageKind;
use meta_dispatch::domain::{
    AccountId, CampaignState, ErrorDetail, ErrorKind, Lane, LineId, Outcome, RowId, Status, Submission,
};
use meta_dispatch::store::{
    ChangeKind, IdRange, Matching, Operation, Resend, Resent, Resolution, Selection, SettledRow,
};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::insert::Insert;
use crate::support::store::{Backend, Fixture, HOUR, bulk, sent, text};

const MANY: u32 = 1_000;

fn cut() -> ErrorDetail {
    ErrorDetail { code: Some(190), message: "the connection was cut".into(), ..ErrorDetail::default() }
}

fn everything() -> Selection {
    Selection::default()
}

fn copies_of(status: Status) -> Resend {
    Resend { status, valid_for: 2 * HOUR, cp_id: None }
}

fn ids(resent: &[Resent]) -> Vec<RowId> {
    resent.iter().map(|resent| resent.id).collect()
}

impl Fixture {
    async fn unknown(&self, submission: Submission) -> RowId {
        self.called(submission, ChangeKind::Unknown { error: cut() }).await
    }

    async fn failed(&self, submission: Submission) -> RowId {
        let kind = ChangeKind::Failed { kind: ErrorKind::Refused, error: cut(), ambiguous: false };
        self.called(submission, kind).await
    }

    /// The row has ended by itself, as far as these tests are concerned.
    async fn end_all(&self) {
        self.execute("update cdls set status = 'ERROR', error_code = 190, attempts = 3").await;
        self.execute("delete from work").await;
    }

    async fn resolve(&self, selection: &Selection, resolution: &Resolution) -> Vec<RowId> {
        self.store.resolve(IdRange::ALL, selection, resolution, MANY).await.expect("rows can be settled")
    }

    async fn resend(&self, selection: &Selection, resend: &Resend) -> Vec<Resent> {
        self.store.resend(IdRange::ALL, selection, resend, MANY).await.expect("rows can be copied")
    }

    async fn matching(&self, selection: &Selection, operation: Operation<'_>) -> Matching {
        self.store.matching(IdRange::ALL, selection, operation).await.expect("rows can be counted")
    }
}

#[apply(on_both)]
async fn settles_an_unknown_row_as_ok_error_or_retry(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let settled = async |resolution: Resolution| {
        let id = fixture.unknown(text("ann")).await;
        assert_eq!(fixture.resolve(&everything(), &resolution).await, [id]);
        fixture.row(id).await
    };
    let ok = settled(Resolution::Ok { message_id: Some("m_7".into()) }).await;
    assert_eq!((ok.status, ok.message_id.as_deref()), (Status::Ok, Some("m_7")));
    assert_eq!((ok.error_code, ok.error_kind, ok.error_message), (None, None, None));
    assert!(ok.done_at.is_some() && ok.next_at.is_none());
    let ok = settled(Resolution::Ok { message_id: None }).await;
    assert_eq!((ok.status, ok.message_id, ok.ambiguous_attempts), (Status::Ok, None, 1));

    let ended = settled(Resolution::Error).await;
    assert_eq!((ended.status, ended.error_kind), (Status::Error, Some(ErrorKind::Resolved)));
    assert_eq!(
        (ended.error_code, ended.error_message.as_deref()),
        (Some(190), Some("the connection was cut"))
    );
    assert!(ended.done_at.is_some());

    let retry = settled(Resolution::Retry).await;
    assert_eq!((retry.status, retry.done_at, retry.error_kind), (Status::Retry, None, None));
    assert_eq!((retry.attempts, retry.ambiguous_attempts), (1, 1));
    assert!(retry.next_at.is_some_and(|at| at <= OffsetDateTime::now_utc() + Duration::from_secs(1)));
    fixture.promote().await;
    let ready = fixture.ready().await;
    let ready = ready.iter().find(|row| row.id == retry.cdls_id).expect("it is due at once");
    assert_eq!((ready.tries, ready.fence), (0, 1));
    assert_eq!(fixture.rows_of("cdls_open").await, 0, "a row that is settled stands open no more");
}

#[apply(on_both)]
async fn settles_only_unknown_rows_and_each_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log_one(text("pending")).await;
    fixture.claimed(text("sending")).await;
    fixture.failed(text("error")).await;
    let unknown = fixture.unknown(text("unknown")).await;
    assert_eq!(fixture.resolve(&everything(), &Resolution::Error).await, [unknown]);
    assert!(fixture.resolve(&everything(), &Resolution::Retry).await.is_empty());
    assert!(!fixture.change(unknown, sent()).await, "what an operator has ended stays so");
}

#[apply(on_both)]
async fn expired_row_is_not_retried(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let old = fixture.unknown(text("old")).await;
    fixture.execute("update cdls set expires_at = created_at where dest = 'old'").await;
    let young = fixture.unknown(text("young")).await;
    let found = fixture.matching(&everything(), Operation::Resolve(&Resolution::Retry)).await;
    assert_eq!(found, Matching { rows: 1, last: young, left_out: 1 });
    let found = fixture.matching(&everything(), Operation::Resolve(&Resolution::Error)).await;
    assert_eq!(found, Matching { rows: 2, last: young, left_out: 0 });
    assert_eq!(fixture.resolve(&everything(), &Resolution::Retry).await, [young]);
    assert_eq!(fixture.row(old).await.status, Status::Unknown);
    assert_eq!(fixture.resolve(&everything(), &Resolution::Error).await, [old]);
}

#[apply(on_both)]
async fn selections_combine_and_batches_follow_on(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let spring = Submission { cp_id: Some("spring".into()), ..text("a") };
    let first = fixture.unknown(spring.clone()).await;
    let second = fixture.unknown(Submission { line: LineId(2), ..spring.clone() }).await;
    let third = fixture.unknown(text("c")).await;
    fixture.execute("update cdls set error_code = 2 where dest = 'c'").await;
    let count = async |selection: Selection| {
        fixture.matching(&selection, Operation::Resolve(&Resolution::Error)).await.rows
    };
    assert_eq!(count(everything()).await, 3);
    assert_eq!(count(Selection { line: Some(LineId(2)), ..everything() }).await, 1);
    assert_eq!(count(Selection { cp_id: Some("spring".into()), ..everything() }).await, 2);
    assert_eq!(count(Selection { error_code: Some(2), ..everything() }).await, 1);
    assert_eq!(count(Selection { since: Some(HOUR), ..everything() }).await, 3);
    fixture.execute("update cdls set created_at = '2020-01-01T00:00:00.000Z' where dest = 'c'").await;
    assert_eq!(count(Selection { since: Some(HOUR), ..everything() }).await, 2);
    let both = Selection { cp_id: Some("spring".into()), line: Some(LineId(1)), ..everything() };
    assert_eq!(count(both).await, 1);

    let batch = async |after: RowId| {
        let range = IdRange { after, last: second };
        fixture.store.resolve(range, &everything(), &Resolution::Error, 1).await.expect("rows can be settled")
    };
    assert_eq!(batch(RowId(0)).await, [first]);
    assert_eq!(batch(first).await, [second]);
    assert!(batch(second).await.is_empty());
    assert_eq!(fixture.row(third).await.status, Status::Unknown, "its id is above the range");
}

#[apply(on_both)]
async fn resends_a_copy_and_keeps_the_ended_row(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let given = Submission {
        kind: MessageKind::Image,
        mcaption: Some("caption".into()),
        cp_id: Some("spring".into()),
        lane: Lane::Bulk,
        waiter: Some("q/1".into()),
        ..text("ann")
    };
    let id = fixture.log_one(given).await;
    fixture.end_all().await;
    let resent = fixture.resend(&everything(), &copies_of(Status::Error)).await;
    assert_eq!(ids(&resent), [id]);
    let (row, copy) = (fixture.row(id).await, fixture.row(resent[0].copy).await);
    assert_eq!((row.status, row.attempts), (Status::Error, 3));
    assert!(copy.cdls_id > id);
    assert_eq!((copy.status, copy.attempts, copy.error_code), (Status::Pending, 0, None));
    assert_eq!((copy.cdcs_id, copy.v8l_id, copy.class), (row.cdcs_id, row.v8l_id, row.class));
    assert_eq!((&copy.dest, copy.mtype, &copy.mdata), (&row.dest, row.mtype, &row.mdata));
    assert_eq!((&copy.mcaption, &copy.msg_id, &copy.cp_id), (&row.mcaption, &row.msg_id, &row.cp_id));
    assert_eq!((copy.priority, copy.next_at), (Lane::Bulk, None));
    assert!((copy.expires_at - copy.created_at - 2 * HOUR).abs() < Duration::from_millis(5));
    let ready = fixture.ready().await;
    assert_eq!((ready.len(), ready[0].id, ready[0].waiter.as_deref()), (1, copy.cdls_id, None));
    assert_eq!(fixture.store.copy_of(id).await.expect("the store answers"), Some(copy.cdls_id));
    assert_eq!(fixture.store.copy_of(copy.cdls_id).await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn resends_a_row_once_then_its_ended_copy(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..25).map(|n| text(&format!("d{n}"))).collect();
    let logged = fixture.store.insert(&rows).await.expect("rows can be logged");
    fixture.end_all().await;
    let found = fixture.matching(&everything(), Operation::Resend(&copies_of(Status::Error))).await;
    assert_eq!(found, Matching { rows: 25, last: logged[24], left_out: 0 });

    // Cut after a batch of ten, and run again by two at once.
    let cut = fixture
        .store
        .resend(IdRange::ALL, &everything(), &copies_of(Status::Error), 10)
        .await
        .expect("rows can be copied");
    assert_eq!(ids(&cut), logged[..10]);
    let copies = copies_of(Status::Error);
    let nothing_named = everything();
    let again = || fixture.resend(&nothing_named, &copies);
    let (one, other) = tokio::join!(again(), again());
    let mut rest = [ids(&one), ids(&other)].concat();
    rest.sort();
    assert_eq!(rest, logged[10..]);
    let copies_made: HashSet<RowId> =
        [&cut, &one, &other].into_iter().flatten().map(|resent| resent.copy).collect();
    assert_eq!(copies_made.len(), 25);
    assert!(again().await.is_empty());
    let found = fixture.matching(&everything(), Operation::Resend(&copies)).await;
    assert_eq!((found.rows, found.left_out), (0, 0));

    fixture.execute("update cdls set status = 'ERROR' where dest = 'd3'").await;
    assert_eq!(ids(&again().await), [cut[3].copy], "the copy has ended too");
}

#[apply(on_both)]
async fn resends_no_cancelled_and_no_foreign_rows(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let cancelled = fixture.log_one(Submission { cp_id: Some("gone".into()), ..text("ann") }).await;
    let moved = fixture.log_one(Submission { line: LineId(2), ..text("bob") }).await;
    let kept = fixture.log_one(text("cleo")).await;
    fixture.end_all().await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'gone', 'cancelled')").await;
    fixture.execute("update cd_v8_line set cdcs_id = 2 where v8l_id = 2").await;
    let found = fixture.matching(&everything(), Operation::Resend(&copies_of(Status::Error))).await;
    assert_eq!(found, Matching { rows: 1, last: kept, left_out: 2 });
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Error)).await), [kept]);

    let elsewhere = Resend { cp_id: Some("again".into()), ..copies_of(Status::Error) };
    let resent = fixture.resend(&everything(), &elsewhere).await;
    assert_eq!(ids(&resent), [cancelled]);
    assert_eq!(fixture.row(resent[0].copy).await.cp_id.as_deref(), Some("again"));
    assert_eq!(fixture.store.copy_of(moved).await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn resends_only_rows_in_the_given_state(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.unknown(text("unknown")).await;
    fixture.log_one(text("pending")).await;
    fixture.claimed(text("sending")).await;
    let sent = fixture.called(text("sent"), sent()).await;
    let failed = fixture.failed(text("failed")).await;
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Error)).await), [failed]);
    assert!(fixture.resend(&everything(), &copies_of(Status::Cancelled)).await.is_empty());
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Ok)).await), [sent]);
}

#[apply(on_both)]
async fn settled_rows_are_handed_out_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let take = async || fixture.store.take_settled(2).await.expect("the store answers");
    assert_eq!(take().await, []);
    let ok = fixture.unknown(Submission { waiter: Some("amqp:{}".into()), ..text("ann") }).await;
    fixture.resolve(&everything(), &Resolution::Ok { message_id: Some("m_7".into()) }).await;
    let retry = fixture.unknown(text("bob")).await;
    fixture.resolve(&everything(), &Resolution::Retry).await;
    let ended = fixture.unknown(text("cleo")).await;
    fixture.resolve(&everything(), &Resolution::Error).await;
    fixture.unknown(text("dan")).await;

    let settled = |cdls_id, status, message_id: &str, waiter: Option<&str>| SettledRow {
        outcome: Outcome::settled(cdls_id, status, 0, message_id.into()),
        waiter: waiter.map(str::to_owned),
    };
    let first = take().await;
    assert_eq!(
        first,
        [settled(ok, Status::Ok, "m_7", Some("amqp:{}")), settled(retry, Status::Retry, "", None)]
    );
    assert_eq!(take().await, [settled(ended, Status::Error, "", None)]);
    assert_eq!(take().await, []);
}

/// It would not be sent, and say CANCELLED, although Graph may have taken it.
#[apply(on_both)]
async fn unknown_row_of_a_cancelled_campaign_is_not_retried(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut unknown = Vec::new();
    for cp_id in ["over", "goes on"] {
        unknown.push(fixture.unknown(bulk("ann", cp_id)).await);
    }
    let cancelled = CampaignState::Cancelled;
    fixture.store.set_campaign(AccountId(1), "over", cancelled).await.expect("it is set");
    let all = IdRange::ALL;
    let retry = Resolution::Retry;
    let found =
        fixture.store.matching(all, &everything(), Operation::Resolve(&retry)).await.expect("counted");
    assert_eq!((found.rows, found.left_out), (1, 1));
    let resolved = fixture.store.resolve(all, &everything(), &retry, MANY).await.expect("resolved");
    assert_eq!(resolved, [unknown[1]]);
    assert_eq!(fixture.row(unknown[0]).await.status, Status::Unknown);
    let resolved =
        fixture.store.resolve(all, &everything(), &Resolution::Error, MANY).await.expect("resolved");
    assert_eq!(resolved, [unknown[0]]);
}
