//! Waiting rows that are cancelled: each ends as CANCELLED or is sent, never both, and never neither.

use meta_dispatch::domain::{AccountId, ErrorKind, LineId, Outcome, RowId, Status, Submission};
use meta_dispatch::store::{ChangeKind, Claim, MessageFilter, Record, Scope};
use rstest::rstest;
use rstest_reuse::apply;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{
    Backend, Fixture, HOUR, bulk, claim, error, failed, first_claim, retry, sent, text, unknown,
    wait_for_line,
};

const ALL: Scope = Scope::Operator;

impl Fixture {
    async fn waiting(&self, scope: Scope, filter: MessageFilter) -> Vec<RowId> {
        self.store.waiting(scope, &filter, RowId(0), 100).await.expect("the store answers")
    }

    async fn cancel_rows(&self, scope: Scope, ids: &[RowId]) -> Vec<RowId> {
        self.store.cancel(scope, ids).await.expect("rows can be cancelled")
    }
}

fn by(change: impl FnOnce(&mut MessageFilter)) -> MessageFilter {
    let mut filter = MessageFilter::default();
    change(&mut filter);
    filter
}

#[apply(on_both)]
async fn waiting_scheduled_and_retried_rows_end(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let tomorrow = Some(OffsetDateTime::now_utc() + 24 * HOUR);
    let ids = [
        fixture.log_one(Submission { waiter: Some("amqp:{}".into()), ..bulk("ann", "c") }).await,
        fixture.log_one(Submission { send_at: tomorrow, ..bulk("bob", "c") }).await,
        fixture.called(bulk("cleo", "c"), retry(HOUR)).await,
        fixture.called(bulk("dan", "c"), wait_for_line()).await,
    ];
    assert_eq!(fixture.waiting(ALL, MessageFilter::default()).await, ids);
    assert_eq!(fixture.cancel_rows(ALL, &ids).await, ids);
    for id in ids {
        let row = fixture.row(id).await;
        assert_eq!((row.status, row.next_at), (Status::Cancelled, None), "{row:?}");
        assert!(row.done_at.is_some());
    }
    assert!(fixture.cancel_rows(ALL, &ids).await.is_empty(), "once");
    assert!(fixture.waiting(ALL, MessageFilter::default()).await.is_empty());
    assert!(fixture.ready_ids().await.is_empty(), "nothing of them is sent");
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
    let counts = fixture.store.campaign_counts(AccountId(1), "c").await.expect("the counters answer");
    let counted: Vec<(Status, i64)> = counts.iter().map(|count| (count.status, count.rows)).collect();
    assert_eq!(counted, [(Status::Cancelled, 4)]);
    let settled = fixture.store.take_settled(10).await.expect("the store answers");
    let told: Vec<(RowId, Status, i32)> = settled
        .iter()
        .map(|row| {
            let Outcome { cdls_id, status, status_code, .. } = row.outcome;
            (cdls_id, status, status_code)
        })
        .collect();
    assert_eq!(told, ids.map(|id| (id, Status::Cancelled, 0)), "those who wait are told");
    assert_eq!(settled[0].waiter.as_deref(), Some("amqp:{}"));
}

#[apply(on_both)]
async fn rows_on_their_way_or_ended_are_left_alone(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = [
        fixture.claimed(text("sending")).await,
        fixture.called(text("sent"), sent()).await,
        fixture.called(text("refused"), failed()).await,
        fixture.called(text("unknown"), unknown()).await,
    ];
    let before = [Status::Sending, Status::Ok, Status::Error, Status::Unknown];
    assert!(fixture.cancel_rows(ALL, &ids).await.is_empty());
    for (id, status) in ids.into_iter().zip(before) {
        assert_eq!(fixture.row(id).await.status, status);
    }
    assert!(fixture.change(ids[0], sent()).await, "its call goes on");
}

#[apply(on_both)]
async fn retry_that_is_claimed_again_is_on_its_way(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), retry(HOUR)).await;
    fixture.all_due().await;
    fixture.promote().await;
    let ready = fixture.ready().await;
    assert_eq!(fixture.claims("w", &[claim(&ready[0])]).await, [true]);
    assert!(fixture.cancel_rows(ALL, &[id]).await.is_empty());
    assert!(fixture.change_at(id, 2, sent()).await);
    assert_eq!(fixture.row(id).await.status, Status::Ok);
}

