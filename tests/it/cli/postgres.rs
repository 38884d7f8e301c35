//! Commands on PostgreSQL, where only `migrate` changes the schema.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::program::Program;

#[expect(clippy::disallowed_methods, reason = "tests find their servers in the environment")]
fn test_database_url() -> String {
    std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is not set: run tests/run")
}

async fn administer(statement: String) {
    let mut connection = PgConnection::connect(&test_database_url()).await.expect("PostgreSQL answers");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("the statement works");
}

#[tokio::test]
async fn commands_ask_for_migrate_and_work_after_it() {
    let name = format!("cli_{}", uuid::Uuid::now_v7().simple());
    administer(format!("create database {name}")).await;
    let mut url = url::Url::parse(&test_database_url()).expect("it is a URL");
    url.set_path(&name);
    let program = Program::new().with("DATABASE__URL", url.as_str());

    let refused = program.run("account list");
    let migrated = program.json("migrate");
    let again = program.json("migrate");
    let added = program.json("account add --name Example");
    let deadline = tokio::time::timeout(
        Duration::from_secs(20),
        administer(format!("drop database {name} with (force)")),
    );
    deadline.await.expect("the database is dropped in time");

    assert!(refused.error().contains("run `meta-dispatch migrate`"), "{}", refused.stderr);
    assert!(migrated["applied"].as_i64().is_some_and(|applied| applied > 0), "{migrated}");
    assert_eq!(migrated["schema"], "current");
    assert_eq!(again["applied"], 0);
    assert_eq!(added["cdcs_id"], 1);
}
