//! Canaries: each kind of secret is planted once, every kind of traffic goes by, and then each is looked for wherever it
//! could have got: in the log at its finest, in answers, metrics, the output of commands, refused submissions, temporary
//! files, tables, and the memory of `ingest`.
//!
//! Each place that may hold one holds it: a search that finds nothing there is broken.

mod memory;
mod planted;
mod stage;
mod tables;
mod traffic;

use std::io::ErrorKind;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use meta_dispatch::broker::grants::Rights;
use meta_dispatch::domain::LineId;
use secrecy::ExposeSecret;
use serde_json::json;
use testkit::process::Output;

use self::memory::held;
use self::planted::{Canaries, PLAIN_TOKEN};
use self::stage::Stage;
use self::tables::Place;
use crate::support::database::{Database, Role};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;

/// Longer than a message takes that is on its way.
const QUIET: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn serve_keeps_every_secret() {
    let canaries = Canaries::mint();
    let mut stage = Stage::set(canaries).await;
    stage.open_account().await;
    let running = stage.start("serve", &stage.program).await;
    stage.wrong_settings();
    stage.callers().await;
    stage.admin().await;
    stage.commands(&stage.program.clone());
    running.stop().await.expect("it ends");
    #[cfg(feature = "failpoints")]
    stage.panic().await;
    stage.look(&Place::Sqlite(stage.database_file())).await;
}

/// A submission's properties, with a header `tsid` and the same token in the wrong places.
fn misplaced(tsid: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("tsid".into(), AMQPValue::LongString(tsid.into()));
    headers.insert("x-note".into(), AMQPValue::LongString(tsid.into()));
    let properties = BasicProperties::default().with_headers(headers).with_app_id(tsid.into());
    properties.with_message_id(tsid.into()).with_correlation_id(format!("order-{tsid}").into())
}

/// Submissions that are accepted, refused, refused by Graph, and of senders that are not known.
async fn submissions(stage: &mut Stage, vhost: &Vhost) {
    let (tsid, wrong) = (stage.canaries.tsid.clone(), stage.canaries.wrong_tsid.clone());
    let producer = Producer::connect_to(vhost, &tsid).await;
    producer.intake_is_up().await;
    let mut events = producer.events("#").await;
    let mut answers = producer.reply_queue().await;
    let (line, text) = (LineId(stage.plain_line), stage.canaries.text.clone());
    let answered = |properties: BasicProperties| {
        properties.with_reply_to(answers.queue.as_str().into()).with_delivery_mode(2)
    };
    let body = |more: serde_json::Value| {
        let mut body = json!({"app_id": line, "dest": "amqp-ann", "mdata": text});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body.to_string().into_bytes()
    };
    let published = [
        ("messenger", body(json!({})), answered(producer.properties())),
        ("messenger", body(json!({"dest": "echo-amqp"})), answered(producer.properties())),
        (
            "messenger",
            body(json!({"dest": "", "mdata": format!("my token is {tsid}")})),
            answered(misplaced(&tsid)),
        ),
        (tsid.as_str(), body(json!({"token": tsid, "sid": tsid})), answered(misplaced(&tsid))),
        (
            "messenger",
            b"tsid=".iter().chain(tsid.as_bytes()).copied().collect(),
            answered(producer.properties()),
        ),
    ];
    let answered = published.len();
    for (key, body, properties) in published {
        producer.submit(key, &body, properties).await;
    }
    let unknown = [
        ("messenger", body(json!({})), misplaced(&wrong)),
        ("messenger", body(json!({"tsid": wrong})), BasicProperties::default()),
        (
            "messenger",
            body(json!({"mdata": tsid})),
            BasicProperties::default().with_message_id(tsid.as_str().into()),
        ),
    ];
    for (key, body, properties) in &unknown {
        producer.submit(key, body, properties.clone()).await;
    }
    for _ in 0..answered {
        let answer = answers.next().await;
        stage.saw("an answer to a producer", &answer.data);
    }
    // Three are refused; the other two have their outcomes.
    let program = stage.program.clone();
    stage.run_with_texts("rejected list", &program, &["rejected", "list"]);
    stage.run("rejected list of unknown senders", &program, &["rejected", "list", "--unauthenticated"], None);
    for _ in 0..3 {
        let kept = producer.rejected().await;
        stage.may_hold_texts("a refused submission", &kept.data);
        stage.saw("the properties of a refused submission", format!("{:?}", kept.properties).as_bytes());
    }
    for _ in 0..unknown.len() {
        let kept = producer.unauthenticated().await;
        stage.saw("a submission of an unknown sender", &kept.data);
        stage.saw("the properties of one", format!("{:?}", kept.properties).as_bytes());
    }
    let mut heard = 0;
    while let Ok(event) = tokio::time::timeout(QUIET, events.next()).await {
        stage.saw("an event", &event.data);
        heard += 1;
    }
    assert!(heard > 0, "no event was heard");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn ingest_and_worker_keep_every_secret() {
    let canaries = Canaries::mint();
    let (ingest_role, worker_role) = (
        Role::create_with(&canaries.database_password).await,
        Role::create_with(&canaries.database_password).await,
    );
    let (database, vhost) = (Database::create().await, Vhost::lease().await);
    let ingest_user = vhost.user_with(&canaries.broker_password, |_| Rights::of_ingest());
    let worker_user = vhost.user_with(&canaries.broker_password, |_| Rights::of_worker());
    let mut stage = Stage::set(canaries).await;
    stage.program = stage.program.clone().database(database.url()).broker(vhost.url().expose_secret());
    stage.run("migrate", &stage.program.clone(), &["migrate", "--roles"], None);
    for (group, role) in [("ingest", &ingest_role), ("worker", &worker_role)] {
        database.execute(&format!("grant meta_dispatch_{group} to {}", role.name)).await;
    }
    stage.open_account().await;
    let ingest = stage.program.clone().database(&ingest_role.url(&database)).with("security.key", "");
    let ingest = ingest.broker(ingest_user.url().expose_secret()).with("events.publish", "all");
    let worker = stage.program.clone().database(&worker_role.url(&database));
    let worker = worker.broker(worker_user.url().expose_secret()).with("events.publish", "all");
    let ingest_process = stage.start("ingest", &ingest).await;
    let log = stage.log();
    let worker_process = worker.start_ready("worker", Output::AppendTo(&log)).await.expect("it starts");
    stage.callers().await;
    stage.admin().await;
    submissions(&mut stage, &vhost).await;
    stage.commands(&stage.program.clone());
    stage.run("check", &worker, &["check"], None);
    stage.run("check as JSON", &worker, &["--json", "check"], None);

    let secrets = stage.canaries.all();
    match (held(ingest_process.pid(), &secrets), held(worker_process.pid(), &secrets)) {
        (Ok(of_ingest), Ok(of_worker)) => {
            for sealing in ["security.key", "the text of security.key", PLAIN_TOKEN, "the sealed page token"]
            {
                assert!(!of_ingest.contains(sealing), "the memory of ingest holds {sealing}");
            }
            assert!(
                of_ingest.contains("the database's password"),
                "its own memory was not read: {of_ingest:?}"
            );
            assert!(of_worker.contains(PLAIN_TOKEN), "the worker's memory was not read: {of_worker:?}");
        }
        (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            println!("the memory of processes is not looked at, as this user may not read it: {error}");
        }
        (of_ingest, of_worker) => panic!("memory cannot be read: {of_ingest:?} {of_worker:?}"),
    }
    for process in [ingest_process, worker_process] {
        process.stop().await.expect("it ends");
    }
    stage.look(&Place::Postgres(database.url().to_owned())).await;
}
