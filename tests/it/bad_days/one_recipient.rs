//! One recipient has thousands of waiting messages, and the first of them fails. Messages to others behind them, on
//! the same line and in the same lane, are sent meanwhile, also by a worker that has just started.

use std::time::{Duration, Instant};

use meta_dispatch::domain::Status;
use rstest::rstest;

use super::{log, text};
use crate::support::pipeline::{Backend, Pipeline};

const JAMMED: &str = "code1200x99-jam";
const ROWS: usize = 5_000;
/// How long the messages to others may take together. At 40 a second they take half a second.
const SOON: Duration = Duration::from_secs(5);

async fn others_are_sent(pipeline: &Pipeline, name: &str) {
    let begun = Instant::now();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(pipeline.submit(&format!("{name}{n}"), "hello").await);
    }
    for id in ids {
        pipeline.expect_ok(id).await;
    }
    assert!(begun.elapsed() < SOON, "messages of others took {:?}", begun.elapsed());
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn jam_delays_no_other_recipient(#[case] backend: Backend) {
    // The next try comes after the end of this test, and soon enough to hold the recipient after a restart.
    let settings = [("retry.base", "60s"), ("retry.cap", "120s")];
    let mut pipeline = Pipeline::start_with(backend, &settings).await;
    let rows = vec![text(&pipeline, pipeline.messenger, JAMMED); ROWS];
    let ids = log(&pipeline, &rows).await;
    pipeline.until(ids[0], "its next try", |row| row.status == Status::Retry).await;
    others_are_sent(&pipeline, "beside").await;

    pipeline.stop_processes().await;
    pipeline.start_processes().await;
    others_are_sent(&pipeline, "afterwards").await;
    let calls = pipeline.simulator.calls().iter().filter(|call| call.dest == JAMMED).count();
    assert_eq!(calls, 1, "the recipient's other messages wait behind the first");
    assert_eq!(pipeline.row(ids[ROWS - 1]).await.status, Status::Pending);
    pipeline.stop().await;
}
