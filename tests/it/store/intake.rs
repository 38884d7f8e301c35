//! Messages are logged together with the work that announces them.

use std::time::Duration;

use meta_dispatch::channel::{Class, Medium, MessageKind};
use meta_dispatch::domain::{AccountId, Lane, LineId, RowId, Status, Submission};
use meta_dispatch::store::{Flow, Inserted, NewMessage, StoreError, WORK_ROWS, Work};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::insert::Insert;
use crate::support::store::{Backend, Fixture, HOUR, bulk, text};

impl Fixture {
    async fn work_of(&self, submissions: &[Submission]) -> Vec<Work> {
        let messages: Vec<NewMessage> = submissions.iter().cloned().map(NewMessage::from).collect();
        self.store.accept(&messages).await.expect("messages can be logged").work
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
    assert!(fixture.log_one(text("later")).await > ids[499]);
    assert!(fixture.store.insert(&[]).await.expect("nothing is no error").is_empty());
}

#[apply(on_both)]
async fn row_is_logged_as_given(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let given = Submission {
        mcaption: Some("caption".into()),
        kind: MessageKind::Image,
        waiter: Some("q/1".into()),
        ..bulk("ann", "spring")
    };
    let id = fixture.log_one(given).await;
    let row = fixture.row(id).await;
    assert_eq!((row.cdcs_id, row.v8l_id, row.class), (AccountId(1), LineId(1), Class::MESSENGER));
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
    assert!((row.expires_at - row.created_at - HOUR).abs() < Duration::from_millis(5));
    let ready = fixture.ready().await.remove(0);
    assert_eq!((ready.fence, ready.attempts, ready.tries), (0, 0, 0));
    assert_eq!((ready.mdata.as_str(), ready.waiter.as_deref()), ("Olá 😀 'quoted' \"\\", Some("q/1")));
    assert_eq!((ready.account, ready.line, ready.lane), (AccountId(1), LineId(1), Lane::Bulk));
    assert!(ready.valid_for > Duration::from_secs(3_500) && ready.valid_for <= HOUR, "{}", ready.valid_for);
}

#[apply(on_both)]
async fn commit_has_work_by_flow_in_order_of_id(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let image = Submission { kind: MessageKind::Image, ..text("c") };
    let other_line = Submission { line: LineId(2), ..text("d") };
    let given = [text("a"), bulk("b", "spring"), image, other_line, text("e"), bulk("f", "")];
    let messages: Vec<NewMessage> = given.into_iter().map(NewMessage::from).collect();
    let accepted = fixture.store.accept(&messages).await.expect("messages can be logged");
    let ids: Vec<RowId> = accepted
        .inserted
        .iter()
        .map(|inserted| match inserted {
            Inserted::New(id) => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    let flow = |line, lane, medium, campaign: &str| Flow {
        line: LineId(line),
        lane,
        medium,
        campaign: campaign.into(),
    };
    let mut work: Vec<(Flow, Vec<RowId>)> =
        accepted.work.iter().map(|work| (work.flow.clone(), work.ids.clone())).collect();
    work.sort_by_key(|(_, ids)| ids[0]);
    assert_eq!(work.len(), 5);
    assert_eq!(work[0], (flow(1, Lane::High, Medium::Text, ""), vec![ids[0], ids[4]]));
    assert_eq!(work[1], (flow(1, Lane::Bulk, Medium::Text, "spring"), vec![ids[1]]));
    assert_eq!(work[2], (flow(1, Lane::High, Medium::Media, ""), vec![ids[2]]));
    assert_eq!(work[3], (flow(2, Lane::High, Medium::Text, ""), vec![ids[3]]));
    assert_eq!(work[4], (flow(1, Lane::Bulk, Medium::Text, ""), vec![ids[5]]));
}

#[apply(on_both)]
async fn large_commit_has_work_of_bounded_size(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..2 * WORK_ROWS + 5).map(|n| text(&format!("d{n}"))).collect();
    let work = fixture.work_of(&rows).await;
    assert_eq!(work.iter().map(|work| work.ids.len()).collect::<Vec<_>>(), [WORK_ROWS, WORK_ROWS, 5]);
    assert!(work.is_sorted_by_key(|work| work.id));
    let ids: Vec<RowId> = work.into_iter().flat_map(|work| work.ids).collect();
    assert!(ids.is_sorted() && ids.len() == rows.len());
}

#[apply(on_both)]
async fn scheduled_message_is_no_work_until_its_time(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let later = OffsetDateTime::now_utc() + HOUR;
    let past = OffsetDateTime::now_utc() - HOUR;
    let given = [
        Submission { send_at: Some(later), ..text("later") },
        Submission { send_at: Some(past), ..text("now") },
    ];
    let work = fixture.work_of(&given).await;
    assert_eq!(work.len(), 1);
    assert_eq!(fixture.ready_ids().await, work[0].ids);
    assert_eq!((fixture.rows_of("work").await, fixture.rows_of("cdls_open").await), (1, 1));
    let scheduled =
        fixture.store.log_newest(&Default::default(), 2).await.expect("the log answers").remove(1);
    assert_eq!(scheduled.dest, "later");
    assert!((scheduled.next_at.expect("a time") - later).abs() < Duration::from_millis(5));
}

#[apply(on_both)]
async fn guarded_messages_have_work_only_if_new(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let within =
        |dest: &str| NewMessage { httpdup: Some(Duration::from_secs(60)), ..NewMessage::from(text(dest)) };
    let accepted =
        fixture.store.accept(&[within("ann"), within("ann"), within("bob")]).await.expect("logged");
    let [Inserted::New(ann), Inserted::Duplicate, Inserted::New(bob)] = accepted.inserted[..] else {
        panic!("{accepted:?}")
    };
    assert_eq!(accepted.work.iter().flat_map(|work| work.ids.clone()).collect::<Vec<_>>(), [ann, bob]);
    let accepted = fixture.store.accept(&[within("ann")]).await.expect("it is refused");
    assert_eq!((accepted.inserted, accepted.work), (vec![Inserted::Duplicate], vec![]));
    assert_eq!(fixture.ready_ids().await, [ann, bob]);
}

#[apply(on_both)]
async fn backlog_is_counted_up_to_a_bound(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("a"), text("b"), bulk("c", "spring")]).await;
    let backlog = async |at_most| fixture.store.backlog(at_most).await.expect("rows can be counted");
    assert_eq!(backlog(100).await, 3);
    assert_eq!(backlog(2).await, 2);
    fixture.log_one(Submission { send_at: Some(OffsetDateTime::now_utc() + HOUR), ..text("d") }).await;
    assert!((3..=4).contains(&backlog(100).await), "a scheduled row may be counted");
}

#[apply(on_both)]
async fn backlog_of_an_account_is_that_of_its_lines(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("a"), text("b"), bulk("c", "spring")]).await;
    fixture.log_one(Submission { line: LineId(2), ..text("d") }).await;
    let backlog = async |account, at_most| {
        let counted = fixture.store.account_backlog(AccountId(account), at_most).await;
        counted.expect("rows can be counted")
    };
    assert_eq!((backlog(1, 100).await, backlog(1, 3).await, backlog(1, 0).await), (4, 3, 0));
    assert_eq!(backlog(2, 100).await, 0);
}

/// A value the database refuses takes its whole batch down, and is told from a database that is away.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_names_a_refused_value() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let refused = fixture.store.insert(&[text("ann"), text("nul\0")]).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    assert!(fixture.ready().await.is_empty());
}

/// The sequence stands behind the log: after a restore, for example.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn taken_id_in_postgres_refuses_no_message() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let id = fixture.log_one(text("ann")).await;
    fixture.execute(&format!("select setval('cdls_id_seq', {}, false)", id.0)).await;
    let refused = fixture.store.insert(&[text("bob")]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
