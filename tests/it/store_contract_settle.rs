//! What operators do to rows, on PostgreSQL and on SQLite: settling what is UNKNOWN, sending ended rows again.

use std::collections::HashSet;
use std::time::Duration;

use meta_dispatch::message::{
    AccountId, CampaignState, Class, ErrorDetail, ErrorKind, Lane, LineId, MessageId, MessageKind, Outcome,
    Partition, Status, Submission,
};
use meta_dispatch::store::{
    Change, Claim, IdRange, LogRow, Matching, Operation, RangeRead, Resend, Resent, Resolution, Scope,
    Selection, SettledRow,
};
use rstest::rstest;
use rstest_reuse::{apply, template};
use time::OffsetDateTime;

use crate::support::pipeline::eventually;
use crate::support::store::{Backend, Fixture};

#[template]
#[rstest]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn on_both(#[case] backend: Backend) {}

const HOUR: Duration = Duration::from_secs(3_600);
const MANY: u32 = 1_000;

fn text(dest: &str) -> Submission {
    Submission {
        account: AccountId(1),
        line: LineId(1),
        class: Class::Messenger,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "Olá 😀 'quoted' \"\\".into(),
        mcaption: None,
        msg_id: Some("ref".into()),
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: HOUR,
        waiter: None,
    }
}

fn error() -> ErrorDetail {
    ErrorDetail { code: Some(190), message: "the connection was cut".into(), ..ErrorDetail::default() }
}

fn everything() -> Selection {
    Selection::default()
}

fn copies_of(status: Status) -> Resend {
    Resend { status, valid_for: 2 * HOUR, cp_id: None }
}

fn ids(resent: &[Resent]) -> Vec<MessageId> {
    resent.iter().map(|resent| resent.id).collect()
}

impl Fixture {
    async fn log_one(&self, submission: Submission) -> MessageId {
        self.store.insert(&[submission]).await.expect("rows can be logged")[0]
    }

