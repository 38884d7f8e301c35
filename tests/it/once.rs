//! `Idempotency-Key` and `httpdup` (docs/contract.md, section 2): a message is logged once, across processes too.

use std::net::SocketAddr;

use meta_dispatch::domain::RowId;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline};
use crate::support::without_detail;

impl Pipeline {
    /// Posts to an ingest, with a key where one is given.
    async fn send_once(&self, to: SocketAddr, key: Option<&str>, changes: &Value) -> (u16, Value) {
        let mut body = json!({"tsid": self.tsid.expose_secret(), "app_id": self.messenger, "dest": "253", "mdata": "hi"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let mut request = self.client.post(format!("http://{to}/api/v2/MakeMessenger.php")).json(&body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("ingest answers");
        let status = answer.status().as_u16();
        let mut body: Value = answer.json().await.expect("the envelope is JSON");
        (status, without_detail(body["return"].take()))
    }

    /// A hundred requests at once, taking turns between the ingests.
    async fn hundred(&self, to: &[SocketAddr], key: Option<&str>, changes: &Value) -> Vec<(u16, Value)> {
        futures::future::join_all((0..100).map(|n| self.send_once(to[n % to.len()], key, changes))).await
    }
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn repeated_key_answers_with_the_first_row(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let send = |key: &'static str, changes: Value| {
        let pipeline = &pipeline;
        async move { pipeline.send_once(pipeline.http, Some(key), &changes).await }
    };
    let (status, first) = send("order-7", json!({})).await;
    let id = first["cdls_id"].as_i64().expect("an id");
    assert_eq!((status, &first["status_code"]), (200, &json!(0)));
    // It may wait for the outcome of the first row, and is answered with it from then on.
    let (_, waited) = send("order-7", json!({"wait": 20})).await;
    assert_eq!((&waited["cdls_id"], &waited["status_code"]), (&json!(id), &json!(200)));
    let row = pipeline.row(RowId(id)).await;
    assert_eq!(waited["messageId"].as_str(), row.message_id.as_deref());
    assert_eq!(send("order-7", json!({})).await.1, waited);
    // An integer and its digits are the same parameter, and a null is none.
    assert_eq!(send("order-7", json!({"dest": 253, "mcaption": null})).await.1, waited);

    let reused =
        json!({"status": "Idempotency key reused", "status_code": 246, "messageId": "", "cdls_id": 0});
    assert_eq!(send("order-7", json!({"mdata": "other"})).await, (400, reused.clone()));
    assert_eq!(send("order-7", json!({"app_id": null})).await, (400, reused), "before 210");
    // Other keys, and no key, log messages of their own.
    assert_ne!(send("order-8", json!({})).await.1["cdls_id"], json!(id));
    assert_eq!(pipeline.rows().await.len(), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_request_leaves_its_key_free() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let (_, refused) = pipeline.send_once(pipeline.http, Some("k"), &json!({"dest": ""})).await;
    assert_eq!(refused["status_code"], 220);
    let (status, _) = pipeline.send_once(pipeline.http, Some("k"), &json!({})).await;
    assert_eq!(status, 200);
    // So does one inside an httpdup window.
    let windowed = json!({"dest": "ann", "httpdup": 60});
    assert_eq!(pipeline.send_once(pipeline.http, None, &windowed).await.0, 200);
    assert_eq!(pipeline.send_once(pipeline.http, Some("d"), &windowed).await.1["status_code"], 244);
    assert_eq!(pipeline.send_once(pipeline.http, Some("d"), &json!({"dest": "bob"})).await.0, 200);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_has_1_to_255_characters() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let (long, longest) = ("k".repeat(256), "k".repeat(255));
    for key in ["", "  ", long.as_str()] {
        let (status, refused) = pipeline.send_once(pipeline.http, Some(key), &json!({})).await;
        assert_eq!((status, &refused["status_code"]), (400, &json!(229)));
        assert_eq!(refused["status"], "Invalid parameter: Idempotency-Key");
    }
    assert_eq!(pipeline.send_once(pipeline.http, Some(&longest), &json!({})).await.0, 200);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn hundred_equal_requests_log_one_row() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    let to = [pipeline.http, pipeline.start_ingest().await];
    let answers = pipeline.hundred(&to, Some("once"), &json!({})).await;
    let rows = pipeline.rows().await;
    assert_eq!(rows.len(), 1);
    for (status, answer) in &answers {
        assert_eq!((*status, &answer["cdls_id"]), (200, &json!(rows[0].cdls_id)));
    }
    // Of a hundred with the same key and other parameters each, one is logged.
    let texts: Vec<Value> = (0..100).map(|n| json!({"mdata": format!("text {n}")})).collect();
    let sending =
        texts.iter().enumerate().map(|(n, changes)| pipeline.send_once(to[n % 2], Some("other"), changes));
    let answers = futures::future::join_all(sending).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|(_, answer)| answer["status_code"] == 246).count(), 99);
    assert_eq!(pipeline.rows().await.len(), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn window_accepts_one_of_a_hundred_requests() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    let to = [pipeline.http, pipeline.start_ingest().await];
    let answers = pipeline.hundred(&to, None, &json!({"httpdup": 600})).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1);
    let duplicate = json!({"status": "http duplicidade", "status_code": 244, "messageId": "", "cdls_id": 0});
    assert_eq!(answers.iter().filter(|answer| **answer == (400, duplicate.clone())).count(), 99);
    assert_eq!(pipeline.rows().await.len(), 1);
    // Without httpdup a message passes, and opens no window; another recipient has one of their own.
    assert_eq!(pipeline.send_once(to[0], None, &json!({})).await.0, 200);
    assert_eq!(pipeline.send_once(to[1], None, &json!({"dest": "bob"})).await.0, 200);
    assert_eq!(pipeline.send_once(to[1], None, &json!({"dest": "bob", "httpdup": 1})).await.0, 200);
    assert_eq!(pipeline.send_once(to[0], None, &json!({"dest": "bob", "httpdup": 0})).await.0, 200);
    pipeline.stop().await;
}
