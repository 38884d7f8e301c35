//! What every store has to do, run on PostgreSQL and on SQLite.

use std::collections::BTreeSet;
use std::time::Duration;

use meta_dispatch::message::{
    AccountId, CampaignState, Class, ErrorDetail, ErrorKind, Lane, LineId, Medium, MessageId, MessageKind,
    Partition, Status, Submission,
};
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{
    Change, Claim, Flow, FlowRead, LogFilter, LogRow, NewLine, PauseScope, RangeRead, ReadyRow, SchemaState,
    Scope, Store, StoreError,
};
use rstest::rstest;
use rstest_reuse::{apply, template};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use crate::support::store::{Backend, Fixture};

/// Longer than any claim of these tests lasts.
const AN_HOUR: Duration = Duration::from_secs(3_600);

#[template]
#[rstest]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn on_both(#[case] backend: Backend) {}

const ALL: RangeRead = RangeRead {
    line: LineId(1),
    lane: Lane::High,
    first: MessageId(0),
    last: MessageId(i64::MAX),
    limit: 1_000,
};
const LEASE: Duration = Duration::from_secs(30);

/// A change of a row whose fence is 1, and the status it leads to.
type Case = (&'static str, fn(MessageId, Duration) -> Change, Status);

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
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    }
}

fn bulk(dest: &str, campaign: &str) -> Submission {
    Submission { lane: Lane::Bulk, cp_id: Some(campaign.into()), ..text(dest) }
}

fn error() -> ErrorDetail {
    ErrorDetail {
        http_status: Some(400),
        code: Some(1200),
        subcode: Some(2018024),
        message: "try later".into(),
        fbtrace_id: Some("Axy".into()),
    }
}

fn claim(row: &ReadyRow) -> Claim {
    Claim { id: row.id, fence: row.fence, call_deadline: Duration::from_secs(32) }
}

impl Fixture {
    async fn log(&self, submissions: &[Submission]) -> Vec<MessageId> {
        self.store.insert(submissions).await.expect("rows can be logged")
    }

    async fn ready(&self) -> Vec<ReadyRow> {
        self.store.read_ranges(&[ALL]).await.expect("rows can be read")
    }

    async fn row(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    async fn change(&self, change: Change) -> bool {
        self.store.record("w", &[change], &[]).await.expect("changes are recorded").changed[0]
    }

    /// Worker `w` owns every partition.
    async fn own_all(&self) {
        self.store.renew_leases("w", LEASE).await.expect("leases are kept");
        let taken = self.store.acquire_leases("w", LEASE, 64).await.expect("leases are kept");
        assert_eq!(taken.len(), 64);
    }

    /// Logs a message and claims it; its fence is 1.
    async fn claimed(&self, dest: &str) -> MessageId {
        let id = self.log(&[text(dest)]).await[0];
        let row = self.ready().await.into_iter().find(|row| row.id == id).expect("it is ready");
        let recorded = self.store.record("w", &[], &[claim(&row)]).await.expect("claims are recorded");
        assert_eq!(recorded.claimed, [true]);
        id
    }
}

#[apply(on_both)]
async fn ids_ascend_in_the_order_given(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..500).map(|n| text(&format!("d{n:03}"))).collect();
    let ids = fixture.log(&rows).await;
    assert!(ids.is_sorted() && ids.len() == 500);
    let ready = fixture.ready().await;
    assert!(ready.iter().map(|row| row.id).eq(ids.iter().copied()));
    assert!(ready.iter().map(|row| row.dest.as_str()).eq(rows.iter().map(|row| row.dest.as_str())));
    assert!(fixture.log(&[text("later")]).await[0] > ids[499]);
    assert!(fixture.store.insert(&[]).await.expect("nothing is no error").is_empty());
}