#[apply(on_both)]
async fn cancelled_row_is_claimed_and_changed_no_more(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    let id = fixture.log_one(text("ann")).await;
    let read = fixture.ready().await;
    assert_eq!(fixture.cancel_rows(ALL, &[id]).await, [id]);
    assert_eq!(fixture.claims("w", &[claim(&read[0])]).await, [false], "by a worker that read it before");
    assert_eq!(fixture.claims("w", &[first_claim(id)]).await, [false]);
    for kind in [sent(), failed(), ChangeKind::Expire, ChangeKind::Cancel] {
        assert!(!fixture.change_at(id, 0, kind).await);
    }
    let expired = ChangeKind::Failed { kind: ErrorKind::Expired, error: error(), ambiguous: false };
    assert!(!fixture.change(id, expired).await);
    assert_eq!(fixture.row(id).await.status, Status::Cancelled);
}

#[apply(on_both)]
async fn account_cancels_its_own_rows_alone(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let own = fixture.log_one(text("ann")).await;
    let theirs = fixture.log_one(Submission { account: AccountId(2), line: LineId(9), ..text("ann") }).await;
    let scope = Scope::Account(AccountId(1));
    assert_eq!(fixture.waiting(scope, by(|filter| filter.dest = Some("ann".into()))).await, [own]);
    assert_eq!(fixture.cancel_rows(scope, &[own, theirs]).await, [own]);
    assert_eq!(fixture.row(theirs).await.status, Status::Pending);
}

#[apply(on_both)]
async fn filters_find_waiting_rows(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let spring = |dest: &str| Submission { msg_id: Some(format!("m-{dest}")), ..bulk(dest, "spring") };
    let ids =
        fixture.log(&[spring("ann"), Submission { line: LineId(2), ..spring("bob") }, text("ann")]).await;
    let retried = fixture.called(spring("cleo"), retry(HOUR)).await;
    fixture.called(spring("dan"), sent()).await;
    let all = [ids[0], ids[1], ids[2], retried];
    let cases = [
        (by(|_| ()), all.to_vec()),
        (by(|filter| filter.line = Some(LineId(2))), vec![ids[1]]),
        (by(|filter| filter.cp_id = Some("spring".into())), vec![ids[0], ids[1], retried]),
        (by(|filter| filter.dest = Some("ann".into())), vec![ids[0], ids[2]]),
        (
            by(|filter| filter.msg_ids = vec!["m-ann".into(), "m-cleo".into(), "m-dan".into()]),
            vec![ids[0], retried],
        ),
        (by(|filter| filter.statuses = vec![Status::Retry]), vec![retried]),
        (by(|filter| filter.statuses = vec![Status::Ok]), vec![]),
        (by(|filter| filter.error_code = Some(1200)), vec![retried]),
        (by(|filter| filter.batch_id = Some("nobody's".into())), vec![]),
    ];
    for scope in [ALL, Scope::Account(AccountId(1))] {
        for (filter, expected) in &cases {
            assert_eq!(fixture.waiting(scope, filter.clone()).await, *expected, "{filter:?}");
        }
    }
    let page = fixture.store.waiting(ALL, &MessageFilter::default(), ids[0], 2).await.expect("it answers");
    assert_eq!(page, [ids[1], ids[2]]);
}

#[apply(on_both)]
async fn batch_is_found_by_its_name(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[text("ann"), text("bob"), text("cleo")]).await;
    let batch = fixture.store.open_batch(AccountId(1), "b-1", HOUR).await.expect("it can be opened");
    for (line, id) in ids[..2].iter().enumerate() {
        let values = format!("({batch}, {}, {id})", line + 1);
        fixture.execute(&format!("insert into batch_line (batch_no, line, cdls_id) values {values}")).await;
    }
    let of_batch = by(|filter| filter.batch_id = Some("b-1".into()));
    for scope in [ALL, Scope::Account(AccountId(1))] {
        assert_eq!(fixture.waiting(scope, of_batch.clone()).await, ids[..2]);
    }
    assert!(fixture.waiting(Scope::Account(AccountId(2)), of_batch).await.is_empty());
    let batch_of = async |id| fixture.store.batch_of(AccountId(1), id).await.expect("it answers");
    assert_eq!(batch_of(ids[1]).await.as_deref(), Some("b-1"));
    assert_eq!(batch_of(ids[2]).await, None);
}

