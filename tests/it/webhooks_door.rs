//! The door for Meta's webhooks: verification, signatures, bodies that are durable before the 200, and events for other
//! programs. The effects of events are in `store::receipts` and beside the code; here a receipt shows that a body was
//! applied.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use meta_dispatch::domain::RowId;
use meta_dispatch::store::NewApp;
use reqwest::{Response, StatusCode};
use ring::hmac;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::support::amqp_forwarder::ClosedDoor;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;
use crate::support::serve::Serve;

const VERIFY_TOKEN: &str = "a-verify-token";
const APP_SECRET: &str = "0011223344556677";
/// The page of the pipeline's lines.
const PAGE: &str = "1001";
const ON: [(&str, &str); 2] = [("webhooks.verify_token", VERIFY_TOKEN), ("graph.app_secret", APP_SECRET)];

fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// Return a body of Meta: this message of the page to `dest` was delivered.
fn delivered(page: &str, dest: &str, mid: &str) -> Vec<u8> {
    let event = json!({
        "sender": {"id": dest}, "recipient": {"id": page}, "timestamp": 1_795_968_000_000_i64,
        "delivery": {"mids": [mid], "watermark": 1_795_968_000_000_i64},
    });
    let body = json!({
        "object": "page", "entry": [{"id": page, "time": 1_795_968_000_000_i64, "messaging": [event]}],
    });
    body.to_string().into_bytes()
}

async fn post_signed(client: &reqwest::Client, http: &str, secret: &str, body: Vec<u8>) -> Response {
    let request = client.post(format!("http://{http}/webhooks/meta"));
    let request = request.header("X-Hub-Signature-256", signature(secret, &body));
    request.header("Content-Type", "application/json").body(body).send().await.expect("it answers")
}

async fn post(pipeline: &Pipeline, secret: &str, body: Vec<u8>) -> StatusCode {
    post_signed(&pipeline.client, &pipeline.http.to_string(), secret, body).await.status()
}

async fn verify(pipeline: &Pipeline, query: &str) -> (StatusCode, String) {
    let url = format!("http://{}/webhooks/meta?{query}", pipeline.http);
    let answer = pipeline.client.get(url).send().await.expect("it answers");
    (answer.status(), answer.text().await.expect("answers are complete"))
}

fn asked(token: &str) -> String {
    format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444")
}

/// Send a message; return its row, and the body that tells of its delivery.
async fn sent(pipeline: &Pipeline, dest: &str) -> (RowId, Vec<u8>) {
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.expect_ok(id).await;
    let message_id = row.message_id.expect("an id of Graph");
    (id, delivered(PAGE, dest, &message_id))
}

async fn until_delivered(pipeline: &Pipeline, id: RowId) {
    pipeline.until(id, "a receipt", |row| row.delivered_at.is_some()).await;
}

