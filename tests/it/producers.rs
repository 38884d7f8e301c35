//! Producers and listeners on RabbitMQ (contract 4): a real broker, a real database, plain AMQP.

use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{Lane, RowId, Status};
use meta_dispatch::store::{LogFilter, LogRow};
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Inbox, Producer, foreign_direct_reply_to, header};
use crate::support::unreadable;
use crate::support::without_detail;

async fn start(changed: &[(&str, &str)]) -> (Pipeline, Producer) {
    let pipeline = Pipeline::start_with(Backend::Servers, changed).await;
    let producer = Producer::connect(&pipeline).await;
    (pipeline, producer)
}

/// Waits for as many rows; oldest first.
async fn rows(pipeline: &Pipeline, count: usize) -> Vec<LogRow> {
    eventually("the rows of the submissions", || async {
        let rows = pipeline
            .store
            .log_after(&LogFilter::default(), RowId(0), 10_000)
            .await
            .map_err(|error| error.to_string())?;
        if rows.len() == count { Ok(rows) } else { Err(format!("{} rows", rows.len())) }
    })
    .await
}

fn answered(inbox: &(String, Value)) -> (&str, &str, i64, i64) {
    let answer = &inbox.1["return"];
    (
        &inbox.0,
        answer["status"].as_str().expect("a text"),
        answer["status_code"].as_i64().expect("an integer"),
        answer["cdls_id"].as_i64().expect("an integer"),
    )
}

