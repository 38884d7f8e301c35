//! The schema, and room for the ids to come.

use meta_dispatch::domain::RowId;
use meta_dispatch::settings::Plaintext;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{SchemaState, StoreError};
use rstest::rstest;
use rstest_reuse::apply;
use sqlx::{Connection, PgConnection};

use super::backends::on_both;
use crate::support::insert::Insert;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO, text};

#[apply(on_both)]
async fn is_current_newer_or_older(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Current);
    assert_eq!(store.migrate().await.expect("it can be repeated"), 0);
    fixture
        .execute("insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99990101, 'later', true, '', 0)")
        .await;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Newer);
    assert_eq!(store.migrate().await.expect("a newer schema is accepted"), 0);
    fixture.execute("delete from _sqlx_migrations").await;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Older);
}

#[apply(on_both)]
async fn early_version_is_refused(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let other = if backend == Backend::Postgres { "'\\x00'::bytea" } else { "x'00'" };
    fixture.execute(&format!("update _sqlx_migrations set checksum = {other} where version = 2")).await;
    for refused in [fixture.store.schema().await.err(), fixture.store.migrate().await.err()] {
        let refused = refused.expect("it cannot be upgraded").to_string();
        assert!(refused.contains("early version"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_makes_room_at_the_last_fifth_of_a_range() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let made = async || fixture.store.ensure_room().await.expect("room can be made");
    fixture.execute("select setval('cdls_id_seq', 7999999)").await;
    assert_eq!(made().await, 0);
    fixture.execute("select setval('cdls_id_seq', 8000000)").await;
    assert_eq!((made().await, made().await), (1, 0));
    fixture.execute("select setval('cdls_id_seq', 9999998)").await;
    let ids = fixture.log(&[text("ann"), text("bob")]).await;
    assert_eq!(ids, [RowId(9_999_999), RowId(10_000_000)]);
    assert_eq!(fixture.ready_ids().await, ids, "rows are read over the ranges' border");
}

/// A dump or a report may read the log for hours while the next range of ids is made.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_makes_room_beside_readers_and_writers() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let mut reader = PgConnection::connect(fixture.database().url()).await.expect("the server answers");
    sqlx::raw_sql("begin; lock table cdls in access share mode")
        .execute(&mut reader)
        .await
        .expect("it is locked");
    fixture.execute("select setval('cdls_id_seq', 8000000)").await;
    assert_eq!(fixture.store.ensure_room().await.expect("room is made"), 1);
    let ann = fixture.log_one(text("ann")).await;
    assert_eq!(ann, RowId(8_000_001));
    sqlx::raw_sql("commit").execute(&mut reader).await.expect("the reader is done");
    fixture.execute("select setval('cdls_id_seq', 10000000)").await;
    let bob = fixture.log_one(text("bob")).await;
    assert_eq!(fixture.ready_ids().await, [ann, bob]);
    let indexes = "select count(*) from pg_indexes where tablename = ";
    let of = async |range: &str| fixture.number(&format!("{indexes}'{range}'")).await;
    assert_eq!(of("cdls_1").await, of("cdls_0").await, "the new range has the indexes of the others");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn row_without_room_in_postgres_waits() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute("select setval('cdls_id_seq', 50000000)").await;
    let refused = fixture.store.insert(&[text("ann")]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

#[apply(on_both)]
async fn old_rows_are_dropped_once_ended(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let old = fixture.log_one(text("ended")).await;
    let waits = fixture.log_one(text("waits")).await;
    if backend == Backend::Postgres {
        fixture.execute("select setval('cdls_id_seq', 9999999)").await;
        fixture.execute("select cdls_ensure_partitions()").await;
    }
    let young = fixture.log_one(text("young")).await;
    fixture.execute(&format!("update cdls set created_at = {LONG_AGO} where dest <> 'young'")).await;
    fixture.execute(&format!("update cdls set status = 'OK' where cdls_id = {old}")).await;
    let left = async || {
        fixture.store.drop_old(HOUR).await.expect("old rows can be dropped");
        let rows = fixture.store.log_rows(&[old, waits, young]).await.expect("the log can be read");
        rows.into_iter().map(|row| row.cdls_id).collect::<Vec<_>>()
    };
    match backend {
        Backend::Postgres => assert_eq!(left().await, [old, waits, young], "a range with an open row"),
        Backend::Sqlite => assert_eq!(left().await, [waits, young]),
    }
    fixture.execute("update cdls set status = 'OK' where dest = 'waits'").await;
    fixture.execute("delete from work where first_id < 1000").await;
    assert_eq!(left().await, [young]);
    let ids = fixture.log(&[text("further")]).await;
    assert!(ids[0] > young, "ids are not given out again");
}

/// A server may be set up to answer commits before they are on disk.
#[rstest]
#[case::commits_wait_for_the_disk("off", "on")]
#[case::stricter_settings_stay("remote_apply", "remote_apply")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn postgres_answers_with_commits_on_disk(#[case] server: &'static str, #[case] ours: &str) {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture
        .execute(
            "create table seen (setting text);
             create function look() returns trigger language plpgsql as
                 'begin insert into seen values (current_setting(''synchronous_commit'')); return new; end';
             create trigger look before insert on cdls for each row execute function look()",
        )
        .await;
    let url = fixture.database().url();
    let mut other = PgConnection::connect(url).await.expect("the server answers");
    let set = format!(
        "do $$ begin execute format('alter database %I set synchronous_commit = {server}', current_database()); end $$"
    );
    sqlx::raw_sql(&set).execute(&mut other).await.expect("it is set");
    let store = PostgresStore::open(&url.into(), 8, Plaintext::default()).expect("the URL is right");
    store.insert(&[text("ann")]).await.expect("rows can be logged");
    let seen: String =
        sqlx::query_scalar("select setting from seen").fetch_one(&mut other).await.expect("it was seen");
    assert_eq!(seen, ours);
}