async fn put_app(pipeline: &Pipeline, id: &str, secret: &str, verify_token: &str) {
    let app = NewApp { id: id.into(), name: None, secret: secret.into(), verify_token: verify_token.into() };
    pipeline.store.put_app(&app).await.expect("apps can be added");
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn receipt_is_kept_and_applied(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    assert_eq!(post(&pipeline, APP_SECRET, body.clone()).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    // Meta delivers more than once.
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_needs_a_known_token() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    put_app(&pipeline, "77", "another secret", "another-token").await;
    for token in [VERIFY_TOKEN, "another-token"] {
        let answer = verify(&pipeline, &asked(token)).await;
        assert_eq!(answer, (StatusCode::OK, "1158201444".to_owned()), "{token}");
    }
    for query in [asked("wrong"), asked(""), "hub.mode=subscribe".to_owned(), String::new()] {
        assert_eq!(verify(&pipeline, &query).await.0, StatusCode::FORBIDDEN, "{query}");
    }
    // Guesses shut nobody out.
    for _ in 0..30 {
        verify(&pipeline, &asked("wrong")).await;
    }
    assert_eq!(verify(&pipeline, &asked(VERIFY_TOKEN)).await.0, StatusCode::OK);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_are_off_are_not_found() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("graph.app_secret", APP_SECRET)]).await;
    assert_eq!(verify(&pipeline, &asked("")).await.0, StatusCode::NOT_FOUND);
    let body = delivered(PAGE, "ann", "m_1");
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::NOT_FOUND);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_signature_is_refused_and_shuts_nobody_out() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let url = format!("http://{}/webhooks/meta", pipeline.http);
    let unsigned = pipeline.client.post(&url).body(body.clone()).send().await.expect("it answers");
    assert_eq!(unsigned.status(), StatusCode::FORBIDDEN);
    for _ in 0..30 {
        assert_eq!(post(&pipeline, "wrong", body.clone()).await, StatusCode::FORBIDDEN);
    }
    let sha1 = pipeline.client.post(&url).header("X-Hub-Signature", "sha1=00").body(body.clone());
    assert_eq!(sha1.send().await.expect("it answers").status(), StatusCode::FORBIDDEN);
    assert!(pipeline.row(id).await.delivered_at.is_none());
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