/// Of each row, whoever is first.
#[apply(on_both)]
async fn claims_and_cancels_at_once_share_the_rows(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    let rows: Vec<Submission> = (0..120).map(|n| bulk(&format!("d{n}"), "c")).collect();
    let ids = fixture.log(&rows).await;
    let claiming = async {
        let mut claimed = Vec::new();
        for ids in ids.chunks(3) {
            let claims: Vec<_> = ids.iter().map(|id| first_claim(*id)).collect();
            let made = fixture.claims("w", &claims).await;
            claimed.extend(ids.iter().zip(made).filter(|(_, made)| *made).map(|(id, _)| *id));
        }
        claimed
    };
    let cancelling = async {
        let mut cancelled = Vec::new();
        for ids in ids.rchunks(5) {
            cancelled.extend(fixture.cancel_rows(ALL, ids).await);
        }
        cancelled
    };
    let (claimed, cancelled) = tokio::join!(claiming, cancelling);
    let mut both: Vec<RowId> = claimed.iter().chain(&cancelled).copied().collect();
    both.sort_unstable();
    assert_eq!(both, ids, "each row is claimed or cancelled");
    for id in claimed {
        assert_eq!(fixture.row(id).await.status, Status::Sending);
    }
    for id in cancelled {
        assert_eq!(fixture.row(id).await.status, Status::Cancelled);
    }
}

/// A claim that is being committed cannot be seen, and its call begins a moment later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_waits_for_a_claim_that_is_being_committed() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.own_all("w").await;
    let id = fixture.log_one(text("ann")).await;
    let mut worker = PgConnection::connect(fixture.database().url()).await.expect("the server answers");
    let mut claiming = worker.begin().await.expect("a transaction begins");
    let lease = "select from worker_lease where worker = 'w' for share";
    sqlx::query(lease).execute(&mut *claiming).await.expect("the lease is there");
    let made = format!(
        "insert into claim (worker, claim_no, ids, fences, partitions, deadline_ms)
         values ('w', 77, array[{id}]::bigint[], array[1], array[1]::smallint[], array[60000]::bigint[])"
    );
    sqlx::query(&made).execute(&mut *claiming).await.expect("the claim is made");
    let cancelling = fixture.cancel_rows(ALL, std::slice::from_ref(&id));
    let committing = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        claiming.commit().await.expect("the claim is committed");
    };
    let (cancelled, ()) = tokio::join!(cancelling, committing);
    assert!(cancelled.is_empty(), "its call is under way");
    assert_eq!(fixture.row(id).await.status, Status::Sending);
}

/// The claim's statement begins before the row is cancelled, and must not decide by what it saw then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_claim_that_waits_sees_the_cancelled_row() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.own_all("w").await;
    let id = fixture.log_one(text("ann")).await;
    let mut canceller = PgConnection::connect(fixture.database().url()).await.expect("the server answers");
    let mut transaction = canceller.begin().await.expect("a transaction begins");
    for statement in
        ["lock table worker_lease in exclusive mode", "update cdls set status = 'CANCELLED', done_at = now()"]
    {
        sqlx::query(statement).execute(&mut *transaction).await.expect("it works");
    }
    let committing = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        transaction.commit().await.expect("it is committed");
    };
    let claims = [first_claim(id)];
    let (made, ()) = tokio::join!(fixture.store.record(record_of(&claims)), committing);
    assert_eq!(made.expect("the store answers").claimed, [false]);
    assert_eq!(fixture.rows_of("claim").await, 0);
}

fn record_of(claims: &[Claim]) -> Record<'_> {
    Record {
        worker: "w",
        changes: &[],
        claims,
        claim_no: 1,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    }
}
