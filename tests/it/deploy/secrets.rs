//! deploy/init-secrets, and the users that the secrets are for: what the program, PostgreSQL and RabbitMQ are given.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta_dispatch::broker::grants::Rights;
use meta_dispatch::settings::Settings;
use meta_dispatch::store::{self, SchemaState};
use ring::digest;
use secrecy::ExposeSecret;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use testkit::program::Program;

use super::compose::{environment, services, whole};
use super::{file, left_out, ran, stdout};
use crate::support::database::{Database, Role};

/// Secrets in a folder of the test's own.
fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    stdout(Command::new(file("deploy/init-secrets")).arg(folder.path().join("secrets")));
    folder
}

fn secret(folder: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join("secrets").join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.file_name().into_string().expect("names are UTF-8")).collect()
}

#[test]
fn each_is_random_and_its_owners_alone() {
    let (first, second) = (made(), made());
    let folder = first.path().join("secrets");
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o066,
        0,
        "others see or change the folder"
    );
    let whole = whole();
    let wanted = whole.get("secrets").expect("there are secrets").entries();
    assert_eq!(names(&folder), wanted.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>());
    for name in names(&folder) {
        let mode = fs::metadata(folder.join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        assert_ne!(secret(&first, &name), secret(&second, &name), "{name} is the same each time");
    }
}

#[test]
fn existing_ones_are_left_alone() {
    let folder = made();
    let before = secret(&folder, "security-key");
    let refused = ran(Command::new(file("deploy/init-secrets")).arg(folder.path().join("secrets")));
    assert!(!refused.status.success());
    assert_eq!(secret(&folder, "security-key"), before);
}

/// The settings that a service of compose.yaml gives the program, with the secrets of this folder.
fn settings(service: &str, folder: &tempfile::TempDir) -> Settings {
    let whole = whole();
    let (_, found) = services(&whole).iter().find(|(name, _)| name == service).expect("it is there");
    let secrets = folder.path().join("secrets").display().to_string();
    let given = environment(found).into_iter().map(|(variable, value)| {
        let key =
            variable.strip_prefix("META_DISPATCH__").expect("a setting").replace("__", ".").to_lowercase();
        // The default of a variable of compose's own.
        let value = value.split_once(":-").map_or(value, |(_, default)| default.trim_end_matches('}'));
        (key, value.replace("/run/secrets", &secrets))
    });
    Settings::load_with(None, given.collect()).unwrap_or_else(|error| panic!("{service}: {error}"))
}

#[test]
fn program_takes_what_it_is_given() {
    let folder = made();
    for service in ["ingest", "worker", "migrate", "operator"] {
        let settings = settings(service, &folder);
        assert!(settings.exposed_files.is_empty(), "{service}: {:?}", settings.exposed_files);
        let url = settings.database.url.expose_secret();
        assert!(url.starts_with("postgres://dispatch_"), "{service} has no user of its own");
        let opens = settings.security.keys().expect("keys are well formed").len();
        assert_eq!(opens, usize::from(["worker", "operator"].contains(&service)), "{service}");
    }
}

#[test]
fn broker_users_have_the_granted_rights_alone() {
    let folder = made();
    let definitions: Value = serde_json::from_str(&secret(&folder, "rabbitmq-definitions")).expect("JSON");
    let of = |list: &str, key: &str, user: &str| {
        let found = definitions[list].as_array().expect("a list").iter().find(|entry| entry[key] == user);
        found.unwrap_or_else(|| panic!("{list} without {user}")).clone()
    };
    assert_eq!(definitions["users"].as_array().map(Vec::len), Some(2));
    assert_eq!(definitions["permissions"].as_array().map(Vec::len), Some(2));
    for (process, rights) in [("ingest", Rights::of_ingest()), ("worker", Rights::of_worker())] {
        let name = format!("meta-dispatch-{process}");
        let user = of("users", "name", &name);
        assert_eq!(user["tags"], "", "{name} administers");
        let granted = of("permissions", "user", &name);
        assert_eq!(granted["configure"], rights.configure);
        assert_eq!(granted["write"], rights.write);
        assert_eq!(granted["read"], rights.read);

        let url: url::Url = secret(&folder, &format!("{process}-broker-url")).parse().expect("a URL");
        assert_eq!((url.username(), url.host_str()), (name.as_str(), Some("rabbitmq")));
        let hash = STANDARD.decode(user["password_hash"].as_str().expect("a text")).expect("base64");
        let (salt, hash) = hash.split_at(4);
        let salted = [salt, url.password().expect("a password").as_bytes()].concat();
        assert_eq!(digest::digest(&digest::SHA256, &salted).as_ref(), hash, "{name}");
    }
}

/// The URL of a secret, on the server of the test.
fn url_of(folder: &tempfile::TempDir, process: &str, database: &Database) -> String {
    let name = url::Url::parse(database.url()).expect("a URL").path().trim_start_matches('/').to_owned();
    let there = format!("@{}/{name}", database.server());
    secret(folder, &format!("{process}-database-url")).replace("@postgres:5432/meta_dispatch", &there)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn database_users_suffice_without_administration() {
    if Command::new("psql").arg("--version").output().is_err() {
        left_out("deploy/postgres/users.sh (psql is not installed)");
        return;
    }
    crate::support::install_crypto();
    let folder = made();
    // Dropped after the database. A run that was killed may have left them.
    let users = ["dispatch_migrate", "dispatch_ingest", "dispatch_worker"].map(Role::made_elsewhere);
    let database = Database::create().await;
    for Role { name, .. } in &users {
        database.execute(&format!("drop role if exists {name}")).await;
    }
    let url = url::Url::parse(database.url()).expect("a URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5432).to_string());
    let mut command = Command::new("bash");
    command.arg(file("deploy/postgres/users.sh")).env("SECRETS", folder.path().join("secrets"));
    command.env("POSTGRES_USER", url.username()).env("POSTGRES_DB", url.path().trim_start_matches('/'));
    command.env("PGHOST", host).env("PGPORT", port).env("PGPASSWORD", url.password().unwrap_or_default());
    stdout(&mut command);

    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).in_folder(folder.path());
    let migrate = program.database(&url_of(&folder, "migrate", &database));
    for _ in 0..2 {
        migrate.run(&["migrate", "--roles"], None).await.expect("its user may make tables and grant rights");
    }
    for process in ["ingest", "worker"] {
        let given = vec![("database.url".to_owned(), url_of(&folder, process, &database))];
        let settings = Settings::load_with(None, given).expect("the URL is right");
        let store = store::open(&settings.database).await.expect("the URL is right");
        assert_eq!(store.schema().await.expect("its user may log in"), SchemaState::Current);
        store.close().await;
    }
    let mut connection = PgConnection::connect(database.url()).await.expect("PostgreSQL answers");
    let administers: i64 = sqlx::query_scalar(
        "select count(*) from pg_roles where (rolname like 'dispatch!_%' escape '!' or rolname like 'meta!_dispatch!_%' escape '!')
         and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)",
    )
    .fetch_one(&mut connection)
    .await
    .expect("the query works");
    assert_eq!(administers, 0);
}
