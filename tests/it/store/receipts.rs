//! The changes that Meta's events make, on PostgreSQL and on SQLite: receipts, recipients that write, blocked lines.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{AccountId, LineId, RowId, Submission};
use meta_dispatch::store::{
    BLOCKED_PAUSE, ChangeKind, Enforced, IdRange, InboundEvent, LineOfPage, Receipt, Receipted, Received,
    Resolution, Selection,
};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, bulk, failed, sent, text, unknown};

const MINUTE: Duration = Duration::from_secs(60);

/// Return the present in whole milliseconds, as Meta names times.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond()).expect("it has so many")
}

fn receipt(dest: &str, of: Receipted, at: OffsetDateTime, is_read: bool) -> Receipt {
    Receipt { account: AccountId(1), line: LineId(1), dest: dest.into(), of, at, is_read }
}

fn delivered(id: &str, at: OffsetDateTime) -> Receipt {
    receipt("ann", Receipted::Message(id.into()), at, false)
}

fn read(id: &str, at: OffsetDateTime) -> Receipt {
    receipt("ann", Receipted::Message(id.into()), at, true)
}

fn up_to(to: OffsetDateTime, at: OffsetDateTime, is_read: bool) -> Receipt {
    receipt("ann", Receipted::UpTo(to), at, is_read)
}

fn taken(id: &str) -> ChangeKind {
    ChangeKind::Sent { http_status: 200, graph_id: id.into() }
}

impl Fixture {
    /// Log a message and have Graph take it under this id.
    async fn taken(&self, submission: Submission, id: &str) -> RowId {
        self.called(submission, taken(id)).await
    }

    async fn receive(&self, receipts: &[Receipt]) -> Vec<Received> {
        let mut received = self.store.receive(receipts).await.expect("receipts can be written");
        received.sort_by_key(|row| row.id);
        received
    }

    async fn receive_early(&self) -> Vec<Received> {
        self.execute("update early_receipt set look_at = '2020-01-01T00:00:00.000Z'").await;
        self.store.receive_early(1_000).await.expect("receipts can be written")
    }

    async fn receipt_times(&self, id: RowId) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
        let row = self.row(id).await;
        (row.delivered_at, row.read_at)
    }

    async fn receipts_of(&self, campaign: &str) -> (i64, i64) {
        let counted = self.store.campaign_receipts(AccountId(1), campaign).await.expect("counters are read");
        (counted.delivered, counted.read)
    }

    async fn pause_of(&self, line: LineId) -> (bool, Option<String>) {
        let lines = self.store.line_summaries(&[line]).await.expect("lines are read");
        (lines[0].pause_left.is_some(), lines[0].pause_reason.clone())
    }

    async fn enforce(&self, pause: Option<&str>, at: OffsetDateTime) -> Vec<LineId> {
        let pause = pause.map(|words| format!("{BLOCKED_PAUSE} ({words})"));
        let event = Enforced { line: LineId(1), at, reason: None, pause };
        self.store.enforce(&[event]).await.expect("lines can be paused")
    }

    async fn hear_from(&self, dest: &str, at: OffsetDateTime) {
        let event = InboundEvent { line: LineId(1), dest: dest.into(), at };
        self.store.note_inbound(&[event]).await.expect("recipients can be noted");
    }

    /// Count the recipients that fit a condition of SQL.
    async fn recipients_that(&self, condition: &str) -> i64 {
        self.rows_of(&format!("cd_recipient where {condition}")).await
    }
}

#[apply(on_both)]
async fn receipt_by_id_finds_its_row_alone(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let first = fixture.taken(text("ann"), "m_1").await;
    let second = fixture.taken(text("ann"), "m_2").await;
    let others = fixture.taken(text("bob"), "m_1").await;
    let at = now();
    let received = fixture.receive(&[delivered("m_1", at), delivered("m_9", at)]).await;
    assert_eq!(received, [Received { id: first, delivered_at: Some(at), read_at: None }]);
    assert_eq!(fixture.receipt_times(first).await, (Some(at), None));
    assert_eq!(fixture.receipt_times(second).await, (None, None));
    assert_eq!(fixture.receipt_times(others).await, (None, None));
    let row = fixture.row(first).await;
    assert_eq!((row.attempts, row.message_id.as_deref()), (1, Some("m_1")), "nothing else changes");
}

