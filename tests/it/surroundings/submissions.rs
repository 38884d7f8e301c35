//! A confirmed submission is logged: also where the broker refuses a declaration, or an operator takes bindings away.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Confirmation, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::OwnVhost;

/// Longer than what is missing is declared again in.
const DECLARED_WITHIN: Duration = Duration::from_secs(60);

async fn connect(vhost: &OwnVhost) -> Connection {
    let properties = ConnectionProperties::default();
    Connection::connect(vhost.url().expose_secret(), properties).await.expect("the broker answers")
}

async fn start(vhost: &OwnVhost) -> Pipeline {
    Pipeline::start_with(Backend::Servers, &[("broker.url", vhost.url().expose_secret())]).await
}

/// The readiness of the process that takes submissions.
async fn readiness(pipeline: &Pipeline) -> Value {
    let url = format!("http://{}/readyz", pipeline.admin()[0]);
    let answer = pipeline.client.get(url).send().await.expect("it answers");
    answer.json().await.expect("answers are JSON")
}

async fn gauge(pipeline: &Pipeline) -> bool {
    let url = format!("http://{}/metrics", pipeline.admin()[0]);
    let text = pipeline.client.get(url).send().await.expect("it answers").text().await.expect("a text");
    text.lines().any(|line| line == "meta_dispatch_submissions_arriving 1")
}

async fn until_they_arrive(pipeline: &Pipeline, arrive: bool) -> Value {
    eventually(&format!("submissions to arrive: {arrive}"), || async {
        let readiness = readiness(pipeline).await;
        if readiness["submissions"] == arrive { Ok(readiness) } else { Err(readiness.to_string()) }
    })
    .await
}

/// Whether a queue has the submission.
async fn publish(
    producer: &Producer,
    pipeline: &Pipeline,
    dest: &str,
    is_mandatory: bool,
) -> lapin::Result<bool> {
    let body = json!({"app_id": pipeline.messenger.0, "dest": dest, "mdata": "hello"}).to_string();
    let options = BasicPublishOptions { mandatory: is_mandatory, ..Default::default() };
    let properties = producer.properties();
    let confirm = producer
        .channel
        .basic_publish("cdls.submit".into(), "messenger".into(), options, body.as_bytes(), properties)
        .await?
        .await?;
    Ok(matches!(confirm, Confirmation::Ack(None)))
}

async fn is_sent(pipeline: &Pipeline, dest: &str) {
    eventually("the submission to be sent", || async {
        match pipeline.simulator.delivered_to(dest) {
            1 => Ok(()),
            other => Err(format!("{other} times")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn find_no_exchange_before_their_queue_is_there() {
    let vhost = OwnVhost::make();
    let operator = connect(&vhost).await;
    let other = operator.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    other
        .queue_declare("cdls.submit".into(), durable, FieldTable::default())
        .await
        .expect("a queue of another kind");
    let pipeline = start(&vhost).await;
    let readiness = until_they_arrive(&pipeline, false).await;
    let producer = Producer::over(connect(&vhost).await, pipeline.tsid.expose_secret()).await;
    eventually("the reason", || async {
        let readiness = readiness_reason(&pipeline).await;
        if readiness.contains("PRECONDITION_FAILED") { Ok(()) } else { Err(readiness) }
    })
    .await;
    assert_eq!(readiness["ready"], true, "it is reported only");
    assert!(!gauge(&pipeline).await);
    // Not even without `mandatory`.
    publish(&producer, &pipeline, "early", false).await.expect_err("there is no such exchange");
    // The refusal closed the channel.
    let producer = Producer::over(connect(&vhost).await, pipeline.tsid.expose_secret()).await;

    other
        .queue_delete("cdls.submit".into(), QueueDeleteOptions::default())
        .await
        .expect("the operator mends it");
    until_they_arrive(&pipeline, true).await;
    assert!(gauge(&pipeline).await);
    assert!(publish(&producer, &pipeline, "late", false).await.expect("it is confirmed"));
    is_sent(&pipeline, "late").await;
    pipeline.stop().await;
}

async fn readiness_reason(pipeline: &Pipeline) -> String {
    readiness(pipeline).await["submissions_reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn arrive_again_after_their_bindings_were_removed() {
    let vhost = OwnVhost::make();
    let pipeline = start(&vhost).await;
    until_they_arrive(&pipeline, true).await;
    let producer = Producer::over(connect(&vhost).await, pipeline.tsid.expose_secret()).await;
    let channel = producer.channel().await;
    for (exchange, key) in [("cdls.submit", "messenger"), ("cdls.unrouted", "")] {
        channel
            .queue_unbind("cdls.submit".into(), exchange.into(), key.into(), FieldTable::default())
            .await
            .expect("an operator may do so");
    }
    let published = publish(&producer, &pipeline, "returned", true).await.expect("it is answered");
    assert!(!published, "a mandatory one is returned");
    testkit::wait::until(DECLARED_WITHIN, || async {
        match publish(&producer, &pipeline, "taken", true).await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .expect("they are bound again");
    is_sent(&pipeline, "taken").await;
    assert_eq!(pipeline.simulator.delivered_to("returned"), 0);
    pipeline.stop().await;
}
