//! Rights and secrets: the roles of PostgreSQL, the modes of files, secrets from files, and a log without secrets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use meta_dispatch::app::{App, Role as Process};
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{AccountId, LineId, RowId, Status};
use meta_dispatch::edge::tokens;
use meta_dispatch::settings::Settings;
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use meta_dispatch::store::{self, LogRow, NewBan, NewLine, SchemaState, Scope, SharedStore, StoreError};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::process::{Output, Running, free_address};
use testkit::program::Program;
use time::OffsetDateTime;

use crate::support::database::{Database, Role};
use crate::support::pipeline::{PAGE_TOKEN, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;
use crate::support::serve::Serve;
use crate::support::store::{HOUR, LONG_AGO};

/// A migrated database with the group roles, and users that are members of one each and have no other right.
struct Users {
    // Before the users, which have rights in it.
    database: Database,
    ingest: Role,
    worker: Role,
    migrate: Role,
    dashboard: Role,
}

impl Users {
    async fn create() -> Users {
        crate::support::install_crypto();
        let (ingest, worker) = (Role::create().await, Role::create().await);
        let (migrate, dashboard) = (Role::create().await, Role::create().await);
        let database = Database::create().await;
        let store = open(database.url()).await;
        store.migrate().await.expect("a fresh database can be migrated");
        store.make_roles().await.expect("a superuser may make roles");
        store.close().await;
        for (group, user) in
            [("ingest", &ingest), ("worker", &worker), ("migrate", &migrate), ("dashboard", &dashboard)]
        {
            database.execute(&format!("grant meta_dispatch_{group} to {}", user.name)).await;
        }
        Users { database, ingest, worker, migrate, dashboard }
    }

    /// Run a statement as a user; return the code of its refusal.
    async fn refusal(&self, user: &Role, statement: &str) -> Option<String> {
        let mut connection =
            PgConnection::connect(&user.url(&self.database)).await.expect("the user may connect");
        let done = sqlx::raw_sql(statement).execute(&mut connection).await;
        done.err().map(|error| {
            let code = error.as_database_error().and_then(|database| database.code());
            code.map_or_else(|| error.to_string(), |code| code.into_owned())
        })
    }

    async fn number(&self, query: &str) -> i64 {
        let mut connection = PgConnection::connect(self.database.url()).await.expect("PostgreSQL answers");
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query works")
    }
}

async fn open(url: &str) -> SharedStore {
    let settings =
        Settings::load_with(None, vec![("database.url".into(), url.into())]).expect("the URL is right");
    store::open(&settings.database).await.expect("the URL is right")
}

/// `ingest` and `worker` on RabbitMQ, each as its user of the database.
struct Processes {
    ingest: App,
    worker: App,
    /// As the owner of the tables.
    operator: SharedStore,
    tsid: String,
    line: LineId,
    client: reqwest::Client,
    _simulator: Simulator,
    _vhost: Vhost,
}

impl Processes {
    async fn start(users: &Users) -> Processes {
        let operator = open(users.database.url()).await;
        let account = operator.add_account("Acme").await.expect("accounts can be added");
        let tsid = tokens::mint().expose_secret().to_owned();
        operator.add_token(account, &tsid[..10], &tokens::hash(&tsid)).await.expect("tokens can be added");
        let line = operator.add_line(&line_of(account)).await.expect("lines can be added");
        let simulator = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
        let vhost = Vhost::lease().await;
        let start = async |process, user: &Role| {
            let given = [
                ("database.url", user.url(&users.database)),
                ("broker.url", vhost.url().expose_secret().to_owned()),
                ("graph.base_url", simulator.base_url()),
                ("http.listen", "127.0.0.1:0".into()),
                ("admin.listen", "127.0.0.1:0".into()),
                ("dispatch.lease", "2s".into()),
                ("shutdown.grace", "5s".into()),
            ];
            let given = given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let settings = Settings::load_with(None, given).expect("the settings of the test are right");
            App::start(&settings, process).await.expect("the process starts")
        };
        let ingest = start(Process::Ingest, &users.ingest).await;
        let worker = start(Process::Worker, &users.worker).await;
        Processes {
            ingest,
            worker,
            operator,
            tsid,
            line,
            client: reqwest::Client::new(),
            _simulator: simulator,
            _vhost: vhost,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let http = self.ingest.http.expect("ingest listens");
        let request = self.client.request(method, format!("http://{http}{path}")).bearer_auth(&self.tsid);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.expect("ingest answers");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    async fn submit(&self, more: Value) -> RowId {
        let mut parameters = json!({"app_id": self.line.0, "mdata": "hello"});
        for (name, value) in more.as_object().expect("an object") {
            parameters[name] = value.clone();
        }
        let (status, text) = self.ask(Method::POST, "/api/v2/MakeMessenger.php", Some(parameters)).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    /// Submit a batch with a name; return the answer.
    async fn submit_batch(&self) -> String {
        let (http, line) = (self.ingest.http.expect("ingest listens"), self.line);
        let url = format!("http://{http}/api/v2/messages/batch?batch_id=b1&app_id={line}");
        let request = self.client.post(url).bearer_auth(&self.tsid);
        let request = request.header("Content-Type", "application/x-ndjson");
        let answer = request.body("{\"dest\":\"dan\",\"mdata\":\"hello\"}\n").send().await;
        let text = answer.expect("ingest answers").text().await.expect("a text");
        assert!(text.contains("\"cdls_id\""), "{text}");
        text
    }

    async fn row(&self, id: RowId) -> LogRow {
        let row = self.operator.log_row(Scope::Operator, id).await;
        row.expect("the log answers").expect("the row exists")
    }

    async fn ends(&self, id: RowId, status: Status) {
        eventually(status.as_str(), || async {
            let row = self.row(id).await;
            if row.status == status { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }

    async fn stop(self) {
        self.ingest.stop().await;
        self.worker.stop().await;
        self.operator.close().await;
    }
}

fn line_of(account: AccountId) -> NewLine {
    NewLine {
        id: None,
        account,
        name: Some("Shop".into()),
        class: Class::MESSENGER,
        page_token: PAGE_TOKEN.into(),
        page_id: Some("1001".into()),
        instagram_account_id: None,
        login: None,
        rate_text: None,
        rate_media: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn processes_need_no_more_than_their_roles() {
    let users = Users::create().await;
    let processes = Processes::start(&users).await;
    let sent = processes.submit(json!({"dest": "ann", "httpdup": 60})).await;
    processes.ends(sent, Status::Ok).await;

    let in_an_hour = OffsetDateTime::now_utc().unix_timestamp() + 3_600;
    let scheduled = processes.submit(json!({"dest": "bob", "send_at": in_an_hour})).await;
    let cancel = format!("/api/v2/messages/{scheduled}/cancel");
    let (status, text) = processes.ask(Method::POST, &cancel, None).await;
    assert!(status == 200 && text.contains("\"touched\":1"), "{status} {text}");
    let of_campaign = json!({"dest": "cleo", "cp_id": "spring", "send_at": in_an_hour});
    let of_campaign = processes.submit(of_campaign).await;
    for step in ["pause", "resume", "cancel"] {
        let (status, text) =
            processes.ask(Method::POST, &format!("/api/v2/campaigns/spring/{step}"), None).await;
        assert_eq!(status, 200, "{step}: {text}");
    }
    processes.ends(of_campaign, Status::Cancelled).await;

    for (path, expected) in [
        ("/api/v2/lines", "\"state\":\"sending\""),
        ("/api/v2/recipients/1/nobody", "\"window\":\"unknown\""),
        ("/api/v2/campaigns", "spring"),
        ("/api/v2/messages", "\"dest\":\"ann\""),
        ("/api/v2/messages/export?format=ndjson", "\"dest\":\"ann\""),
    ] {
        let (status, text) = processes.ask(Method::GET, path, None).await;
        assert!(status == 200 && text.contains(expected), "{path}: {status} {text}");
    }
    assert_eq!(processes.submit_batch().await, processes.submit_batch().await, "nothing is logged twice");

    let used = [processes.tsid[..10].to_owned()];
    processes.ingest.store.note_token_uses(&used).await.expect("ingest may note uses");
    let ban =
        NewBan { address: "203.0.113.9".parse().expect("an address"), reason: "test".into(), length: HOUR };
    let banned = processes.ingest.store.add_bans(&[ban]).await.expect("ingest may ban");
    assert_eq!(
        processes.ingest.store.bans_in_force().await.expect("ingest may read bans").len(),
        banned.len()
    );

    // A new range, made and used with the rights of the roles.
    users.database.execute("select setval('cdls_id_seq', 8000000)").await;
    eventually("a new range", || async {
        let made = processes.ingest.store.ensure_room().await.map_err(|error| error.to_string());
        let ranges =
            users.number("select count(*) from pg_inherits where inhparent = 'cdls'::regclass").await;
        if ranges == 2 { Ok(()) } else { Err(format!("{made:?}")) }
    })
    .await;
    users.database.execute("select setval('cdls_id_seq', 10000000)").await;
    let of_new_range = processes.submit(json!({"dest": "eve"})).await;
    assert!(of_new_range.0 > 10_000_000);
    processes.ends(of_new_range, Status::Ok).await;

    // The first range, dropped by a process that does not own it.
    let old = format!("update cdls set created_at = {LONG_AGO} where cdls_id < 10000000");
    users.database.execute(&old).await;
    eventually("the first range to be dropped", || async {
        match processes.worker.store.drop_old(HOUR).await {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(processes.operator.log_row(Scope::Operator, sent).await.expect("the log answers").is_none());
    let after = processes.submit(json!({"dest": "fay"})).await;
    processes.ends(after, Status::Ok).await;
    processes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn page_token_is_read_by_the_worker_alone() {
    let users = Users::create().await;
    users.database.execute("insert into account (cdcs_id, cdcs_name) values (1, 'Acme')").await;
    let line = "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key) values (1, 1, 'messenger', 'EAA')";
    users.database.execute(line).await;
    let token = "select v8l_wa_api_key from cd_v8_line";
    for (user, code) in
        [(&users.ingest, Some("42501")), (&users.dashboard, Some("42501")), (&users.worker, None)]
    {
        assert_eq!(users.refusal(user, token).await.as_deref(), code);
        assert_eq!(users.refusal(user, "select v8l_id, v8l_has_token, v8l_name from cd_v8_line").await, None);
    }
    let ingest = open(&users.ingest.url(&users.database)).await;
    let summary = ingest.line_summaries(&[LineId(1)]).await.expect("ingest may").remove(0);
    assert!(summary.has_token);
    let refused = ingest.lines(&[LineId(1)]).await.expect_err("ingest may not");
    assert!(matches!(refused, StoreError::Denied(_)), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("(42501)") && refused.contains("`meta-dispatch migrate --roles`"), "{refused}");
    ingest.close().await;
    let worker = open(&users.worker.url(&users.database)).await;
    let record = worker.lines(&[LineId(1)]).await.expect("the worker may").remove(0);
    assert_eq!(record.page_token.expect("it is set").expose_secret(), "EAA");
    worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn other_rights_are_refused() {
    let users = Users::create().await;
    for allowed in ["select * from cdls", "select * from cdls_now", "select cdcs_name from account"] {
        assert_eq!(users.refusal(&users.dashboard, allowed).await, None, "{allowed}");
    }
    for (user, statement) in [
        (&users.dashboard, "select token_hash from account_token"),
        (&users.dashboard, "update cdls set status = 'OK'"),
        (&users.dashboard, "select cdls_drop_range(0, 0)"),
        (&users.ingest, "update cd_v8_line set v8l_wa_api_key = 'EAA'"),
        (&users.ingest, "insert into account_token (token_id, cdcs_id, token_hash) values ('a', 1, '')"),
        (&users.ingest, "update account_token set token_hash = ''"),
        (&users.ingest, "insert into account_network (cdcs_id, network) values (1, '203.0.113.0/24')"),
        (&users.ingest, "delete from cdls"),
        (&users.worker, "select token_hash from account_token"),
        (&users.worker, "select address from ban"),
        (&users.worker, "update cd_v8_line set v8l_active = true"),
        (&users.dashboard, "update cd_v8_line set v8l_pat_expires_at = null"),
        (&users.worker, "insert into cdls (cdcs_id) values (1)"),
        (&users.worker, "drop table cdls_0"),
        (&users.migrate, "create role mine"),
    ] {
        assert_eq!(users.refusal(user, statement).await.as_deref(), Some("42501"), "{statement}");
    }
}

/// Databases that come from PostgreSQL 14 and before let everybody make objects in `public`. The functions with the
/// owner's rights would run one that another user made there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn other_users_make_no_objects_in_the_schema() {
    let users = Users::create().await;
    let statement = "create function format(text, regclass) returns text language sql as 'select null::text'";
    users.database.execute("grant create on schema public to public").await;
    assert_eq!(users.refusal(&users.ingest, statement).await, None);
    users.database.execute("drop function format(text, regclass)").await;
    let store = open(users.database.url()).await;
    store.make_roles().await.expect("a superuser may make roles");
    store.close().await;
    for user in [&users.ingest, &users.worker, &users.dashboard] {
        assert_eq!(users.refusal(user, statement).await.as_deref(), Some("42501"));
    }
    assert_eq!(users.refusal(&users.migrate, statement).await, None);
}

/// A new table or function belongs into the lists of `src/store/postgres/roles.rs`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn whole_schema_has_its_owner() {
    let users = Users::create().await;
    let mut connection = PgConnection::connect(users.database.url()).await.expect("PostgreSQL answers");
    let others: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
           and pg_get_userbyid(relowner) <> 'meta_dispatch_migrate'
         union all
         select proname::text from pg_proc where pronamespace = 'public'::regnamespace
           and pg_get_userbyid(proowner) <> 'meta_dispatch_migrate'",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the query works");
    assert!(others.is_empty(), "not listed: {others:?}");
    let store = open(users.database.url()).await;
    let statements = store.role_statements().await.expect("the database is described");
    assert!(!statements.iter().any(|statement| statement.contains(" owner to ")), "{statements:#?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn roles_are_made_by_several_programs_at_once() {
    let databases = futures::future::join_all((0..4).map(|_| Database::create())).await;
    let made = databases.iter().map(|database| async move {
        let store = open(database.url()).await;
        store.migrate().await.expect("a fresh database can be migrated");
        for _ in 0..3 {
            store.make_roles().await.expect("roles are made, or there already");
        }
        store.close().await;
    });
    futures::future::join_all(made).await;
}

/// Takes a right away, as a run that ended between its migration and its grants would leave it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn rights_are_renewed_where_nothing_is_to_be_applied() {
    let users = Users::create().await;
    users.database.execute("revoke select on broker_user from meta_dispatch_ingest").await;
    assert!(users.refusal(&users.ingest, "select submit_queue from broker_user").await.is_some());
    let store = open(&users.migrate.url(&users.database)).await;
    assert_eq!(store.migrate().await.expect("it may"), 0);
    store.close().await;
    assert_eq!(users.refusal(&users.ingest, "select submit_queue from broker_user").await, None);
}

/// Undoes a migration, and lets a member of the role do it again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn member_of_the_migrate_role_upgrades() {
    let users = Users::create().await;
    users
        .database
        .execute("alter table broker_user drop column submit_queue; delete from _sqlx_migrations where version = 10")
        .await;
    let store = open(&users.migrate.url(&users.database)).await;
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Older);
    assert_eq!(store.migrate().await.expect("it may"), 1);
    assert_eq!(store.schema().await.expect("the store answers"), SchemaState::Current);
    store.close().await;
    assert_eq!(users.refusal(&users.ingest, "select submit_queue from broker_user").await, None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn command_makes_and_prints_the_roles() {
    let database = Database::create().await;
    let program = program().database(database.url());
    let early = program.run(&["migrate", "--roles", "--print"], None).await.expect_err("no schema yet");
    assert!(early.to_string().contains("run `meta-dispatch migrate`"), "{early}");
    let made = program.run(&["--json", "migrate", "--roles"], None).await.expect("it works");
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!((&made["schema"], &made["roles"]), (&json!("current"), &json!(true)));
    let printed = program.run(&["migrate", "--roles", "--print"], None).await.expect("it works");
    assert!(printed.starts_with("begin;\n") && printed.ends_with("commit;\n"), "{printed}");
    // A DBA who runs them gets the same.
    database.execute(&printed).await;
}

#[tokio::test]
async fn sqlite_has_no_roles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program().in_folder(folder.path());
    let refused = program.run(&["migrate", "--roles"], None).await.expect_err("there are none");
    assert!(refused.to_string().contains("SQLite has no roles"), "{refused}");
}

fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).graph("http://127.0.0.1:1/v25.0")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_keeps_its_folder_to_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let temporary = folder.path().to_str().expect("UTF-8");
    let mut command = program()
        .in_folder(folder.path())
        .after("umask 022")
        .variable("TMPDIR", temporary)
        .command(&["demo"]);
    let running = Running::start("demo", &mut command, Output::Dropped).expect("the program runs");
    eventually("the demo's database", || async {
        let entries = std::fs::read_dir(folder.path()).expect("the folder is there");
        let found = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.join("demo.db").exists());
        match found {
            Some(path) => {
                assert_eq!((mode(&path), mode(&path.join("demo.db"))), (0o700, 0o600));
                Ok(())
            }
            None => Err("it is not there".to_owned()),
        }
    })
    .await;
    running.stop().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn process_leaves_no_core_dump() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program()
        .in_folder(folder.path())
        .after("ulimit -Sc unlimited 2>/dev/null || true")
        .http(&free_address().expect("a free port"));
    let running = program.start_ready("serve", Output::Dropped).await.expect("it starts");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.pid())).expect("Linux tells");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("it is told");
    let numbers: Vec<&str> = line.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{line}");
}

#[tokio::test]
async fn secret_of_a_wide_file_is_used_and_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("app-secret");
    std::fs::write(&secret, "hunter2-hunter2\n").expect("the folder can be written");
    let path = secret.to_str().expect("UTF-8");
    for (mode, is_told) in [(0o600, false), (0o644, true)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).expect("modes can be set");
        let mut command = program()
            .in_folder(folder.path())
            .with("graph.app_secret_file", path)
            .command(&["--json", "check"]);
        let ran = command.output().expect("the program runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let shown: Value = serde_json::from_str(&stdout).expect("JSON");
        assert_eq!(shown["settings"]["graph"]["app_secret"], "[set]");
        let told = stderr.contains("graph.app_secret_file") && stderr.contains(&format!("chmod 600 {path}"));
        assert_eq!(told, is_told, "{stderr}");
        assert!(!stderr.contains("hunter2") && !stdout.contains("hunter2"), "{stderr}");
    }
}

/// The forms in which a log may show a secret.
fn forms(secret: &str) -> [String; 5] {
    let decimal: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let hexadecimal = hex::encode(secret);
    [
        secret.to_owned(),
        decimal.join(", "),
        hexadecimal.to_uppercase(),
        hexadecimal,
        // Without its end, which depends on the bytes that follow.
        STANDARD.encode(secret)[..secret.len() / 3 * 4].to_owned(),
    ]
}

#[test]
fn forms_of_a_secret_are_found() {
    let forms = forms("abcd");
    assert_eq!(forms, ["abcd", "97, 98, 99, 100", "61626364", "61626364", "YWJj"]);
    assert!(URL_SAFE_NO_PAD.encode("abcd").starts_with(&forms[4]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn finest_log_holds_no_secret_in_any_form() {
    const TEXT: &str = "a private text for one person";
    let vhost = Vhost::lease().await;
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_on(&vhost).await;
    let producer = Producer::connect_to(&vhost, &serve.tsid).await;
    producer.intake_is_up().await;
    let mut inbox = producer.reply_queue().await;
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(LineId(1), "ann", TEXT, properties).await;
    let (_, answer) = inbox.next_json().await;
    let id = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let over_http =
        serve.post(json!({"app_id": 1, "dest": "bob", "mdata": TEXT})).await.expect("it is accepted");
    for id in [id, over_http] {
        eventually("the message to be sent", || async {
            let row = serve.row(id).await;
            if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }
    serve.signal("TERM");
    let (status, printed) = serve.ended().await;
    assert!(status.success());
    assert!(printed.contains("DEBUG"), "the finest filter was in force");
    let url: url::Url = vhost.url().expose_secret().parse().expect("a URL");
    let sign_in = format!("\0{}\0{}", url.username(), url.password().unwrap_or_default());
    for secret in [serve.tsid.as_str(), PAGE_TOKEN, TEXT, &sign_in] {
        for form in forms(secret) {
            assert!(!printed.contains(&form), "{form} was printed");
        }
    }
}
