//! Rows whose worker is gone: settled by the next owner, with an end to the tries.

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{ErrorKind, Status};
use meta_dispatch::store::LogRow;
use rstest::rstest;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline};

/// Claims whose call's deadline has long passed, of a worker that never lived. One has taken two workers with it,
/// one has used up its tries but the last.
fn orphaned(backend: Backend) -> String {
    let claim = match backend {
        Backend::Servers => {
            "insert into claim (worker, claim_no, ids, fences, partitions, deadline_ms, made_at)
             select 'dead', 1, array_agg(cdls_id), array_agg(1), array_agg((v8l_id % 64)::smallint),
                    array_agg(60000::bigint), '2020-01-01T00:00:00.000Z'
             from cdls;
             insert into worker_lease (worker, expires_at, unable) values ('dead', now() + interval '1 minute', true);"
        }
        Backend::Embedded => {
            "insert into claim (worker, claim_no, made_at) values ('dead', 1, '2020-01-01T00:00:00.000Z');
             insert into claim_row (cdls_id, fence, claim_id, partition_no, call_deadline)
             select cdls_id, 1, (select max(claim_id) from claim), v8l_id % 64, '2020-01-01T00:00:00.000Z'
             from cdls;"
        }
    };
    format!(
        "begin;
         update cdls set next_at = null, crashes = case dest when 'poison' then 2 else 0 end,
                tries = case dest when 'spent' then 11 else 0 end;
         delete from cdls_open;
         {claim}
         commit"
    )
}

async fn orphans(backend: Backend, policy: &str) -> (Pipeline, [LogRow; 3]) {
    let pipeline = Pipeline::start_with(backend, &[("dispatch.on_ambiguous", policy)]).await;
    let mut ids = Vec::new();
    for dest in ["first", "poison", "spent"] {
        let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::days(1);
        let parameters = json!({
            "app_id": pipeline.messenger.0, "dest": dest, "mdata": "hi", "send_at": tomorrow.unix_timestamp(),
        });
        let (_, answer) = pipeline.post(Class::MESSENGER, parameters).await;
        ids.push(meta_dispatch::domain::RowId(answer["return"]["cdls_id"].as_i64().expect("an id")));
    }
    pipeline.execute(&orphaned(backend)).await;
    let rows =
        [pipeline.outcome(ids[0]).await, pipeline.outcome(ids[1]).await, pipeline.outcome(ids[2]).await];
    (pipeline, rows)
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn are_retried_until_spent_or_poison(#[case] backend: Backend) {
    let (pipeline, [first, poison, spent]) = orphans(backend, "retry").await;
    assert_eq!((first.status, first.attempts, first.ambiguous_attempts), (Status::Ok, 2, 1), "{first:?}");
    assert_eq!((poison.status, poison.error_kind), (Status::Error, Some(ErrorKind::Poison)), "{poison:?}");
    assert_eq!((spent.status, spent.attempts), (Status::Unknown, 1), "{spent:?}");
    for row in [poison, spent] {
        assert_eq!(row.ambiguous_attempts, 1);
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 0);
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn are_held_as_unknown_by_default(#[case] backend: Backend) {
    let (pipeline, rows) = orphans(backend, "hold").await;
    for row in rows {
        assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1), "{row:?}");
    }
    assert_eq!(pipeline.simulator.calls().len(), 0);
    pipeline.stop().await;
}
