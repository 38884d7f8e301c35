//! The program as a process: `serve` on a SQLite file, against a simulator.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use meta_dispatch::message::{Class, MessageId};
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::sqlite::SqliteStore;
use meta_dispatch::store::{DirectoryStore, LogRow, LogStore, NewLine, Scope};
use meta_dispatch::tokens;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::pipeline::{PAGE_TOKEN, eventually};
use super::rabbitmq::Vhost;

/// What the process prints goes here, as nobody reads a pipe while it runs.
pub const PRINTED: &str = "printed.log";

/// `meta-dispatch serve` on a SQLite file, against a simulator.
pub struct Serve {
    pub folder: tempfile::TempDir,
    pub simulator: Simulator,
    pub store: SqliteStore,
    pub tsid: String,
    child: Child,
    pub http: u16,
    pub admin: u16,
}

impl Serve {
    pub async fn start(latency: Duration) -> Serve {
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
        let (http, admin) = (free_port(), free_port());
        let child = spawn(&folder, &simulator, http, admin);
        let serve = Serve { folder, simulator, store, tsid, child, http, admin };
        serve.is_up().await;
        serve
    }

    pub fn restart(&mut self) {
        self.start_again(&[]);
    }

    /// Starts the process again, with these in its environment.
    pub fn start_again(&mut self, variables: &[(&str, &str)]) {
        let mut command = command(&self.folder, &self.simulator, self.http, self.admin);
        self.child = command.envs(variables.iter().copied()).spawn().expect("the program runs");
    }

    /// Ends the process and starts it again, with these in its environment.
    pub async fn restart_with(&mut self, variables: &[(&str, &str)]) {
        self.signal("TERM");
        self.ended().await;
        self.start_again(variables);
        self.is_up().await;
    }

    /// Ends the process and starts it again on RabbitMQ.
    pub async fn restart_on(&mut self, vhost: &Vhost) {
        self.restart_with(&[("META_DISPATCH__BROKER__URL", vhost.url().expose_secret())]).await;
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    pub async fn is_up(&self) {
        eventually("the process to listen", || async {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    pub async fn submit(&self, dest: &str) -> MessageId {
        self.try_submit(dest).await.expect("it is accepted")
    }

    /// The row's id, unless nothing can be logged.
    pub async fn try_submit(&self, dest: &str) -> Option<MessageId> {
        self.post(json!({"app_id": 1, "dest": dest, "mdata": "a private text"})).await
    }

    /// Posts these parameters; the row's id, unless nothing can be logged.
    pub async fn post(&self, parameters: Value) -> Option<MessageId> {
        let answer: Value = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/api/v2/MakeMessenger.php?tsid={}", self.http, self.tsid))
            .json(&parameters)
            .send()
            .await
            .expect("ingest answers")
            .json()
            .await
            .expect("answers are JSON");
        Some(MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"))).filter(|id| id.0 > 0)
    }

    /// Submits with an idempotency key; the row's id, unless no answer comes that names one.
    pub async fn submit_with_key(&self, key: &str, parameters: &Value) -> Option<MessageId> {
        let answer = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/api/v2/MakeMessenger.php?tsid={}", self.http, self.tsid))
            .header("Idempotency-Key", key)
            .json(parameters)
            .send()
            .await
            .ok()?;
        let answer: Value = answer.json().await.ok()?;
        answer["return"]["cdls_id"].as_i64().filter(|id| *id > 0).map(MessageId)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn row(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    pub async fn calls(&self, count: u64) {
        eventually("calls in flight", || async {
            let counts = self.simulator.counts();
            if counts.calls >= count { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Asks the process to end, and says how it ended and after how long.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal("TERM");
        let (status, _) = self.ended().await;
        (status, asked.elapsed())
    }

    /// Waits for the end, and returns what was printed.
    pub async fn ended(&mut self) -> (ExitStatus, String) {
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

pub fn database(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("log.db").display())
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

pub fn spawn(folder: &tempfile::TempDir, simulator: &Simulator, http: u16, admin: u16) -> Child {
    command(folder, simulator, http, admin).spawn().expect("the program runs")
}

/// No core dumps: some tests end the program with an abort. The shell makes the program see a write beyond a file size limit as an error, and not die of it.
fn command(folder: &tempfile::TempDir, simulator: &Simulator, http: u16, admin: u16) -> Command {
    let printed = std::fs::File::options().create(true).append(true).open(folder.path().join(PRINTED));
    let printed = printed.expect("a file in a folder of ours");
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap '' XFSZ; ulimit -c 0; exec "$0" serve"#, env!("CARGO_BIN_EXE_meta-dispatch")])
        .current_dir(folder.path())
        .env("META_DISPATCH__DATABASE__URL", database(folder))
        .env("META_DISPATCH__GRAPH__BASE_URL", simulator.base_url())
        .env("META_DISPATCH__GRAPH__TIMEOUT", "4s")
        .env("META_DISPATCH__HTTP__LISTEN", format!("127.0.0.1:{http}"))
        .env("META_DISPATCH__ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
        .env("META_DISPATCH__SHUTDOWN__GRACE", "10s")
        .env("META_DISPATCH__LOG__FILTER", "trace")
        .stdout(printed.try_clone().expect("a second handle"))
        .stderr(printed);
    command
}
