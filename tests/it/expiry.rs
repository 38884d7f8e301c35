//! `valid_for`: a row that was not sent in time becomes ERROR `expired`, whatever kept it, and those who wait are told.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{
    CampaignState, ErrorKind, Lane, LineId, ReplyTo, RowId, Status, Submission, Waiter,
};
use meta_dispatch::store::LogRow;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline};
use crate::support::producer::Producer;

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// How long after its end an expired row may still look as if it waited.
const SHOWN_WITHIN: time::Duration = time::Duration::seconds(10);

/// The answer to those who wait for a row that expired without an answer of Graph.
fn expired(id: &Value) -> Value {
    json!({"return": {
        "status": "ERROR", "status_code": 0, "messageId": "", "cdls_id": id,
        "detail": ErrorKind::Expired.sentence(), "error_kind": "expired",
    }})
}

impl Pipeline {
    fn short_lived(&self, line: LineId) -> Submission {
        Submission {
            account: self.account,
            line,
            class: Class::MESSENGER,
            dest: "ann".into(),
            kind: MessageKind::Text,
            mdata: "hi".into(),
            mcaption: None,
            msg_id: None,
            cp_id: None,
            lane: Lane::High,
            send_at: None,
            valid_for: Duration::from_secs(1),
            waiter: None,
        }
    }

    /// Logs a row as if its line, or what else it needs, had been in order when it was accepted.
    async fn log(&self, submission: Submission) -> RowId {
        self.store.insert(&[submission]).await.expect("rows can be logged")[0]
    }

    /// Waits until the row shows its end, and checks that it did so soon and was never sent.
    async fn expires_soon(&self, id: RowId) -> LogRow {
        let row = self.outcome(id).await;
        assert_eq!((row.status, row.error_kind, row.attempts), (Status::Error, Some(ErrorKind::Expired), 0));
        let done_at = row.done_at.expect("it has ended");
        assert!(done_at >= row.expires_at && done_at < row.expires_at + SHOWN_WITHIN, "{row:?}");
        row
    }
}

/// What keeps a row from being sent.
#[derive(Debug, Clone, Copy)]
enum Kept {
    PausedLine,
    PausedLineAndSchedule,
    InactiveLine,
    LineWithoutToken,
    DisabledAccount,
    PausedCampaign,
}

impl Kept {
    /// Logs a row that is kept so.
    async fn row(self, pipeline: &Pipeline) -> RowId {
        let store = &pipeline.store;
        let token = if matches!(self, Kept::LineWithoutToken) { "" } else { "EAAkept" };
        let mut submission = pipeline.short_lived(pipeline.add_line(Class::MESSENGER, token).await);
        match self {
            Kept::PausedLine => pause(pipeline, submission.line).await,
            Kept::PausedLineAndSchedule => {
                pause(pipeline, submission.line).await;
                submission.send_at = Some(OffsetDateTime::now_utc() + Duration::from_secs(1));
            }
            Kept::InactiveLine => {
                pipeline
                    .execute("update cd_v8_line set v8l_active = (1 = 0) where v8l_wa_api_key = 'EAAkept'")
                    .await;
            }
            Kept::LineWithoutToken => {}
            Kept::DisabledAccount => pipeline.execute("update account set cdcs_active = (1 = 0)").await,
            Kept::PausedCampaign => {
                let state = store.set_campaign(pipeline.account, "spring", CampaignState::Paused).await;
                assert_eq!(state.expect("campaigns can be paused"), CampaignState::Paused);
                submission.cp_id = Some("spring".into());
                submission.lane = Lane::Bulk;
            }
        }
        pipeline.log(submission).await
    }
}

async fn pause(pipeline: &Pipeline, line: LineId) {
    assert!(pipeline.store.pause_line(line, None, "for the test").await.expect("lines can be paused"));
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn kept_row_expires_soon_after_its_time(
    #[case] backend: Backend,
    #[values(
        Kept::PausedLine,
        Kept::PausedLineAndSchedule,
        Kept::InactiveLine,
        Kept::LineWithoutToken,
        Kept::DisabledAccount,
        Kept::PausedCampaign
    )]
    kept: Kept,
) {
    let pipeline = Pipeline::start(backend).await;
    let id = kept.row(&pipeline).await;
    pipeline.expires_soon(id).await;
    assert_eq!(pipeline.simulator.calls().len(), 0);
    let rate = pipeline.store.campaign_rate(pipeline.account, "spring", Duration::from_secs(60)).await;
    assert_eq!(rate.expect("the log answers"), 0.0, "nothing was sent");
    pipeline.stop().await;
}

