//! Other programs lock rows of the log (`select … for update` in a forgotten session) or a whole range of it (`create
//! index`). Messages of others go on, and results of the locked rows are written when the lock is gone.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, Status};
use rstest::rstest;

use super::{connect, delay};
use crate::support::pipeline::{Backend, Pipeline, eventually};

const MESSAGES: usize = 20;
/// How long a message may wait for its call, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// Longer than a worker rests between two looks at its open claims.
const HELD_FOR: Duration = Duration::from_secs(6);

/// Sends messages of a line one after the other, some and for so long; each is sent at once.
async fn messages_go_on(pipeline: &Pipeline, line: LineId, length: Duration) {
    let begun = Instant::now();
    let mut sent = 0;
    while sent < MESSAGES || begun.elapsed() < length {
        let id = pipeline.submit_on(line, &format!("r{sent}"), "hello").await;
        let row = pipeline.expect_ok(id).await;
        let waited = delay(&row, row.created_at);
        assert!(waited <= AT_ONCE, "message {sent} waited {waited}");
        sent += 1;
    }
}

#[rstest]
#[case::one_row("locked", 1, 1)]
#[case::one_row_to_be_tried_again("code1200x1-locked", 1, 2)]
#[case::several_rows("locked", 8, 1)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn in_calls_delay_no_other_line(#[case] dest: &str, #[case] rows: usize, #[case] attempts: i32) {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let other = pipeline.add_line(Class::MESSENGER, "EAAother").await;
    pipeline.simulator.set_latency(Duration::from_secs(2), Duration::ZERO);
    let mut ids = Vec::new();
    for n in 0..rows {
        ids.push(pipeline.submit(&format!("{dest}{n}"), "hello").await);
    }
    eventually("the calls", || async {
        let calls = pipeline.simulator.counts().calls;
        if calls == rows as u64 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    let mut holder = connect(&pipeline).await;
    let lock = "begin; select cdls_id from cdls where dest like '%locked%' order by cdls_id for update";
    sqlx::raw_sql(lock).execute(&mut holder).await.expect("the rows are locked");
    pipeline.simulator.set_latency(Duration::ZERO, Duration::ZERO);
    eventually("the answers", || async {
        let in_flight = pipeline.simulator.counts().in_flight;
        if in_flight == 0 { Ok(()) } else { Err(format!("{in_flight} calls in flight")) }
    })
    .await;

    messages_go_on(&pipeline, other, HELD_FOR).await;
    for id in &ids {
        assert_eq!(pipeline.row(*id).await.status, Status::Sending, "its result waits for the lock");
    }
    sqlx::raw_sql("rollback").execute(&mut holder).await.expect("the lock is given up");
    for id in ids {
        let row = pipeline.expect_ok(id).await;
        assert_eq!((row.attempts, row.ambiguous_attempts), (attempts, 0), "{row:?}");
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 1);
    }
    pipeline.stop().await;
}

/// The lock is that of `create index` and `reindex`.
#[rstest]
#[case::the_next_range(8_000_000, "cdls_1")]
#[case::an_old_range(10_000_000, "cdls_0")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn locked_range_delays_no_other_range(#[case] reached: i64, #[case] locked: &str) {
    let pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.expect_ok(pipeline.submit("before", "hello").await).await;
    pipeline
        .execute(&format!("select setval('cdls_id_seq', {reached}); select cdls_ensure_partitions()"))
        .await;
    let mut builder = connect(&pipeline).await;
    let lock = format!("begin; lock table {locked} in share mode");
    sqlx::raw_sql(&lock).execute(&mut builder).await.expect("the range is locked");
    messages_go_on(&pipeline, pipeline.messenger, Duration::ZERO).await;
    sqlx::raw_sql("commit").execute(&mut builder).await.expect("the lock is given up");
    pipeline.stop().await;
}
