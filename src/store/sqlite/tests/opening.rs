//! The file: opening, the schema's version, the exclusive lock, other programs that use it.

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
async fn creates_the_file_with_a_current_schema() {
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
async fn lets_programs_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("log.db").display());
    let stores = try_join_all((0..8).map(|_| SqliteStore::open(&url))).await.unwrap();
    for store in stores {
        assert_eq!(store.schema().await.unwrap(), SchemaState::Current);
    }
}

#[tokio::test]
async fn distinguishes_newer_and_older_schemas() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'later', true, x'00', 0)",
        )
        .await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Newer);
    let beside = SqliteStore::open(&fixture.url).await.unwrap();
    assert_eq!(insert(&beside, &[text_to("ana")]).await.unwrap().len(), 1);

    fixture.sql("delete from _sqlx_migrations where version = 1").await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Older);
    fixture.sql("drop table _sqlx_migrations").await;
    assert_eq!(fixture.store.schema().await.unwrap(), SchemaState::Older);
}

#[tokio::test]
async fn refuses_a_second_serve_but_no_command() {
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
async fn locks_the_file_under_any_name() {
    let fixture = Fixture::new().await;
    let link = fixture.folder.path().join("link.db");
    std::os::unix::fs::symlink(fixture.folder.path().join("log.db"), &link).unwrap();
    let _serve = SqliteStore::open_exclusive(&fixture.url).await.unwrap();
    let second = SqliteStore::open_exclusive(&format!("sqlite:{}", link.display())).await;
    assert!(matches!(second.err(), Some(StoreError::Invalid(_))));
}

#[tokio::test]
async fn names_a_wrong_url_or_place() {
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
async fn waits_while_another_program_writes() {
    let fixture = Fixture::with_worker().await;
    let mut other = plain_connection(&fixture).await;
    sqlx::raw_sql("begin immediate; insert into account (cdcs_name) values ('by hand')")
        .execute(&mut other)
        .await
        .unwrap();
    let waiting = [text_to("ana")];
    let (inserted, released) = tokio::join!(insert(&fixture.store, &waiting), async {
        // Reads do not wait; they see committed rows.
        assert!(fixture.store.accounts().await.unwrap().is_empty());
        sqlx::raw_sql("commit").execute(&mut other).await
    });
    released.unwrap();
    assert_eq!(inserted.unwrap().len(), 1);
    assert_eq!(fixture.store.accounts().await.unwrap()[0].cdcs_name, "by hand");
}

#[tokio::test]
async fn lets_another_program_write_under_load() {
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
                insert(&fixture.store, &[text_to("ana"), text_to("bia")]).await?;
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
async fn answers_unavailable_once_closed() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let refused = insert(&fixture.store, &[text_to("ana")]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(matches!(fixture.store.accounts().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn refuses_a_file_with_a_second_name() {
    let fixture = Fixture::new().await;
    let second = fixture.folder.path().join("second.db");
    std::fs::hard_link(fixture.folder.path().join("log.db"), &second).unwrap();
    for url in [fixture.url.clone(), format!("sqlite:{}", second.display())] {
        for refused in [SqliteStore::open(&url).await, SqliteStore::open_exclusive(&url).await] {
            let refused = refused.err().unwrap();
            assert!(
                matches!(&refused, StoreError::Invalid(text) if text.contains("hard links")),
                "{refused}"
            );
        }
    }
    std::fs::remove_file(second).unwrap();
    SqliteStore::open(&fixture.url).await.unwrap();
}

#[tokio::test]
async fn refuses_a_log_without_its_file() {
    let fixture = Fixture::new().await;
    fixture.store.add_account("beside").await.unwrap();
    let (file, moved) = (fixture.folder.path().join("log.db"), fixture.folder.path().join("moved.db"));
    std::fs::rename(&file, &moved).unwrap();
    let refused = SqliteStore::open(&fixture.url).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Invalid(text) if text.contains("log.db-wal")), "{refused}");
    assert!(!file.exists(), "no new file stands beside the old log");
    std::fs::rename(&moved, &file).unwrap();
    SqliteStore::open(&fixture.url).await.unwrap();
}

#[tokio::test]
async fn makes_no_file_that_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("log.db").display());
    let refused = SqliteStore::open_existing(&url).await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::Invalid(text) if text.contains("there is no database")),
        "{refused}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    SqliteStore::open(&url).await.unwrap().close().await;
    SqliteStore::open_existing(&url).await.unwrap();
}

fn mode(path: impl AsRef<std::path::Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn makes_files_that_their_user_alone_may_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let store = SqliteStore::open_exclusive(&format!("sqlite:{}", path.display())).await.unwrap();
    store.add_account("Acme").await.unwrap();
    for end in ["", "-wal", "-shm", ".lock"] {
        let file = format!("{}{end}", path.display());
        assert_eq!(mode(&file), 0o600, "{file}");
    }
}

#[tokio::test]
async fn leaves_the_mode_of_an_existing_file() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("log.db");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    SqliteStore::open(&fixture.url).await.unwrap();
    assert_eq!(mode(&path), 0o640);
}
