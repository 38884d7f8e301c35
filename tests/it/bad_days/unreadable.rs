//! A later version may write words into the log, the queue and the lines that this one does not know, as in a rolling
//! upgrade. Such rows are left alone; messages of others go on, also after a restart, and `/readyz` stays ready.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, Submission};
use rstest::rstest;
use serde_json::json;
use time::OffsetDateTime;

use super::{log, number, readiness, schedule, text};
use crate::support::pipeline::{Backend, Pipeline};

/// Logs a waiting row and a scheduled one, both to `strange`. Their line is new and paused, so that no worker reads
/// them yet.
async fn strange_rows(pipeline: &Pipeline) -> LineId {
    let line = pipeline.add_line(Class::MESSENGER, "EAAlater").await;
    assert!(pipeline.store.pause_line(line, None, "for a test").await.expect("the store answers"));
    let tomorrow = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let waiting = text(pipeline, line, "strange");
    let scheduled = Submission { send_at: Some(tomorrow), ..waiting.clone() };
    log(pipeline, &[waiting, scheduled]).await;
    line
}

/// Runs statements of a later version, whose schema takes its words.
async fn write_as_later(pipeline: &Pipeline, backend: Backend, statements: &str) {
    let allow = match backend {
        Backend::Embedded => "pragma ignore_check_constraints = on",
        Backend::Servers => {
            "alter table cdls drop constraint cdls_priority_check;
             alter table cdls_0 drop constraint if exists cdls_priority_check;
             alter table cd_v8_line drop constraint cd_v8_line_v8l_class_check"
        }
    };
    pipeline.execute(&format!("{allow}; {statements}")).await;
}

/// Sends messages on these lines, and a scheduled one. The worker is ready and serves all its partitions.
async fn others_go_on(pipeline: &Pipeline, lines: &[LineId]) {
    for line in lines {
        pipeline.expect_ok(pipeline.submit_on(*line, "ann", "hello").await).await;
    }
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(1);
    pipeline.expect_ok(schedule(pipeline, "bob", soon).await).await;
    let admin = *pipeline.admin().last().expect("one is running");
    let readiness = readiness(&pipeline.client, admin).await;
    assert_eq!((&readiness["ready"], &readiness["unserved"]), (&json!(true), &json!(0)), "{readiness}");
}

/// Others go on before and after a restart, and the strange rows still wait for a process that can read them.
async fn strange_rows_stop_nobody(mut pipeline: Pipeline, lines: &[LineId]) {
    others_go_on(&pipeline, lines).await;
    pipeline.stop_processes().await;
    pipeline.start_processes().await;
    others_go_on(&pipeline, lines).await;
    assert_eq!(pipeline.simulator.delivered_to("strange"), 0);
    let waiting = "select count(*) from cdls where dest = 'strange' and status = 'PENDING'";
    assert_eq!(number(&pipeline, waiting).await, 2);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_lane_stops_no_other_row(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = strange_rows(&pipeline).await;
    let statements = "update cdls set priority = 'low'; update work set priority = 'low';
        update cdls_open set priority = 'low'";
    write_as_later(&pipeline, backend, statements).await;
    pipeline.bring_schedules_forward().await;
    assert!(pipeline.store.resume_line(line).await.expect("the store answers"));
    let lines = [pipeline.messenger, line];
    strange_rows_stop_nobody(pipeline, &lines).await;
}

/// Such a row stands in work that can be read.
#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_lane_in_known_work_stops_no_other_row(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = strange_rows(&pipeline).await;
    write_as_later(&pipeline, backend, "update cdls set priority = 'low'").await;
    pipeline.bring_schedules_forward().await;
    assert!(pipeline.store.resume_line(line).await.expect("the store answers"));
    let lines = [pipeline.messenger, line];
    strange_rows_stop_nobody(pipeline, &lines).await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_class_stops_no_other_line(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = strange_rows(&pipeline).await;
    let statement = format!(
        "update cd_v8_line set v8l_class = 'telepathy', v8l_paused_until = null, v8l_pause_reason = null
         where v8l_id = {line}"
    );
    write_as_later(&pipeline, backend, &statement).await;
    pipeline.bring_schedules_forward().await;
    let lines = [pipeline.messenger];
    strange_rows_stop_nobody(pipeline, &lines).await;
}
