//! Results that the database refuses: the call was made, so the row must not be given back.

use meta_dispatch::domain::{ErrorKind, Status};
use rstest::rstest;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// Makes the database refuse results of calls to a recipient, as a value does that it cannot hold.
async fn refuse(pipeline: &Pipeline, backend: Backend, postgres: &'static str, sqlite: &'static str) {
    pipeline.execute(if backend == SERVERS { postgres } else { sqlite }).await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_success_is_unknown_and_spares_others(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    refuse(
        &pipeline,
        backend,
        "alter table cdls add constraint refuse check (message_id is null or dest <> 'refused')",
        "create trigger refuse before update on cdls when new.message_id is not null and new.dest = 'refused'
         begin select raise(abort, 'refused'); end",
    )
    .await;
    let mut neighbours = Vec::new();
    let id = pipeline.submit("refused", "hello").await;
    for n in 0..10 {
        neighbours.push(pipeline.submit(&format!("ann{n}"), "hello").await);
    }
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1), "{row:?}");
    assert!(row.error_message.is_some_and(|text| text.contains("database refused")));
    for neighbour in neighbours {
        pipeline.expect_ok(neighbour).await;
    }
    assert_eq!(pipeline.simulator.delivered_to("refused"), 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_error_text_is_left_out(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    refuse(
        &pipeline,
        backend,
        "alter table cdls add constraint refuse check (error_message not like '%matching user%')",
        "create trigger refuse before update on cdls when new.error_message like '%matching user%'
         begin select raise(abort, 'refused'); end",
    )
    .await;
    let row = pipeline.outcome(pipeline.submit("code100-ann", "hello").await).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
    assert_eq!((row.error_code, row.error_subcode, row.status_code), (Some(100), Some(2018001), 400));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn unwritable_result_is_settled_and_never_resent(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    refuse(
        &pipeline,
        backend,
        "create function refuse() returns trigger language plpgsql as $$ begin
             if new.dest = 'refused' then
                 raise exception 'refused' using errcode = '23514';
             end if;
             return new; end $$;
         create trigger refuse before update on cdls for each row execute function refuse()",
        "create trigger refuse before update on cdls when new.dest = 'refused'
         begin select raise(abort, 'refused'); end",
    )
    .await;
    let id = pipeline.submit("refused", "hello").await;
    pipeline.until(id, "the claim", |row| row.status == Status::Sending).await;
    eventually("the call", || async {
        let delivered = pipeline.simulator.delivered_to("refused");
        if delivered == 1 { Ok(()) } else { Err(format!("{delivered}")) }
    })
    .await;
    // Its result is written after that of the call before: in vain.
    pipeline.expect_ok(pipeline.submit("ann", "hello").await).await;
    assert_eq!(pipeline.row(id).await.status, Status::Sending);
    refuse(
        &pipeline,
        backend,
        "create or replace function refuse() returns trigger language plpgsql as $$ begin return new; end $$",
        "drop trigger refuse",
    )
    .await;
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1), "{row:?}");
    assert_eq!(pipeline.simulator.delivered_to("refused"), 1);
    pipeline.stop().await;
}
