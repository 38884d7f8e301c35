//! Statements that must not walk over the whole log use their partial index, also on a table that was never
//! analysed.

use rstest::rstest;
use sqlx::Row;

use super::*;
use crate::store::sqlite::{dispatch, due, ingest};

#[rstest]
#[case(dispatch::FLOW_ROWS, "cdls_ready (v8l_id=? AND priority=? AND media=? AND campaign=? AND cdls_id>? AND cdls_id<?)")]
#[case(dispatch::FLOW_HEADS, "cdls_ready ((v8l_id,priority,media,campaign)>(?,?,?,?))")]
#[case(dispatch::NARROW_RANGE, "PRIMARY KEY (rowid>? AND rowid<?)")]
#[case(due::DUE, "cdls_due (partition_no=? AND <expr><?)")]
#[case(due::HELD, "cdls_due (partition_no=?)")]
#[case(due::CLAIMED, "cdls_due (partition_no=?)")]
#[case(due::EXPIRED, "cdls_ready (v8l_id=?)")]
#[case(ingest::BACKLOG, "SCAN cdls USING")]
#[tokio::test]
async fn a_statement_uses_its_index(#[case] sql: &'static str, #[case] expected: &str) {
    let fixture = Fixture::new().await;
    let explained = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
    let plan: Vec<String> = sqlx::query(explained)
        .fetch_all(&fixture.store.reader)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get("detail"))
        .collect();
    assert!(plan.iter().any(|step| step.contains(expected)), "{plan:#?}");
    for step in plan.iter().filter(|step| step.contains("cdls")) {
        assert!(step.contains(expected), "{plan:#?}");
        assert!(step.contains("INDEX cdls_"), "{plan:#?}");
    }
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
}
