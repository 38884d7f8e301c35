//! The whole program in one test: ingest, queue, worker and simulator over real TCP, on either pair of servers.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use meta_dispatch::app::{App, Role};
use meta_dispatch::message::{AccountId, Class, LineId, MessageId, Status};
use meta_dispatch::settings::Settings;
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::{LogRow, NewLine, Scope, SharedStore};
use meta_dispatch::tokens;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use super::database::Database;
use super::rabbitmq::Vhost;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which servers a pipeline runs on.
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
    /// One for all requests: each further one costs a test as much as a hundred requests.
    pub client: reqwest::Client,
    apps: Vec<App>,
    _folder: tempfile::TempDir,
    database: Option<Database>,
    vhost: Option<Vhost>,
}

pub const PAGE_TOKEN: &str = "EAAtestpagetokenthatmustnotappearanywhere";

impl Pipeline {
    pub async fn start(backend: Backend) -> Pipeline {
        Pipeline::start_with(backend, &[]).await
    }

    /// Starts everything with some settings changed.
    pub async fn start_with(backend: Backend, changed: &[(&str, &str)]) -> Pipeline {
        super::install_crypto();
        let simulator = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (database, vhost) = match backend {
            Backend::Embedded => (None, None),
            Backend::Servers => {
                // A test with a broker of its own takes none away from the others.
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
        pipeline.messenger = pipeline.add_line(Class::Messenger, PAGE_TOKEN).await;
        pipeline.instagram = pipeline.add_line(Class::Instagram, PAGE_TOKEN).await;
        pipeline
    }

    /// The virtual host of RabbitMQ (`Servers` only).
    pub fn vhost(&self) -> &Vhost {
        self.vhost.as_ref().expect("a pipeline on servers")
    }

    /// The database of PostgreSQL (`Servers` only).
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("a pipeline on servers")
    }

    /// Adds a line of the account.
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

    fn new_line(&self) -> NewLine {
        NewLine {
            id: None,
            account: self.account,
            name: None,
            class: Class::Messenger,
            page_token: PAGE_TOKEN.into(),
            page_id: Some("1001".into()),
            instagram_account_id: None,
            rate_text: None,
            rate_media: None,
        }
    }

    async fn add(&self, line: NewLine) -> LineId {
        self.store.add_line(&line).await.expect("lines can be added")
    }

    /// Runs a statement as another program would.
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

    /// Posts parameters as JSON to the endpoint of a class; the token is added.
    pub async fn post(&self, class: Class, mut parameters: Value) -> (StatusCode, Value) {
        parameters["tsid"] = self.tsid.expose_secret().into();
        let endpoint = match class {
            Class::Messenger => "MakeMessenger.php",
            Class::Instagram => "MakeInstagram.php",
        };
        let answer = self
            .client
            .post(format!("http://{}/api/v2/{endpoint}", self.http))
            .json(&parameters)
            .send()
            .await
            .expect("ingest answers");
        let status = answer.status();
        (status, answer.json().await.expect("answers are JSON"))
    }

    /// Submits a text on the Messenger line and returns its row's id.
    pub async fn submit(&self, dest: &str, text: &str) -> MessageId {
        self.submit_on(self.messenger, dest, text).await
    }

    pub async fn submit_on(&self, line: LineId, dest: &str, text: &str) -> MessageId {
        let parameters = serde_json::json!({ "app_id": line.0, "dest": dest, "mdata": text });
        let (status, answer) = self.post(Class::Messenger, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    /// What `/readyz` of the process that sends says about Graph.
    pub async fn breaker_state(&self) -> String {
        self.readiness().await["graph"].as_str().expect("a word").to_owned()
    }

    /// Partitions held by the process that was started last.
    pub async fn leases(&self) -> u64 {
        self.readiness().await["leases"].as_u64().expect("a number")
    }

    async fn readiness(&self) -> Value {
        let admin = self.apps.last().expect("one is running").admin;
        let answer = self.client.get(format!("http://{admin}/readyz")).send().await.expect("it answers");
        answer.json().await.expect("answers are JSON")
    }

    pub async fn row(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    /// Waits until the row is as the condition says.
    pub async fn until(&self, id: MessageId, what: &str, condition: impl Fn(&LogRow) -> bool) -> LogRow {
        eventually(what, || async {
            let row = self.row(id).await;
            if condition(&row) { Ok(row) } else { Err(format!("{row:?}")) }
        })
        .await
    }

    /// Waits for the row's outcome.
    pub async fn outcome(&self, id: MessageId) -> LogRow {
        self.until(id, "an outcome", |row| row.status.is_outcome()).await
    }

    pub async fn expect_ok(&self, id: MessageId) -> LogRow {
        let row = self.outcome(id).await;
        assert_eq!(row.status, Status::Ok, "{row:?}");
        row
    }

    /// Where the processes' admin listeners are.
    pub fn admin(&self) -> Vec<SocketAddr> {
        self.apps.iter().map(|app| app.admin).collect()
    }

    /// Where a further process finds the database.
    pub fn database_url(&self) -> &str {
        self.settings.database.url.expose_secret()
    }

    /// Starts a further worker (`Servers` only).
    pub async fn start_worker(&mut self) {
        let worker = start(&self.settings, Role::Worker).await;
        self.apps.push(worker);
    }

    /// Starts a further ingest (`Servers` only) and says where it listens.
    pub async fn start_ingest(&mut self) -> SocketAddr {
        let ingest = start(&self.settings, Role::Ingest).await;
        let address = ingest.http.expect("an ingest listens");
        self.apps.push(ingest);
        address
    }

    /// All rows of the log, oldest first.
    pub async fn rows(&self) -> Vec<LogRow> {
        self.store.log_after(&Default::default(), MessageId(0), 1_000_000).await.expect("the log answers")
    }

    /// Stops the process that was started last.
    pub async fn stop_last(&mut self) {
        self.apps.pop().expect("one is running").stop().await;
    }

    /// Stops every process; the servers, and what stands there, remain.
    pub async fn stop_processes(&mut self) {
        while let Some(app) = self.apps.pop() {
            app.stop().await;
        }
        // Theirs is closed, and keeps others from serving an SQLite file.
        self.store = meta_dispatch::store::open(&self.settings.database).await.expect("the URL is right");
    }

    /// Starts the processes again.
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
    /// Makes all that is scheduled for later due now.
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

/// Polls until the condition holds, and says what it last saw if it never does.
pub async fn eventually<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let mut seen = String::new();
    let polling = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            match look().await {
                Ok(found) => return found,
                Err(state) => seen = state,
            }
        }
    };
    let patience = if is_long() { PATIENCE * 40 } else { PATIENCE };
    match tokio::time::timeout(patience, polling).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}; last seen: {seen}"),
    }
}
