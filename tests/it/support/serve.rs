//! The program as a process: `serve` on a SQLite file, against a simulator.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::RowId;
use meta_dispatch::edge::tokens;
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::sqlite::SqliteStore;
use meta_dispatch::store::{DirectoryStore, LogRow, LogStore, NewLine, Scope, TokenStore};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::process::{Output, Running};
use testkit::program::Program;

use super::pipeline::{PAGE_TOKEN, eventually};
use super::rabbitmq::Vhost;

/// The file of the process's output, as a pipe would not be read while the process runs.
pub const PRINTED: &str = "printed.log";

/// `meta-dispatch serve` on a SQLite file, against a simulator.
pub struct Serve {
    // Before `folder`, so that the process ends before its folder is removed.
    process: Running,
    pub folder: tempfile::TempDir,
    pub simulator: Simulator,
    pub store: SqliteStore,
    pub tsid: String,
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
            class: Class::MESSENGER,
            page_token: PAGE_TOKEN.into(),
            page_id: Some("1".into()),
            instagram_account_id: None,
            login: None,
            rate_text: None,
            rate_media: None,
        };
        store.add_line(&line).await.expect("lines can be added");
        let (http, admin) = (free_port(), free_port());
        let process = spawn(&folder, &simulator, http, admin);
        let serve = Serve { process, folder, simulator, store, tsid, http, admin };
        serve.is_up().await;
        serve
    }

    pub fn restart(&mut self) {
        self.start_again(&[]);
    }

    /// Start the process again, with these variables in its environment.
    pub fn start_again(&mut self, variables: &[(&str, &str)]) {
        let program = program(&self.folder, &self.simulator, self.http, self.admin);
        let program = variables.iter().fold(program, |program, (name, value)| program.variable(name, value));
        self.process = start(&program, &self.folder);
    }

    /// End the process and start it again, with these variables in its environment.
    pub async fn restart_with(&mut self, variables: &[(&str, &str)]) {
        self.signal("TERM");
        self.ended().await;
        self.start_again(variables);
        self.is_up().await;
    }

    /// End the process and start it again on RabbitMQ.
    pub async fn restart_on(&mut self, vhost: &Vhost) {
        self.restart_with(&[("META_DISPATCH__BROKER__URL", vhost.url().expose_secret())]).await;
    }

    pub fn is_running(&mut self) -> bool {
        self.process.ended().expect("it can be waited for").is_none()
    }

    pub async fn is_up(&self) {
        // Not until it is ready: a failpoint may end the process before.
        let address = format!("127.0.0.1:{}", self.http);
        eventually("the process to listen", || testkit::http::listens(&address)).await;
    }

    pub async fn submit(&self, dest: &str) -> RowId {
        self.try_submit(dest).await.expect("it is accepted")
    }

    /// Submit a text; return the row's id, `None` if the message is not logged.
    pub async fn try_submit(&self, dest: &str) -> Option<RowId> {
        self.post(json!({"app_id": 1, "dest": dest, "mdata": "a private text"})).await
    }

    /// Post these parameters; return the row's id, `None` if the message is not logged.
    pub async fn post(&self, parameters: Value) -> Option<RowId> {
        let answer: Value = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/api/v2/MakeMessenger.php?tsid={}", self.http, self.tsid))
            .json(&parameters)
            .send()
            .await
            .expect("ingest answers")
            .json()
            .await
            .expect("answers are JSON");
        Some(RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))).filter(|id| id.0 > 0)
    }

    /// Submit with an idempotency key; return the row's id, `None` if no answer names one.
    #[cfg(feature = "failpoints")]
    pub async fn submit_with_key(&self, key: &str, parameters: &Value) -> Option<RowId> {
        let answer = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/api/v2/MakeMessenger.php?tsid={}", self.http, self.tsid))
            .header("Idempotency-Key", key)
            .json(parameters)
            .send()
            .await
            .ok()?;
        let answer: Value = answer.json().await.ok()?;
        answer["return"]["cdls_id"].as_i64().filter(|id| *id > 0).map(RowId)
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub async fn row(&self, id: RowId) -> LogRow {
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
        assert!(self.process.signal(signal).expect("kill runs"));
    }

    /// Ask the process to end; return its exit status and the time it took.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal("TERM");
        let (status, _) = self.ended().await;
        (status, asked.elapsed())
    }

    /// Wait for the end; return the exit status and the output.
    pub async fn ended(&mut self) -> (ExitStatus, String) {
        let status = eventually("the process to end", || {
            let status = self.process.ended().expect("it can be waited for");
            async move { status.ok_or_else(|| "it runs".to_owned()) }
        })
        .await;
        (status, self.printed())
    }

    /// Return the output so far.
    pub fn printed(&self) -> String {
        let printed = std::fs::read(self.folder.path().join(PRINTED)).expect("the output can be read");
        String::from_utf8_lossy(&printed).into_owned()
    }
}

pub fn database(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("log.db").display())
}

pub fn free_port() -> u16 {
    testkit::process::free_port().expect("a free port")
}

pub fn spawn(folder: &tempfile::TempDir, simulator: &Simulator, http: u16, admin: u16) -> Running {
    start(&program(folder, simulator, http, admin), folder)
}

fn start(program: &Program, folder: &tempfile::TempDir) -> Running {
    program.start("serve", Output::AppendTo(&folder.path().join(PRINTED))).expect("the program runs")
}

/// Return the program without core dumps: some tests end it with an abort. The shell makes the program see a
/// write beyond a file size limit as an error, and not die of it.
fn program(folder: &tempfile::TempDir, simulator: &Simulator, http: u16, admin: u16) -> Program {
    Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .after("trap '' XFSZ; ulimit -c 0")
        .in_folder(folder.path())
        .database(&database(folder))
        .graph(&simulator.base_url())
        .with("graph.instagram_base_url", &simulator.base_url())
        .with("graph.timeout", "4s")
        .http(&format!("127.0.0.1:{http}"))
        .admin(&format!("127.0.0.1:{admin}"))
        .with("shutdown.grace", "10s")
        .with("log.filter", "trace")
}
