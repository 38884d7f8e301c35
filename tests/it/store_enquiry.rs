//! What senders ask the log afterwards, on both databases: messages by filter, campaigns, and their end.

use std::time::Duration;

use meta_dispatch::message::{
    AccountId, CampaignState, Class, Lane, LineId, Medium, MessageId, MessageKind, Status, Submission,
};
use meta_dispatch::store::{Claim, IdRange, LogRow, MessageFilter, RangeRead, Resend, Selection};
use rstest::rstest;
use rstest_reuse::{apply, template};

use crate::support::store::{Backend, Fixture};

#[template]
#[rstest]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test]
async fn on_both(#[case] backend: Backend) {}

const NEWEST: MessageId = MessageId(i64::MAX);

fn text(account: i64, line: i64, dest: &str) -> Submission {
    Submission {
        account: AccountId(account),
        line: LineId(line),
        class: Class::Messenger,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "hello".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::Bulk,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    }
}

fn of_campaign(line: i64, dest: &str, cp_id: &str) -> Submission {
    Submission { cp_id: Some(cp_id.into()), ..text(1, line, dest) }
}

impl Fixture {
    async fn insert(&self, rows: &[Submission]) -> Vec<MessageId> {
        self.store.insert(rows).await.expect("rows can be logged")
    }

    async fn listed(&self, filter: MessageFilter, before: MessageId, limit: u32) -> Vec<MessageId> {
        let rows: Vec<LogRow> =
            self.store.messages(AccountId(1), &filter, before, limit).await.expect("the log answers");
        rows.iter().map(|row| row.cdls_id).collect()
    }

    async fn waiting(&self, cp_id: &str) -> i64 {
        let counts = self.store.campaign_counts(AccountId(1), cp_id).await.expect("the log answers");
        let waits = |status| matches!(status, Status::Pending | Status::Retry);
        counts.iter().filter(|count| waits(count.status)).map(|count| count.rows).sum()
    }

    async fn set(&self, cp_id: &str, state: CampaignState) -> CampaignState {
        self.store.set_campaign(AccountId(1), cp_id, state).await.expect("states can be written")
    }
}

fn newest_first(ids: impl IntoIterator<Item = MessageId>) -> Vec<MessageId> {
    let mut ids: Vec<MessageId> = ids.into_iter().collect();
    ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    ids
}

#[apply(on_both)]
async fn pages_follow_each_other_newest_first_without_gap_or_repeat(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let kinds = [MessageKind::Text, MessageKind::Image];
    let rows: Vec<Submission> = (0..60)
        .map(|n| Submission {
            kind: kinds[n / 7 % 2],
            ..of_campaign(1 + n as i64 % 2, &format!("d{n}"), "c")
        })
        .collect();
    let ids = fixture.insert(&rows).await;
    fixture.insert(&[text(2, 9, "other")]).await;
    fixture.execute("update cdls set status = 'OK' where cdls_id % 3 = 0").await;
    fixture.execute("update cdls set status = 'ERROR' where cdls_id % 10 = 1").await;
    for filter in [MessageFilter::default(), MessageFilter { cp_id: Some("c".into()), ..Default::default() }]
    {
        let (mut seen, mut before) = (Vec::new(), NEWEST);
        loop {
            let page = fixture.listed(filter.clone(), before, 7).await;
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            before = *last;
            seen.extend(page);
        }
        assert_eq!(seen, newest_first(ids.iter().copied()), "{filter:?}");
    }
}

#[apply(on_both)]
async fn each_filter_and_their_combinations_list_what_matches(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture
        .insert(&[
            Submission { msg_id: Some("m1".into()), ..of_campaign(1, "ann", "c1") },
            Submission { msg_id: Some("m1".into()), ..of_campaign(2, "bob", "c1") },
            of_campaign(1, "ann", "c2"),
            text(1, 2, "ann"),
            Submission { cp_id: Some("c1".into()), msg_id: Some("m1".into()), ..text(2, 9, "ann") },
        ])
        .await;
    fixture.execute("update cdls set status = 'ERROR' where dest = 'bob'").await;
    let all = MessageFilter::default();
    let some = |text: &str| Some(text.to_owned());
    let cases: Vec<(MessageFilter, Vec<usize>)> = vec![
        (all.clone(), vec![3, 2, 1, 0]),
        (MessageFilter { line: Some(LineId(1)), ..all.clone() }, vec![2, 0]),
        (MessageFilter { status: Some(Status::Error), ..all.clone() }, vec![1]),
        (MessageFilter { status: Some(Status::Pending), line: Some(LineId(2)), ..all.clone() }, vec![3]),
        (MessageFilter { cp_id: some("c1"), ..all.clone() }, vec![1, 0]),
        (MessageFilter { cp_id: some("c1"), line: Some(LineId(2)), ..all.clone() }, vec![1]),
        (MessageFilter { cp_id: some("c1"), status: Some(Status::Pending), ..all.clone() }, vec![0]),
        (MessageFilter { msg_id: some("m1"), ..all.clone() }, vec![1, 0]),
        (MessageFilter { msg_id: some("m1"), dest: some("ann"), ..all.clone() }, vec![0]),
        (MessageFilter { dest: some("ann"), ..all.clone() }, vec![3, 2, 0]),
        (MessageFilter { dest: some("ann"), cp_id: some("c2"), ..all.clone() }, vec![2]),
        (MessageFilter { dest: some("ann"), line: Some(LineId(9)), ..all.clone() }, vec![]),
        (MessageFilter { msg_id: some("m1"), status: Some(Status::Ok), ..all.clone() }, vec![]),
        (MessageFilter { cp_id: some("nobody's"), ..all.clone() }, vec![]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<MessageId> = expected.into_iter().map(|n| ids[n]).collect();
        assert_eq!(fixture.listed(filter.clone(), NEWEST, 10).await, expected, "{filter:?}");
        let below: Vec<MessageId> = expected.iter().copied().filter(|id| *id < ids[2]).collect();
        assert_eq!(fixture.listed(filter.clone(), ids[2], 10).await, below, "{filter:?}");
        let first = expected.iter().copied().take(1).collect::<Vec<_>>();
        assert_eq!(fixture.listed(filter.clone(), NEWEST, 1).await, first, "{filter:?}");
    }
}

#[apply(on_both)]
async fn a_campaign_is_counted_by_line_medium_and_status(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let image = |line, dest| Submission { kind: MessageKind::Image, ..of_campaign(line, dest, "c") };
    fixture.insert(&[of_campaign(1, "a", "c"), of_campaign(1, "b", "c"), image(1, "c"), image(2, "d")]).await;
    fixture
        .insert(&[of_campaign(1, "a", "other"), Submission { cp_id: Some("c".into()), ..text(2, 9, "a") }])
        .await;
    fixture.execute("update cdls set status = 'OK' where dest = 'b'").await;
    let counts = fixture.store.campaign_counts(AccountId(1), "c").await.expect("the log answers");
    let counted: Vec<(i64, Medium, Status, i64)> =
        counts.iter().map(|count| (count.line.0, count.medium, count.status, count.rows)).collect();
    assert_eq!(
        counted,
        [
            (1, Medium::Text, Status::Ok, 1),
            (1, Medium::Text, Status::Pending, 1),
            (1, Medium::Media, Status::Pending, 1),
            (2, Medium::Media, Status::Pending, 1),
        ]
    );
    assert!(fixture.store.campaign_counts(AccountId(1), "nothing").await.expect("it answers").is_empty());
}

#[apply(on_both)]
async fn hundreds_of_waiting_rows_are_counted_beside_rows_in_every_other_status(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..700).map(|n| of_campaign(1 + n % 2, &format!("d{n}"), "c")).collect();
    fixture.insert(&rows).await;
    fixture.insert(&[of_campaign(1, "a", "other"), text(1, 1, "b")]).await;
    let others = "update cdls set status = case cdls_id / 10 when 0 then 'OK' when 1 then 'ERROR' when 2 then 'CANCELLED'
                  when 3 then 'UNKNOWN' when 4 then 'SENDING' else 'RETRY' end where cdls_id < 60";
    fixture.execute(others).await;

    let rows_of = async |line, status| {
        let counts = fixture.store.campaign_counts(AccountId(1), "c").await.expect("the log answers");
        let concerned = counts.iter().filter(|count| (count.line, count.status) == (LineId(line), status));
        concerned.map(|count| count.rows).sum::<i64>()
    };
    // Odd ids are of line 1.
    assert_eq!((rows_of(1, Status::Pending).await, rows_of(2, Status::Pending).await), (320, 321));
    assert_eq!((rows_of(1, Status::Ok).await, rows_of(2, Status::Ok).await), (5, 4));
    for status in [Status::Error, Status::Cancelled, Status::Unknown, Status::Sending, Status::Retry] {
        assert_eq!((rows_of(1, status).await, rows_of(2, status).await), (5, 5), "{status}");
    }
}

#[apply(on_both)]
async fn messages_that_several_log_at_once_and_copies_are_counted(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let logged = (0..8).map(async |n| {
        for m in 0..5 {
            let row = |i: i64| of_campaign(1 + i % 2, &format!("d{n}-{m}-{i}"), "c");
            fixture.insert(&(0..40).map(row).collect::<Vec<_>>()).await;
        }
    });
    futures::future::join_all(logged).await;
    assert_eq!(fixture.waiting("c").await, 1_600);

    fixture.execute("update cdls set status = 'ERROR', error_kind = 'refused' where cdls_id <= 150").await;
    let again = Resend { status: Status::Error, cp_id: None, valid_for: Duration::from_secs(3_600) };
    let copies =
        fixture.store.resend(IdRange::ALL, &Selection::default(), &again, 1_000).await.expect("it answers");
    assert_eq!(copies.len(), 150);
    assert_eq!(fixture.waiting("c").await, 1_600);
}

#[tokio::test]
async fn rows_that_somebody_deleted_keep_no_campaign_from_its_end() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let rows: Vec<Submission> = (0..300).map(|n| of_campaign(1, &format!("d{n}"), "c")).collect();
    fixture.insert(&rows).await;
    fixture.execute("delete from cdls where cdls_id > 90").await;
    assert_eq!(fixture.waiting("c").await, 90);
    fixture.execute("delete from cdls").await;
    assert_eq!(fixture.waiting("c").await, 0);
}

