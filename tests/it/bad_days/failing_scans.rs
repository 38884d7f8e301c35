//! A worker renews its leases, and its scans fail: its role has lost a right, or its server an index. Its lines go to a
//! worker that can look for their messages. The only worker tries on.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, RowId};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use super::{Worker, add_lines, all_are_sent_once, own_worker_holds};
use crate::support::database::Role;
use crate::support::pipeline::{Backend, Pipeline, eventually};

const LEASE: Duration = Duration::from_secs(1);
const SHORT_LEASE: (&str, &str) = ("dispatch.lease", "1s");
/// The time that a machine busy with other tests may add to two leases and a half.
const SLACK: Duration = Duration::from_secs(3);

/// Gives the role all that a worker needs.
async fn let_work(pipeline: &Pipeline, role: &Role) {
    let role = &role.name;
    pipeline
        .execute(&format!(
            "grant select, insert, update, delete on all tables in schema public to {role};
             grant usage, select, update on all sequences in schema public to {role}"
        ))
        .await;
}

/// Keeps the role from looking for work. Leases are renewed, results written and ended work removed as before: the removal
/// reads the number of the work alone.
async fn keep_from_looking(pipeline: &Pipeline, role: &Role) {
    let role = &role.name;
    pipeline
        .execute(&format!("revoke select on work from {role}; grant select (work_id) on work to {role}"))
        .await;
}

async fn let_look(pipeline: &Pipeline, role: &Role) {
    pipeline.execute(&format!("grant select on work to {}", role.name)).await;
}

/// Submits a message on each line, each to a recipient of its own. Jobs do not carry messages of the bulk lane: a worker
/// has to read them.
async fn submit(pipeline: &Pipeline, lines: &[LineId], name: &str) -> Vec<RowId> {
    let mut ids = Vec::new();
    for line in lines {
        let parameters =
            json!({"app_id": line.0, "dest": format!("{name}{line}"), "mdata": "hello", "priority": "bulk"});
        let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        ids.push(RowId(answer["return"]["cdls_id"].as_i64().expect("an id")));
    }
    ids
}

/// Waits until the worker shows that it cannot look for the work of its partitions.
async fn shows_unserved(worker: &Worker) {
    eventually("unserved partitions", || async {
        let readiness = worker.readiness().await;
        let unserved = readiness["unserved"].as_u64().expect("a number");
        let metric = worker.metric("meta_dispatch_leases_unserved").await;
        if unserved > 0 && metric > 0.0 { Ok(()) } else { Err(format!("{readiness}; metric {metric}")) }
    })
    .await;
}

#[rstest]
#[case::since_its_start(true)]
#[case::in_the_middle(false)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn move_partitions_to_a_worker_that_can_look(#[case] since_its_start: bool) {
    let role = Role::create().await;
    let pipeline = Pipeline::start_with(Backend::Servers, &[SHORT_LEASE]).await;
    let_work(&pipeline, &role).await;
    let lines = add_lines(&pipeline).await;
    let url = role.url(pipeline.database());
    let settings = [SHORT_LEASE, ("database.url", url.as_str())];
    let failing = if since_its_start {
        keep_from_looking(&pipeline, &role).await;
        Worker::start(&pipeline, &settings).await
    } else {
        let worker = Worker::start(&pipeline, &settings).await;
        worker.holds(32).await;
        own_worker_holds(&pipeline, 32).await;
        let ids = submit(&pipeline, &lines, "before").await;
        all_are_sent_once(&pipeline, ids).await;
        keep_from_looking(&pipeline, &role).await;
        worker
    };

    shows_unserved(&failing).await;
    let shown = Instant::now();
    let ids = submit(&pipeline, &lines, "meanwhile").await;
    own_worker_holds(&pipeline, 64).await;
    assert!(shown.elapsed() < LEASE * 5 / 2 + SLACK, "the lines were taken over after {:?}", shown.elapsed());
    all_are_sent_once(&pipeline, ids).await;
    assert_eq!(failing.leases().await, 0, "a worker takes nothing while it cannot look");

    let_look(&pipeline, &role).await;
    failing.holds(32).await;
    own_worker_holds(&pipeline, 32).await;
    let ids = submit(&pipeline, &lines, "afterwards").await;
    all_are_sent_once(&pipeline, ids).await;
    failing.stop().await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn leave_the_only_worker_trying() {
    let role = Role::create().await;
    let mut pipeline = Pipeline::start_with(Backend::Servers, &[SHORT_LEASE]).await;
    pipeline.stop_last().await;
    let_work(&pipeline, &role).await;
    keep_from_looking(&pipeline, &role).await;
    let lines = add_lines(&pipeline).await;
    let url = role.url(pipeline.database());
    let worker = Worker::start(&pipeline, &[SHORT_LEASE, ("database.url", url.as_str())]).await;
    shows_unserved(&worker).await;

    let ids = submit(&pipeline, &lines, "r").await;
    let_look(&pipeline, &role).await;
    all_are_sent_once(&pipeline, ids).await;
    worker.holds(64).await;
    worker.stop().await;
    pipeline.stop().await;
}
