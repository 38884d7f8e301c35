//! Faults of the broker that the whole program has to live with; those of its connections are in `broker_rabbitmq`.

use lapin::{Connection, ConnectionProperties};
use meta_dispatch::channel::Class;
use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::support::amqp_forwarder::{Fault, Forwarder};
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::{OwnVhost, Vhost};
use crate::support::without_detail;

/// An address at which no broker is.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:1/%2f";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn ingest_without_broker_accepts_up_to_the_backlog() {
    let settings = [("broker.url", NOWHERE), ("ingest.max_backlog", "5")];
    let pipeline = Pipeline::start_with(Backend::Servers, &settings).await;
    assert!(
        pipeline.store.pause_line(pipeline.messenger, None, "for a test").await.expect("the store answers")
    );
    let body = json!({
        "tsid": pipeline.tsid.expose_secret(), "app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hello",
    });
    let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
    let client = reqwest::Client::new();
    let refused = eventually("a refusal", || {
        let sending = client.post(&url).json(&body).send();
        async {
            let answer = sending.await.expect("ingest answers");
            if answer.status() == StatusCode::OK { Err("accepted".to_owned()) } else { Ok(answer) }
        }
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let wait = refused.headers().get("retry-after").expect("when to come back").to_str().expect("digits");
    assert!(wait.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{wait}");
    let refused: serde_json::Value = refused.json().await.expect("answers are JSON");
    assert_eq!(
        without_detail(refused),
        json!({"return": {"status": "temporarily unavailable", "status_code": 503, "messageId": "", "cdls_id": 0}})
    );

    assert!(pipeline.store.resume_line(pipeline.messenger).await.expect("the store answers"));
    eventually("room again", || async {
        let (status, _) = pipeline.post(Class::MESSENGER, body.clone()).await;
        if status == StatusCode::OK { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    eventually("everything to be sent", || async {
        let waiting = pipeline.store.backlog(100).await.expect("the store answers");
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    pipeline.stop().await;
}

/// Faults between the program and its broker while messages come in; each is accepted, and sent once.
async fn messages_flow_through(faults: &[Fault]) {
    let vhost = Vhost::lease().await;
    let forwarder = Forwarder::open(vhost.server());
    let url = vhost.url_at(forwarder.address());
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.url", url.expose_secret())]).await;
    let mut ids = Vec::new();
    for n in 0..60 {
        if n % 10 == 9 {
            forwarder.inflict(faults[(n / 10) % faults.len()].clone());
        }
        ids.push(pipeline.submit(&format!("r{n}"), "hello").await);
    }
    for (n, id) in ids.into_iter().enumerate() {
        pipeline.expect_ok(id).await;
        assert_eq!(pipeline.simulator.delivered_to(&format!("r{n}")), 1);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn connection_faults_lose_and_repeat_no_message() {
    messages_flow_through(&[
        Fault::Cut,
        Fault::connection_closed(),
        Fault::channel_closed(1),
        Fault::Silence,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn blocked_publishers_stop_no_message() {
    messages_flow_through(&[Fault::blocked()]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn full_queue_stops_no_message() {
    let vhost = Vhost::lease().await;
    vhost.set_policy("full", "^cdls[.]work[.]", r#"{"max-length":0,"overflow":"reject-publish"}"#);
    let pipeline =
        Pipeline::start_with(Backend::Servers, &[("broker.url", vhost.url().expose_secret())]).await;
    for n in 0..20 {
        let id = pipeline.submit(&format!("r{n}"), "hello").await;
        pipeline.expect_ok(id).await;
        assert_eq!(pipeline.simulator.delivered_to(&format!("r{n}")), 1);
    }
    pipeline.stop().await;
    vhost.clear_policy("full");
}

/// As after a broker whose data is lost: queues, exchanges, bindings and what they held are gone, and for a while there
/// is nothing to connect to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn recreated_virtual_host_loses_no_message() {
    let vhost = OwnVhost::make();
    let url = vhost.url();
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.url", url.expose_secret())]).await;
    pipeline.expect_ok(pipeline.submit("before", "hello").await).await;

    vhost.delete();
    let meanwhile = pipeline.submit("meanwhile", "hello").await;
    pipeline.expect_ok(meanwhile).await;
    vhost.make_again();

    let properties = ConnectionProperties::default();
    let connection = Connection::connect(url.expose_secret(), properties).await.expect("it is there again");
    let producer = Producer::over(connection, pipeline.tsid.expose_secret()).await;
    producer.intake_is_up().await;
    let body = json!({"app_id": pipeline.messenger.0, "dest": "after", "mdata": "hello"}).to_string();
    producer.submit("messenger", body.as_bytes(), producer.properties()).await;
    pipeline.expect_ok(pipeline.submit("by-http", "hello").await).await;
    eventually("the submission to be sent", || async {
        match pipeline.simulator.delivered_to("after") {
            1 => Ok(()),
            other => Err(format!("{other} times")),
        }
    })
    .await;
    for dest in ["before", "meanwhile", "by-http"] {
        assert_eq!(pipeline.simulator.delivered_to(dest), 1, "{dest}");
    }
    pipeline.stop().await;
}
