//! The changes that Meta's events make, seen from outside: signed requests of the webhook, and the log, campaigns, lines and listeners
//! after them (docs/webhooks.md).

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, RowId, Status};
use meta_dispatch::store::LogRow;
use reqwest::StatusCode;
use ring::hmac;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

const APP_SECRET: &str = "app-secret-of-the-receipts";
/// The Page of the pipeline's Messenger line.
const PAGE: &str = "1001";
const INSTAGRAM_ACCOUNT: &str = "2002";

async fn start(backend: Backend, changed: &[(&str, &str)]) -> Pipeline {
    let mut settings = vec![("webhooks.verify_token", "verify-token-1"), ("graph.app_secret", APP_SECRET)];
    settings.extend_from_slice(changed);
    let pipeline = Pipeline::start_with(backend, &settings).await;
    let instagram = pipeline.instagram;
    let account =
        format!("update cd_v8_line set v8l_ig_account_id = '{INSTAGRAM_ACCOUNT}' where v8l_id = {instagram}");
    pipeline.execute(&account).await;
    pipeline
}

fn milliseconds(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

fn now() -> i64 {
    milliseconds(OffsetDateTime::now_utc())
}

impl Pipeline {
    /// Post events of an account as Meta does.
    async fn meta_posts(&self, object: &str, account: &str, messaging: Value) {
        let entry = json!([{"id": account, "time": now(), "messaging": messaging}]);
        let body = json!({"object": object, "entry": entry}).to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, APP_SECRET.as_bytes());
        let signature = hex::encode(hmac::sign(&key, body.as_bytes()));
        let answer = self
            .client
            .post(format!("http://{}/webhooks/meta", self.http))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(body)
            .send()
            .await
            .expect("the door answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn page_posts(&self, messaging: Value) {
        self.meta_posts("page", PAGE, messaging).await;
    }

    /// Submit a message of a campaign, and wait until Graph has taken it.
    async fn sent_in_campaign(&self, class: Class, dest: &str, campaign: &str) -> LogRow {
        let line = if class == Class::MESSENGER { self.messenger } else { self.instagram };
        let parameters = json!({"app_id": line.0, "dest": dest, "mdata": "hi", "cp_id": campaign});
        let (status, answer) = self.post(class, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.expect_ok(RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))).await
    }

    async fn progress_of(&self, campaign: &str) -> Value {
        self.of_account(&format!("campaigns/{campaign}")).await
    }

    async fn of_account(&self, path: &str) -> Value {
        let url = format!("http://{}/api/v2/{path}", self.http);
        let answer = self.client.get(url).bearer_auth(self.tsid.expose_secret()).send().await;
        answer.expect("ingest answers").json().await.expect("answers are JSON")
    }

    async fn line_state(&self, line: LineId) -> (bool, String) {
        let lines = self.store.line_summaries(&[line]).await.expect("lines are read");
        (lines[0].pause_left.is_some(), lines[0].pause_reason.clone().unwrap_or_default())
    }
}

fn from(dest: &str, mut event: Value) -> Value {
    event["sender"] = json!({"id": dest});
    event["recipient"] = json!({"id": PAGE});
    event
}

fn delivery_of(row: &LogRow, at: i64) -> Value {
    from(&row.dest, json!({"timestamp": at, "delivery": {"mids": [row.message_id], "watermark": at}}))
}