#[tokio::test]
async fn a_range_of_the_log_that_was_taken_out_is_not_counted() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let rows = |of: &str| (0..150).map(|n| of_campaign(1, &format!("{of}{n}"), "c")).collect::<Vec<_>>();
    fixture.insert(&rows("old")).await;
    fixture.execute("select setval('cdls_id_seq', 10000000)").await;
    fixture.insert(&rows("new")).await;
    assert_eq!(fixture.waiting("c").await, 300);
    fixture.execute("alter table cdls detach partition cdls_0").await;
    assert_eq!(fixture.waiting("c").await, 150);
    fixture.execute("drop table cdls_0").await;
    assert_eq!(fixture.waiting("c").await, 150);
}

#[apply(on_both)]
async fn the_time_the_newest_waiting_row_is_scheduled_for_is_told(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let not_before = async || {
        let counts = fixture.store.campaign_counts(AccountId(1), "c").await.expect("the log answers");
        counts.iter().map(|count| count.not_before).collect::<Vec<_>>()
    };
    fixture.insert(&[of_campaign(1, "a", "c")]).await;
    assert_eq!(not_before().await, [None]);

    let in_an_hour = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let in_an_hour = in_an_hour.replace_millisecond(0).expect("a millisecond");
    let scheduled = |line, dest| Submission { send_at: Some(in_an_hour), ..of_campaign(line, dest, "c") };
    fixture.insert(&[scheduled(1, "b"), scheduled(2, "c"), of_campaign(2, "d", "c")]).await;
    assert_eq!(not_before().await, [Some(in_an_hour), None]);

    fixture.execute("update cdls set next_at = created_at where next_at is not null").await;
    assert_eq!(not_before().await, [None, None], "it is due");
}