    async fn show(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    /// Logs a message and claims it, as worker `w`, who owns every partition; its fence is 1.
    async fn called(&self, submission: Submission) -> MessageId {
        self.store.renew_leases("w", HOUR).await.expect("leases are kept");
        self.store.acquire_leases("w", HOUR, 64).await.expect("leases are kept");
        let id = self.log_one(submission).await;
        let claim = Claim { id, fence: 0, call_deadline: HOUR };
        let recorded = self.store.record("w", &[], &[claim]).await.expect("claims are recorded");
        assert_eq!(recorded.claimed, [true]);
        id
    }

    async fn changed(&self, change: Change) -> bool {
        self.store.record("w", &[change], &[]).await.expect("changes are recorded").changed[0]
    }

    async fn unknown(&self, submission: Submission) -> MessageId {
        let id = self.called(submission).await;
        assert!(self.changed(Change::Unknown { id, fence: 1, error: error() }).await);
        id
    }

    async fn failed(&self, submission: Submission) -> MessageId {
        let id = self.called(submission).await;
        let change =
            Change::Failed { id, fence: 1, kind: ErrorKind::Refused, error: error(), ambiguous: false };
        assert!(self.changed(change).await);
        id
    }

    async fn resolve(&self, selection: &Selection, resolution: &Resolution) -> Vec<MessageId> {
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
async fn an_unknown_row_is_settled_as_ok_error_or_retry(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let settled = async |resolution: Resolution| {
        let id = fixture.unknown(text("ann")).await;
        assert_eq!(fixture.resolve(&everything(), &resolution).await, [id]);
        fixture.show(id).await
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
    let all: Vec<Partition> = Partition::all().collect();
    let due = eventually("the row to be due", || async {
        let due = fixture.store.promote_due(&all, 10).await.expect("scans work");
        if due.is_empty() { Err("nothing is due".into()) } else { Ok(due) }
    })
    .await;
    assert_eq!(due, [(LineId(1), Lane::High, retry.cdls_id)]);
    let range =
        RangeRead { line: LineId(1), lane: Lane::High, first: MessageId(0), last: retry.cdls_id, limit: 9 };
    let ready = fixture.store.read_ranges(&[range]).await.expect("rows can be read");
    assert_eq!((ready[0].id, ready[0].tries, ready[0].fence), (retry.cdls_id, 0, 1));
}

#[apply(on_both)]
async fn only_unknown_rows_are_settled_and_each_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log_one(text("pending")).await;
    fixture.called(text("sending")).await;
    fixture.failed(text("error")).await;
    let unknown = fixture.unknown(text("unknown")).await;
    assert_eq!(fixture.resolve(&everything(), &Resolution::Error).await, [unknown]);
    assert!(fixture.resolve(&everything(), &Resolution::Retry).await.is_empty());
    let late = Change::Sent { id: unknown, fence: 1, http_status: 200, message_id: "m".into() };
    assert!(!fixture.changed(late).await, "what an operator has ended stays so");
}

#[apply(on_both)]
async fn a_success_that_is_known_late_wins_over_a_retry_an_operator_asked_for(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.unknown(text("ann")).await;
    fixture.resolve(&everything(), &Resolution::Retry).await;
    let late = Change::Sent { id, fence: 1, http_status: 200, message_id: "m".into() };
    let recorded = fixture.store.record("w", &[late], &[]).await.expect("changes are recorded");
    assert_eq!((recorded.changed, recorded.late), (vec![true], 1));
    assert_eq!(fixture.show(id).await.status, Status::Ok);
    let id = fixture.called(text("bob")).await;
    let sent = Change::Sent { id, fence: 1, http_status: 200, message_id: "m".into() };
    let recorded = fixture.store.record("w", &[sent], &[]).await.expect("changes are recorded");
    assert_eq!((recorded.changed, recorded.late), (vec![true], 0), "in time");
}

#[apply(on_both)]
async fn a_row_that_has_expired_is_not_tried_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let old = fixture.unknown(text("old")).await;
    fixture.execute("update cdls set expires_at = created_at where dest = 'old'").await;
    let young = fixture.unknown(text("young")).await;
    let found = fixture.matching(&everything(), Operation::Resolve(&Resolution::Retry)).await;
    assert_eq!(found, Matching { rows: 1, last: young, left_out: 1 });
    let found = fixture.matching(&everything(), Operation::Resolve(&Resolution::Error)).await;
    assert_eq!(found, Matching { rows: 2, last: young, left_out: 0 });
    assert_eq!(fixture.resolve(&everything(), &Resolution::Retry).await, [young]);
    assert_eq!(fixture.show(old).await.status, Status::Unknown);
    assert_eq!(fixture.resolve(&everything(), &Resolution::Error).await, [old]);
}

#[apply(on_both)]
async fn a_selection_is_all_that_it_names_and_batches_follow_each_other(#[case] backend: Backend) {
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

    let batch = async |after: MessageId| {
        let range = IdRange { after, last: second };
        fixture.store.resolve(range, &everything(), &Resolution::Error, 1).await.expect("rows can be settled")
    };
    assert_eq!(batch(MessageId(0)).await, [first]);
    assert_eq!(batch(first).await, [second]);
    assert!(batch(second).await.is_empty());
    assert_eq!(fixture.show(third).await.status, Status::Unknown, "its id is above the range");
}

#[apply(on_both)]
async fn an_ended_row_is_sent_again_as_a_copy_and_stays_as_it_is(#[case] backend: Backend) {
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
    fixture.execute("update cdls set status = 'ERROR', error_code = 190, attempts = 3").await;
    let resent = fixture.resend(&everything(), &copies_of(Status::Error)).await;
    assert_eq!(ids(&resent), [id]);
    let (row, copy) = (fixture.show(id).await, fixture.show(resent[0].copy).await);
    assert_eq!((row.status, row.attempts), (Status::Error, 3));
    assert!(copy.cdls_id > id);
    assert_eq!((copy.status, copy.attempts, copy.error_code), (Status::Pending, 0, None));
    assert_eq!((copy.cdcs_id, copy.v8l_id, copy.class), (row.cdcs_id, row.v8l_id, row.class));
    assert_eq!((&copy.dest, copy.mtype, &copy.mdata), (&row.dest, row.mtype, &row.mdata));
    assert_eq!((&copy.mcaption, &copy.msg_id, &copy.cp_id), (&row.mcaption, &row.msg_id, &row.cp_id));
    assert_eq!((copy.priority, copy.next_at), (Lane::Bulk, None));
    assert!((copy.expires_at - copy.created_at - 2 * HOUR).abs() < Duration::from_millis(5));
    let range = RangeRead { line: LineId(1), lane: Lane::Bulk, first: id, last: copy.cdls_id, limit: 9 };
    let ready = fixture.store.read_ranges(&[range]).await.expect("rows can be read");
    assert_eq!((ready.len(), ready[0].id, ready[0].waiter.as_deref()), (1, copy.cdls_id, None));
    assert_eq!(fixture.store.copy_of(id).await.expect("the store answers"), Some(copy.cdls_id));
    assert_eq!(fixture.store.copy_of(copy.cdls_id).await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn a_row_is_sent_again_once_and_its_copy_when_that_has_ended(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..25).map(|n| text(&format!("d{n}"))).collect();
    let logged = fixture.store.insert(&rows).await.expect("rows can be logged");
    fixture.execute("update cdls set status = 'ERROR'").await;
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
    let copies_made: HashSet<MessageId> =
        [&cut, &one, &other].into_iter().flatten().map(|resent| resent.copy).collect();
    assert_eq!(copies_made.len(), 25);
    assert!(again().await.is_empty());
    let found = fixture.matching(&everything(), Operation::Resend(&copies)).await;
    assert_eq!((found.rows, found.left_out), (0, 0));

    fixture.execute("update cdls set status = 'ERROR' where dest = 'd3'").await;
    assert_eq!(ids(&again().await), [cut[3].copy], "the copy has ended too");
}

#[apply(on_both)]
async fn rows_of_cancelled_campaigns_and_lines_of_others_are_not_sent_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let cancelled = fixture.log_one(Submission { cp_id: Some("gone".into()), ..text("ann") }).await;
    let moved = fixture.log_one(Submission { line: LineId(2), ..text("bob") }).await;
    let kept = fixture.log_one(text("cleo")).await;
    fixture.execute("update cdls set status = 'ERROR'").await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'gone', 'cancelled')").await;
    fixture.execute("update cd_v8_line set cdcs_id = 2 where v8l_id = 2").await;
    let found = fixture.matching(&everything(), Operation::Resend(&copies_of(Status::Error))).await;
    assert_eq!(found, Matching { rows: 1, last: kept, left_out: 2 });
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Error)).await), [kept]);

    let elsewhere = Resend { cp_id: Some("again".into()), ..copies_of(Status::Error) };
    let resent = fixture.resend(&everything(), &elsewhere).await;
    assert_eq!(ids(&resent), [cancelled]);
    assert_eq!(fixture.show(resent[0].copy).await.cp_id.as_deref(), Some("again"));
    assert_eq!(fixture.store.copy_of(moved).await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn only_rows_in_the_state_asked_for_are_sent_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.unknown(text("unknown")).await;
    fixture.log_one(text("pending")).await;
    fixture.called(text("sending")).await;
    let sent = fixture.called(text("sent")).await;
    assert!(
        fixture.changed(Change::Sent { id: sent, fence: 1, http_status: 200, message_id: "m".into() }).await
    );
    let failed = fixture.failed(text("failed")).await;
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Error)).await), [failed]);
    assert!(fixture.resend(&everything(), &copies_of(Status::Cancelled)).await.is_empty());
    assert_eq!(ids(&fixture.resend(&everything(), &copies_of(Status::Ok)).await), [sent]);
}

