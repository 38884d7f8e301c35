//! A fresh store with an account and two lines.

use std::sync::Arc;

use meta_dispatch::store::SharedStore;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::sqlite::SqliteStore;
use sqlx::{Connection, SqliteConnection};

use super::database::Database;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Postgres,
    Sqlite,
}

pub struct Fixture {
    pub store: SharedStore,
    place: Place,
}

enum Place {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

impl Fixture {
    /// Account 1 with the Messenger lines 1 and 2, and account 2.
    pub async fn create(backend: Backend) -> Fixture {
        super::install_crypto();
        let (store, place): (SharedStore, Place) = match backend {
            Backend::Postgres => {
                let database = Database::create().await;
                let store = PostgresStore::open(&database.url().into(), 8).expect("the URL is right");
                (Arc::new(store), Place::Postgres(database))
            }
            Backend::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let store = SqliteStore::open(&url(&folder)).await.expect("the file can be made");
                (Arc::new(store), Place::Sqlite(folder))
            }
        };
        store.migrate().await.expect("a fresh database can be migrated");
        let fixture = Fixture { store, place };
        fixture.execute("insert into account (cdcs_id, cdcs_name) values (1, 'Acme'), (2, 'Other')").await;
        fixture
            .execute("insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id) values (1, 1, 'messenger', 'EAA', '11'), (2, 1, 'messenger', 'EAA', '12')")
            .await;
        fixture
    }

    /// The database (PostgreSQL only).
    pub fn database(&self) -> &Database {
        match &self.place {
            Place::Postgres(database) => database,
            Place::Sqlite(_) => panic!("this test is about PostgreSQL"),
        }
    }

    /// Runs a statement as another program would.
    pub async fn execute(&self, statement: &'static str) {
        match &self.place {
            Place::Postgres(database) => database.execute(statement).await,
            Place::Sqlite(folder) => {
                let mut connection =
                    SqliteConnection::connect(&url(folder)).await.expect("the file is there");
                sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement works");
            }
        }
    }
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("log.db").display())
}