#[apply(on_both)]
async fn a_row_is_logged_as_it_was_given(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let given = Submission {
        mcaption: Some("caption".into()),
        kind: MessageKind::Image,
        waiter: Some("q/1".into()),
        ..bulk("ann", "spring")
    };
    let id = fixture.log(&[given]).await[0];
    let row = fixture.row(id).await;
    assert_eq!((row.cdcs_id, row.v8l_id, row.class), (AccountId(1), LineId(1), Class::Messenger));
    assert_eq!(
        (row.dest.as_str(), row.mtype, row.mdata.as_str()),
        ("ann", MessageKind::Image, "Olá 😀 'quoted' \"\\")
    );
    assert_eq!((row.mcaption.as_deref(), row.msg_id.as_deref()), (Some("caption"), Some("ref")));
    assert_eq!((row.cp_id.as_deref(), row.priority), (Some("spring"), Lane::Bulk));
    assert_eq!(
        (row.status, row.status_code, row.attempts, row.ambiguous_attempts),
        (Status::Pending, 0, 0, 0)
    );
    assert_eq!((row.next_at, row.sent_at, row.done_at, row.error_kind), (None, None, None, None));
    assert!((row.expires_at - row.created_at - Duration::from_secs(3_600)).abs() < Duration::from_millis(5));
}

#[apply(on_both)]
async fn a_scheduled_row_is_ready_once_its_time_has_come(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let at = OffsetDateTime::now_utc() + Duration::from_millis(700);
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let ids = fixture
        .log(&[
            Submission { send_at: Some(at), ..text("later") },
            Submission { send_at: Some(past), ..text("now") },
        ])
        .await;
    let ready: Vec<MessageId> = fixture.ready().await.iter().map(|row| row.id).collect();
    assert_eq!(ready, [ids[1]]);
    let all: Vec<Partition> = Partition::all().collect();
    assert!(fixture.store.promote_due(&all, 10).await.expect("scans work").is_empty());
    let promoted = crate::support::pipeline::eventually("the row to be due", || async {
        let promoted = fixture.store.promote_due(&all, 10).await.expect("scans work");
        if promoted.is_empty() { Err("nothing is due".into()) } else { Ok(promoted) }
    })
    .await;
    assert_eq!(promoted, [(LineId(1), Lane::High, ids[0])]);
    assert!(OffsetDateTime::now_utc() >= at);
    assert_eq!(fixture.ready().await.len(), 2);
}

#[apply(on_both)]
async fn a_claim_needs_lease_fence_and_validity_and_is_made_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("ann"), Submission { valid_for: Duration::from_millis(1), ..text("bob") }]).await;
    let rows = fixture.ready().await;
    let (ann, bob) = (claim(&rows[0]), claim(&rows[1]));
    let made = async |worker: &str, claims: &[Claim]| {
        fixture.store.record(worker, &[], claims).await.expect("claims are recorded").claimed
    };
    assert_eq!(made("w", &[ann]).await, [false], "without a lease");
    fixture.own_all().await;
    assert_eq!(made("other", &[ann]).await, [false], "without the lease");
    assert_eq!(made("w", &[Claim { fence: 7, ..ann }]).await, [false], "with another fence");
    assert_eq!(made("w", &[bob, ann]).await, [false, true], "bob has expired");
    assert_eq!(made("w", &[ann]).await, [false], "a second time");
    let row = fixture.row(ann.id).await;
    assert_eq!((row.status, row.attempts), (Status::Sending, 1));
    assert!(row.sent_at.is_some());
    let claimed = fixture.store.claimed_rows(&[LineId(1).partition()], AN_HOUR).await.expect("scans work");
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].id, claimed[0].fence, claimed[0].worker.as_str()), (ann.id, 1, "w"));
    assert!(!claimed[0].overdue);
}

#[apply(on_both)]
async fn each_change_leaves_only_the_states_it_may(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let after = Duration::from_secs(60);
    let changes: [Case; 6] = [
        ("sent", |id, _| Change::Sent { id, fence: 1, http_status: 200, message_id: "m".into() }, Status::Ok),
        (
            "failed",
            |id, _| Change::Failed {
                id,
                fence: 1,
                kind: ErrorKind::Refused,
                error: error(),
                ambiguous: false,
            },
            Status::Error,
        ),
        (
            "retry",
            |id, after| Change::Retry { id, fence: 1, after, error: error(), counted: true, ambiguous: true },
            Status::Retry,
        ),
        ("unknown", |id, _| Change::Unknown { id, fence: 1, error: error() }, Status::Unknown),
        (
            "wait for line",
            |id, _| Change::WaitForLine { id, fence: 1, error: error(), ambiguous: false },
            Status::Pending,
        ),
        ("release", |id, _| Change::Release { id, fence: 1 }, Status::Pending),
    ];
    for (name, first, reached) in &changes {
        for (second_name, second, then) in &changes {
            let id = fixture.claimed(&format!("{name} {second_name}")).await;
            assert!(fixture.change(first(id, after)).await, "{name}");
            assert_eq!(fixture.row(id).await.status, *reached, "{name}");
            // Only a late success still counts, and only while nobody has settled the row.
            let late = *second_name == "sent"
                && matches!(reached, Status::Unknown | Status::Retry | Status::Pending);
            assert_eq!(fixture.change(second(id, after)).await, late, "{name}, then {second_name}");
            let expected = if late { *then } else { *reached };
            assert_eq!(fixture.row(id).await.status, expected, "{name}, then {second_name}");
        }
    }
    let id = fixture.claimed("fence").await;
    let other = Change::Sent { id, fence: 2, http_status: 200, message_id: "m".into() };
    assert!(!fixture.change(other).await, "only the holder of the fence writes the result");
}

