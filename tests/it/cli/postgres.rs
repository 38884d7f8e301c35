//! Commands on PostgreSQL, where only `migrate` changes the schema.

use super::program::Program;
use crate::support::database::Database;

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn commands_work_once_migrated() {
    let database = Database::create().await;
    let program = Program::new().with("DATABASE__URL", database.url());

    let refused = program.run("account list");
    let migrated = program.json("migrate");
    let again = program.json("migrate");
    let added = program.json("account add --name Example");

    assert!(refused.error().contains("run `meta-dispatch migrate`"), "{}", refused.stderr);
    assert!(migrated["applied"].as_i64().is_some_and(|applied| applied > 0), "{migrated}");
    assert_eq!(migrated["schema"], "current");
    assert_eq!(again["applied"], 0);
    assert_eq!(added["cdcs_id"], 1);
}