#[apply(on_both)]
async fn read_implies_delivered_and_the_earliest_time_wins(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.taken(text("ann"), "m_1").await;
    let at = now();
    let received = fixture.receive(&[read("m_1", at)]).await;
    assert_eq!(received, [Received { id, delivered_at: Some(at), read_at: Some(at) }]);
    assert!(fixture.receive(&[read("m_1", at)]).await.is_empty(), "repeated");
    assert!(fixture.receive(&[read("m_1", at + MINUTE), delivered("m_1", at + MINUTE)]).await.is_empty());
    assert_eq!(fixture.receipt_times(id).await, (Some(at), Some(at)));
    assert!(fixture.receive(&[delivered("m_1", at - MINUTE)]).await.is_empty(), "known, and earlier");
    assert_eq!(fixture.receipt_times(id).await, (Some(at - MINUTE), Some(at)));
}

#[apply(on_both)]
async fn receipts_of_one_row_are_written_together(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.taken(bulk("ann", "spring"), "m_1").await;
    let at = now();
    let told = [read("m_1", at + MINUTE), delivered("m_1", at), up_to(at + HOUR, at + 2 * MINUTE, true)];
    let received = fixture.receive(&told).await;
    assert_eq!(received, [Received { id, delivered_at: Some(at), read_at: Some(at + MINUTE) }]);
    assert_eq!(fixture.receipts_of("spring").await, (1, 1));
}

#[apply(on_both)]
async fn watermark_concerns_what_was_sent_before(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let before = fixture.taken(text("ann"), "m_1").await;
    let after = fixture.taken(text("ann"), "m_2").await;
    let refused = fixture.called(text("ann"), failed()).await;
    let others = fixture.taken(text("bob"), "m_3").await;
    let of_other_line = fixture.taken(Submission { line: LineId(2), ..text("ann") }, "m_4").await;
    fixture.execute("update cdls set sent_at = '2026-01-01T10:00:00.000Z'").await;
    fixture
        .execute(&format!("update cdls set sent_at = '2026-01-01T12:00:00.000Z' where cdls_id = {after}"))
        .await;
    let watermark = time::macros::datetime!(2026-01-01 11:00 UTC);
    let at = now();
    let received = fixture.receive(&[up_to(watermark, at, true)]).await;
    assert_eq!(received, [Received { id: before, delivered_at: Some(at), read_at: Some(at) }]);
    for id in [after, refused, others, of_other_line] {
        assert_eq!(fixture.receipt_times(id).await, (None, None), "{id}");
    }
    let received = fixture.receive(&[up_to(watermark + 2 * HOUR, at, false)]).await;
    assert_eq!(received, [Received { id: after, delivered_at: Some(at), read_at: None }]);
}

#[apply(on_both)]
async fn receipt_of_another_account_changes_nothing(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.taken(text("ann"), "m_1").await;
    let at = now();
    let foreign = Receipt { account: AccountId(2), ..read("m_1", at) };
    let of_other_line = Receipt { line: LineId(2), ..read("m_1", at) };
    assert!(fixture.receive(&[foreign, of_other_line]).await.is_empty());
    assert_eq!(fixture.receipt_times(id).await, (None, None));
}

#[apply(on_both)]
async fn campaign_counts_each_row_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    for number in 0..3 {
        fixture.taken(bulk("ann", "spring"), &format!("m_{number}")).await;
    }
    let at = now();
    for _ in 0..2 {
        fixture.receive(&[delivered("m_0", at), delivered("m_1", at)]).await;
        fixture.receive(&[read("m_1", at)]).await;
        fixture.receive(&[read("m_2", at)]).await;
    }
    assert_eq!(fixture.receipts_of("spring").await, (3, 2));
    let counts = fixture.store.campaign_counts(AccountId(1), "spring").await.expect("counters are read");
    assert_eq!(counts.iter().map(|count| count.rows).sum::<i64>(), 3, "receipts are no state");
    fixture.store.fold_counts(Duration::ZERO, 1_000).await.expect("counters are folded");
    assert_eq!(fixture.receipts_of("spring").await, (3, 2));
}

