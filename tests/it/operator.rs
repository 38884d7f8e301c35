//! What operators do while the program runs: messages that are settled or sent again go out, and metrics count.

use std::collections::BTreeMap;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::store::{IdRange, Operation, Resend, Resolution, Selection};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn message_resolved_as_retry_is_sent(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit("cutx1-ann", "was it taken?").await;
    assert_eq!(pipeline.outcome(id).await.status, Status::Unknown);
    let resolved = pipeline
        .store
        .resolve(IdRange::one(id), &Selection::default(), &Resolution::Retry, 10)
        .await
        .expect("rows can be settled");
    assert_eq!(resolved, [id]);
    let row = pipeline.until(id, "the message to be sent", |row| row.status == Status::Ok).await;
    assert_eq!((row.attempts, row.ambiguous_attempts), (2, 1));
    assert_eq!(pipeline.simulator.calls().len(), 2);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn message_sent_again_is_a_new_row(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit("code10x1-ann", "once more").await;
    assert_eq!(pipeline.outcome(id).await.status, Status::Error);
    let resend =
        Resend { status: Status::Error, valid_for: pipeline.settings.dispatch.valid_for, cp_id: None };
    let store = &pipeline.store;
    let found = store
        .matching(IdRange::ALL, &Selection::default(), Operation::Resend(&resend))
        .await
        .expect("rows can be counted");
    assert_eq!((found.rows, found.last), (1, id));
    let resent =
        store.resend(IdRange::ALL, &Selection::default(), &resend, 10).await.expect("rows can be copied");
    pipeline.expect_ok(resent[0].copy).await;
    assert_eq!(pipeline.row(id).await.status, Status::Error, "what has ended stays as it is");
    let texts: Vec<_> = pipeline.simulator.calls().iter().map(|call| call.body.clone()).collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0], texts[1]);
    pipeline.stop().await;
}

/// Samples by name and labels. Checks on the way that the text is well formed.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            let name = series.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part).filter(|family| types.contains_key(*family)))
                .unwrap_or(name);
            assert!(types.contains_key(family), "{name} has no type");
            // One gauge has a series for each of a hundred lines.
            let is_by_line = name == "meta_dispatch_line_day_budget_messages";
            assert!((is_by_line || !series.contains("line=")) && !series.contains("v8l_id"), "{series}");
            samples.insert(series.to_owned(), value.parse().expect("a number"));
        }
    }
    samples
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_the_steps_of_messages(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let read = async || {
        let answer =
            reqwest::get(format!("http://{}/metrics", pipeline.admin()[0])).await.expect("it answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let kind = answer.headers()["content-type"].to_str().expect("a text").to_owned();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        samples(&answer.text().await.expect("a text"))
    };
    // Other tests of this process count too, so that nothing is known but what has grown.
    let before = read().await;
    let sent = pipeline.submit("ann", "hello").await;
    let refused = pipeline.submit("code10-bob", "too late").await;
    let cut = pipeline.submit("cut-cleo", "was it taken?").await;
    let retried = pipeline.submit("code1200x1-dan", "again").await;
    for id in [sent, refused, cut, retried] {
        pipeline.outcome(id).await;
    }
    let (status, _) =
        pipeline.post(Class::MESSENGER, json!({ "app_id": pipeline.messenger.0, "dest": "ann" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let grown: [(&str, f64); 12] = [
        ("meta_dispatch_messages_accepted_total{class=\"messenger\"}", 4.0),
        ("meta_dispatch_requests_refused_total{code=\"225\"}", 1.0),
        ("meta_dispatch_ingest_commit_rows_count", 1.0),
        ("meta_dispatch_jobs_announced_total", 1.0),
        ("meta_dispatch_jobs_published_total", 1.0),
        ("meta_dispatch_calls_begun_total", 5.0),
        ("meta_dispatch_calls_ended_total{outcome=\"ok\"}", 2.0),
        ("meta_dispatch_calls_ended_total{outcome=\"unknown\"}", 1.0),
        ("meta_dispatch_call_duration_seconds_count{class=\"messenger\"}", 5.0),
        ("meta_dispatch_ambiguous_attempts_total", 1.0),
        ("meta_dispatch_recorder_batch_entries_count", 1.0),
        ("meta_dispatch_claims_made_total", 5.0),
    ];
    eventually("everything to be counted", || async {
        let now = read().await;
        let missing: Vec<&str> = grown
            .iter()
            .filter(|(series, by)| {
                now.get(*series).copied().unwrap_or(0.0) - before.get(*series).copied().unwrap_or(0.0) < *by
            })
            .map(|(series, _)| *series)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_no_message_and_no_token() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id: RowId = pipeline.submit("dest-of-nobody", "a private text").await;
    pipeline.expect_ok(id).await;
    let text = reqwest::get(format!("http://{}/metrics", pipeline.admin()[0]))
        .await
        .expect("it answers")
        .text()
        .await
        .expect("a text");
    for secret in ["dest-of-nobody", "a private text", crate::support::pipeline::PAGE_TOKEN] {
        assert!(!text.contains(secret));
    }
    pipeline.stop().await;
}
