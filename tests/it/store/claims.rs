//! Claims: one row for a worker's batch, beside the log; checked against the log, the campaign and the worker's lease.

use std::time::Duration;

use meta_dispatch::domain::{AccountId, CampaignState, LineId, Partition, RowId, Status, Submission};
use meta_dispatch::store::{Change, Claim, ClaimedRow, Record};
use rstest::rstest;
use rstest_reuse::apply;
use sqlx::{Connection, PgConnection};

use super::backends::on_both;
use crate::support::store::{
    Backend, Fixture, HOUR, all_partitions, bulk, claim, failed, first_claim, retry, sent, text, unknown,
    wait_for_line,
};

#[apply(on_both)]
async fn dead_worker_is_found_at_a_take_over(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("ann")]).await;
    let row = fixture.ready().await.remove(0);
    fixture.own_all("owner").await;
    let seen = fixture.store.open_claims_since(&all_partitions()).await.expect("claims can be read");
    assert!(seen.is_empty());
    // Another worker takes the same partitions, claims a row and dies, all between two looks of the first owner.
    fixture.take_over("owner", "short-lived").await;
    assert_eq!(fixture.claims("short-lived", &[claim(&row)]).await, [true]);
    fixture.take_over("short-lived", "owner").await;
    assert_eq!(fixture.claimed_ids().await, [row.id], "its claim may be of a call that was made");
}

impl Fixture {
    async fn open_claims(&self) -> Vec<ClaimedRow> {
        let mut claims = self.store.open_claims(&all_partitions()).await.expect("claims can be read");
        claims.sort_by_key(|row| row.id);
        claims
    }

    async fn claimed_ids(&self) -> Vec<RowId> {
        self.open_claims().await.iter().map(|row| row.id).collect()
    }

    /// The worker's lease runs out, and another worker takes its partitions over.
    async fn take_over(&self, from: &str, to: &str) {
        self.store.renew_leases(from, Duration::ZERO, false).await.expect("leases are kept");
        self.own_all(to).await;
    }

    async fn forget(&self) -> u64 {
        self.store.forget_claims().await.expect("claims can be forgotten")
    }
}

#[apply(on_both)]
async fn need_lease_fence_and_validity(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("ann"), Submission { valid_for: Duration::from_millis(1), ..text("bob") }]).await;
    let rows = fixture.ready().await;
    let (ann, bob) = (claim(&rows[0]), claim(&rows[1]));
    assert_eq!(fixture.claims("w", &[ann]).await, [false], "without a lease");
    fixture.own_all("w").await;
    assert_eq!(fixture.claims("other", &[ann]).await, [false], "without the lease");
    assert_eq!(fixture.claims("w", &[Claim { fence: 7, ..ann }]).await, [false], "with another fence");
    assert_eq!(
        fixture.claims("w", &[Claim { digest: bob.digest, ..ann }]).await,
        [false],
        "of another message"
    );
    assert_eq!(fixture.rows_of("claim").await, 0, "no claim passed: nothing is kept");
    assert_eq!(fixture.claims("w", &[bob, ann]).await, [false, true], "bob has expired");
    assert_eq!(fixture.rows_of("claim").await, 1);
}

#[apply(on_both)]
async fn show_as_sending_without_writing_the_log(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ann")).await;
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts), (Status::Sending, 1));
    assert!(row.sent_at.is_some());
    let pending = "select count(*) from cdls where status = 'PENDING' and fence = 0 and attempts = 0";
    assert_eq!(fixture.number(pending).await, 1);
    let claims = fixture.open_claims().await;
    assert_eq!(claims.len(), 1);
    let found = &claims[0];
    assert_eq!((found.id, found.line, found.dest.as_str()), (id, LineId(1), "ann"));
    assert_eq!((found.fence, found.worker.as_str(), found.attempts), (1, "w", 1));
    assert_eq!((found.tries, found.crashes, found.overdue), (0, 0, false));
    assert!(found.age < Duration::from_secs(30) && found.valid_for > Duration::from_secs(3_000));
    assert!(fixture.store.open_claims(&[Partition(2)]).await.expect("claims can be read").is_empty());
}