#[apply(on_both)]
async fn batch_of_many_rows_is_written_at_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let mut receipts = Vec::new();
    let at = now();
    for number in 0..40 {
        let dest = format!("dest-{number}");
        fixture.taken(text(&dest), &format!("m_{number}")).await;
        let of = Receipted::Message(format!("m_{number}"));
        receipts.push(receipt(&dest, of, at, number % 2 == 0));
    }
    let received = fixture.receive(&receipts).await;
    assert_eq!(received.len(), 40);
    assert_eq!(received.iter().filter(|row| row.read_at.is_some()).count(), 20);
    assert_eq!(fixture.rows_of("cdls where delivered_at is not null").await, 40);
}

#[apply(on_both)]
async fn early_receipt_is_applied_when_its_message_is_known(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let claimed = fixture.claimed(text("ann")).await;
    let at = now();
    assert!(fixture.receive(&[delivered("m_1", at)]).await.is_empty());
    assert!(fixture.receive(&[delivered("m_1", at)]).await.is_empty(), "repeated");
    assert_eq!(fixture.rows_of("early_receipt").await, 1);
    assert!(fixture.receive_early().await.is_empty());
    assert!(fixture.change(claimed, taken("m_1")).await);
    let received = fixture.receive_early().await;
    assert_eq!(received, [Received { id: claimed, delivered_at: Some(at), read_at: None }]);
    assert_eq!(fixture.rows_of("early_receipt").await, 0);
    assert!(fixture.receive_early().await.is_empty());
}

#[apply(on_both)]
async fn early_receipt_waits_for_an_unknown_row(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ann"), unknown()).await;
    let at = now();
    assert!(fixture.receive(&[read("m_1", at)]).await.is_empty());
    assert!(fixture.receive_early().await.is_empty());
    assert_eq!(fixture.rows_of("early_receipt").await, 1);
    let ok = Resolution::Ok { message_id: Some("m_1".into()) };
    let settled = fixture.store.resolve(IdRange::ALL, &Selection::default(), &ok, 10).await;
    assert_eq!(settled.expect("rows can be settled"), [id]);
    let received = fixture.receive_early().await;
    assert_eq!(received, [Received { id, delivered_at: Some(at), read_at: Some(at) }]);
    assert_eq!(fixture.rows_of("early_receipt").await, 0);
}

#[apply(on_both)]
async fn receipt_for_nothing_of_ours_is_not_kept(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.taken(text("ann"), "m_1").await;
    let later = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    fixture.log_one(Submission { send_at: Some(later), ..text("ann") }).await;
    fixture.claimed(text("bob")).await;
    let at = now();
    fixture.receive(&[delivered("of another app", at), up_to(at, at, true)]).await;
    let before = at - Duration::from_secs(86_400);
    fixture.receive(&[receipt("bob", Receipted::Message("m_2".into()), before, false)]).await;
    assert_eq!(fixture.rows_of("early_receipt").await, 0);
}

#[apply(on_both)]
async fn early_receipt_that_is_too_old_is_forgotten(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.called(text("ann"), unknown()).await;
    fixture.receive(&[delivered("m_1", now())]).await;
    fixture.execute("update early_receipt set kept_at = '2020-01-01T00:00:00.000Z'").await;
    assert!(fixture.receive_early().await.is_empty());
    assert_eq!(fixture.rows_of("early_receipt").await, 0);
}

#[apply(on_both)]
async fn inbound_event_moves_the_window_only_forwards(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let at = time::macros::datetime!(2026-01-02 12:00 UTC);
    fixture.hear_from("ann", at).await;
    fixture.hear_from("ann", at - HOUR).await;
    fixture.hear_from("ann", at).await;
    let noted = "dest = 'ann' and last_inbound_at = '2026-01-02T12:00:00.000Z' and window_until = '2026-01-03T12:00:00.000Z'";
    assert_eq!(fixture.recipients_that(noted).await, 1);
    let inbound = |minutes: i64| InboundEvent {
        line: LineId(1),
        dest: "ann".into(),
        at: at + time::Duration::minutes(minutes),
    };
    let events = [inbound(2), inbound(3), inbound(1), InboundEvent { line: LineId(2), ..inbound(1) }];
    fixture.store.note_inbound(&events).await.expect("recipients can be noted");
    assert_eq!(fixture.recipients_that("v8l_id = 1 and window_until = '2026-01-03T12:03:00.000Z'").await, 1);
    assert_eq!(fixture.recipients_that("v8l_id = 2 and window_until = '2026-01-03T12:01:00.000Z'").await, 1);
    assert_eq!(fixture.rows_of("cd_recipient").await, 2);
}

