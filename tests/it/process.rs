//! The program as a process: how it stops, what it leaves when it is killed, and what it never prints.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use meta_dispatch::message::{Class, MessageId, Status};
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::sqlite::SqliteStore;
use meta_dispatch::store::{LogRow, NewLine, Scope, Store};
use meta_dispatch::tokens;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;
use crate::support::unreadable;

/// What the process prints goes here, as nobody reads a pipe while it runs.
const PRINTED: &str = "printed.log";

/// `meta-dispatch serve` on a SQLite file, against a simulator.
struct Serve {
    folder: tempfile::TempDir,
    simulator: Simulator,
    store: SqliteStore,
    tsid: String,
    child: Child,
    http: u16,
}

impl Serve {
    async fn start(latency: Duration) -> Serve {
        crate::support::install_crypto();
        let options = SimulatorOptions { latency, ..SimulatorOptions::default() };
        let simulator = Simulator::start(options).expect("the simulator finds a port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SqliteStore::open(&database(&folder)).await.expect("the file can be made");
        let account = store.add_account("Acme").await.expect("accounts can be added");
        let tsid = tokens::mint().expose_secret().to_owned();
        store.add_token(account, &tsid[..10], &tokens::hash(&tsid)).await.expect("tokens can be added");
        let line = NewLine {
            id: None,
            account,
            name: None,
            class: Class::Messenger,
            page_token: PAGE_TOKEN.into(),
            page_id: Some("1".into()),
            instagram_account_id: None,
            rate_text: None,
            rate_media: None,
        };
        store.add_line(&line).await.expect("lines can be added");
        let http = free_port();
        let child = spawn(&folder, &simulator, http);
        let serve = Serve { folder, simulator, store, tsid, child, http };
        serve.is_up().await;
        serve
    }

    /// Ends the process and starts it again on RabbitMQ.
    async fn restart_on(&mut self, vhost: &Vhost) {
        self.signal("TERM");
        self.ended().await;
        let url = vhost.url();
        let mut command = command(&self.folder, &self.simulator, self.http);
        command.env("META_DISPATCH__BROKER__URL", url.expose_secret());
        self.child = command.spawn().expect("the program runs");
        self.is_up().await;
    }

    fn restart(&mut self) {
        self.child = spawn(&self.folder, &self.simulator, self.http);
    }

    async fn is_up(&self) {
        eventually("the process to listen", || async {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    async fn submit(&self, dest: &str) -> MessageId {
        let answer: Value = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/api/v2/MakeMessenger.php?tsid={}", self.http, self.tsid))
            .json(&json!({"app_id": 1, "dest": dest, "mdata": "a private text"}))
            .send()
            .await
            .expect("ingest answers")
            .json()
            .await
            .expect("answers are JSON");
        MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    async fn row(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    async fn calls(&self, count: u64) {
        eventually("calls in flight", || async {
            let counts = self.simulator.counts();
            if counts.calls >= count { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for the end, and returns what was printed.
    async fn ended(&mut self) -> (ExitStatus, String) {
        let status = eventually("the process to end", || {
            let status = self.child.try_wait().expect("it can be waited for");
            async move { status.ok_or_else(|| "it runs".to_owned()) }
        })
        .await;
        (status, std::fs::read_to_string(self.folder.path().join(PRINTED)).expect("UTF-8"))
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn database(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("log.db").display())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn spawn(folder: &tempfile::TempDir, simulator: &Simulator, http: u16) -> Child {
    command(folder, simulator, http).spawn().expect("the program runs")
}

fn command(folder: &tempfile::TempDir, simulator: &Simulator, http: u16) -> Command {
    let printed = std::fs::File::options().create(true).append(true).open(folder.path().join(PRINTED));
    let printed = printed.expect("a file in a folder of ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meta-dispatch"));
    command
        .arg("serve")
        .current_dir(folder.path())
        .env("META_DISPATCH__DATABASE__URL", database(folder))
        .env("META_DISPATCH__GRAPH__BASE_URL", simulator.base_url())
        .env("META_DISPATCH__GRAPH__TIMEOUT", "4s")
        .env("META_DISPATCH__HTTP__LISTEN", format!("127.0.0.1:{http}"))
        .env("META_DISPATCH__ADMIN__LISTEN", format!("127.0.0.1:{}", free_port()))
        .env("META_DISPATCH__SHUTDOWN__GRACE", "10s")
        .env("META_DISPATCH__LOG__FILTER", "trace")
        .stdout(printed.try_clone().expect("a second handle"))
        .stderr(printed);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_calls_in_flight_and_exits_0_and_nothing_secret_was_printed() {
    let mut serve = Serve::start(Duration::from_millis(1_500)).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(serve.submit(&format!("d{n}")).await);
    }
    ids.push(serve.submit("code190-echo").await);
    serve.calls(6).await;
    serve.signal("TERM");
    let (status, printed) = serve.ended().await;
    assert!(status.success(), "{status}");
    for id in &ids[..5] {
        assert_eq!(serve.row(*id).await.status, Status::Ok);
    }
    assert_eq!(serve.row(ids[5]).await.status, Status::Pending, "it waits with its line");
    assert!(printed.contains("DEBUG"), "the finest filter was in force");
    for secret in [serve.tsid.as_str(), PAGE_TOKEN, "a private text"] {
        assert!(!printed.contains(secret), "{secret} was printed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_sent_or_held_and_never_sent_twice() {
    let mut serve = Serve::start(Duration::from_secs(2)).await;
    let in_flight = serve.submit("ann").await;
    serve.calls(1).await;
    let waiting = serve.submit("ann").await;
    serve.signal("KILL");
    serve.ended().await;
    assert_eq!(serve.row(in_flight).await.status, Status::Sending);
    serve.restart();
    serve.is_up().await;
    let row = eventually("the call's outcome to be settled", || async {
        let row = serve.row(in_flight).await;
        if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1));
    eventually("the waiting message to be sent", || async {
        let row = serve.row(waiting).await;
        if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!(serve.simulator.counts().calls, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_serve_on_one_file_is_refused_and_commands_work_beside_the_first() {
    let serve = Serve::start(Duration::ZERO).await;
    let mut second = spawn(&serve.folder, &serve.simulator, free_port());
    assert_eq!(second.wait().expect("it ended").code(), Some(1));
    let printed = std::fs::read_to_string(serve.folder.path().join(PRINTED)).expect("UTF-8");
    assert!(printed.lines().any(|line| line.starts_with("error: ") && line.contains("serve")), "{printed}");
    let listed = Command::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .args(["--json", "line", "list"])
        .env("META_DISPATCH__DATABASE__URL", database(&serve.folder))
        .output()
        .expect("the program runs");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["lines"][0]["v8l_id"], 1);
    assert!(!listed.to_string().contains(PAGE_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_accepted_while_the_broker_is_away_is_sent() {
    let nowhere = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.url", &nowhere)]).await;
    let id = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_as_deep_as_a_frame_allows_do_not_end_the_process() {
    let vhost = Vhost::lease().await;
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_on(&vhost).await;
    let producer = Producer::connect_to(&vhost, &serve.tsid).await;
    producer.intake_is_up().await;
    unreadable::publish_deep(vhost.url().expose_secret(), 1).await;
    // It named no account, and is refused like any other.
    producer.rejected().await;
    let running = serve.child.try_wait().expect("it can be waited for");
    assert!(running.is_none(), "{running:?}");
}
