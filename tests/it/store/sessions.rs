//! Sessions of PostgreSQL: settings, schemas and encodings that others chose, and servers that sessions outlive.

use std::time::Duration;

use meta_dispatch::domain::Submission;
use meta_dispatch::settings::Plaintext;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{Idempotency, IdempotencyKey, IntakeStore, NewMessage, SchemaStore, StoreError};
use sqlx::{Connection, PgConnection};

use crate::support::database::Database;
use crate::support::insert::Insert;
use crate::support::pipeline::eventually;
use crate::support::store::{Backend, Fixture, HOUR, text};

async fn connect(fixture: &Fixture) -> PgConnection {
    PgConnection::connect(fixture.database().url()).await.expect("the server answers")
}

async fn set_for_database(fixture: &Fixture, setting: &str) {
    fixture
        .execute(&format!(
            "do $$ begin execute format('alter database %I {setting}', current_database()); end $$"
        ))
        .await;
}

async fn end_sessions(connection: &mut PgConnection) {
    sqlx::raw_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(connection)
    .await
    .expect("sessions can be ended");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn closed_while_idle_cost_no_request() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let mut other = connect(&fixture).await;
    let at_once = async || {
        let requests = (0..6).map(|n| {
            let store = fixture.store.clone();
            async move { store.insert(&[text(&format!("r{n}"))]).await }
        });
        futures::future::join_all(requests).await
    };
    at_once().await;
    eventually("idle sessions", || async {
        let mut looking = connect(&fixture).await;
        let busy: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database()
             and application_name like 'meta-dispatch%' and state_change > clock_timestamp() - interval '1100 ms'",
        )
        .fetch_one(&mut looking)
        .await
        .expect("sessions are shown");
        if busy == 0 { Ok(()) } else { Err(format!("{busy} were busy")) }
    })
    .await;
    end_sessions(&mut other).await;
    for answer in at_once().await {
        answer.expect("the database is there");
    }
}

/// As after a fail-over, when the address leads to the new primary, and sessions still lead to the old one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn of_a_read_only_server_are_made_anew() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let mut other = connect(&fixture).await;
    set_for_database(&fixture, "set default_transaction_read_only = on").await;
    end_sessions(&mut other).await;
    let store = PostgresStore::open(&fixture.database().url().into(), 16, Plaintext::default())
        .expect("the URL is right");
    let refused = store.insert(&[text("ann")]).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
    let reason = store.not_writable().await.expect("the database answers");
    assert!(reason.is_some_and(|reason| reason.contains("only reads")));

    sqlx::raw_sql("begin read write").execute(&mut other).await.expect("it may write");
    sqlx::raw_sql(
        "do $$ begin execute format('alter database %I reset default_transaction_read_only', current_database()); end $$;
         commit",
    )
    .execute(&mut other)
    .await
    .expect("it is reset");
    eventually("the new server", || async {
        store.insert(&[text("bob")]).await.map_err(|error| error.to_string())
    })
    .await;
    for _ in 0..7 {
        assert_eq!(store.not_writable().await.expect("the database answers"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn full_last_range_is_not_writable() {
    let fixture = Fixture::create(Backend::Postgres).await;
    assert_eq!(fixture.store.not_writable().await.expect("the database answers"), None);
    fixture.execute("select setval('cdls_id_seq', 50000000)").await;
    let reason = fixture.store.not_writable().await.expect("the database answers");
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("migrate")), "{reason:?}");
}

#[rstest::rstest]
#[case::serializable("serializable")]
#[case::repeatable_read("repeatable read")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn stricter_default_isolation_refuses_no_request(#[case] isolation: &str) {
    let fixture = Fixture::create(Backend::Postgres).await;
    set_for_database(&fixture, &format!("set default_transaction_isolation = ''{isolation}''")).await;
    let store = PostgresStore::open(&fixture.database().url().into(), 16, Plaintext::default())
        .expect("the URL is right");
    let keyed = |n: usize| {
        let submission = Submission { cp_id: Some("spring".into()), ..text("ann") };
        let key = IdempotencyKey { key: format!("k{}", n % 5), request_hash: vec![1], kept: HOUR };
        NewMessage { idempotency: Some(Idempotency::Key(key)), ..NewMessage::from(submission) }
    };
    let all: Vec<Vec<NewMessage>> = (0..60).map(|n| vec![keyed(n), keyed(n + 1)]).collect();
    let answers = futures::future::join_all(all.iter().map(|messages| store.accept(messages))).await;
    for answer in answers {
        answer.expect("no commit is undone for good");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn earlier_schema_in_the_path_stops_only_migrate() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute("do $$ begin execute format('create schema %I', current_user); end $$").await;
    let store = PostgresStore::open(&fixture.database().url().into(), 16, Plaintext::default())
        .expect("the URL is right");
    store.insert(&[text("ann")]).await.expect("the tables are found");
    fixture.execute("select setval('public.cdls_id_seq', 8000000)").await;
    assert_eq!(store.ensure_room().await.expect("room is made"), 1);
    let refused = store.migrate().await.expect_err("there are two places");
    assert!(refused.to_string().contains("search_path"), "{refused}");
    let mut other = connect(&fixture).await;
    let elsewhere: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relname like 'cdls%' and relnamespace <> 'public'::regnamespace",
    )
    .fetch_one(&mut other)
    .await
    .expect("tables are shown");
    assert_eq!(elsewhere, 0);
}

#[rstest::rstest]
#[case::of_western_europe("WIN1252")]
#[case::unknown("SQL_ASCII")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn database_of_another_encoding_is_not_migrated(#[case] encoding: &str) {
    let database =
        Database::create_with(&format!("encoding '{encoding}' template template0 locale 'C'")).await;
    let store =
        PostgresStore::open(&database.url().into(), 16, Plaintext::default()).expect("the URL is right");
    let refused = store.migrate().await.expect_err("texts cannot be stored");
    assert!(refused.to_string().contains(encoding), "{refused}");
}

/// As a commit that waits for a standby, which no limit of the server ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn statement_given_up_ends_on_the_server() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture
        .execute(
            "create function hang() returns trigger language plpgsql as $$
             begin
                 perform pg_sleep(600);
                 return new;
             exception when query_canceled then
                 perform pg_sleep(600);
                 return new;
             end $$;
             create trigger hang before insert on cdls for each row when (new.dest = 'hangs') execute function hang()",
        )
        .await;
    let refused = fixture.store.insert(&[text("hangs")]).await;
    assert!(matches!(refused, Err(StoreError::CommitUnknown(_))), "{refused:?}");
    eventually("the end of the statement", || async {
        let mut looking = connect(&fixture).await;
        let running: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'",
        )
        .fetch_one(&mut looking)
        .await
        .expect("sessions are shown");
        if running == 0 { Ok(()) } else { Err(format!("{running} still run")) }
    })
    .await;
    tokio::time::timeout(Duration::from_secs(3), fixture.store.insert(&[text("bob")]))
        .await
        .expect("at once")
        .expect("others go on");
}
