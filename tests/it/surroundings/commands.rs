//! Commands and the things they meet: a database that is not there, a role with too few rights, proxies of the environment.

use std::process::Output;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;

use super::program;
use crate::support::database::{Database, Role};
use crate::support::pipeline::{Backend, Pipeline};

fn ran(program: &Program, arguments: &str) -> Output {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    program.command(&arguments).output().expect("the program runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[rstest::rstest]
fn without_a_database_make_none(
    #[values("account list", "token list", "line list", "log tail", "log show 1", "log stats", "check")]
    command: &str,
) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = ran(&program(&folder), command);
    assert_eq!(output.status.code(), Some(1), "{command}");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), errors(&output));
    assert!(said.contains("there is no database") && said.contains("log.db"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder is there").count(), 0);
}

#[test]
fn name_their_database() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder);
    assert!(ran(&program, "migrate").status.success());
    let path = folder.path().join("log.db").display().to_string();
    let listed = ran(&program, "account list");
    assert!(errors(&listed).contains(&format!("Database: sqlite:{path}")), "{}", errors(&listed));
    let failed = ran(&program, "log show 7");
    assert!(errors(&failed).contains(&path), "{}", errors(&failed));
    assert_eq!(errors(&ran(&program, "--json account list")), "");
}

#[test]
fn tell_why_no_connection_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder).database("postgres://nobody:hunter2@127.0.0.1:1/log");
    let output = ran(&program, "--json check");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let error = report["database"]["error"].as_str().expect("an error");
    assert!(error.contains("refused") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn of_a_role_without_create_are_told_early() {
    let role = Role::create().await;
    let database = Database::create().await;
    database.execute("revoke create on schema public from public").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder).database(&role.url(&database));
    let refused = program.run(&["migrate"], None).await.expect_err("it is refused").to_string();
    assert!(refused.contains("may not create tables in the schema public"), "{refused}");
    assert!(refused.contains(&role.name), "{refused}");
}

/// The token would stand in a request to the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn go_past_proxies_of_the_environment() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let program =
        names.iter().fold(program(&folder), |program, name| program.variable(name, "http://127.0.0.1:1"));
    let program = program.variable("META_DISPATCH_TSID", pipeline.tsid.expose_secret());
    let (url, line) = (format!("http://{}", pipeline.http), pipeline.messenger.to_string());
    let arguments = ["--json", "send", "--url", &url, "--app-id", &line, "--dest", "ann", "--mdata", "hello"];
    let answer = program.run(&arguments, None).await.expect("it goes directly");
    let answer: Value = serde_json::from_str(&answer).expect("one JSON object");
    assert_eq!(answer["status"], json!("OK"));
    pipeline.stop().await;
}