#[apply(on_both)]
async fn the_rate_counts_what_ended_within_the_window(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..30).map(|n| of_campaign(1 + n % 2, &format!("d{n}"), "c")).collect();
    fixture.insert(&rows).await;
    let window = Duration::from_secs(10);
    let rate = async || fixture.store.campaign_rate(AccountId(1), "c", window).await.expect("it answers");
    assert_eq!(rate().await, 0.0);
    let now = match backend {
        Backend::Postgres => "update cdls set status = 'OK', done_at = now()",
        Backend::Sqlite => "update cdls set status = 'OK', done_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    };
    fixture.execute(now).await;
    fixture
        .execute(
            "update cdls set status = 'ERROR', done_at = '2020-01-01T00:00:00.000Z' where cdls_id % 3 = 0",
        )
        .await;
    let rate = rate().await;
    assert!((rate - 2.0).abs() < 0.01, "{rate}");
}

#[apply(on_both)]
async fn a_cancelled_campaign_stays_cancelled(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    assert_eq!(fixture.set("c", CampaignState::Paused).await, CampaignState::Paused);
    assert_eq!(fixture.set("c", CampaignState::Running).await, CampaignState::Running);
    assert_eq!(fixture.set("c", CampaignState::Cancelled).await, CampaignState::Cancelled);
    assert_eq!(fixture.set("c", CampaignState::Running).await, CampaignState::Cancelled);
    let cancelled = fixture.store.campaigns(CampaignState::Cancelled, None).await.expect("it answers");
    assert_eq!(cancelled, [(AccountId(1), "c".to_owned())]);
    let recent = Some(Duration::from_secs(60));
    assert_eq!(
        fixture.store.campaigns(CampaignState::Cancelled, recent).await.expect("it answers"),
        cancelled
    );
    fixture.execute("update campaign set changed_at = '2020-01-01T00:00:00.000Z'").await;
    assert!(fixture.store.campaigns(CampaignState::Cancelled, recent).await.expect("it answers").is_empty());
}

