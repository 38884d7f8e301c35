//! `POST /api/v2/messages/{cdls_id}/cancel` and `POST /api/v2/messages/cancel`.

use std::collections::HashSet;
use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::edge::tokens;
use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{EMBEDDED, SERVERS, later};
use crate::support::pipeline::{Backend, Pipeline, eventually};

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn waiting_and_scheduled_messages_end(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let sent = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(sent).await;
    let scheduled = pipeline.text("bob", json!({"send_at": later()})).await;
    pipeline.hold().await;
    let waiting = pipeline.text("cleo", json!({})).await;
    for (id, touched) in [(scheduled, 1), (waiting, 1), (sent, 0), (scheduled, 0)] {
        assert_eq!(pipeline.touched(&format!("messages/{id}/cancel")).await, touched, "{id}");
    }
    let calls = pipeline.simulator.calls().len();
    pipeline.store.resume_line(pipeline.messenger).await.expect("lines can be resumed");
    pipeline.bring_schedules_forward().await;
    // A later message of the same recipient goes out, and what was cancelled does not.
    for dest in ["bob", "cleo"] {
        let later = pipeline.text(dest, json!({})).await;
        pipeline.expect_ok(later).await;
    }
    assert_eq!(pipeline.simulator.calls().len(), calls + 2);
    for (id, status) in [(sent, Status::Ok), (scheduled, Status::Cancelled), (waiting, Status::Cancelled)] {
        assert_eq!(pipeline.row(id).await.status, status);
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn request_that_waits_is_answered(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hello", "wait": 30, "send_at": later()});
    let waiting = pipeline.post(Class::MESSENGER, parameters);
    let cancelling = async {
        let id = eventually("the waiting request's row", || async {
            let listed = pipeline.read("messages?dest=ann").await;
            listed["messages"][0]["cdls_id"].as_i64().ok_or_else(|| listed.to_string())
        })
        .await;
        assert_eq!(pipeline.touched(&format!("messages/{id}/cancel")).await, 1);
    };
    let ((status, answer), ()) = tokio::join!(waiting, cancelling);
    assert_eq!((status.as_u16(), &answer["return"]["status"]), (400, &json!("CANCELLED")), "{answer}");
    assert_eq!(answer["return"]["status_code"], 0);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn filters_cancel_what_matches_and_nothing_else(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let text = async |dest: &str, more: Value| {
        let mut all = json!({"send_at": later()});
        for (name, value) in more.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        pipeline.text(dest, all).await
    };
    let spring = text("ann", json!({"cp_id": "spring", "msg_id": "m-1"})).await;
    let also = text("bob", json!({"cp_id": "spring", "msg_id": "m-2"})).await;
    let other = text("ann", json!({"cp_id": "autumn"})).await;
    let last = text("dan", json!({})).await;
    assert_eq!(pipeline.touched("messages/cancel?cp_id=spring&dest=ann").await, 1);
    assert_eq!(pipeline.touched("messages/cancel?msg_id=m-1,m-2").await, 1);
    assert_eq!(pipeline.touched("messages/cancel?dest=nobody").await, 0);
    assert_eq!(pipeline.row(other).await.status, Status::Pending);
    let app_id = pipeline.messenger;
    assert_eq!(pipeline.touched(&format!("messages/cancel?app_id={app_id}")).await, 2);
    for id in [spring, also, other, last] {
        assert_eq!(pipeline.row(id).await.status, Status::Cancelled);
    }
    let spring = pipeline.read("campaigns/spring").await;
    assert_eq!((&spring["state"], &spring["counts"]["CANCELLED"]), (&json!("finished"), &json!(2)));
    for (query, code) in [("", 229), ("?cp_id=", 229), ("?colour=red", 229), ("?app_id=x", 229)] {
        let (status, answer) = pipeline.api(Method::POST, &format!("messages/cancel{query}")).await;
        assert_eq!((status, &answer["return"]["status_code"]), (400, &json!(code)), "{query}");
        assert!(answer["return"]["detail"].is_string(), "{answer}");
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn batch_is_cancelled_by_its_name(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let mut csv = String::from("dest,mdata\n");
    (0..700).for_each(|n| csv.push_str(&format!("d{n},hello\n")));
    let query = format!("app_id={}&batch_id=b-1&send_at={}&cp_id=c", pipeline.messenger, later());
    let url = format!("http://{}/api/v2/messages/batch?{query}", pipeline.http);
    let sent = pipeline.client.post(url).bearer_auth(pipeline.tsid.expose_secret());
    let sent = sent.header("content-type", "text/csv").body(csv).send().await.expect("ingest answers");
    assert_eq!(sent.status().as_u16(), 200);
    let other = pipeline.text("ann", json!({"send_at": later()})).await;
    assert_eq!(pipeline.touched("messages/cancel?batch_id=b-1").await, 700);
    assert_eq!(pipeline.touched("messages/cancel?batch_id=b-1").await, 0);
    assert_eq!(pipeline.read("campaigns/c").await["counts"]["CANCELLED"], 700);
    assert_eq!(pipeline.row(other).await.status, Status::Pending);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn other_accounts_are_out_of_reach(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.text("ann", json!({"send_at": later(), "cp_id": "spring"})).await;
    let account = pipeline.store.add_account("Other").await.expect("accounts can be added");
    let token = tokens::mint().expose_secret().to_owned();
    let name = tokens::identifier(&token).expect("long enough");
    pipeline.store.add_token(account, name, &tokens::hash(&token)).await.expect("tokens can be added");
    let as_other = async |path: &str| {
        let url = format!("http://{}/api/v2/{path}", pipeline.http);
        let answer = pipeline.client.post(url).bearer_auth(&token).send().await.expect("ingest answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("answers are JSON"))
    };
    assert_eq!(as_other(&format!("messages/{id}/cancel")).await.0, 404);
    assert_eq!(as_other("messages/cancel?cp_id=spring").await, (200, json!({"touched": 0})));
    assert_eq!(pipeline.row(id).await.status, Status::Pending);
    pipeline.stop().await;
}

/// A message that waits for its next try holds the next one to its recipient back, and no longer than it waits.
#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_retry_frees_its_recipient(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[("retry.base", "10m"), ("retry.cap", "10m")]).await;
    let first = pipeline.text("code2-ann", json!({})).await;
    pipeline.until(first, "a retry", |row| row.status == Status::Retry).await;
    let second = pipeline.text("code2-ann", json!({})).await;
    // A message that another recipient gets meanwhile shows that the line sends, and the second one waits.
    let other = pipeline.text("bob", json!({})).await;
    pipeline.expect_ok(other).await;
    assert_eq!(pipeline.row(second).await.status, Status::Pending);
    assert_eq!(pipeline.touched(&format!("messages/{first}/cancel")).await, 1);
    pipeline.until(second, "a retry of its own", |row| row.status == Status::Retry).await;
    pipeline.stop().await;
}

/// While the line sends: each message is sent once or cancelled once, and the counts say the same as the log and as Graph.
#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_both_sent_and_cancelled(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.execute("update cd_v8_line set v8l_rate_text = 200").await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(pipeline.text(&format!("d{n}"), json!({"cp_id": "spring"})).await);
    }
    let mut touched = 0;
    for some in ids.rchunks(10) {
        for id in some.iter().rev().take(5) {
            touched += pipeline.touched(&format!("messages/{id}/cancel")).await;
        }
        touched += pipeline.touched(&format!("messages/cancel?dest=d{}", some[0].0 % 300)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = eventually("every row to end", || async {
        let progress = pipeline.read("campaigns/spring").await;
        if progress["state"] == "finished" { Ok(progress) } else { Err(progress.to_string()) }
    })
    .await;
    assert_eq!(ended["counts"]["CANCELLED"], touched);
    assert_eq!(ended["total"], 300);
    let sent: Vec<String> = pipeline.simulator.calls().iter().map(|call| call.body.to_string()).collect();
    assert_eq!(sent.len() as i64 + touched, 300, "{ended}");
    assert_eq!(sent.iter().collect::<HashSet<_>>().len(), sent.len(), "no message is sent twice");
    let rows = pipeline.rows().await;
    let cancelled: Vec<RowId> =
        rows.iter().filter(|row| row.status == Status::Cancelled).map(|row| row.cdls_id).collect();
    assert_eq!(cancelled.len() as i64, touched);
    pipeline.stop().await;
}