#[apply(on_both)]
async fn newer_inbound_event_makes_a_recipient_reachable(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let at = time::macros::datetime!(2026-01-02 12:00 UTC);
    fixture
        .execute("insert into cd_recipient (v8l_id, dest, unreachable_since) values (1, 'ann', '2026-01-02T12:30:00.000Z')")
        .await;
    fixture.hear_from("ann", at).await;
    assert_eq!(
        fixture.recipients_that("unreachable_since is not null and window_until is not null").await,
        1
    );
    fixture.hear_from("ann", at + HOUR).await;
    assert_eq!(fixture.recipients_that("unreachable_since is null").await, 1);
}

#[apply(on_both)]
async fn block_pauses_until_it_is_lifted(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let at = now();
    assert_eq!(fixture.enforce(Some("spam"), at).await, [LineId(1)]);
    let (is_paused, reason) = fixture.pause_of(LineId(1)).await;
    assert!(is_paused && reason.is_some_and(|reason| reason.starts_with(BLOCKED_PAUSE)));
    assert_eq!(fixture.enforce(None, at + MINUTE).await, [LineId(1)]);
    assert_eq!(fixture.pause_of(LineId(1)).await, (false, None));
    assert!(fixture.enforce(Some("spam"), at).await.is_empty(), "late, or repeated");
    assert!(fixture.enforce(None, at + MINUTE).await.is_empty());
    assert_eq!(fixture.pause_of(LineId(1)).await, (false, None));
    assert_eq!(fixture.pause_of(LineId(2)).await, (false, None));
}

#[apply(on_both)]
async fn pause_of_an_operator_is_left_alone(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let pause = async |reason: &str| {
        let paused = fixture.store.pause_line(LineId(1), Some(HOUR), reason).await;
        assert!(paused.expect("lines can be paused"));
    };
    let at = now();
    pause("stock-taking").await;
    assert!(fixture.enforce(Some("spam"), at).await.is_empty());
    assert!(fixture.enforce(None, at + MINUTE).await.is_empty());
    assert_eq!(fixture.pause_of(LineId(1)).await, (true, Some("stock-taking".into())));
    // A pause that Graph demanded gives way, and is not what the end of a block ends.
    pause("Graph: slowed down").await;
    assert!(fixture.enforce(None, at + 2 * MINUTE).await.is_empty());
    assert_eq!(fixture.enforce(Some("spam"), at + 3 * MINUTE).await, [LineId(1)]);
}

#[apply(on_both)]
async fn account_of_an_event_may_have_several_lines(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_fb_page_id, v8l_ig_account_id) values
                 (3, 2, 'messenger', ' 11 ', null), (4, 1, 'instagram', '11', '77'), (5, 1, 'messenger', null, '77')",
        )
        .await;
    let pages = [(Class::MESSENGER, "11".to_owned()), (Class::INSTAGRAM, "77".to_owned())];
    let found = fixture.store.event_lines(&pages).await.expect("lines are read");
    let line = |line, account, class, page: &str| LineOfPage {
        line: LineId(line),
        account: AccountId(account),
        class,
        page: page.into(),
        app: None,
    };
    assert_eq!(
        found,
        [
            line(1, 1, Class::MESSENGER, "11"),
            line(3, 2, Class::MESSENGER, "11"),
            line(4, 1, Class::INSTAGRAM, "77"),
        ]
    );
    assert!(fixture.store.event_lines(&[]).await.expect("lines are read").is_empty());
}

#[apply(on_both)]
async fn row_that_waits_is_not_touched(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ann")).await;
    let at = now();
    assert!(fixture.receive(&[up_to(at + HOUR, at, true)]).await.is_empty());
    assert_eq!(fixture.receipt_times(id).await, (None, None));
    assert!(fixture.change(id, sent()).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn receipt_finds_rows_of_an_earlier_range() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let id = fixture.taken(text("ann"), "m_1").await;
    fixture.execute("select setval('cdls_id_seq', 20000001)").await;
    fixture.execute("select cdls_ensure_partitions()").await;
    let young = fixture.taken(text("ann"), "m_2").await;
    assert!(young.0 > 20_000_000);
    fixture.execute("update cdls set sent_at = done_at").await;
    let at = now();
    let received = fixture.receive(&[delivered("m_1", at), up_to(at + HOUR, at, true)]).await;
    let rows: Vec<RowId> = received.iter().map(|row| row.id).collect();
    assert_eq!(rows, [id, young]);
}