#[apply(on_both)]
async fn changes_write_what_a_dashboard_reads(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let id = fixture.claimed("ann").await;
    let after = Duration::from_secs(60);
    let retry = Change::Retry { id, fence: 1, after, error: error(), counted: true, ambiguous: true };
    assert!(fixture.change(retry).await);
    let row = fixture.row(id).await;
    assert_eq!((row.error_code, row.error_subcode, row.status_code), (Some(1200), Some(2018024), 400));
    assert_eq!((row.error_message.as_deref(), row.fbtrace_id.as_deref()), (Some("try later"), Some("Axy")));
    assert_eq!((row.ambiguous_attempts, row.error_kind, row.done_at), (1, None, None));
    let wait = row.next_at.expect("a time") - OffsetDateTime::now_utc();
    assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(60), "{wait}");

    let late = Change::Sent { id, fence: 1, http_status: 200, message_id: "m_9".into() };
    assert!(fixture.change(late).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.status_code, row.message_id.as_deref()), (Status::Ok, 200, Some("m_9")));
    assert_eq!((row.error_code, row.error_message, row.next_at), (None, None, None));
    assert!(row.done_at.is_some());

    let id = fixture.claimed("bob").await;
    assert!(fixture.change(Change::Release { id, fence: 1 }).await);
    assert_eq!(fixture.row(id).await.attempts, 0, "the call was never begun");
    let again = fixture.ready().await.into_iter().find(|row| row.id == id).expect("it is ready again");
    assert_eq!((again.fence, again.attempts, again.tries), (1, 0, 0));
    let nul = Change::Expire { id, fence: 1 };
    assert!(fixture.change(nul).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
}

#[apply(on_both)]
async fn results_and_claims_are_recorded_together_and_answered_in_order(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let first = fixture.claimed("ann").await;
    let ids = fixture.log(&[text("ann"), text("bob"), text("cleo")]).await;
    let rows = fixture.ready().await;
    let unknown = MessageId(999_999);
    let recorded = fixture
        .store
        .record(
            "w",
            &[
                Change::Release { id: unknown, fence: 0 },
                Change::Sent { id: first, fence: 1, http_status: 200, message_id: "m".into() },
            ],
            &[claim(&rows[2]), Claim { id: unknown, ..claim(&rows[0]) }, claim(&rows[0])],
        )
        .await
        .expect("it is recorded");
    assert_eq!((recorded.changed, recorded.claimed), (vec![false, true], vec![true, false, true]));
    assert_eq!(fixture.row(ids[1]).await.status, Status::Pending);
    let nothing = fixture.store.record("w", &[], &[]).await.expect("nothing is no error");
    assert!(nothing.changed.is_empty() && nothing.claimed.is_empty());
}

