//! `GET /api/v2/lines` and `/{app_id}`, and what a campaign says of its lines.

use meta_dispatch::channel::Class;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{EMBEDDED, SERVERS, later};
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline};

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn lines_say_whether_they_send_and_who_has_to_act(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let other = pipeline.store.add_account("Other").await.expect("accounts can be added");
    let theirs = pipeline.add_line_of(other).await;
    let without_token = pipeline.add_line(Class::MESSENGER, "").await;
    pipeline
        .execute(&format!("update cd_v8_line set v8l_active = false where v8l_id = {}", pipeline.instagram))
        .await;
    pipeline.hold().await;
    pipeline.text("ann", json!({})).await;
    pipeline.text("bob", json!({"send_at": later()})).await;

    let listed = pipeline.read("lines").await;
    assert!(!listed.to_string().contains(PAGE_TOKEN), "no token is shown");
    let lines = listed["lines"].as_array().expect("a list");
    let state = |line: i64| {
        let line = lines.iter().find(|shown| shown["app_id"] == line).expect("the line is listed");
        (line["state"].as_str().expect("a word"), line["action"].is_string())
    };
    assert_eq!(lines.len(), 3, "{listed}");
    assert_eq!(state(pipeline.messenger.0), ("paused", true));
    assert_eq!(state(pipeline.instagram.0), ("inactive", true));
    assert_eq!(state(without_token.0), ("no_token", true));

    let held = pipeline.read(&format!("lines/{}", pipeline.messenger)).await;
    assert_eq!(
        (&held["reason"], &held["until"], &held["waiting"]),
        (&json!("held"), &json!(null), &json!(2))
    );
    assert!(held["oldest_waiting_at"].is_string(), "{held}");
    assert_eq!(
        (&held["rate_text"], &held["rate_media"], &held["class"]),
        (&json!(40), &json!(10), &json!("messenger"))
    );
    let missing = pipeline.api(Method::GET, &format!("lines/{theirs}")).await;
    assert_eq!((missing.0, &missing.1["return"]["status"]), (404, &json!("Not found")));
    pipeline.store.resume_line(pipeline.messenger).await.expect("lines can be resumed");
    let resumed = pipeline.read(&format!("lines/{}", pipeline.messenger)).await;
    assert_eq!((&resumed["state"], &resumed["action"]), (&json!("sending"), &Value::Null));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn campaign_has_no_estimate_while_somebody_has_to_act(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.text("ann", json!({"cp_id": "spring", "send_at": later()})).await;
    assert!(pipeline.read("campaigns/spring").await["eta"].is_string());
    let pause = "update cd_v8_line set v8l_paused_until = '2097-01-01T00:00:00.000Z', v8l_pause_reason = ";
    pipeline.execute(&format!("{pause} 'Graph: slowed down: 613'")).await;
    assert!(
        pipeline.read("campaigns/spring").await["lines"][0]["until"].is_null(),
        "seventy years are no time"
    );
    pipeline.execute("update cd_v8_line set v8l_paused_until = null").await;
    assert!(pipeline.read("campaigns/spring").await["eta"].is_string());
    let soon = (time::OffsetDateTime::now_utc() + time::Duration::HOUR).unix_timestamp();
    let soon =
        meta_dispatch::text::timestamp(time::OffsetDateTime::from_unix_timestamp(soon).expect("a time"));
    let refused = format!(
        "update cd_v8_line set v8l_paused_until = '{soon}', v8l_pause_reason = 'Graph: cannot send: 190'"
    );
    pipeline.execute(&refused).await;
    let campaign = pipeline.read("campaigns/spring").await;
    let line = &campaign["lines"][0];
    assert_eq!((&campaign["eta"], &line["state"]), (&Value::Null, &json!("paused")));
    assert!(line["action"].is_string() && line["until"].is_string(), "{campaign}");
    pipeline.stop().await;
}
