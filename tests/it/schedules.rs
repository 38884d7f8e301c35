//! `send_at`: a scheduled message outlives processes and broker, and is sent once, at its time.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, RowId, Status};
use meta_dispatch::simulator::Simulator;
use meta_dispatch::text::timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::serve::Serve;

/// How long after its time a message may be sent, on a machine that is busy with other tests.
const AT_MOST: Duration = Duration::from_millis(1_500);

fn scheduled(line: LineId, dest: &str, text: &str, at: OffsetDateTime) -> Value {
    json!({"app_id": line.0, "dest": dest, "mdata": text, "send_at": timestamp(at)})
}

fn id(answer: &Value) -> RowId {
    RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
}

/// Asserts that this one message was sent when its time had come, and once. `ready`: when somebody could send it.
fn sent_at_its_time(simulator: &Simulator, dest: &str, at: OffsetDateTime, ready: OffsetDateTime) {
    let calls: Vec<u64> =
        simulator.calls().iter().filter(|call| call.dest == dest).map(|call| call.time_ms).collect();
    let milliseconds = |time: OffsetDateTime| (time.unix_timestamp_nanos() / 1_000_000) as u64;
    let (first, last) = (milliseconds(at), milliseconds(at.max(ready) + AT_MOST));
    assert!(calls.len() == 1 && (first..=last).contains(&calls[0]), "{first} to {last}: {calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn survive_a_restart_and_a_wiped_broker() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    let at = OffsetDateTime::now_utc() + Duration::from_secs(6);
    let (_, answer) = pipeline.post(Class::MESSENGER, scheduled(pipeline.messenger, "ann", "hi", at)).await;
    pipeline.stop_processes().await;
    pipeline.vhost().wipe().await;
    pipeline.start_processes().await;
    eventually("the worker to hold every partition", || async {
        match pipeline.leases().await {
            64 => Ok(()),
            leases => Err(format!("{leases} partitions")),
        }
    })
    .await;
    let ready = OffsetDateTime::now_utc();
    let row = pipeline.expect_ok(id(&answer)).await;
    assert_eq!(row.attempts, 1);
    // What is sent afterwards shows that nothing came between.
    pipeline.expect_ok(pipeline.submit("ann-again", "hi").await).await;
    sent_at_its_time(&pipeline.simulator, "ann", at, ready);
    assert_eq!(pipeline.simulator.calls().len(), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn are_sent_in_time_despite_a_wiped_broker() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let ready = OffsetDateTime::now_utc();
    let at = ready + Duration::from_secs(4);
    let (_, answer) = pipeline.post(Class::MESSENGER, scheduled(pipeline.messenger, "ann", "hi", at)).await;
    pipeline.vhost().wipe().await;
    pipeline.expect_ok(id(&answer)).await;
    sent_at_its_time(&pipeline.simulator, "ann", at, ready);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survive_a_kill_with_the_embedded_queue() {
    let mut serve = Serve::start(Duration::ZERO).await;
    // The dead process's lease, ten seconds, has run out by then.
    let at = OffsetDateTime::now_utc() + Duration::from_secs(14);
    let id = serve.post(scheduled(LineId(1), "ann", "hi", at)).await.expect("it is accepted");
    serve.signal("KILL");
    serve.ended().await;
    serve.restart();
    serve.is_up().await;
    let ready = OffsetDateTime::now_utc();
    eventually("the message to be sent", || async {
        let row = serve.row(id).await;
        if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    sent_at_its_time(&serve.simulator, "ann", at, ready);
}

/// What is scheduled holds nobody up; what becomes due together goes in the order in which it was accepted.
#[rstest::rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn keep_the_order_of_one_recipient(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let at = OffsetDateTime::now_utc() + Duration::from_secs(3);
    let line = pipeline.messenger;
    let mut last = RowId(0);
    for n in 0..6 {
        let text = format!("scheduled {n}");
        let (_, answer) = pipeline.post(Class::MESSENGER, scheduled(line, "ann", &text, at)).await;
        last = id(&answer);
    }
    pipeline.expect_ok(pipeline.submit("ann", "at once").await).await;
    pipeline.expect_ok(last).await;
    let texts: Vec<String> = pipeline
        .simulator
        .calls()
        .iter()
        .map(|call| call.body["message"]["text"].as_str().expect("a text").to_owned())
        .collect();
    let expected: Vec<String> =
        std::iter::once("at once".to_owned()).chain((0..6).map(|n| format!("scheduled {n}"))).collect();
    assert_eq!(texts, expected);
    pipeline.stop().await;
}
