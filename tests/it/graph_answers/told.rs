//! Waiting callers receive the reason: Graph's words in the answer, and at once when the line waits for somebody.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use reqwest::StatusCode;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;
/// How long a request asks to wait, and far less.
const WAIT: u64 = 30;
const AT_ONCE: Duration = Duration::from_secs(15);

async fn wait_for(pipeline: &Pipeline, dest: &str) -> (StatusCode, Value) {
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": dest, "mdata": "hi", "wait": WAIT});
    let asked = Instant::now();
    let answer = pipeline.post(Class::MESSENGER, parameters).await;
    assert!(asked.elapsed() < AT_ONCE, "{:?}: {}", asked.elapsed(), answer.1);
    answer
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn graphs_refusal_stands_in_the_answer(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let (status, answer) = wait_for(&pipeline, "code551-ann").await;
    let said = &answer["return"];
    assert_eq!((status, &said["status"]), (StatusCode::BAD_REQUEST, &json!("ERROR")));
    assert_eq!((&said["error_code"], &said["error_subcode"]), (&json!(551), &json!(1545041)));
    assert_eq!(said["error_kind"], "refused");
    assert!(said["error_message"].as_str().is_some_and(|text| text.contains("#551")), "{answer}");
    assert!(said["detail"].as_str().is_some_and(|text| text.ends_with('.')), "{answer}");
    pipeline.stop().await;
}

#[rstest]
#[case::suspect_message("code368-ann", "368")]
#[case::refused_line("code190-ann", "190")]
#[tokio::test(flavor = "multi_thread")]
async fn refused_line_is_told_at_once(#[case] dest: &str, #[case] code: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let (status, answer) = wait_for(&pipeline, dest).await;
    let said = &answer["return"];
    assert_eq!((status, &said["status"], &said["status_code"]), (StatusCode::OK, &json!("OK"), &json!(0)));
    assert!(said["detail"].as_str().is_some_and(|text| text.contains(code)), "{answer}");
    assert!(said["error_code"].is_i64(), "{answer}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_pause_is_told_at_once() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let paused = pipeline.store.pause_line(pipeline.messenger, None, "stock-taking").await;
    assert!(paused.expect("the store answers"));
    let (status, answer) = wait_for(&pipeline, "ann").await;
    assert_eq!((status, &answer["return"]["status_code"]), (StatusCode::OK, &json!(0)));
    let detail = answer["return"]["detail"].as_str().expect("a sentence");
    assert!(detail.contains("stock-taking"), "{detail}");
    assert!(answer["return"]["error_code"].is_null(), "{answer}");
    pipeline.stop().await;
}

/// A scheduled message waits while its line sends, until something stops the line.
#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn line_that_stops_later_is_told_at_once(
    #[case] backend: Backend,
    #[values(
        ("v8l_paused_until = '9999-12-31T23:59:59.999Z', v8l_pause_reason = 'stock-taking'", "stock-taking"),
        ("v8l_active = false", "switched off"),
        ("v8l_wa_api_key = ''", "no page access token")
    )]
    stop: (&str, &str),
) {
    let (change, words) = stop;
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger;
    let in_an_hour = time::OffsetDateTime::now_utc().unix_timestamp() + 3_600;
    let parameters =
        json!({"app_id": line.0, "dest": "ann", "mdata": "hi", "send_at": in_an_hour, "wait": WAIT});
    let asked = Instant::now();
    let waiting = pipeline.post(Class::MESSENGER, parameters);
    let stopping = async {
        eventually("the waiting request's row", || async {
            if pipeline.rows().await.is_empty() { Err("no row".to_owned()) } else { Ok(()) }
        })
        .await;
        pipeline.execute(&format!("update cd_v8_line set {change} where v8l_id = {line}")).await;
    };
    let ((status, answer), ()) = tokio::join!(waiting, stopping);
    assert!(asked.elapsed() < AT_ONCE, "{:?}: {answer}", asked.elapsed());
    assert_eq!((status, &answer["return"]["status_code"]), (StatusCode::OK, &json!(0)));
    let detail = answer["return"]["detail"].as_str().expect("a sentence");
    assert!(detail.contains(words), "{detail}");
    let id = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    assert_eq!(pipeline.row(id).await.status, Status::Pending);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_is_told_at_once(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger;
    assert!(pipeline.store.pause_line(line, None, "stock-taking").await.expect("lines can be paused"));
    let mut ids = Vec::new();
    for wait in [0, WAIT] {
        let parameters = json!({"app_id": line.0, "dest": "ann", "mdata": "hi", "wait": wait});
        let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
        let request = pipeline.client.post(url).bearer_auth(pipeline.tsid.expose_secret()).json(&parameters);
        let asked = Instant::now();
        let answer = request.header("Idempotency-Key", "order-7").send().await.expect("ingest answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.expect("answers are JSON");
        assert!(asked.elapsed() < AT_ONCE, "{:?}: {answer}", asked.elapsed());
        let said = &answer["return"];
        let is_told = said["detail"].as_str().is_some_and(|detail| detail.contains("stock-taking"));
        assert_eq!(is_told, wait > 0, "{answer}");
        ids.push(said["cdls_id"].clone());
    }
    assert_eq!(ids[0], ids[1], "one message");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_line_is_not_told_as_paused() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let line = pipeline.messenger;
    assert!(pipeline.store.pause_line(line, None, "stock-taking").await.expect("lines can be paused"));
    let (_, told) = wait_for(&pipeline, "ann").await;
    assert!(told["return"]["detail"].is_string(), "{told}");
    pipeline.resume(line).await;
    let (status, answer) = wait_for(&pipeline, "bob").await;
    let said = &answer["return"];
    assert_eq!((status, &said["status_code"], &said["detail"]), (StatusCode::OK, &json!(200), &Value::Null));
    pipeline.stop().await;
}

/// A producer is told once, and only the outcome.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_hears_nothing_of_a_stopped_line() {
    let pipeline = Pipeline::start(SERVERS).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let properties = producer
        .properties()
        .with_reply_to(inbox.queue.as_str().into())
        .with_correlation_id("order-7".into());
    producer.submit_text(pipeline.messenger, "code190x1-ann", "hi", properties).await;
    pipeline.until_paused(pipeline.messenger, "190").await;
    // A request that waits for the same line is told: by then a producer would be, too.
    let (_, told) = wait_for(&pipeline, "bob").await;
    assert!(told["return"]["detail"].is_string(), "{told}");
    assert!(inbox.is_empty().await);
    pipeline.resume(pipeline.messenger).await;
    let (correlation_id, answer) = inbox.next_json().await;
    let said = &answer["return"];
    assert_eq!((correlation_id.as_str(), &said["status_code"]), ("order-7", &json!(200)), "{answer}");
    assert!(inbox.is_empty().await, "once");
    pipeline.stop().await;
}