#[apply(on_both)]
async fn recipients_are_held_by_claims_and_retries(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let sending = fixture.claimed("ann").await;
    let retry = fixture.claimed("bob").await;
    let unknown = fixture.claimed("cleo").await;
    let after = Duration::from_secs(60);
    fixture
        .change(Change::Retry { id: retry, fence: 1, after, error: error(), counted: true, ambiguous: false })
        .await;
    fixture.change(Change::Unknown { id: unknown, fence: 1, error: error() }).await;
    let mut held =
        fixture.store.held_recipients(&[LineId(1).partition()], AN_HOUR).await.expect("scans work");
    held.sort_by_key(|held| held.by);
    let shown: Vec<(MessageId, &str, Status)> =
        held.iter().map(|held| (held.by, held.dest.as_str(), held.status)).collect();
    assert_eq!(shown, [(sending, "ann", Status::Sending), (retry, "bob", Status::Retry)]);
    assert!(held[1].wait > Duration::from_secs(50));
    let mut still = fixture.store.still_held(&[sending, retry, unknown]).await.expect("scans work");
    still.sort();
    assert_eq!(still, [sending, retry]);
    // Due, it waits for its turn behind others that are.
    fixture.execute("update cdls set next_at = '2020-01-01T00:00:00.000Z' where status = 'RETRY'").await;
    assert_eq!(fixture.store.still_held(&[retry]).await.expect("scans work"), [retry]);
    fixture.store.promote_due(&[LineId(1).partition()], 10).await.expect("scans work");
    assert_eq!(fixture.store.still_held(&[retry]).await.expect("scans work"), []);
    assert!(fixture.store.held_recipients(&[Partition(2)], AN_HOUR).await.expect("scans work").is_empty());
}

/// A campaign of millions may be scheduled; looking for claims and retries must not walk over it.
#[apply(on_both)]
async fn what_is_scheduled_or_due_much_later_is_not_looked_at_for_claims_and_retries(
    #[case] backend: Backend,
) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let tomorrow = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    fixture.log(&[Submission { send_at: Some(tomorrow), ..text("scheduled") }]).await;
    let sending = fixture.claimed("ann").await;
    let later = fixture.claimed("bob").await;
    let after = AN_HOUR * 2;
    fixture
        .change(Change::Retry { id: later, fence: 1, after, error: error(), counted: true, ambiguous: false })
        .await;
    let partition = [LineId(1).partition()];
    let held = fixture.store.held_recipients(&partition, AN_HOUR).await.expect("scans work");
    assert_eq!(held.iter().map(|held| held.by).collect::<Vec<_>>(), [sending]);
    assert_eq!(fixture.store.held_recipients(&partition, AN_HOUR * 3).await.expect("scans work").len(), 2);
    let ids = |rows: Vec<meta_dispatch::store::ClaimedRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let claimed = fixture.store.claimed_rows(&partition, AN_HOUR).await.expect("scans work");
    assert_eq!(ids(claimed), [sending]);
    assert!(fixture.store.claimed_rows(&partition, Duration::ZERO).await.expect("scans work").is_empty());
}

/// A worker may know an old record of the line; what it says of it is true only if the log agrees.
#[apply(on_both)]
async fn a_row_is_unsendable_only_where_its_line_is_another_accounts(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    let unsendable = |id| Change::Unsendable { id, fence: 0 };
    assert!(!fixture.change(unsendable(ids[0])).await);
    assert_eq!(fixture.row(ids[0]).await.status, Status::Pending);
    fixture.execute("update cd_v8_line set cdcs_id = 2 where v8l_id = 1").await;
    assert!(fixture.change(unsendable(ids[0])).await);
    let row = fixture.row(ids[0]).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Line)));
    fixture.execute("delete from cd_v8_line where v8l_id = 1").await;
    assert!(fixture.change(unsendable(ids[1])).await, "a line that is gone is nobody's");
}

#[apply(on_both)]
async fn many_due_rows_of_one_line_do_not_hold_up_those_of_another(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let tomorrow = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let row = |line, n: usize| Submission {
        line: LineId(line),
        send_at: Some(tomorrow),
        ..text(&format!("{line} {n}"))
    };
    fixture.log(&(0..30).map(|n| row(1, n)).collect::<Vec<_>>()).await;
    let others = fixture.log(&[row(2, 0), row(2, 1)]).await;
    fixture.execute("update cdls set next_at = '2020-01-01T00:00:00.000Z' where v8l_id = 1").await;
    fixture.execute("update cdls set next_at = '2020-01-01T00:00:01.000Z' where v8l_id = 2").await;
    let all: Vec<Partition> = Partition::all().collect();
    let promoted = fixture.store.promote_due(&all, 10).await.expect("scans work");
    assert_eq!(promoted.len(), 10);
    let of_the_other: Vec<MessageId> =
        promoted.iter().filter(|(line, ..)| *line == LineId(2)).map(|(.., id)| *id).collect();
    assert_eq!(of_the_other.iter().collect::<BTreeSet<_>>(), others.iter().collect::<BTreeSet<_>>());
}

