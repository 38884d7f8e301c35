//! Faults of the database: no call without a committed claim, results wait and are written when it is back.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, Lane, LineId, RowId, Status, Submission};
use meta_dispatch::settings::Plaintext;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{
    Claim, DispatchStore, LeaseStore, LogRow, LogStore, Record, SchemaStore, Scope, StoreError,
};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::database::Database;
use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::vanishing::Vanishing;

const FAST: [(&str, &str); 2] = [("limits.enforce_ceilings", "false"), ("limits.messenger.text", "1000")];

/// Ends every other connection to this database, as an operator or a failing network does.
const CUT_ALL: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()";

/// Keeps everybody from writing for longer than a statement waits for a lock.
const HOLD_WRITES: &str = "begin; lock table cdls, claim in exclusive mode; select pg_sleep(6); commit";

/// The row, if the log can be read.
async fn row(pipeline: &Pipeline, id: RowId) -> Result<LogRow, String> {
    match pipeline.store.log_row(Scope::Operator, id).await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err("no such row".into()),
        Err(error) => Err(error.to_string()),
    }
}

async fn outcome(pipeline: &Pipeline, id: RowId) -> LogRow {
    eventually("an outcome", || async {
        let row = row(pipeline, id).await?;
        if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await
}

/// Submits, if ingest can log.
async fn try_submit(pipeline: &Pipeline, line: LineId, dest: &str) -> Option<RowId> {
    let parameters = json!({"app_id": line.0, "dest": dest, "mdata": "hello"});
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    match status {
        StatusCode::OK => Some(RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))),
        StatusCode::SERVICE_UNAVAILABLE => None,
        other => panic!("{other}: {answer}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn cut_connections_lose_and_repeat_no_message() {
    let pipeline = Pipeline::start_with(Backend::Servers, &FAST).await;
    pipeline.simulator.set_latency(Duration::from_millis(80), Duration::from_millis(40));
    let mut lines = vec![pipeline.messenger];
    for _ in 0..3 {
        lines.push(pipeline.add_line(Class::MESSENGER, "EAAcut").await);
    }
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for n in 0..300 {
        if n % 25 == 24 {
            pipeline.execute(CUT_ALL).await;
        }
        let dest = format!("r{n}");
        match try_submit(&pipeline, lines[n % 4], &dest).await {
            Some(id) => accepted.push(id),
            None => refused.push(dest),
        }
    }
    assert!(accepted.len() >= 200, "{} of 300 were accepted", accepted.len());
    for id in accepted {
        let row = outcome(&pipeline, id).await;
        assert_eq!((row.status, row.ambiguous_attempts), (Status::Ok, 0), "{row:?}");
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 1);
    }
    for dest in refused {
        assert!(pipeline.simulator.delivered_to(&dest) <= 1);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn locked_writes_accept_nothing_and_begin_no_call() {
    let pipeline = Pipeline::start_with(Backend::Servers, &FAST).await;
    pipeline.simulator.set_latency(Duration::from_millis(500), Duration::ZERO);
    let mut ids = vec![pipeline.submit("ann", "hello").await];
    pipeline.until(ids[0], "the claim", |row| row.status == Status::Sending).await;
    let held = pipeline.execute(HOLD_WRITES);
    let watched = async {
        // Each waits for the one before it to be answered and recorded.
        while let Some(id) = try_submit(&pipeline, pipeline.messenger, "ann").await {
            ids.push(id);
        }
        // A refusal takes longer than a call: those begun before the lock are answered.
        let calls = pipeline.simulator.counts().calls;
        assert_eq!(try_submit(&pipeline, pipeline.messenger, "ann").await, None);
        assert_eq!(pipeline.simulator.counts().calls, calls, "no call without a committed claim");
        ids
    };
    let ((), ids) = tokio::join!(held, watched);
    for id in &ids {
        let row = outcome(&pipeline, *id).await;
        assert_eq!((row.status, row.ambiguous_attempts), (Status::Ok, 0), "{row:?}");
    }
    assert_eq!(pipeline.simulator.delivered_to("ann"), ids.len(), "each message once");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn few_connections_slow_down_and_lose_nothing() {
    let few = [("database.max_connections", "4"), FAST[0], FAST[1]];
    let pipeline = Pipeline::start_with(Backend::Servers, &few).await;
    let lines = [pipeline.messenger, pipeline.add_line(Class::MESSENGER, "EAAfew").await];
    let sends = (0..200).map(|n| {
        let (pipeline, line) = (&pipeline, lines[n % 2]);
        async move { try_submit(pipeline, line, &format!("r{n}")).await }
    });
    let ids = futures::future::join_all(sends).await;
    for id in ids.into_iter().flatten() {
        assert_eq!(outcome(&pipeline, id).await.status, Status::Ok);
    }
    assert_eq!(pipeline.simulator.counts().calls, pipeline.simulator.counts().delivered);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn row_of_a_later_version_stops_no_other(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let tomorrow = Some(time::OffsetDateTime::now_utc() + Duration::from_secs(86_400));
    let later = Submission { send_at: tomorrow, line: pipeline.messenger, ..text("new") };
    pipeline.store.insert(&[later]).await.expect("rows can be logged");
    pipeline.execute("update cdls set mtype = 'hologram' where dest = 'new'").await;
    pipeline.bring_schedules_forward().await;
    let ids = [pipeline.submit("ann", "hello").await, pipeline.submit("bob", "hello").await];
    for id in ids {
        pipeline.expect_ok(id).await;
    }
    assert_eq!(pipeline.simulator.delivered_to("new"), 0);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn messages_due_at_once_are_each_sent_once(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &FAST).await;
    let mut ids = Vec::new();
    let tomorrow = time::OffsetDateTime::now_utc().unix_timestamp() + 86_400;
    for n in 0..300 {
        let parameters = json!({
            "app_id": pipeline.messenger.0, "dest": format!("r{n}"), "mdata": "hi", "send_at": tomorrow,
            "priority": if n % 2 == 0 { "high" } else { "bulk" },
        });
        let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        ids.push(RowId(answer["return"]["cdls_id"].as_i64().expect("an id")));
    }
    pipeline.bring_schedules_forward().await;
    for id in ids {
        let row = pipeline.expect_ok(id).await;
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 1);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn worker_takes_no_line_before_its_schema() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    // As if the last migration had still to be run.
    pipeline
        .execute(
            "update _sqlx_migrations set version = version + 1000
             where version = (select max(version) from _sqlx_migrations)",
        )
        .await;
    pipeline.start_worker().await;
    for n in 0..10 {
        pipeline.expect_ok(pipeline.submit(&format!("r{n}"), "the other worker goes on").await).await;
        assert_eq!(pipeline.leases().await, 0);
    }
    pipeline.execute("update _sqlx_migrations set version = version - 1000 where version > 1000").await;
    eventually("its share", || async {
        let held = pipeline.leases().await;
        if held == 32 { Ok(()) } else { Err(format!("{held} partitions")) }
    })
    .await;
    pipeline.stop().await;
}

fn text(dest: &str) -> Submission {
    Submission {
        account: AccountId(1),
        line: LineId(1),
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "hello".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    }
}

/// Nothing is told of it: neither the operating system nor the database ends such a connection for a quarter of an hour.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn vanished_database_is_given_up_within_seconds() {
    let database = Database::create().await;
    let between = Vanishing::before(database.server()).await;
    let store = PostgresStore::open(&database.url_at(between.address()).into(), 8, Plaintext::default())
        .expect("the URL is right");
    store.migrate().await.expect("it can be migrated");
    database.execute("insert into account (cdcs_name) values ('Acme')").await;
    database.execute("insert into cd_v8_line (cdcs_id, v8l_class) values (1, 'messenger')").await;
    let minute = Duration::from_secs(60);
    store.renew_leases("w", minute, false).await.expect("leases can be had");
    store.acquire_leases("w", minute, 64).await.expect("leases can be had");
    let [id] = store.insert(&[text("ann")]).await.expect("it can be logged")[..] else { panic!("one row") };

    between.vanish();
    let claims =
        [Claim { id, line: LineId(1), fence: 0, digest: None, in_campaign: false, call_deadline: minute }];
    let claim = |claim_no| Record {
        worker: "w",
        changes: &[],
        claims: &claims,
        claim_no,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    let bob = [text("bob")];
    // Some go to connections that are open, and some to new ones.
    let logging = futures::future::join_all((0..4).map(|_| store.insert(&bob)));
    let claiming = futures::future::join_all((0..4).map(|_| store.record(claim(1))));
    let both = tokio::time::timeout(Duration::from_secs(25), futures::future::join(logging, claiming)).await;
    let (logged, claimed) = both.expect("each is answered");
    let is_given_up =
        |error: &StoreError| matches!(error, StoreError::Unavailable(_) | StoreError::CommitUnknown(_));
    assert!(logged.iter().filter_map(|logged| logged.as_ref().err()).all(is_given_up), "{logged:?}");
    assert!(claimed.iter().filter_map(|claimed| claimed.as_ref().err()).all(is_given_up), "{claimed:?}");

    eventually("connections to the server that is there now", || async {
        store.insert(&bob).await.map_err(|error| error.to_string())?;
        store.record(claim(1)).await.map_err(|error| error.to_string())
    })
    .await;
    let row = store.log_row(Scope::Operator, id).await.expect("it answers").expect("it is logged");
    assert_eq!((row.status, row.attempts), (Status::Sending, 1));
}