#[apply(on_both)]
async fn are_overdue_after_their_deadline(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    let id = fixture.log_one(text("ann")).await;
    let claim = Claim { call_deadline: Duration::ZERO, ..first_claim(id) };
    assert_eq!(fixture.claims("w", &[claim]).await, [true]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(fixture.open_claims().await[0].overdue);
}

/// The answer of the database was lost.
#[apply(on_both)]
async fn recorded_again_are_made_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    let stale = Claim { fence: 5, ..first_claim(ids[1]) };
    let claims = [first_claim(ids[0]), stale];
    let record = Record {
        worker: "w",
        changes: &[],
        claims: &claims,
        claim_no: 7,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    assert_eq!(fixture.recorded(record).await.claimed, [true, false]);
    assert_eq!(fixture.recorded(record).await.claimed, [true, false], "what stands there is told");
    assert_eq!(fixture.claimed_ids().await, [ids[0]]);
}

#[apply(on_both)]
async fn former_owner_makes_none_and_its_old_ones_count(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let before = fixture.claimed(text("ann")).await;
    let id = fixture.log_one(text("bob")).await;
    fixture.take_over("w", "heir").await;
    assert_eq!(fixture.claims("w", &[first_claim(id)]).await, [false]);
    assert_eq!(fixture.claims("heir", &[first_claim(id)]).await, [true]);
    let owners: Vec<(RowId, String)> =
        fixture.open_claims().await.into_iter().map(|row| (row.id, row.worker)).collect();
    assert_eq!(owners, [(before, "w".to_owned()), (id, "heir".to_owned())]);
    assert!(fixture.change(before, sent()).await, "the result of the call it had begun still counts");
}

#[apply(on_both)]
async fn of_a_released_partition_are_refused(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    fixture.store.release_leases("w", &[LineId(1).partition()]).await.expect("leases are kept");
    let here = fixture.log_one(text("ann")).await;
    let there = fixture.log_one(Submission { line: LineId(2), ..text("bob") }).await;
    let claims = [first_claim(here), Claim { line: LineId(2), ..first_claim(there) }];
    assert_eq!(fixture.claims("w", &claims).await, [false, true]);
}

/// Taking over removes the worker's lease, and so waits for the claims that read it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn in_commit_are_found_by_the_next_owner() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.own_all("w").await;
    let id = fixture.log_one(text("ann")).await;
    fixture.store.renew_leases("heir", HOUR, false).await.expect("leases are kept");
    let mut claiming = PgConnection::connect(fixture.database().url()).await.expect("PostgreSQL answers");
    fixture.store.renew_leases("w", Duration::from_millis(500), false).await.expect("leases are kept");
    let claim = format!(
        "begin; select from worker_lease where worker = 'w' for share;
         insert into claim (worker, claim_no, ids, fences, partitions, deadline_ms)
         values ('w', 1, array[{id}], array[1], array[1]::smallint[], array[60000])"
    );
    sqlx::raw_sql(&claim).execute(&mut claiming).await.expect("the claim is made");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let store = fixture.store.clone();
    let taking = tokio::spawn(async move { store.acquire_leases("heir", HOUR, 64).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!taking.is_finished(), "the claim of its predecessor is not committed yet");
    sqlx::raw_sql("commit").execute(&mut claiming).await.expect("the claim is committed");
    assert_eq!(taking.await.expect("it ends").expect("leases are kept").len(), 64);
    assert_eq!(fixture.claimed_ids().await, [id]);
}

/// Somebody reads a row `for update` in a tool and goes home.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn wait_for_no_lock_of_their_row() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.own_all("w").await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    let mut other = PgConnection::connect(fixture.database().url()).await.expect("PostgreSQL answers");
    sqlx::raw_sql("begin; select * from cdls for update").execute(&mut other).await.expect("rows are locked");
    let claims = [first_claim(ids[0]), first_claim(ids[1])];
    let claiming = fixture.claims("w", &claims);
    let made = tokio::time::timeout(Duration::from_secs(2), claiming).await.expect("it does not wait");
    assert_eq!(made, [true, true]);
}