#[apply(on_both)]
async fn what_was_settled_is_handed_out_once_to_be_told(#[case] backend: Backend) {
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
        outcome: Outcome { cdls_id, status, status_code: 0, message_id: message_id.into() },
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

#[apply(on_both)]
async fn rows_that_are_not_final_are_counted_by_status_and_the_oldest_unknown_is_aged(
    #[case] backend: Backend,
) {
    let fixture = Fixture::create(backend).await;
    let open = async || fixture.store.open_rows().await.expect("rows can be counted");
    assert_eq!(open().await, Default::default());
    fixture.log_one(text("pending")).await;
    fixture.log_one(Submission { send_at: Some(OffsetDateTime::now_utc() + HOUR), ..text("later") }).await;
    fixture.called(text("sending")).await;
    fixture.failed(text("failed")).await;
    let retry = fixture.called(text("retry")).await;
    let change =
        Change::Retry { id: retry, fence: 1, after: HOUR, error: error(), counted: true, ambiguous: true };
    assert!(fixture.changed(change).await);
    fixture.unknown(text("young")).await;
    fixture.unknown(text("old")).await;
    match backend {
        Backend::Postgres => {
            fixture.execute("update cdls set sent_at = now() - interval '2 hours' where dest = 'old'").await;
        }
        Backend::Sqlite => {
            fixture
                .execute("update cdls set sent_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 hours') where dest = 'old'")
                .await;
        }
    }
    let open = open().await;
    assert_eq!((open.pending, open.sending, open.retry, open.unknown), (2, 1, 1, 2));
    let age = open.oldest_unknown.expect("there is one");
    assert!(age >= 2 * HOUR && age < 2 * HOUR + Duration::from_secs(60), "{age:?}");
}

/// It would not be sent, and say CANCELLED, although Graph may have taken it.
#[apply(on_both)]
async fn what_is_unknown_of_a_cancelled_campaign_is_not_tried_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut unknown = Vec::new();
    for cp_id in ["over", "goes on"] {
        let id = fixture.called(Submission { cp_id: Some(cp_id.into()), ..text("ann") }).await;
        fixture
            .store
            .record("w", &[Change::Unknown { id, fence: 1, error: error() }], &[])
            .await
            .expect("recorded");
        unknown.push(id);
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
    assert_eq!(fixture.show(unknown[0]).await.status, Status::Unknown);
    let resolved =
        fixture.store.resolve(all, &everything(), &Resolution::Error, MANY).await.expect("resolved");
    assert_eq!(resolved, [unknown[0]]);
}
