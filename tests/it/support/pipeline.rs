//! The whole program in one test: ingest, queue, worker and simulator over real TCP, on either pair of
//! servers.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use meta_dispatch::app::{App, Role};
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{AccountId, LineId, RowId, Status};
use meta_dispatch::edge::tokens;
use meta_dispatch::settings::Settings;
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::{LogRow, NewLine, Scope, SharedStore};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use super::database::Database;
use super::rabbitmq::Vhost;

/// How long a test waits for an event that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The servers that a pipeline runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `serve` on SQLite with the embedded queue.
    Embedded,
    /// `ingest` and `worker` apart, on PostgreSQL and RabbitMQ.
    Servers,
}

pub struct Pipeline {
    pub simulator: Simulator,
    pub store: SharedStore,
    pub http: SocketAddr,
    pub account: AccountId,
    pub tsid: SecretString,
    pub messenger: LineId,
    pub instagram: LineId,
    pub settings: Settings,
    /// One client for all requests: each further one costs a test as much as a hundred requests.
    pub client: reqwest::Client,
    apps: Vec<App>,
    _folder: tempfile::TempDir,
    database: Option<Database>,
    vhost: Option<Vhost>,
}

/// A further account.
pub struct Sender {
    pub account: AccountId,
    pub tsid: SecretString,
    pub line: LineId,
}

pub const PAGE_TOKEN: &str = "EAAtestpagetokenthatmustnotappearanywhere";

impl Pipeline {
    pub async fn start(backend: Backend) -> Pipeline {
        Pipeline::start_with(backend, &[]).await
    }

