//! PgBouncer between the program and PostgreSQL.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use meta_dispatch::settings::Plaintext;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{SchemaState, SchemaStore, StoreError};
use sqlx::{Connection, PgConnection};
use testkit::process::{Output, Running, free_address};

use crate::support::insert::Insert;
use crate::support::pipeline::eventually;
use crate::support::store::{Backend, Fixture, text};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// PgBouncer as Debian has it; ended when dropped.
struct PgBouncer {
    _process: Running,
    address: String,
    _folder: tempfile::TempDir,
}

/// `None` where it is not installed.
async fn start(fixture: &Fixture, pool_mode: &str) -> Option<PgBouncer> {
    if !Path::new(PROGRAM).exists() {
        // Past the captured output of the test.
        let _ = writeln!(std::io::stderr(), "left out: {PROGRAM} is not installed");
        return None;
    }
    let server = fixture.database().server();
    let (host, port) = server.rsplit_once(':').expect("host and port");
    let address = free_address().expect("a free port");
    let (_, listen_port) = address.rsplit_once(':').expect("host and port");
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a temporary folder");
    let settings = folder.path().join("pgbouncer.ini");
    std::fs::write(
        &settings,
        format!(
            "[databases]\n* = host={host} port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {listen_port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n"
        ),
    )
    .expect("the folder can be written");
    let mut command = Command::new(PROGRAM);
    let is_root =
        Command::new("id").arg("-u").stdin(Stdio::null()).output().expect("id runs").stdout == b"0\n";
    if is_root {
        // It refuses to be root.
        command.args(["-u", "nobody"]);
    }
    let process = Running::start("pgbouncer", command.arg(&settings), Output::Dropped).expect("it starts");
    eventually("PgBouncer to listen", || testkit::http::listens(&address)).await;
    Some(PgBouncer { _process: process, address, _folder: folder })
}

impl PgBouncer {
    fn store(&self, fixture: &Fixture) -> PostgresStore {
        let url = fixture.database().url_at(self.address.parse().expect("an address"));
        PostgresStore::open(&url.into(), 16, Plaintext::default()).expect("the URL is right")
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn of_sessions_keeps_every_limit() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let Some(pooler) = start(&fixture, "session").await else { return };
    let store = pooler.store(&fixture);
    assert_eq!(store.schema().await.expect("it answers"), SchemaState::Current);
    store.insert(&[text("ann")]).await.expect("messages are logged");

    let mut other = PgConnection::connect(fixture.database().url()).await.expect("the server answers");
    sqlx::raw_sql("begin; lock table cdls in access exclusive mode")
        .execute(&mut other)
        .await
        .expect("it waits");
    let asked = Instant::now();
    let refused = store.insert(&[text("bob")]).await;
    assert!(matches!(refused, Err(StoreError::Locked(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn that_gives_sessions_away_is_refused() {
    let fixture = Fixture::create(Backend::Postgres).await;
    let Some(pooler) = start(&fixture, "transaction").await else { return };
    let refused = pooler.store(&fixture).schema().await.expect_err("it cannot work");
    assert!(refused.to_string().contains("pool_mode"), "{refused}");
}