#[apply(on_both)]
async fn flows_are_found_read_in_order_and_bounded(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let spring: Vec<Submission> = (0..400).map(|n| bulk(&format!("s{n}"), "spring")).collect();
    let ids = fixture.log(&spring).await;
    let image = fixture.log(&[Submission { kind: MessageKind::Image, ..text("ann") }]).await[0];
    let mut flows = fixture.store.ready_flows(&[LineId(1).partition()]).await.expect("scans work");
    flows.sort();
    let flow =
        |lane, medium, campaign: &str| Flow { line: LineId(1), lane, medium, campaign: campaign.into() };
    let spring = flow(Lane::Bulk, Medium::Text, "spring");
    assert_eq!(flows, [(flow(Lane::High, Medium::Media, ""), image), (spring.clone(), ids[0])]);
    assert!(fixture.store.ready_flows(&[Partition(2)]).await.expect("scans work").is_empty());

    let read = FlowRead { flow: spring, after: ids[99], limit: 50 };
    let rows = fixture.store.read_flows(&[read]).await.expect("rows can be read");
    assert!(rows.iter().map(|row| row.id).eq(ids[100..150].iter().copied()));
}

#[apply(on_both)]
async fn campaigns_that_are_paused_or_cancelled_are_not_served(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[bulk("a", "runs"), bulk("b", "paused"), bulk("c", "cancelled")]).await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'paused', 'paused'), (1, 'cancelled', 'cancelled'), (2, 'runs', 'paused')").await;
    let flows = fixture.store.ready_flows(&[LineId(1).partition()]).await.expect("scans work");
    assert_eq!(flows.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [ids[0]]);
    let ready =
        fixture.store.read_ranges(&[RangeRead { lane: Lane::Bulk, ..ALL }]).await.expect("rows can be read");
    assert_eq!(ready.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[0]]);
    for (account, cp_id, state) in [
        (1, "runs", CampaignState::Running),
        (1, "paused", CampaignState::Paused),
        (1, "cancelled", CampaignState::Cancelled),
        (2, "runs", CampaignState::Paused),
        (2, "cancelled", CampaignState::Running),
    ] {
        let found = fixture.store.campaign_state(AccountId(account), cp_id).await.expect("the store answers");
        assert_eq!(found, state, "{account} {cp_id}");
    }
}

#[apply(on_both)]
async fn waiting_rows_that_expired_are_ended_and_their_waiters_named(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let valid_for = Duration::ZERO;
    let ids = fixture
        .log(&[
            Submission { valid_for, waiter: Some("q/7".into()), ..text("ann") },
            text("bob"),
            Submission { valid_for, ..text("cleo") },
            Submission { valid_for, ..bulk("dan", "paused") },
            Submission { valid_for, line: LineId(2), ..text("eve") },
            Submission { valid_for, send_at: Some(OffsetDateTime::now_utc() + LEASE), ..text("fay") },
        ])
        .await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'paused', 'paused')").await;
    let flows = fixture.store.waiting_flows(&[LineId(1).partition()]).await.expect("scans work");
    let campaigns: Vec<&str> = flows.iter().map(|flow| flow.campaign.as_str()).collect();
    assert_eq!(campaigns, ["paused", ""], "a campaign that is paused, too, and no line of another partition");
    let mut from: Vec<(Flow, MessageId)> = flows.into_iter().map(|flow| (flow, MessageId(0))).collect();
    let walk = async |from: &[(Flow, MessageId)], limit| -> Vec<(u32, MessageId, Vec<MessageId>)> {
        let walked = fixture.store.walk_waiting(from, limit).await.expect("scans work");
        walked.into_iter().map(|walked| (walked.rows, walked.last, walked.expired)).collect()
    };
    let found = walk(&from, 2).await;
    assert_eq!(found, [(1, ids[3], vec![ids[3]]), (2, ids[1], vec![ids[0]])]);
    from[0].1 = ids[3];
    from[1].1 = ids[1];
    assert_eq!(walk(&from, 2).await, [(0, MessageId(0), vec![]), (1, ids[2], vec![ids[2]])]);

    let mut ended = fixture.store.expire(&ids).await.expect("rows can be ended");
    ended.sort();
    let waiter = Some("q/7".to_owned());
    assert_eq!(ended, [(ids[0], waiter), (ids[2], None), (ids[3], None), (ids[4], None)]);
    let row = fixture.row(ids[0]).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    assert!(row.done_at.is_some());
    assert_eq!(fixture.row(ids[1]).await.status, Status::Pending);
    assert!(fixture.store.expire(&ids).await.expect("rows can be ended").is_empty());
}