fn read_up_to(dest: &str, at: i64) -> Value {
    from(dest, json!({"timestamp": at, "read": {"watermark": at}}))
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn messenger_receipts_are_seen_in_log_and_campaign(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let ann = pipeline.sent_in_campaign(Class::MESSENGER, "ann", "spring").await;
    let bob = pipeline.sent_in_campaign(Class::MESSENGER, "bob", "spring").await;
    let delivered_at = now();
    let events = json!([delivery_of(&ann, delivered_at), {"odd": {}}, 7, delivery_of(&bob, delivered_at)]);
    pipeline.page_posts(events.clone()).await;
    for id in [ann.cdls_id, bob.cdls_id] {
        let row = pipeline.until(id, "a receipt", |row| row.delivered_at.is_some()).await;
        assert_eq!(row.delivered_at.map(milliseconds), Some(delivered_at));
        assert_eq!((row.status, row.read_at), (Status::Ok, None));
    }
    let read_at = now();
    pipeline.page_posts(json!([read_up_to("ann", read_at)])).await;
    let row = pipeline.until(ann.cdls_id, "a reading", |row| row.read_at.is_some()).await;
    assert_eq!(
        (row.read_at.map(milliseconds), row.delivered_at.map(milliseconds)),
        (Some(read_at), Some(delivered_at))
    );
    // Meta repeats what was answered, too.
    pipeline.page_posts(events).await;
    pipeline.page_posts(json!([read_up_to("ann", read_at)])).await;
    pipeline.page_posts(json!([read_up_to("bob", now())])).await;
    pipeline.until(bob.cdls_id, "a reading", |row| row.read_at.is_some()).await;
    eventually("the campaign's counts", || async {
        let progress = pipeline.progress_of("spring").await;
        let counted = (progress["delivered"].as_i64(), progress["read"].as_i64());
        if counted == (Some(2), Some(2)) { Ok(()) } else { Err(progress.to_string()) }
    })
    .await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn instagram_tells_of_one_message_read(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let first = pipeline.sent_in_campaign(Class::INSTAGRAM, "ann", "spring").await;
    let second = pipeline.sent_in_campaign(Class::INSTAGRAM, "ann", "spring").await;
    let at = now();
    let seen = json!([{"sender": {"id": "ann"}, "recipient": {"id": INSTAGRAM_ACCOUNT}, "timestamp": at,
                       "read": {"mid": second.message_id}}]);
    pipeline.meta_posts("instagram", INSTAGRAM_ACCOUNT, seen).await;
    let row = pipeline.until(second.cdls_id, "a reading", |row| row.read_at.is_some()).await;
    assert_eq!((row.read_at.map(milliseconds), row.delivered_at.map(milliseconds)), (Some(at), Some(at)));
    assert_eq!(pipeline.row(first.cdls_id).await.read_at, None);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_page_change_nothing(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let row = pipeline.sent_in_campaign(Class::MESSENGER, "ann", "spring").await;
    pipeline.meta_posts("page", "9999", json!([delivery_of(&row, now())])).await;
    pipeline.meta_posts("instagram", PAGE, json!([delivery_of(&row, now())])).await;
    let other = pipeline.sent_in_campaign(Class::MESSENGER, "bob", "spring").await;
    pipeline.page_posts(json!([delivery_of(&other, now())])).await;
    pipeline.until(other.cdls_id, "a receipt", |row| row.delivered_at.is_some()).await;
    assert_eq!(pipeline.row(row.cdls_id).await.delivered_at, None);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn block_stops_a_line_until_it_is_lifted(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let at = now();
    let enforcement = |at: i64, enforcement: Value| json!([{"recipient": {"id": PAGE}, "timestamp": at, "policy_enforcement": enforcement}]);
    pipeline.page_posts(enforcement(at, json!({"action": "block", "reason": "Spam"}))).await;
    let line = pipeline.messenger;
    let (_, reason) = eventually("the pause", || async {
        let state = pipeline.line_state(line).await;
        if state.0 { Ok(state) } else { Err(state.1) }
    })
    .await;
    assert!(reason.starts_with("Graph: cannot send") && reason.contains("Spam"), "{reason}");
    assert!(!pipeline.line_state(pipeline.instagram).await.0);
    pipeline.page_posts(enforcement(at + 1, json!({"action": "unblock"}))).await;
    eventually("the end of the pause", || async {
        let state = pipeline.line_state(line).await;
        if state.0 { Err(state.1) } else { Ok(()) }
    })
    .await;
    let id = pipeline.submit("ann", "again").await;
    pipeline.expect_ok(id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn receipts_are_published_as_events() {
    let pipeline = start(SERVERS, &[("events.publish", "outcomes")]).await;
    let producer = Producer::connect(&pipeline).await;
    let mut receipts = producer.events("messenger.delivered.*").await;
    let mut readings = producer.events("messenger.read.*").await;
    let row = pipeline.sent_in_campaign(Class::MESSENGER, "ann", "spring").await;
    let at = now();
    pipeline.page_posts(json!([delivery_of(&row, at), read_up_to("ann", at)])).await;
    let (key, event) = receipts.next_json().await;
    assert_eq!(key, format!("messenger.delivered.{}", pipeline.messenger));
    let told_at = event["at"].as_str().expect("a time").to_owned();
    assert_eq!(
        event,
        json!({
            "cdls_id": row.cdls_id, "cdcs_id": pipeline.account, "v8l_id": pipeline.messenger, "class": "messenger",
            "dest": "ann", "msg_id": null, "cp_id": "spring", "status": "DELIVERED", "status_code": 200,
            "message_id": row.message_id, "error_code": null, "error_subcode": null, "error_kind": null, "at": told_at,
        })
    );
    let (key, event) = readings.next_json().await;
    assert_eq!((key, &event["status"]), (format!("messenger.read.{}", pipeline.messenger), &json!("READ")));
    assert_eq!(event["at"], told_at.as_str());
    pipeline.page_posts(json!([delivery_of(&row, at)])).await;
    let other = pipeline.sent_in_campaign(Class::MESSENGER, "bob", "spring").await;
    pipeline.page_posts(json!([delivery_of(&other, now())])).await;
    assert_eq!(receipts.next_json().await.1["dest"], "bob", "a repeated event is told once");
    pipeline.stop().await;
}