async fn next_answer(inbox: &mut Inbox, correlation_id: &str) -> Value {
    let (id, answer) = inbox.next_json().await;
    assert_eq!(id, correlation_id, "{answer}");
    without_detail(answer["return"].clone())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn submission_is_sent_and_answered_once() {
    let (pipeline, producer) = start(&[]).await;
    let mut inbox = producer.reply_queue().await;
    let properties = producer
        .properties()
        .with_reply_to(inbox.queue.as_str().into())
        .with_correlation_id("order-7".into());
    producer.submit_text(pipeline.messenger, "ann", "Olá, Ann!", properties.clone()).await;

    let answer = inbox.next_json().await;
    let row = rows(&pipeline, 1).await.remove(0);
    assert_eq!(answered(&answer), ("order-7", "OK", 200, row.cdls_id.0));
    assert_eq!(row.status, Status::Ok);
    assert_eq!(answer.1["return"]["messageId"].as_str(), row.message_id.as_deref());
    assert_eq!(row.mdata, "Olá, Ann!");
    assert_eq!(row.priority, Lane::High);

    let body = json!({"app_id": pipeline.instagram.0, "dest": "igcode10-bob", "mdata": "too late"});
    let properties = properties.with_correlation_id("order-8".into());
    producer.submit("instagram", body.to_string().as_bytes(), properties).await;
    let answer = inbox.next_json().await;
    let (id, status, _, cdls_id) = answered(&answer);
    assert_eq!((id, status), ("order-8", "ERROR"));
    assert_eq!(pipeline.row(RowId(cdls_id)).await.class, Class::INSTAGRAM);
    assert!(inbox.is_empty().await, "an outcome comes back once");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn keeps_the_order_of_a_producer() {
    let (pipeline, producer) = start(&[]).await;
    const COUNT: usize = 1_500;
    let mut confirms = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        let body = json!({"app_id": pipeline.messenger.0, "dest": format!("r{n}"), "mdata": n.to_string()});
        let confirm = producer
            .channel
            .basic_publish(
                "cdls.submit".into(),
                "messenger".into(),
                BasicPublishOptions::default(),
                body.to_string().as_bytes(),
                producer.properties(),
            )
            .await
            .expect("published");
        confirms.push(confirm);
    }
    for confirm in confirms {
        assert!(confirm.await.expect("confirmed").is_ack());
    }
    let rows = rows(&pipeline, COUNT).await;
    let texts: Vec<usize> = rows.iter().map(|row| row.mdata.parse().expect("a number")).collect();
    assert_eq!(texts, (0..COUNT).collect::<Vec<_>>());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn refusal_keeps_its_reason_and_not_its_token() {
    let (pipeline, producer) = start(&[]).await;
    let mut inbox = producer.reply_queue().await;
    let other_account = pipeline.store.add_account("Other").await.expect("accounts can be added");
    let other_line = pipeline.add_line_of(other_account).await.0;
    let line = pipeline.messenger.0;
    let good = |changes: Value| {
        let mut body = json!({"app_id": line, "dest": "ann", "mdata": "hi"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body.to_string().into_bytes()
    };
    let deep = format!(r#"{{"app_id":{line},"dest":"ann","mdata":"hi","x":{}}}"#, "[".repeat(50_000));
    let cases: Vec<(&str, Vec<u8>, i32, &str)> = vec![
        ("messenger", b"hello".to_vec(), 400, "Malformed request"),
        ("messenger", b"".to_vec(), 400, "Malformed request"),
        ("messenger", b"[1]".to_vec(), 400, "Malformed request"),
        ("messenger", b"\xff\xfe\x00".to_vec(), 400, "Malformed request"),
        ("messenger", deep.into_bytes(), 400, "Malformed request"),
        ("messenger", good(json!({"x": "y".repeat(70_000)})), 413, "Request too large"),
        ("messenger", good(json!({"dest": ""})), 220, "No dest"),
        ("messenger", good(json!({"mdata": null})), 225, "No mdata"),
        ("messenger", good(json!({"mdata": "a\u{0}b"})), 229, "Invalid parameter: mdata"),
        ("messenger", good(json!({"app_id": other_line})), 230, "Messenger line not found"),
        ("instagram", good(json!({})), 230, "Instagram line not found"),
        ("whatsapp", good(json!({})), 229, "Invalid parameter: class"),
        ("", good(json!({})), 229, "Invalid parameter: class"),
    ];
    for (n, (key, body, code, status)) in cases.into_iter().enumerate() {
        let id = format!("case-{n}");
        let properties = producer
            .properties()
            .with_message_id(id.as_str().into())
            .with_correlation_id(id.as_str().into())
            .with_reply_to(inbox.queue.as_str().into());
        producer.submit(key, &body, properties).await;
        let answer = next_answer(&mut inbox, &id).await;
        assert_eq!(answer, json!({"status": status, "status_code": code, "messageId": "", "cdls_id": 0}));

        let rejected = producer.rejected().await;
        assert_eq!(header(&rejected.properties, "status_code"), code.to_string());
        assert_eq!(header(&rejected.properties, "status"), status);
        assert!(header(&rejected.properties, "detail").ends_with('.'));
        assert_eq!(header(&rejected.properties, "routing_key"), key);
        assert_eq!(header(&rejected.properties, "body_bytes"), body.len().to_string());
        assert_eq!(rejected.properties.message_id().as_ref().map(|id| id.as_str()), Some(id.as_str()));
        assert!(header(&rejected.properties, "tsid").contains("None"));
    }
    assert!(rows(&pipeline, 0).await.is_empty());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn token_in_the_body_counts_and_is_not_kept() {
    let (pipeline, producer) = start(&[]).await;
    let tsid = secrecy::ExposeSecret::expose_secret(&pipeline.tsid).to_owned();
    let body = |dest: &str, sid: &str| {
        json!({"app_id": pipeline.messenger.0, "dest": dest, "mdata": "hi", "sid": sid}).to_string()
    };
    producer.submit("messenger", body("ann", &tsid).as_bytes(), BasicProperties::default()).await;
    rows(&pipeline, 1).await;
    producer.submit("messenger", body("", &tsid).as_bytes(), BasicProperties::default()).await;
    let rejected = producer.rejected().await;
    assert_eq!(header(&rejected.properties, "status_code"), "220");
    let kept: Value = serde_json::from_slice(&rejected.data).expect("JSON");
    assert_eq!(kept, json!({"app_id": pipeline.messenger.0, "dest": "", "mdata": "hi"}));

    // A token stands in no other place of what is kept either; and what is said of waiting is ignored.
    let body = json!({"token": tsid, "dest": "", "mdata": format!("my token is {tsid}"), "wait": "long"})
        .to_string();
    producer.submit(&tsid, body.as_bytes(), producer.properties()).await;
    let rejected = producer.rejected().await;
    assert_eq!(header(&rejected.properties, "status"), "Invalid parameter: class");
    assert!(!format!("{:?}", rejected.properties).contains(&tsid));
    let kept: Value = serde_json::from_slice(&rejected.data).expect("JSON");
    assert_eq!(kept, json!({"dest": "", "mdata": "[redacted]", "wait": "long"}));

    for (properties, code) in [
        (BasicProperties::default(), "100"),
        (with_header("tsid", AMQPValue::LongString("unknown-token-of-nobody".into())), "102"),
        (with_header("tsid", AMQPValue::LongInt(7)), "102"),
    ] {
        let body = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi"}).to_string();
        producer.submit("messenger", body.as_bytes(), properties).await;
        assert_eq!(header(&producer.unauthenticated().await.properties, "status_code"), code);
    }
    rows(&pipeline, 1).await;
    pipeline.stop().await;
}

fn with_header(name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), value);
    BasicProperties::default().with_headers(headers)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn broker_user_sends_only_for_its_account() {
    let (pipeline, producer) = start(&[]).await;
    let as_guest = || BasicProperties::default().with_user_id("guest".into());
    producer.submit_text(pipeline.messenger, "ann", "hi", as_guest()).await;
    assert_eq!(header(&producer.unauthenticated().await.properties, "status_code"), "100");

    pipeline.store.map_broker_user(pipeline.account, "guest", false).await.expect("users can be mapped");
    producer.submit_text(pipeline.messenger, "ann", "hi", as_guest()).await;
    assert_eq!(rows(&pipeline, 1).await[0].cdcs_id, pipeline.account);

    // The broker vouches for the name: it closes the channel of whoever borrows another's.
    let forged = BasicProperties::default().with_user_id("somebody".into());
    let published = producer
        .channel
        .basic_publish(
            "cdls.submit".into(),
            "messenger".into(),
            BasicPublishOptions::default(),
            json!({"app_id": pipeline.messenger.0, "dest": "eve", "mdata": "hi"}).to_string().as_bytes(),
            forged,
        )
        .await;
    let refused = match published {
        Ok(confirm) => confirm.await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "the broker refuses a forged user_id");
    rows(&pipeline, 1).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn reply_to_rejects_reserved_names() {
    let (pipeline, producer) = start(&[("broker.reply_to", "any")]).await;
    for reply_to in ["cdls.submit", "cdls.rejected", "cdls.work.07", "cdls.reply.0198f0"] {
        let properties = producer.properties().with_reply_to(reply_to.into());
        producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
        let rejected = producer.rejected().await;
        assert_eq!(header(&rejected.properties, "status_code"), "229");
        assert_eq!(header(&rejected.properties, "status"), "Invalid parameter: reply_to");
    }
    // A queue that is not there loses an answer and nothing else.
    let properties = producer.properties().with_reply_to("nobody.listens.here".into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    let row = rows(&pipeline, 1).await.remove(0);
    pipeline.expect_ok(row.cdls_id).await;
    pipeline.stop().await;
}

/// The connections for `purpose`, when there are as many.
async fn connections(pipeline: &Pipeline, purpose: &str, count: usize) -> BTreeSet<String> {
    eventually(purpose, || async {
        let open = pipeline.vhost().connections(purpose);
        if open.len() == count { Ok(open) } else { Err(format!("{open:?}")) }
    })
    .await
}

/// RabbitMQ itself ends the connection that publishes to such an address: `hostile_producers` tells of the others that
/// use direct reply-to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn harmful_address_costs_no_other_connection() {
    let (pipeline, producer) = start(&[]).await;
    let mut inbox = producer.reply_queue().await;
    let to = inbox.queue.clone();
    let properties =
        |id: &str| producer.properties().with_reply_to(to.as_str().into()).with_correlation_id(id.into());
    let mut others = Vec::new();
    for (purpose, count) in [("publishing", 2), ("consuming", 2), ("intake", 1), ("answering", 2)] {
        others.push((purpose, connections(&pipeline, purpose, count).await));
    }
    // One is answered by ingest, which refuses it, and one by the worker.
    for dest in ["", "eve"] {
        let hostile = producer.properties().with_reply_to(foreign_direct_reply_to().into());
        producer.submit_text(pipeline.messenger, dest, "hi", hostile).await;
    }
    producer.rejected().await;
    let eve = rows(&pipeline, 1).await.remove(0);
    pipeline.expect_ok(eve.cdls_id).await;
    producer.submit_text(pipeline.messenger, "", "hi", properties("refused")).await;
    assert_eq!(next_answer(&mut inbox, "refused").await["status"], "No dest");
    producer.submit_text(pipeline.messenger, "ann", "hi", properties("sent")).await;
    assert_eq!(next_answer(&mut inbox, "sent").await["status"], "OK");
    for (purpose, before) in others {
        assert_eq!(pipeline.vhost().connections(purpose), before, "none for {purpose} was replaced");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn forged_direct_reply_address_is_refused() {
    let (pipeline, producer) = start(&[]).await;
    let before = connections(&pipeline, "answering", 2).await;
    for reply_to in [
        "amq.rabbitmq.reply-to.%%%.x",
        "amq.rabbitmq.reply-to.",
        "amq.rabbitmq.reply-to.g2c=",
        "amq.rabbitmq.reply-to.g2c=.",
        "amq.rabbitmq.reply-to.g2c=.a2V5.a2V5",
        "amq.rabbitmq.reply-to.g2c=.a2V5",
        "amq.rabbitmq.reply-to.AAAA.AAAA",
    ] {
        let properties = producer.properties().with_reply_to(reply_to.into());
        producer.submit_text(pipeline.messenger, "eve", "hi", properties).await;
        let rejected = producer.rejected().await;
        assert_eq!(header(&rejected.properties, "status"), "Invalid parameter: reply_to", "{reply_to}");
    }
    let mut inbox = producer.direct_replies().await;
    let properties = |id: &str| {
        producer.properties().with_reply_to(inbox.queue.as_str().into()).with_correlation_id(id.into())
    };
    let (sent, refused) = (properties("sent"), properties("refused"));
    producer.submit_text(pipeline.messenger, "ann", "hi", sent).await;
    assert_eq!(next_answer(&mut inbox, "sent").await["status"], "OK");
    producer.submit_text(pipeline.messenger, "", "hi", refused).await;
    assert_eq!(next_answer(&mut inbox, "refused").await["status"], "No dest");
    assert_eq!(pipeline.vhost().connections("answering"), before, "nothing was sent that ends it");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn unknown_outcome_is_answered_once_settled() {
    let (pipeline, producer) = start(&[("graph.timeout", "1500ms")]).await;
    let mut inbox = producer.reply_queue().await;
    let properties = |id: &str| {
        producer.properties().with_reply_to(inbox.queue.as_str().into()).with_correlation_id(id.into())
    };
    let (cut, after) = (properties("cut"), properties("after"));
    producer.submit_text(pipeline.messenger, "cut-ann", "hi", cut).await;
    let row = rows(&pipeline, 1).await.remove(0);
    pipeline.until(row.cdls_id, "UNKNOWN", |row| row.status == Status::Unknown).await;
    producer.submit_text(pipeline.messenger, "bob", "hi", after).await;
    assert_eq!(next_answer(&mut inbox, "after").await["status"], "OK");
    assert!(inbox.is_empty().await);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn expired_submission_is_answered_as_an_error() {
    let (pipeline, producer) = start(&[]).await;
    let mut inbox = producer.reply_queue().await;
    pipeline.store.pause_line(pipeline.messenger, None, "for the test").await.expect("lines can be paused");
    let body =
        json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "valid_for": 1}).to_string();
    let properties =
        producer.properties().with_reply_to(inbox.queue.as_str().into()).with_correlation_id("late".into());
    producer.submit("messenger", body.as_bytes(), properties).await;
    let answer = next_answer(&mut inbox, "late").await;
    assert_eq!((&answer["status"], &answer["status_code"]), (&json!("ERROR"), &json!(0)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn outcomes_are_published_as_events_on_request() {
    let (pipeline, producer) = start(&[("events.publish", "outcomes")]).await;
    let mut all = producer.events("#").await;
    let mut errors = producer.events("messenger.error.*").await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "msg_id": "m7", "cp_id": "spring"});
    pipeline.post(Class::MESSENGER, parameters).await;
    let (key, event) = all.next_json().await;
    assert_eq!(key, format!("messenger.ok.{}", pipeline.messenger));
    let row = rows(&pipeline, 1).await.remove(0);
    let at = event["at"].as_str().expect("a time").to_owned();
    assert!(at.ends_with('Z'), "{at}");
    assert_eq!(
        event,
        json!({
            "cdls_id": row.cdls_id, "cdcs_id": pipeline.account, "v8l_id": pipeline.messenger, "class": "messenger",
            "dest": "ann", "msg_id": "m7", "cp_id": "spring", "status": "OK", "status_code": 200,
            "message_id": row.message_id, "error_code": null, "error_subcode": null, "error_kind": null, "at": at,
        })
    );
    pipeline.submit("code10-ann", "too late").await;
    let (key, event) = errors.next_json().await;
    assert_eq!(key, format!("messenger.error.{}", pipeline.messenger));
    assert_eq!((&event["error_code"], &event["error_kind"]), (&json!(10), &json!("refused")));
    assert_eq!(all.next_json().await.1["status"], "ERROR");
    assert!(all.is_empty().await, "an event for each outcome, and none for what comes before");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn every_change_is_published_on_request() {
    let (pipeline, producer) = start(&[("events.publish", "all")]).await;
    let mut all = producer.events("messenger.#").await;
    pipeline.submit("code1200x1-ann", "hi").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|status| status != "OK") {
        seen.push(all.next_json().await.1["status"].as_str().expect("a text").to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["OK", "PENDING", "RETRY", "SENDING", "SENDING"]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn submissions_wait_in_order_without_a_database() {
    let (pipeline, producer) = start(&[]).await;
    producer.submit_text(pipeline.messenger, "first", "0", producer.properties()).await;
    rows(&pipeline, 1).await;
    pipeline.database().refuse_connections().await;
    producer.submit("messenger", &vec![b'x'; 1 << 20], producer.properties()).await;
    for n in 1..=50 {
        producer
            .submit_text(pipeline.messenger, &format!("r{n}"), &n.to_string(), producer.properties())
            .await;
    }
    // Not lost to the refusals meanwhile, either: those are for what will never be logged.
    pipeline.database().accept_connections().await;
    let rows = rows(&pipeline, 51).await;
    assert_eq!(header(&producer.rejected().await.properties, "status_code"), "413");
    let texts: Vec<i32> = rows.iter().map(|row| row.mdata.parse().expect("a number")).collect();
    assert_eq!(texts, (0..=50).collect::<Vec<_>>());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn broker_properties_do_no_harm() {
    let (pipeline, producer) = start(&[]).await;
    let mut headers = FieldTable::default();
    let copies = lapin::types::FieldArray::from(vec![
        AMQPValue::LongString("instagram".into()),
        AMQPValue::LongString("cdls.work.07".into()),
    ]);
    headers.insert(
        "tsid".into(),
        AMQPValue::LongString(secrecy::ExposeSecret::expose_secret(&pipeline.tsid).into()),
    );
    headers.insert("CC".into(), AMQPValue::FieldArray(copies.clone()));
    headers.insert("BCC".into(), AMQPValue::FieldArray(copies));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_priority(9)
        .with_type("anything".into())
        .with_content_type("application/json; charset=utf-8".into())
        .with_content_encoding("utf-8".into())
        .with_expiration("60000".into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    let row = rows(&pipeline, 1).await.remove(0);
    pipeline.expect_ok(row.cdls_id).await;
    for (properties, status) in [
        (producer.properties().with_content_encoding("gzip".into()), "400"),
        (producer.properties().with_content_type("text/plain".into()), "400"),
    ] {
        producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
        assert_eq!(header(&producer.rejected().await.properties, "status_code"), status);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn message_id_is_logged_once_like_an_idempotency_key() {
    let (pipeline, producer) = start(&[]).await;
    let mut inbox = producer.reply_queue().await;
    let properties = |correlation_id: &str| {
        producer
            .properties()
            .with_message_id("order-7".into())
            .with_reply_to(inbox.queue.as_str().into())
            .with_correlation_id(correlation_id.into())
    };
    let (first, again, other) = (properties("first"), properties("again"), properties("other"));
    producer.submit_text(pipeline.messenger, "ann", "hi", first).await;
    let answer = next_answer(&mut inbox, "first").await;
    let id = answer["cdls_id"].as_i64().expect("an id");

    producer.submit_text(pipeline.messenger, "ann", "hi", again).await;
    assert_eq!(next_answer(&mut inbox, "again").await, answer, "answered as the first row stands now");
    producer.submit_text(pipeline.messenger, "ann", "something else", other).await;
    assert_eq!(next_answer(&mut inbox, "other").await["status_code"], 246);
    assert_eq!(header(&producer.rejected().await.properties, "status"), "Idempotency key reused");

    let key = pipeline.store.remembered_key(pipeline.account, "order-7").await.expect("the store answers");
    assert!(key.is_some(), "the key of HTTP requests is the same");
    assert_eq!(rows(&pipeline, 1).await[0].cdls_id.0, id);
    pipeline.stop().await;
}

/// A short text that is no UTF-8 breaks AMQP: the client library ends its connection over it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn unreadable_submission_does_not_stop_the_queue() {
    let (pipeline, producer) = start(&[]).await;
    // The one before may be delivered again: its acknowledgement was on the connection that ended.
    let named = |n: i32| producer.properties().with_message_id(n.to_string().into());
    producer.submit_text(pipeline.messenger, "before", "0", named(0)).await;
    let url = secrecy::ExposeSecret::expose_secret(&pipeline.vhost().url()).to_owned();
    unreadable::publish(&url, "cdls.submit", pipeline.messenger.0).await;
    for n in 1..=5 {
        producer
            .submit_text(pipeline.messenger, &format!("r{n}"), &n.to_string(), producer.properties())
            .await;
    }
    let rows = rows(&pipeline, 6).await;
    let texts: Vec<i32> = rows.iter().map(|row| row.mdata.parse().expect("a number")).collect();
    assert_eq!(texts, [0, 1, 2, 3, 4, 5]);
    pipeline.stop().await;
}

#[test]
fn asyncapi_document_matches_declarations() {
    use meta_dispatch::broker::public::{self, Argument, Arguments};
    let document: Value = serde_json::from_str(include_str!("../../docs/asyncapi.json")).expect("JSON");
    let json = |arguments: Arguments| {
        let value = |argument: &Argument| match argument {
            Argument::Text(text) => json!(text),
            Argument::Number(number) => json!(number),
            Argument::Yes => json!(true),
        };
        Value::Object(
            arguments.iter().map(|(name, argument)| ((*name).to_owned(), value(argument))).collect(),
        )
    };
    let amqp = |channel: &str| document["channels"][channel]["bindings"]["amqp"].clone();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(amqp("submit")["exchange"]["name"], public::SUBMIT);
    assert_eq!(amqp("submit")["x-exchange-arguments"], json(public::SUBMIT_EXCHANGE_ARGUMENTS));
    assert_eq!(amqp("submitQueue")["queue"]["name"], public::SUBMIT);
    assert_eq!(amqp("submitQueue")["x-queue-arguments"], json(public::SUBMIT_QUEUE_ARGUMENTS));
    assert_eq!(amqp("rejected")["queue"]["name"], public::REJECTED);
    assert_eq!(amqp("rejected")["x-queue-arguments"], json(public::REJECTED_QUEUE_ARGUMENTS));
    assert_eq!(amqp("unauthenticated")["queue"]["name"], public::UNAUTHENTICATED);
    assert_eq!(amqp("unauthenticated")["x-queue-arguments"], json(public::UNAUTHENTICATED_QUEUE_ARGUMENTS));
    let own = amqp("ownSubmit");
    assert_eq!(own["exchange"]["name"], public::submit_of("{user}"));
    assert_eq!(own["x-exchange-arguments"]["alternate-exchange"], public::unrouted_of("{user}"));
    assert_eq!(amqp("events")["exchange"]["name"], public::EVENTS);
    assert_eq!(amqp("inbound")["exchange"]["name"], public::INBOUND);
    let classes: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
    assert_eq!(document["channels"]["events"]["parameters"]["class"]["enum"], json!(classes));
    let producers = include_str!("../../docs/amqp.md");
    for (name, argument) in public::SUBMIT_QUEUE_ARGUMENTS {
        let written = match argument {
            Argument::Text("") => format!("`{name}: \"\"`"),
            Argument::Text(text) => format!("`{name}: {text}`"),
            Argument::Number(number) => format!("`{name}: {number}`"),
            Argument::Yes => format!("`{name}: true`"),
        };
        assert!(producers.contains(&written), "docs/amqp.md says {written}");
    }
    assert!(producers.contains(&format!("queue `{}`", public::UNAUTHENTICATED)));
}