#[apply(on_both)]
async fn an_account_sees_its_own_rows_only(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.log(&[text("ann")]).await[0];
    let seen = async |scope| fixture.store.log_row(scope, id).await.expect("the log answers").is_some();
    assert!(seen(Scope::Account(AccountId(1))).await && seen(Scope::Operator).await);
    assert!(!seen(Scope::Account(AccountId(2))).await);
}

#[apply(on_both)]
async fn the_log_is_read_forwards_backwards_filtered_and_counted(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.own_all().await;
    let sent = fixture.claimed("ann").await;
    fixture.change(Change::Sent { id: sent, fence: 1, http_status: 200, message_id: "m".into() }).await;
    let ids = fixture
        .log(&[text("bob"), bulk("cleo", "spring"), Submission { line: LineId(2), ..text("dan") }])
        .await;
    let everything = LogFilter::default();
    let newest = async |filter: &LogFilter, limit| -> Vec<MessageId> {
        let rows = fixture.store.log_newest(filter, limit).await.expect("the log answers");
        rows.iter().map(|row| row.cdls_id).collect()
    };
    assert_eq!(newest(&everything, 2).await, [ids[2], ids[1]]);
    assert_eq!(newest(&LogFilter { line: Some(LineId(2)), ..everything.clone() }, 9).await, [ids[2]]);
    assert_eq!(newest(&LogFilter { status: Some(Status::Ok), ..everything.clone() }, 9).await, [sent]);
    assert_eq!(newest(&LogFilter { cp_id: Some("spring".into()), ..everything.clone() }, 9).await, [ids[1]]);
    let rows = fixture.store.log_after(&everything, sent, 2).await.expect("the log answers");
    assert!(rows.iter().map(|row| row.cdls_id).eq([ids[0], ids[1]]));
    let stats = fixture.store.log_stats(Some(Duration::from_secs(60))).await.expect("the log answers");
    let shown: Vec<(i64, Status, i64)> =
        stats.iter().map(|cell| (cell.v8l_id.0, cell.status, cell.rows)).collect();
    assert_eq!(shown, [(1, Status::Ok, 1), (1, Status::Pending, 2), (2, Status::Pending, 1)]);
    for (at_most, counted) in [(100, 3), (2, 2)] {
        assert_eq!(fixture.store.backlog(at_most).await.expect("rows can be counted"), counted);
    }
}

#[apply(on_both)]
async fn leases_are_shared_prolonged_released_and_run_out(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let short = Duration::from_millis(900);
    store.renew_leases("a", LEASE).await.expect("leases are kept");
    let first = store.acquire_leases("a", LEASE, 40).await.expect("leases are kept");
    assert_eq!(first.len(), 40);
    assert!(store.renew_leases("b", short).await.expect("leases are kept").held.is_empty());
    let second = store.acquire_leases("b", short, 40).await.expect("leases are kept");
    assert_eq!(second.len(), 24, "what is left");
    let report = store.renew_leases("a", LEASE).await.expect("leases are kept");
    assert_eq!((report.held.len(), report.workers), (40, 2));
    assert!(first.iter().all(|lease| !second.iter().any(|other| other.partition == lease.partition)));

    store.release_leases("a", &[first[0].partition]).await.expect("leases are kept");
    store.release_leases("a", &[second[0].partition]).await.expect("another's is left alone");
    let taken = store.acquire_leases("b", short, 64).await.expect("leases are kept");
    assert_eq!(taken.iter().map(|lease| lease.partition).collect::<Vec<_>>(), [first[0].partition]);
    assert_eq!(taken[0].epoch, first[0].epoch + 1);

    let taken = crate::support::pipeline::eventually("b's leases to run out", || async {
        let taken = store.acquire_leases("a", LEASE, 64).await.expect("leases are kept");
        if taken.is_empty() { Err("none is free".into()) } else { Ok(taken) }
    })
    .await;
    assert!(!taken.is_empty());
    let report = store.renew_leases("b", short).await.expect("leases are kept");
    assert!(report.held.len() < 25, "a lease that ran out is not prolonged");
    store.withdraw_worker("a").await.expect("leases are kept");
    assert_eq!(store.renew_leases("b", short).await.expect("leases are kept").workers, 1);
}