/// Meta signs the text with its escapes: a body that was read and written anew would have another signature.
#[tokio::test(flavor = "multi_thread")]
async fn signature_is_over_the_raw_bytes() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let body = String::from_utf8(body).expect("UTF-8");
    let escaped = body.replacen('{', r#"{ "note" : "caf\u00e9 \ud83d\ude00",  "#, 1);
    assert!(!escaped.contains('é'));
    let unescaped = escaped.replace("\\u00e9", "é");
    let url = format!("http://{}/webhooks/meta", pipeline.http);
    let signed = signature(APP_SECRET, escaped.as_bytes());
    let other = pipeline.client.post(&url).header("X-Hub-Signature-256", &signed).body(unescaped);
    assert_eq!(other.send().await.expect("it answers").status(), StatusCode::FORBIDDEN);
    assert_eq!(post(&pipeline, APP_SECRET, escaped.into_bytes()).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn app_signs_as_long_as_it_is_stored(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    assert_eq!(post(&pipeline, "the other secret", body.clone()).await, StatusCode::FORBIDDEN);
    put_app(&pipeline, "77", "the other secret", "another-token").await;
    // A look that found nothing is a second old at most.
    eventually("the new app to sign", || async {
        match post(&pipeline, "the other secret", body.clone()).await {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    until_delivered(&pipeline, id).await;
    assert_eq!(
        post(&pipeline, APP_SECRET, body.clone()).await,
        StatusCode::OK,
        "the settings' app still signs"
    );
    assert!(pipeline.store.remove_app("77").await.expect("the store answers"));
    eventually("the app to be forgotten", || async {
        match post(&pipeline, "the other secret", body.clone()).await {
            StatusCode::FORBIDDEN => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_body_is_refused_and_one_within_the_limit_is_kept() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let padded = |bytes: usize| {
        let mut body = body.clone();
        body.resize(bytes, b' ');
        body
    };
    let long = padded((8 << 20) + 1);
    let request = pipeline.client.post(format!("http://{}/webhooks/meta", pipeline.http));
    let request = request.header("X-Hub-Signature-256", signature(APP_SECRET, &long)).body(long);
    // A client that has not written its body to the end when the connection closes sees no answer.
    if let Ok(answer) = request.send().await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert!(pipeline.row(id).await.delivered_at.is_none());
    assert_eq!(post(&pipeline, APP_SECRET, padded(8 << 20)).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

/// Bodies that no version can read stop none of the others.
#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_body_stops_no_other(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    for unreadable in
        [&b"[]"[..], b"\xff\xfe", b"{\"object\":\"user\"}", b"", b"{\"object\":\"page\",\"entry\":[7]}"]
    {
        assert_eq!(post(&pipeline, APP_SECRET, unreadable.to_vec()).await, StatusCode::OK);
    }
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

/// While another program holds the database, nothing is durable: Meta hears 503, and repeats.
#[tokio::test(flavor = "multi_thread")]
async fn busy_database_is_503_and_nothing_is_lost() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let url = pipeline.settings.database.url.expose_secret();
    let mut other = SqliteConnection::connect(url).await.expect("the file is there");
    sqlx::raw_sql("begin immediate").execute(&mut other).await.expect("the lock is free in time");
    let refused = post_signed(&pipeline.client, &pipeline.http.to_string(), APP_SECRET, body.clone()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("the lock is given back");
    eventually("the body to be kept", || async {
        match post(&pipeline, APP_SECRET, body.clone()).await {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

/// RabbitMQ keeps bodies while the database is away.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn body_waits_for_the_database_in_the_queue() {
    let pipeline = Pipeline::start_with(Backend::Servers, &ON).await;
    let mut bodies = Vec::new();
    for n in 0..10 {
        bodies.push(sent(&pipeline, &format!("r{n}")).await);
    }
    pipeline.database().refuse_connections().await;
    for (_, body) in &bodies {
        assert_eq!(post(&pipeline, APP_SECRET, body.clone()).await, StatusCode::OK);
    }
    pipeline.database().accept_connections().await;
    for (id, _) in bodies {
        until_delivered(&pipeline, id).await;
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn broker_that_is_away_is_503_and_nothing_is_lost() {
    let vhost = Vhost::lease().await;
    let door = ClosedDoor::new();
    let url = vhost.url_at(door.address());
    let settings = [&ON[..], &[("broker.url", url.expose_secret())]].concat();
    let pipeline = Pipeline::start_with(Backend::Servers, &settings).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let refused = post_signed(&pipeline.client, &pipeline.http.to_string(), APP_SECRET, body.clone()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let _forwarder = door.open(vhost.server());
    eventually("the body to be kept", || async {
        match post(&pipeline, APP_SECRET, body.clone()).await {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

/// The queue keeps bodies until a worker is there, and over the end of one that has bodies in hand.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn body_waits_for_a_worker_in_the_queue() {
    let mut pipeline = Pipeline::start_with(Backend::Servers, &ON).await;
    let mut bodies = Vec::new();
    for n in 0..10 {
        bodies.push(sent(&pipeline, &format!("r{n}")).await);
    }
    pipeline.stop_last().await;
    for (_, body) in &bodies {
        assert_eq!(post(&pipeline, APP_SECRET, body.clone()).await, StatusCode::OK);
    }
    assert!(pipeline.row(bodies[0].0).await.delivered_at.is_none());
    pipeline.start_worker().await;
    for (id, _) in bodies {
        until_delivered(&pipeline, id).await;
    }
    pipeline.stop().await;
}

/// A deleted queue is made again; a body that came meanwhile is answered 503, as no queue has it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn deleted_queue_is_made_again() {
    let pipeline = Pipeline::start_with(Backend::Servers, &ON).await;
    let (first, body) = sent(&pipeline, "ann").await;
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    until_delivered(&pipeline, first).await;
    let (second, body) = sent(&pipeline, "bob").await;
    let (_connection, channel) = pipeline.vhost().connect().await;
    channel.queue_delete("cdls.webhooks".into(), Default::default()).await.expect("it is there");
    eventually("the body to be kept", || async {
        match post(&pipeline, APP_SECRET, body.clone()).await {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    until_delivered(&pipeline, second).await;
    pipeline.stop().await;
}

/// Bodies of other programs in the queue are no reason to stop: without a header they count as the settings' app's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn body_in_the_queue_needs_no_headers() {
    let pipeline = Pipeline::start_with(Backend::Servers, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    let (_connection, channel) = pipeline.vhost().connect().await;
    eventually("the queue of webhooks", || async {
        let (_other, channel) = pipeline.vhost().connect().await;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = channel.queue_declare("cdls.webhooks".into(), options, FieldTable::default()).await;
        found.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel
        .basic_publish("".into(), "cdls.webhooks".into(), options, &body, properties)
        .await
        .expect("it is published");
    until_delivered(&pipeline, id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn event_is_published_for_others_as_it_came() {
    let settings = [&ON[..], &[("events.inbound", "true")]].concat();
    let pipeline = Pipeline::start_with(Backend::Servers, &settings).await;
    let producer = Producer::connect(&pipeline).await;
    // The exchange is declared with the queue of webhooks.
    let (first, body) = sent(&pipeline, "ann").await;
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    until_delivered(&pipeline, first).await;
    let mut inbox = producer.events_of("cdls.inbound", "", "messenger.message.*").await;
    let message = r#"{"sender":{"id":"bob"},"recipient":{"id":"1001"},"timestamp":1795967999000,"message":{"mid":"m_in","text":"caf\u00e9"}}"#;
    let entry = |events: &str| {
        format!(
            r#"{{"object":"page","entry":[{{"id":"1001","time":1795968000000,"messaging":[{events}]}}]}}"#
        )
    };
    let read = r#"{"sender":{"id":"bob"},"recipient":{"id":"1001"},"timestamp":1795967999000,"read":{"watermark":1}}"#;
    let body = entry(&format!("{message},{read}"));
    assert_eq!(post(&pipeline, APP_SECRET, body.into_bytes()).await, StatusCode::OK);
    let delivery = inbox.next().await;
    assert_eq!(delivery.routing_key.as_str(), format!("messenger.message.{}", pipeline.messenger));
    assert_eq!(String::from_utf8_lossy(&delivery.data), entry(message));
    assert!(inbox.is_empty().await, "the page has one line of the class");
    pipeline.stop().await;
}

/// The process is killed right after its answers: what was answered 200 is applied after the restart.
#[tokio::test(flavor = "multi_thread")]
async fn killed_process_loses_no_body() {
    let variables = [
        ("META_DISPATCH__WEBHOOKS__VERIFY_TOKEN", VERIFY_TOKEN),
        ("META_DISPATCH__GRAPH__APP_SECRET", APP_SECRET),
    ];
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_with(&variables).await;
    let mut bodies = Vec::new();
    for n in 0..20 {
        let id = serve.submit(&format!("r{n}")).await;
        bodies.push((id, format!("r{n}")));
    }
    let mut signed = Vec::new();
    for (id, dest) in &bodies {
        let row = eventually("an outcome", || async {
            let row = serve.row(*id).await;
            if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
        })
        .await;
        let message_id = row.message_id.expect("an id of Graph");
        signed.push(delivered("1", dest, &message_id));
    }
    let client = reqwest::Client::new();
    let http = format!("127.0.0.1:{}", serve.http);
    let posts = signed.iter().map(|body| post_signed(&client, &http, APP_SECRET, body.clone()));
    for answer in futures::future::join_all(posts).await {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    serve.signal("KILL");
    serve.ended().await;
    serve.start_again(&variables);
    serve.is_up().await;
    for (id, _) in bodies {
        eventually("a receipt", || async {
            let row = serve.row(id).await;
            if row.delivered_at.is_some() { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }
}

/// A body that the database refuses is set aside, and the bodies behind it are applied.
#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_and_stops_no_other() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &ON).await;
    let (id, body) = sent(&pipeline, "ann").await;
    // As if it had ended ten processes before.
    pipeline
        .execute("insert into webhook_inbox (body, tries) values (cast('{\"object\":\"page\"}' as blob), 10)")
        .await;
    assert_eq!(post(&pipeline, APP_SECRET, body).await, StatusCode::OK);
    until_delivered(&pipeline, id).await;
    eventually("the poison to be set aside", || async {
        let state = pipeline.store.inbox_state().await.expect("the store answers");
        if (state.waiting, state.aside) == (0, 1) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    pipeline.stop().await;
}