    /// Start everything with some settings changed.
    pub async fn start_with(backend: Backend, changed: &[(&str, &str)]) -> Pipeline {
        super::install_crypto();
        let simulator = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (database, vhost) = match backend {
            Backend::Embedded => (None, None),
            Backend::Servers => {
                // A test with a broker of its own takes no virtual host away from the others.
                let has_broker = changed.iter().any(|(key, _)| *key == "broker.url");
                let vhost = if has_broker { None } else { Some(Vhost::lease().await) };
                (Some(Database::create().await), vhost)
            }
        };
        let database_url = match &database {
            Some(database) => database.url().to_owned(),
            None => format!("sqlite:{}", folder.path().join("log.db").display()),
        };
        let broker_url =
            vhost.as_ref().map_or("embedded".to_owned(), |vhost| vhost.url().expose_secret().to_owned());
        let mut overrides: Vec<(String, String)> = [
            ("database.url", database_url.as_str()),
            ("broker.url", broker_url.as_str()),
            ("graph.base_url", simulator.base_url().as_str()),
            ("graph.instagram_base_url", simulator.base_url().as_str()),
            ("graph.timeout", "3s"),
            ("graph.connect_timeout", "1s"),
            ("graph.media_timeout", "3s"),
            ("http.listen", "127.0.0.1:0"),
            ("admin.listen", "127.0.0.1:0"),
            ("retry.base", "100ms"),
            ("retry.cap", "400ms"),
            ("dispatch.lease", "2s"),
            ("shutdown.grace", "10s"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        overrides.extend(changed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let settings = Settings::load_with(None, overrides).expect("the settings of the test are right");

        let mut apps = Vec::new();
        match backend {
            Backend::Embedded => apps.push(start(&settings, Role::Serve).await),
            Backend::Servers => {
                let store = meta_dispatch::store::open(&settings.database).await.expect("the URL is right");
                store.migrate().await.expect("a fresh database can be migrated");
                store.close().await;
                apps.push(start(&settings, Role::Ingest).await);
                apps.push(start(&settings, Role::Worker).await);
            }
        }
        let store = apps[0].store.clone();
        let account = store.add_account("Acme").await.expect("accounts can be added");
        let tsid = tokens::mint();
        store
            .add_token(
                account,
                tokens::identifier(tsid.expose_secret()).expect("long enough"),
                &tokens::hash(tsid.expose_secret()),
            )
            .await
            .expect("tokens can be added");
        let http = apps[0].http.expect("the first process listens");
        let mut pipeline = Pipeline {
            simulator,
            store,
            http,
            account,
            tsid,
            messenger: LineId(0),
            instagram: LineId(0),
            settings,
            client: reqwest::Client::new(),
            apps,
            _folder: folder,
            database,
            vhost,
        };
        pipeline.messenger = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
        pipeline.instagram = pipeline.add_line(Class::INSTAGRAM, PAGE_TOKEN).await;
        pipeline
    }

    /// Return the virtual host of RabbitMQ (`Servers` only).
    pub fn vhost(&self) -> &Vhost {
        self.vhost.as_ref().expect("a pipeline on servers")
    }

    /// Return the database of PostgreSQL (`Servers` only).
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("a pipeline on servers")
    }

    /// Add a line of the account.
    pub async fn add_line(&self, class: Class, page_token: &str) -> LineId {
        self.add_limited_line(class, page_token, None).await
    }

    pub async fn add_limited_line(&self, class: Class, page_token: &str, rate_text: Option<u32>) -> LineId {
        self.add(NewLine { class, page_token: page_token.into(), rate_text, ..self.new_line() }).await
    }

    pub async fn add_line_without_page(&self) -> LineId {
        self.add(NewLine { page_id: None, ..self.new_line() }).await
    }

    pub async fn add_line_of(&self, account: AccountId) -> LineId {
        self.add(NewLine { account, ..self.new_line() }).await
    }

    /// Add an account with a token and a Messenger line of its own.
    pub async fn add_sender(&self, name: &str) -> Sender {
        let account = self.store.add_account(name).await.expect("accounts can be added");
        let tsid = tokens::mint();
        let identifier = tokens::identifier(tsid.expose_secret()).expect("long enough");
        let hash = tokens::hash(tsid.expose_secret());
        self.store.add_token(account, identifier, &hash).await.expect("tokens can be added");
        let line = self.add_line_of(account).await;
        Sender { account, tsid, line }
    }

    fn new_line(&self) -> NewLine {
        NewLine {
            id: None,
            account: self.account,
            name: None,
            class: Class::MESSENGER,
            page_token: PAGE_TOKEN.into(),
            page_id: Some("1001".into()),
            instagram_account_id: None,
            login: None,
            rate_text: None,
            rate_media: None,
        }
    }

    async fn add(&self, line: NewLine) -> LineId {
        self.store.add_line(&line).await.expect("lines can be added")
    }

    /// Run a statement as another program would.
    pub async fn execute(&self, statement: &str) {
        match &self.database {
            Some(database) => database.execute(statement).await,
            None => {
                let url = self.settings.database.url.expose_secret();
                let mut connection = SqliteConnection::connect(url).await.expect("the file is there");
                sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement works");
            }
        }
    }

    /// Post parameters as JSON to the endpoint of a class; the token is added.
    pub async fn post(&self, class: Class, mut parameters: Value) -> (StatusCode, Value) {
        parameters["tsid"] = self.tsid.expose_secret().into();
        let answer = self
            .client
            .post(format!("http://{}/api/v2/{}", self.http, class.endpoint))
            .json(&parameters)
            .send()
            .await
            .expect("ingest answers");
        let status = answer.status();
        (status, answer.json().await.expect("answers are JSON"))
    }

    /// Submit a text on the Messenger line; return its row's id.
    pub async fn submit(&self, dest: &str, text: &str) -> RowId {
        self.submit_on(self.messenger, dest, text).await
    }

    pub async fn submit_on(&self, line: LineId, dest: &str, text: &str) -> RowId {
        let parameters = serde_json::json!({ "app_id": line.0, "dest": dest, "mdata": text });
        let (status, answer) = self.post(Class::MESSENGER, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    /// Return the state of Graph in `/readyz` of the process that sends.
    pub async fn breaker_state(&self) -> String {
        self.readiness().await["graph"].as_str().expect("a word").to_owned()
    }

    /// Return the partitions held by the process that was started last.
    pub async fn leases(&self) -> u64 {
        self.readiness().await["leases"].as_u64().expect("a number")
    }

    async fn readiness(&self) -> Value {
        let admin = &self.apps.last().expect("one is running").admin;
        let answer = self.client.get(format!("http://{admin}/readyz")).send().await.expect("it answers");
        answer.json().await.expect("answers are JSON")
    }

    pub async fn row(&self, id: RowId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    /// Wait until the row meets the condition.
    pub async fn until(&self, id: RowId, what: &str, condition: impl Fn(&LogRow) -> bool) -> LogRow {
        eventually(what, || async {
            // The database may be away at first.
            let row = self.store.log_row(Scope::Operator, id).await.map_err(|error| error.to_string())?;
            let row = row.expect("the row exists");
            if condition(&row) { Ok(row) } else { Err(format!("{row:?}")) }
        })
        .await
    }

    /// Wait for the row's outcome.
    pub async fn outcome(&self, id: RowId) -> LogRow {
        self.until(id, "an outcome", |row| row.status.is_outcome()).await
    }

    pub async fn expect_ok(&self, id: RowId) -> LogRow {
        let row = self.outcome(id).await;
        assert_eq!(row.status, Status::Ok, "{row:?}");
        row
    }

    /// Return the addresses of the processes' admin listeners.
    pub fn admin(&self) -> Vec<SocketAddr> {
        self.apps.iter().map(|app| app.admin.tcp().expect("an address of TCP")).collect()
    }

    /// Return the database's URL, for a further process.
    pub fn database_url(&self) -> &str {
        self.settings.database.url.expose_secret()
    }

    /// Start a further worker (`Servers` only).
    pub async fn start_worker(&mut self) {
        let worker = start(&self.settings, Role::Worker).await;
        self.apps.push(worker);
    }

    /// Start a further ingest (`Servers` only); return its address.
    pub async fn start_ingest(&mut self) -> SocketAddr {
        let ingest = start(&self.settings, Role::Ingest).await;
        let address = ingest.http.expect("an ingest listens");
        self.apps.push(ingest);
        address
    }

    /// Return all rows of the log, oldest first.
    pub async fn rows(&self) -> Vec<LogRow> {
        self.store.log_after(&Default::default(), RowId(0), 1_000_000).await.expect("the log answers")
    }

    /// Stop the process that was started last.
    pub async fn stop_last(&mut self) {
        self.apps.pop().expect("one is running").stop().await;
    }

    /// Stop every process; the servers, and their contents, remain.
    pub async fn stop_processes(&mut self) {
        while let Some(app) = self.apps.pop() {
            app.stop().await;
        }
        // The store of the processes is closed, and keeps others from serving an SQLite file.
        self.store = meta_dispatch::store::open(&self.settings.database).await.expect("the URL is right");
    }

    /// Start the processes again.
    pub async fn start_processes(&mut self) {
        if self.database.is_none() {
            self.apps.push(start(&self.settings, Role::Serve).await);
            self.http = self.apps[0].http.expect("it listens");
        } else {
            self.http = self.start_ingest().await;
            self.start_worker().await;
        }
        self.store = self.apps[0].store.clone();
    }

    pub async fn stop(mut self) {
        self.stop_processes().await;
        self.simulator.shutdown().await;
    }
}

async fn start(settings: &Settings, role: Role) -> App {
    App::start(settings, role).await.expect("the process starts")
}

impl Pipeline {
    /// Make all later schedules due now.
    pub async fn bring_schedules_forward(&self) {
        let now = if self.database.is_some() { "now()" } else { "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')" };
        self.execute(&format!("update cdls_open set due_at = {now}")).await;
    }
}

/// Whether the long forms of tests are asked for.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
pub fn is_long() -> bool {
    std::env::var("BAD_DAYS").is_ok_and(|form| form == "long")
}

/// Poll until the condition holds; fail with the last observation if it never does.
pub async fn eventually<T, F, Fut>(what: &str, look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let patience = if is_long() { PATIENCE * 40 } else { PATIENCE };
    match testkit::wait::until(patience, look).await {
        Ok(found) => found,
        Err(seen) => panic!("waited in vain for {what}; last seen: {seen}"),
    }
}
