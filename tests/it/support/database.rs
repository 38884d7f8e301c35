//! A PostgreSQL database for each test, on the server of `TEST_DATABASE_URL`, and roles that may use it.

use sqlx::{Connection, PgConnection};
use url::Url;

use super::not_set;

/// A fresh database without a schema, dropped at the end of the test.
pub struct Database {
    name: String,
    url: Url,
}

impl Database {
    pub async fn create() -> Database {
        Database::create_with("").await
    }

    /// Create a database with further options of `create database`.
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

    /// Return the URL of this database by way of another address.
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

    /// Take the database away: end every connection, and refuse new ones.
    pub async fn refuse_connections(&self) {
        let name = &self.name;
        administer(format!("alter database {name} with allow_connections false")).await;
        administer(format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        ))
        .await;
    }

    /// Give the database back.
    pub async fn accept_connections(&self) {
        administer(format!("alter database {} with allow_connections true", self.name)).await;
    }

    /// Run a statement in this database.
    pub async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("PostgreSQL answers");
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement works");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        administer_at_end(format!("drop database if exists {} with (force)", self.name));
    }
}

/// A role of the server that may log in, dropped at the end of the test. A database in which the role has
/// rights has to be dropped first, so a test makes the role before the database.
pub struct Role {
    pub name: String,
    password: String,
}

impl Role {
    pub async fn create() -> Role {
        Role::create_with(&uuid::Uuid::now_v7().to_string()).await
    }

    /// Create a role with this password.
    pub async fn create_with(password: &str) -> Role {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        administer(format!("create role {name} login password '{password}'")).await;
        Role { name, password: password.to_owned() }
    }

    /// Return the role that a script is going to make.
    pub fn made_elsewhere(name: &str) -> Role {
        Role { name: name.to_owned(), password: String::new() }
    }

    /// Return the URL of a database, for sessions of this role.
    pub fn url(&self, database: &Database) -> String {
        let mut url = database.url.clone();
        url.set_username(&self.name).expect("the URL has a host");
        url.set_password(Some(&self.password)).expect("the URL has a host");
        url.into()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        administer_at_end(format!("drop role if exists {}", self.name));
    }
}

#[expect(clippy::disallowed_methods, reason = "tests find their servers in the environment")]
fn server() -> Url {
    let url = std::env::var("TEST_DATABASE_URL");
    let url = url.unwrap_or_else(|_| not_set("TEST_DATABASE_URL", "PostgreSQL"));
    url.parse().expect("TEST_DATABASE_URL is a URL")
}

/// Run a statement in a runtime of its own: the runtime of the test may be ending.
fn administer_at_end(statement: String) {
    let what = statement.clone();
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(administer(statement));
    });
    if done.join().is_err() && !std::thread::panicking() {
        panic!("could not be done: {what}");
    }
}

async fn administer(statement: String) {
    let mut connection = PgConnection::connect(server().as_str()).await.expect("PostgreSQL answers");
    sqlx::raw_sql(&statement).execute(&mut connection).await.expect("the statement works");
}