#[apply(on_both)]
async fn need_a_running_campaign(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    fixture.log(&[bulk("a", "c"), Submission { cp_id: None, ..bulk("b", "") }]).await;
    let claims: Vec<Claim> = fixture.ready().await.iter().map(claim).collect();
    for state in [CampaignState::Paused, CampaignState::Cancelled] {
        fixture.store.set_campaign(AccountId(1), "c", state).await.expect("states can be written");
        assert_eq!(fixture.claims("w", &claims[..1]).await, [false], "{state}");
    }
    assert_eq!(fixture.claims("w", &claims).await, [false, true], "other rows are claimed as ever");
}

#[apply(on_both)]
async fn close_at_every_end_of_a_call(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for (kind, reached) in [
        (sent(), Status::Ok),
        (failed(), Status::Error),
        (retry(HOUR), Status::Retry),
        (unknown(), Status::Unknown),
        (wait_for_line(), Status::Pending),
        (meta_dispatch::store::ChangeKind::Release, Status::Pending),
    ] {
        let id = fixture.called(text("ann"), kind.clone()).await;
        assert_eq!(fixture.row(id).await.status, reached, "{kind:?}");
        assert!(fixture.open_claims().await.is_empty(), "{kind:?}");
    }
}

#[apply(on_both)]
async fn ended_ones_are_removed_with_their_results(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    fixture.log(&[text("ann"), text("bob")]).await;
    let rows = fixture.ready().await;
    let claims: Vec<Claim> = rows.iter().map(claim).collect();
    assert_eq!(fixture.claims("w", &claims).await, [true, true]);
    let claim_no = fixture.last_claim_no();
    let changes: Vec<Change> = rows.iter().map(|row| Change::waiting(row.id, 1, sent())).collect();
    let record = Record {
        worker: "w",
        changes: &changes,
        claims: &[],
        claim_no: claim_no + 1,
        ended_work: &[rows[0].work],
        ended_claims: &[claim_no],
        repeated: false,
    };
    assert_eq!(fixture.recorded(record).await.changed, [true, true]);
    assert_eq!((fixture.rows_of("work").await, fixture.rows_of("claim").await), (0, 0));
    assert_eq!(fixture.recorded(record).await.changed, [false, false], "again: it has taken place");
}

/// A worker may only say of its own claims that they have ended.
#[apply(on_both)]
async fn of_other_workers_are_not_removed(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ann")).await;
    let ended_claims = [fixture.last_claim_no()];
    let record = Record {
        worker: "v",
        changes: &[],
        claims: &[],
        claim_no: 1,
        ended_work: &[],
        ended_claims: &ended_claims,
        repeated: false,
    };
    fixture.recorded(record).await;
    assert_eq!(fixture.claimed_ids().await, [id]);
}

#[apply(on_both)]
async fn of_lost_workers_are_forgotten_once_settled(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all("w").await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    assert_eq!(fixture.claims("w", &[first_claim(ids[0]), first_claim(ids[1])]).await, [true, true]);
    assert!(fixture.change(ids[0], sent()).await);
    assert_eq!(fixture.forget().await, 0, "the worker is alive");
    fixture.take_over("w", "heir").await;
    assert_eq!(fixture.forget().await, 0, "a row is not settled");
    assert_eq!(fixture.claimed_ids().await, [ids[1]]);
    let settled = Change { crashed: true, ..Change::waiting(ids[1], 1, unknown()) };
    assert_eq!(fixture.record("heir", &[settled], &[]).await.changed, [true]);
    assert_eq!(fixture.forget().await, 1);
    assert_eq!((fixture.rows_of("claim").await, fixture.forget().await), (0, 0));
}

#[apply(on_both)]
async fn count_a_worker_that_died_in_a_call(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ann")).await;
    let crashed = |fence, kind| Change { crashed: true, ..Change::waiting(id, fence, kind) };
    assert_eq!(fixture.record("heir", &[crashed(1, retry(Duration::ZERO))], &[]).await.changed, [true]);
    fixture.all_due().await;
    fixture.promote().await;
    let again: Vec<Claim> = fixture.ready().await.iter().map(claim).collect();
    assert_eq!(fixture.claims("w", &again).await, [true]);
    let claims = fixture.open_claims().await;
    assert_eq!((claims[0].crashes, claims[0].fence, claims[0].attempts, claims[0].tries), (1, 2, 2, 1));
}
