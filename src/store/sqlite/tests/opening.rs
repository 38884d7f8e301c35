//! The file: opening, the schema's version, the exclusive lock, other programs beside.

use futures::future::try_join_all;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::*;
use crate::store::{SchemaState, SchemaStore, StoreError};

async fn plain_connection(fixture: &Fixture) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(fixture.folder.path().join("log.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn opening_creates_the_file_with_a_current_schema() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Current);
    assert_eq!(fixture.store.migrate().await.unwrap(), 0);
    assert_eq!(fixture.store.ensure_room().await.unwrap(), 0);
    let mode: String =
        sqlx::query_scalar("pragma journal_mode").fetch_one(&fixture.store.reader).await.unwrap();
    assert_eq!(mode, "wal");
    let synchronous: i64 =
        sqlx::query_scalar("pragma synchronous").fetch_one(&fixture.store.writer).await.unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[tokio::test]
async fn programs_that_open_a_new_file_at_once_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("log.db").display());
    let stores = try_join_all((0..8).map(|_| SqliteStore::open(&url))).await.unwrap();
    for store in stores {
        assert_eq!(store.schema().await.unwrap(), SchemaState::Current);
    }
}

#[tokio::test]
async fn a_later_schema_is_newer_and_a_missing_one_older() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'later', true, x'00', 0)",
        )
        .await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Newer);
    let beside = SqliteStore::open(&fixture.url).await.unwrap();
    assert_eq!(beside.insert(&[text_to("ana")]).await.unwrap().len(), 1);

    fixture.sql("delete from _sqlx_migrations where version = 1").await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Older);
    fixture.sql("drop table _sqlx_migrations").await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Older);
}

#[tokio::test]
async fn a_second_serve_is_refused_and_commands_are_not() {
    let fixture = Fixture::new().await;
    let serve = SqliteStore::open_exclusive(&fixture.url).await.unwrap();
    let StoreError::Invalid(refusal) = SqliteStore::open_exclusive(&fixture.url).await.err().unwrap() else {
        panic!("another kind of error")
    };
    assert!(refusal.contains("log.db") && refusal.contains("a serve runs on"), "{refusal}");
    let command = SqliteStore::open(&fixture.url).await.unwrap();
    command.add_account("beside").await.unwrap();
    assert_eq!(serve.accounts().await.unwrap().len(), 1);

    drop(serve);
    SqliteStore::open_exclusive(&fixture.url).await.unwrap();
}

#[tokio::test]
#[cfg(unix)]
async fn another_name_of_the_file_is_the_same_file() {
    let fixture = Fixture::new().await;
    let link = fixture.folder.path().join("link.db");
    std::os::unix::fs::symlink(fixture.folder.path().join("log.db"), &link).unwrap();
    let _serve = SqliteStore::open_exclusive(&fixture.url).await.unwrap();
    let second = SqliteStore::open_exclusive(&format!("sqlite:{}", link.display())).await;
    assert!(matches!(second.err(), Some(StoreError::Invalid(_))));
}

#[tokio::test]
async fn a_wrong_url_or_place_is_named() {
    for url in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite:a.db?mode=ro", "postgres://h/d"] {
        let refused = SqliteStore::open(url).await.err().unwrap();
        assert!(matches!(&refused, StoreError::Invalid(text) if text.starts_with("database.url")), "{url}");
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("no/such/folder/log.db").display());
    let refused = SqliteStore::open(&url).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Unavailable(text) if text.contains("no/such/folder/log.db")));
    let refused = SqliteStore::open_exclusive(&url).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Invalid(text) if text.contains("log.db.lock")), "{refused}");
}

#[tokio::test]
async fn a_write_waits_while_another_program_writes() {
    let fixture = Fixture::with_worker().await;
    let mut other = plain_connection(&fixture).await;
    sqlx::raw_sql("begin immediate; insert into account (cdcs_name) values ('by hand')")
        .execute(&mut other)
        .await
        .unwrap();
    let waiting = [text_to("ana")];
    let (inserted, released) = tokio::join!(fixture.store.insert(&waiting), async {
        // Reads do not wait; they see what is committed.
        assert!(fixture.store.accounts().await.unwrap().is_empty());
        sqlx::raw_sql("commit").execute(&mut other).await
    });
    released.unwrap();
    assert_eq!(inserted.unwrap().len(), 1);
    assert_eq!(fixture.store.accounts().await.unwrap()[0].cdcs_name, "by hand");
}

#[tokio::test]
async fn another_program_writes_while_the_store_is_busy() {
    let fixture = Fixture::with_worker().await;
    let mut other = plain_connection(&fixture).await;
    let (written, inserted) = tokio::join!(
        async {
            for _ in 0..50 {
                sqlx::query("insert into account (cdcs_name) values ('by hand')").execute(&mut other).await?;
            }
            Ok::<_, sqlx::Error>(())
        },
        async {
            for _ in 0..50 {
                fixture.store.insert(&[text_to("ana"), text_to("bia")]).await?;
            }
            Ok::<_, StoreError>(())
        }
    );
    written.unwrap();
    inserted.unwrap();
    assert_eq!(fixture.store.accounts().await.unwrap().len(), 50);
    assert_eq!(fixture.store.backlog(1000).await.unwrap(), 100);
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_unavailable() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let refused = fixture.store.insert(&[text_to("ana")]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(matches!(fixture.store.accounts().await, Err(StoreError::Unavailable(_))));
}
