//! Waiting callers receive the reason: Graph's words in the answer, and at once when the line waits for somebody.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline};

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