/// The long backlog is of one line; the rows behind it, and on another line, show their end without waiting for its walk.
#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_and_beside_a_backlog_expire_too(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pause(&pipeline, pipeline.messenger).await;
    let valid = Submission {
        valid_for: Duration::from_secs(3_600),
        dest: "bob".into(),
        ..pipeline.short_lived(pipeline.messenger)
    };
    for _ in 0..20 {
        pipeline.store.insert(&vec![valid.clone(); 2_000]).await.expect("rows can be logged");
    }
    let behind = pipeline.log(pipeline.short_lived(pipeline.messenger)).await;
    let other = pipeline.add_line(Class::MESSENGER, "").await;
    let beside = pipeline.log(pipeline.short_lived(other)).await;
    pipeline.expires_soon(beside).await;
    pipeline.until(behind, "its end", |row| row.error_kind == Some(ErrorKind::Expired)).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn row_that_expired_without_a_worker_is_not_sent() {
    let mut pipeline = Pipeline::start(SERVERS).await;
    pipeline.stop_last().await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "valid_for": 1});
    let (_, answer) = pipeline.post(Class::MESSENGER, parameters.clone()).await;
    let id = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let mut scheduled = parameters;
    scheduled["send_at"] = (OffsetDateTime::now_utc().unix_timestamp() + 1).into();
    let (_, answer) = pipeline.post(Class::MESSENGER, scheduled).await;
    let later = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let has_passed = |row: &LogRow| OffsetDateTime::now_utc() > row.expires_at;
    pipeline.until(later, "the end of its validity", has_passed).await;
    assert_eq!(pipeline.row(id).await.status, Status::Pending, "nobody looked yet");

    pipeline.start_worker().await;
    for id in [id, later] {
        let row = pipeline.outcome(id).await;
        assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    }
    pipeline.expect_ok(pipeline.submit("ann", "in time").await).await;
    assert_eq!(pipeline.simulator.calls().len(), 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn waiting_request_is_answered_at_expiry(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
    // A pause that ends by itself: of one that somebody has to end, the request would be told at once.
    let hour = Some(Duration::from_secs(3_600));
    assert!(pipeline.store.pause_line(line, hour, "for the test").await.expect("lines can be paused"));
    let asked = Instant::now();
    let parameters = json!({"app_id": line.0, "dest": "ann", "mdata": "hi", "valid_for": 1, "wait": 30});
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    let id = answer["return"]["cdls_id"].clone();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer, expired(&id));
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn paused_campaign_expiry_is_answered_and_published() {
    let pipeline = Pipeline::start_with(SERVERS, &[("events.publish", "outcomes")]).await;
    let producer = Producer::connect(&pipeline).await;
    let (mut inbox, mut events) = (producer.reply_queue().await, producer.events("#").await);
    pipeline
        .store
        .set_campaign(pipeline.account, "spring", CampaignState::Paused)
        .await
        .expect("campaigns can be paused");
    let reply_to = ReplyTo { queue: inbox.queue.clone(), correlation_id: Some("late".into()), account: None };
    let row = Submission {
        cp_id: Some("spring".into()),
        waiter: Some(Waiter::Producer(reply_to).column()),
        ..pipeline.short_lived(pipeline.messenger)
    };
    let id = pipeline.log(row).await;
    let (correlation_id, answer) = inbox.next_json().await;
    assert_eq!(correlation_id, "late");
    assert_eq!(answer, expired(&json!(id)));
    let (key, event) = events.next_json().await;
    assert_eq!(key, format!("messenger.error.{}", pipeline.messenger));
    assert_eq!((&event["cdls_id"], &event["error_kind"]), (&json!(id), &json!("expired")));
    assert!(inbox.is_empty().await && events.is_empty().await, "told once");
    pipeline.stop().await;
}