#[apply(on_both)]
async fn tokens_are_found_until_they_are_revoked_and_show_their_accounts_state(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), "abcdefghij", &[7; 32]).await.expect("tokens can be added");
    let found = store.token("abcdefghij").await.expect("the store answers").expect("it is there");
    assert_eq!((found.account, found.account_active, found.hash), (AccountId(1), true, vec![7; 32]));
    fixture.execute("update account set cdcs_active = false where cdcs_id = 1").await;
    assert!(
        !store.token("abcdefghij").await.expect("the store answers").expect("it is there").account_active
    );
    assert!(store.revoke_token("abcdefghij").await.expect("the store answers"));
    assert!(!store.revoke_token("abcdefghij").await.expect("the store answers"), "it was revoked already");
    assert!(store.token("abcdefghij").await.expect("the store answers").is_none());
    assert!(store.tokens().await.expect("the store answers")[0].revoked_at.is_some());
    let taken = store.add_token(AccountId(1), "abcdefghij", &[8; 32]).await;
    assert!(matches!(taken, Err(StoreError::Invalid(_))), "{taken:?}");
    let nobody = store.add_token(AccountId(77), "0123456789", &[8; 32]).await;
    assert!(matches!(nobody, Err(StoreError::Invalid(_))), "{nobody:?}");
}

#[apply(on_both)]
async fn a_line_inserted_by_sql_has_the_defaults(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute("insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key) values (70, 1, 'instagram', 'EAA')")
        .await;
    let line = fixture.store.lines(&[LineId(70), LineId(71)]).await.expect("the store answers").remove(0);
    assert_eq!((line.id, line.account, line.class), (LineId(70), AccountId(1), Class::Instagram));
    assert!(line.active && line.account_active && line.page_token.is_some());
    assert_eq!((line.rate_text, line.rate_media, line.paused_until, line.page_id), (None, None, None, None));
}

#[apply(on_both)]
async fn lines_are_added_listed_and_given_new_tokens(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let new = |id: Option<i64>, account| NewLine {
        id: id.map(LineId),
        account: AccountId(account),
        name: Some("Shop".into()),
        class: Class::Messenger,
        page_token: "EAAold".into(),
        page_id: Some("1001".into()),
        instagram_account_id: None,
        rate_text: Some(20),
        rate_media: None,
    };
    assert_eq!(store.add_line(&new(Some(500), 1)).await.expect("lines can be added"), LineId(500));
    let next = store.add_line(&new(None, 1)).await.expect("lines can be added");
    assert!(next > LineId(2), "{next}");
    for (line, what) in [(new(Some(500), 1), "taken"), (new(None, 77), "nobody's")] {
        assert!(matches!(store.add_line(&line).await, Err(StoreError::Invalid(_))), "{what}");
    }
    store.pause(PauseScope::Line(next), Duration::from_secs(60), "190").await.expect("lines can be paused");
    assert!(store.set_page_token(next, &"EAAnew".into()).await.expect("the store answers"));
    let line = store.lines(&[next]).await.expect("the store answers").remove(0);
    assert_eq!((line.paused_until, line.pause_reason, line.rate_text), (None, None, Some(20)));
    assert!(!store.set_page_token(LineId(12_345), &"EAA".into()).await.expect("the store answers"));
    assert!(store.all_lines().await.expect("the store answers").len() >= 4);
}

