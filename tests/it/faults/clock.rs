//! Steps of the database's clock, forward and back by an hour. As nobody can step the clock of a machine that others use,
//! every time in the database is moved the other way, which is the same to whoever compares.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::Status;
use rstest::rstest;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline, eventually};

/// All that the store compares with its clock.
const TIMES: &[(&str, &str)] = &[
    ("cdls", "next_at"),
    ("cdls", "expires_at"),
    ("cdls_open", "due_at"),
    ("work", "expires_at"),
    ("claim", "made_at"),
    ("cd_v8_line", "v8l_paused_until"),
];
const OF_SQLITE: (&str, &str) = ("claim_row", "call_deadline");
const OF_POSTGRES: (&str, &str) = ("worker_lease", "expires_at");

/// What has the effect of a step of the database's clock.
async fn step(pipeline: &Pipeline, backend: Backend, hours: i32) {
    let other = if backend == Backend::Embedded { OF_SQLITE } else { OF_POSTGRES };
    for (table, column) in TIMES.iter().chain([&other]) {
        let moved = match backend {
            Backend::Embedded => format!("strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '{} hours')", -hours),
            Backend::Servers => format!("{column} - {hours} * interval '1 hour'"),
        };
        // The step leaves times between the last look and the next one.
        let moved = match (*column, backend) {
            ("due_at", Backend::Embedded) => format!("max({moved}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"),
            ("due_at", Backend::Servers) => format!("greatest({moved}, now())"),
            _ => moved,
        };
        pipeline.execute(&format!("update {table} set {column} = {moved} where {column} is not null")).await;
    }
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn step_loses_no_call_and_stops_no_message(#[case] backend: Backend, #[values(1, -1)] hours: i32) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.simulator.set_latency(Duration::from_secs(1), Duration::ZERO);
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(pipeline.submit(&format!("r{n}"), "hello").await);
    }
    eventually("the calls", || async {
        let calls = pipeline.simulator.counts().calls;
        if calls == 10 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    step(&pipeline, backend, hours).await;
    for n in 0..10 {
        // To the same recipients, behind the calls in flight, and to others.
        ids.push(pipeline.submit(&format!("r{n}"), "again").await);
        ids.push(pipeline.submit(&format!("s{n}"), "hello").await);
    }
    for id in ids {
        let row = pipeline.expect_ok(id).await;
        assert_eq!((row.attempts, row.ambiguous_attempts), (1, 0), "{row:?}");
    }
    assert_eq!(pipeline.simulator.counts().calls, 30);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn schedules_and_pauses_end_by_the_database_clock(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let in_half_an_hour = time::OffsetDateTime::now_utc() + time::Duration::minutes(30);
    let scheduled = json!({
        "app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "send_at": in_half_an_hour.unix_timestamp(),
    });
    let (_, answer) = pipeline.post(Class::MESSENGER, scheduled).await;
    let scheduled = meta_dispatch::domain::RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let paused = pipeline.add_line(Class::MESSENGER, "EAApaused").await;
    let half_an_hour = Some(Duration::from_secs(1_800));
    assert!(pipeline.store.pause_line(paused, half_an_hour, "for a test").await.expect("the store answers"));
    let waits = pipeline.submit_on(paused, "bob", "hi").await;
    pipeline.expect_ok(pipeline.submit("eve", "hi").await).await;
    for id in [scheduled, waits] {
        assert_eq!(pipeline.row(id).await.status, Status::Pending);
    }
    step(&pipeline, backend, 1).await;
    pipeline.expect_ok(scheduled).await;
    pipeline.expect_ok(waits).await;
    pipeline.stop().await;
}
