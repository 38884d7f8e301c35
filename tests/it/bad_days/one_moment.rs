//! A campaign is scheduled for one moment. Its rows become ready a thousand at a time; the schedules of other lines
//! are kept meanwhile, and a worker that dies in the middle leaves no row behind.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::Submission;
use meta_dispatch::text::timestamp;
use rstest::rstest;
use time::OffsetDateTime;

use super::{COMMIT, Worker, delay, log, number, scaled, schedule, text};
use crate::support::pipeline::{Backend, Pipeline, eventually};

/// How long after its time a message may be sent, on a machine that is busy with other tests.
const AT_MOST: Duration = Duration::from_millis(1_500);

/// Rows of the campaign.
fn rows() -> i64 {
    scaled(20_000, 3_000_000)
}

/// Logs the campaign on a line of its own, as fast as Meta lets one send, to be sent tomorrow.
async fn log_campaign(pipeline: &Pipeline) {
    let line = pipeline.add_limited_line(Class::MESSENGER, "EAAmoment", Some(300)).await;
    let tomorrow = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    for first in (0..rows()).step_by(COMMIT) {
        let part: Vec<Submission> = (first..rows().min(first + COMMIT as i64))
            .map(|n| Submission { send_at: Some(tomorrow), ..text(pipeline, line, &format!("r{n}")) })
            .collect();
        log(pipeline, &part).await;
    }
}

/// Rows that wait for their time.
async fn scheduled(pipeline: &Pipeline) -> i64 {
    number(pipeline, "select count(*) from cdls_open where kind = 'schedule'").await
}

async fn all_become_ready(pipeline: &Pipeline) {
    eventually("the campaign to become ready", || async {
        let left = scheduled(pipeline).await;
        if left == 0 { Ok(()) } else { Err(format!("{left} rows wait for their time")) }
    })
    .await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn campaign_delays_no_other_schedule(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    log_campaign(&pipeline).await;
    // Time for the next statement, which changes all rows.
    let at = OffsetDateTime::now_utc() + Duration::from_secs(scaled(3, 240).unsigned_abs());
    pipeline.execute(&format!("update cdls_open set due_at = '{}'", timestamp(at))).await;
    let other = schedule(&pipeline, "ann", at).await;
    let late = delay(&pipeline.expect_ok(other).await, at);
    assert!(late <= AT_MOST, "sent {late} late");
    all_become_ready(&pipeline).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn dying_worker_leaves_no_row_behind() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.stop_last().await;
    log_campaign(&pipeline).await;
    pipeline.bring_schedules_forward().await;
    let worker = Worker::start(&pipeline, &[]).await;
    let left = eventually("a part of the campaign to become ready", || async {
        let left = scheduled(&pipeline).await;
        if left < rows() { Ok(left) } else { Err(format!("{left} rows wait for their time")) }
    })
    .await;
    worker.kill();
    assert!(left > 0, "it died too late");

    let worker = Worker::start(&pipeline, &[]).await;
    all_become_ready(&pipeline).await;
    let nowhere = number(
        &pipeline,
        "select count(*) from cdls where status in ('PENDING', 'RETRY') and cdls_id not in (
             select unnest(ids) from work union all select unnest(ids) from claim
             union all select cdls_id from cdls_open)",
    )
    .await;
    assert_eq!(nowhere, 0, "rows that wait and stand nowhere in the queue");
    worker.stop().await;
    let counts = pipeline.simulator.counts();
    assert!(counts.delivered > 0 && counts.delivered == counts.reached, "no message twice: {counts:?}");
    pipeline.stop().await;
}