#[apply(on_both)]
async fn no_claim_is_made_of_a_campaign_that_does_not_run(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let lease = Duration::from_secs(30);
    fixture.store.renew_leases("w", lease).await.expect("leases are kept");
    fixture.store.acquire_leases("w", lease, 64).await.expect("leases are kept");
    fixture.insert(&[of_campaign(1, "a", "c"), text(1, 1, "b")]).await;
    let everything =
        RangeRead { line: LineId(1), lane: Lane::Bulk, first: MessageId(0), last: NEWEST, limit: 10 };
    let rows = fixture.store.read_ranges(&[everything]).await.expect("rows can be read");
    let claims: Vec<Claim> = rows
        .iter()
        .map(|row| Claim { id: row.id, fence: row.fence, call_deadline: Duration::from_secs(30) })
        .collect();
    for state in [CampaignState::Paused, CampaignState::Cancelled] {
        fixture.set("c", state).await;
        let claimed =
            fixture.store.record("w", &[], &claims[..1]).await.expect("claims are recorded").claimed;
        assert_eq!(claimed, [false], "{state}");
    }
    let claimed = fixture.store.record("w", &[], &claims).await.expect("claims are recorded").claimed;
    assert_eq!(claimed, [false, true], "other rows are claimed as ever");
}

#[apply(on_both)]
async fn waiting_rows_of_a_cancelled_campaign_end_in_batches_and_others_stay(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut rows: Vec<Submission> = (0..9).map(|n| of_campaign(1 + n % 2, &format!("d{n}"), "c")).collect();
    rows[1].waiter = Some("q/1".into());
    rows[2].kind = MessageKind::Image;
    rows[3].send_at = Some(time::OffsetDateTime::now_utc() + Duration::from_secs(600));
    let ids = fixture.insert(&rows).await;
    let other = fixture.insert(&[of_campaign(1, "x", "other"), text(1, 1, "y")]).await;
    fixture
        .execute("update cdls set status = 'RETRY', next_at = '2030-01-01T00:00:00.000Z' where dest = 'd4'")
        .await;
    fixture.execute("update cdls set status = 'OK' where dest = 'd5'").await;
    fixture.execute("update cdls set status = 'SENDING' where dest = 'd6'").await;

    let cancel = async |after, limit| {
        fixture.store.cancel_waiting(AccountId(1), "c", after, limit).await.expect("rows can be ended")
    };
    assert!(cancel(MessageId(0), 100).await.is_empty(), "the campaign runs");
    fixture.set("c", CampaignState::Cancelled).await;
    let first = cancel(MessageId(0), 4).await;
    assert_eq!(first, [(ids[0], None), (ids[1], Some("q/1".to_owned())), (ids[2], None), (ids[3], None)]);
    let rest: Vec<MessageId> = cancel(ids[3], 100).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(rest, [ids[4], ids[7], ids[8]]);
    assert_eq!(fixture.waiting("c").await, 0);
    assert_eq!(fixture.waiting("other").await, 1);
    let row = |id| {
        let store = fixture.store.clone();
        async move {
            store
                .log_row(meta_dispatch::store::Scope::Operator, id)
                .await
                .expect("it answers")
                .expect("it exists")
        }
    };
    let ended = row(ids[4]).await;
    assert_eq!((ended.status, ended.next_at, ended.done_at.is_some()), (Status::Cancelled, None, true));
    assert_eq!(row(ids[5]).await.status, Status::Ok);
    assert_eq!(row(ids[6]).await.status, Status::Sending);
    assert_eq!(row(other[1]).await.status, Status::Pending);
}
