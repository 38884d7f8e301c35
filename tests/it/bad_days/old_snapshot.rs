//! A transaction that stays open keeps PostgreSQL from forgetting old versions of rows: a dump, a report, a
//! forgotten session. Messages, schedules and leases go on beside it, and a metric shows its age.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::Submission;
use time::OffsetDateTime;

use super::{Worker, connect, delay, log, number, schedule, text};
use crate::support::pipeline::{Backend, Pipeline, eventually};

const MESSAGES: usize = 3_000;
const FAST: [(&str, &str); 2] = [("limits.enforce_ceilings", "false"), ("limits.messenger.text", "1000")];
/// How long after its time a scheduled message may be sent.
const AT_MOST: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn delays_no_schedule_and_costs_no_lease() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    // Metrics are counted by process, and this one runs other tests too.
    pipeline.stop_last().await;
    pipeline.execute("create extension pgstattuple").await;
    let mut old = connect(&pipeline).await;
    let begin = "begin isolation level repeatable read; select count(*) from cdls";
    sqlx::raw_sql(begin).execute(&mut old).await.expect("a snapshot is taken");

    let mut lines = vec![pipeline.messenger];
    for _ in 0..3 {
        lines.push(pipeline.add_line(Class::MESSENGER, "EAAold").await);
    }
    // Scheduled rows leave old versions where a worker looks for the rows that are due.
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(1);
    let rows: Vec<Submission> = (0..MESSAGES)
        .map(|n| Submission {
            send_at: (n % 2 == 0).then_some(soon),
            ..text(&pipeline, lines[n % lines.len()], &format!("r{n}"))
        })
        .collect();
    log(&pipeline, &rows).await;

    let started = Instant::now();
    let worker = Worker::start(&pipeline, &FAST).await;
    worker.holds(64).await;
    eventually("the messages to pass", || async {
        assert_eq!(worker.leases().await, 64, "a lease was lost");
        let sent = pipeline.simulator.counts().delivered;
        if sent == MESSAGES as u64 { Ok(()) } else { Err(format!("{sent} of {MESSAGES}")) }
    })
    .await;

    let at = OffsetDateTime::now_utc() + Duration::from_secs(2);
    let scheduled = schedule(&pipeline, "ann", at).await;
    let late = delay(&pipeline.expect_ok(scheduled).await, at);
    assert!(late <= AT_MOST, "sent {late} late");
    assert_eq!(worker.leases().await, 64, "a lease was lost");
    let age = worker.metric("meta_dispatch_oldest_snapshot_seconds").await;
    assert!(age > 0.0, "{age}");

    // Each renewal leaves one version (three in two seconds), whatever was sent.
    let dead = number(&pipeline, "select dead_tuple_count from pgstattuple('worker_lease')").await;
    let renewals = 2 * started.elapsed().as_secs() as i64 + 10;
    assert!(dead <= renewals, "{dead} old versions of leases after {:?}", started.elapsed());
    sqlx::raw_sql("rollback").execute(&mut old).await.expect("the snapshot is given up");
    worker.stop().await;
    pipeline.stop().await;
}