#[apply(on_both)]
async fn pauses_of_policy_only_grow_and_an_operators_replaces_any(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let paused = async |line: i64| {
        let line = store.lines(&[LineId(line)]).await.expect("the store answers").remove(0);
        let until = line.paused_until.map(|until| until - OffsetDateTime::now_utc());
        let off = until.zip(line.pause_left).map(|(until, left)| (until - left).abs());
        assert_eq!(until.is_some(), off.is_some_and(|off| off.whole_seconds() <= 1), "{line:?}");
        (until.map(|until| until.whole_minutes()), line.pause_reason)
    };
    let hour = Duration::from_secs(3_600);
    store.pause(PauseScope::Line(LineId(1)), hour, "first").await.expect("lines can be paused");
    store.pause(PauseScope::App, hour / 2, "app").await.expect("lines can be paused");
    assert_eq!(paused(1).await, (Some(59), Some("first".into())));
    assert_eq!(paused(2).await, (Some(29), Some("app".into())));
    assert!(store.pause_line(LineId(1), Some(hour / 6), "lunch").await.expect("the store answers"));
    assert_eq!(paused(1).await, (Some(9), Some("lunch".into())));
    assert!(store.pause_line(LineId(1), None, "for good").await.expect("the store answers"));
    assert!(paused(1).await.0 > Some(365 * 24 * 60));
    assert!(store.resume_line(LineId(1)).await.expect("the store answers"));
    assert_eq!(paused(1).await, (None, None));
    assert!(!store.resume_line(LineId(12_345)).await.expect("the store answers"));
}

#[apply(on_both)]
async fn the_schema_is_current_newer_or_older(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Current);
    assert_eq!(store.migrate().await.expect("it can be repeated"), 0);
    fixture
        .execute("insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99990101, 'later', true, '', 0)")
        .await;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Newer);
    assert_eq!(store.migrate().await.expect("a newer schema is accepted"), 0);
    fixture.execute("delete from _sqlx_migrations").await;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Older);
}

/// A value the database refuses takes its whole batch down, and is told from a database that is away.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_names_a_value_it_refuses() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let refused = fixture.store.insert(&[text("ann"), text("nul\0")]).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    assert!(fixture.ready().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_makes_room_before_the_ids_run_out() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute("select setval('cdls_id_seq', 9999999)").await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    assert_eq!(ids, [MessageId(10_000_000), MessageId(10_000_001)], "the next range exists already");
    assert_eq!(fixture.store.ensure_room().await.expect("room can be made"), 1);
    assert_eq!(fixture.store.ensure_room().await.expect("room can be made"), 0);
    assert_eq!(fixture.ready().await.len(), 2, "rows are read over the ranges' border");
}

/// A dump or a report may read the log for hours while the next range of ids is made.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_makes_room_beside_one_who_reads_the_log_and_writers_do_not_wait() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let mut reader = PgConnection::connect(fixture.database().url()).await.expect("the server answers");
    sqlx::raw_sql("begin; lock table cdls in access share mode")
        .execute(&mut reader)
        .await
        .expect("it is locked");
    fixture.execute("select setval('cdls_id_seq', 10000000)").await;
    assert_eq!(fixture.store.ensure_room().await.expect("room is made"), 1);
    let ids = fixture.log(&[text("ann")]).await;
    assert_eq!(ids, [MessageId(10_000_001)]);
    sqlx::raw_sql("commit").execute(&mut reader).await.expect("the reader is done");
    fixture.execute("select setval('cdls_id_seq', 20000000)").await;
    fixture.log(&[text("bob")]).await;
    assert_eq!(fixture.ready().await.len(), 2, "the new range has the indexes of the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_for_which_postgres_has_no_room_yet_is_not_refused_but_waits() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute("select setval('cdls_id_seq', 50000000)").await;
    let refused = fixture.store.insert(&[text("ann")]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

/// A server may be set up to answer commits before they are on disk.
#[rstest]
#[case::commits_wait_for_the_disk("off", "on")]
#[case::what_is_stricter_stays("remote_apply", "remote_apply")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_commits_on_disk_before_it_answers(#[case] server: &'static str, #[case] ours: &str) {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture
        .execute(
            "create table seen (setting text);
             create function look() returns trigger language plpgsql as
                 'begin insert into seen values (current_setting(''synchronous_commit'')); return new; end';
             create trigger look before insert on cdls for each row execute function look()",
        )
        .await;
    let url = fixture.database().url();
    let mut other = PgConnection::connect(url).await.expect("the server answers");
    let set = format!(
        "do $$ begin execute format('alter database %I set synchronous_commit = {server}', current_database()); end $$"
    );
    sqlx::raw_sql(&set).execute(&mut other).await.expect("it is set");
    let store = PostgresStore::open(&url.into(), 8).expect("the URL is right");
    store.insert(&[text("ann")]).await.expect("rows can be logged");
    let seen: String =
        sqlx::query_scalar("select setting from seen").fetch_one(&mut other).await.expect("it was seen");
    assert_eq!(seen, ours);
}
