//! A PostgreSQL database for each test, on the server of `TEST_DATABASE_URL`.

use sqlx::{Connection, PgConnection};
use url::Url;

/// A fresh database without a schema, dropped at the end of the test.
pub struct Database {
    name: String,
    url: Url,
}

impl Database {
    pub async fn create() -> Database {
        Database::create_with("").await
    }

    /// With further options of `create database`.
    pub async fn create_with(options: &str) -> Database {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        administer(format!("create database {name} {options}")).await;
        let mut url = server();
        url.set_path(&name);
        Database { name, url }
    }

    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The URL of this database by way of another address, and the address it has.
    pub fn url_at(&self, address: std::net::SocketAddr) -> String {
        let mut url = self.url.clone();
        url.set_ip_host(address.ip()).expect("the URL has a host");
        url.set_port(Some(address.port())).expect("the URL has a host");
        url.into()
    }

    pub fn server(&self) -> String {
        let host = self.url.host_str().expect("the URL has a host");
        format!("{host}:{}", self.url.port().unwrap_or(5432))
    }

    /// Takes the database away: ends every connection, and lets nobody in.
    pub async fn refuse_connections(&self) {
        let name = &self.name;
        administer(format!("alter database {name} with allow_connections false")).await;
        administer(format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        ))
        .await;
    }

    /// Gives it back.
    pub async fn accept_connections(&self) {
        administer(format!("alter database {} with allow_connections true", self.name)).await;
    }

    /// Runs a statement in this database.
    pub async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("PostgreSQL answers");
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement works");
    }
}

impl Drop for Database {
    /// Dropping needs a runtime of its own: this one may be ending.
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(administer(statement));
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the database {} could not be dropped", self.name);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests find their servers in the environment")]
fn server() -> Url {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is not set: run tests/run");
    url.parse().expect("TEST_DATABASE_URL is a URL")
}

async fn administer(statement: String) {
    let mut connection = PgConnection::connect(server().as_str()).await.expect("PostgreSQL answers");
    sqlx::raw_sql(&statement).execute(&mut connection).await.expect("the statement works");
}
