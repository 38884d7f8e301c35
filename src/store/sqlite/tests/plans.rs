//! Statements that must not walk over the whole log use their partial index, also on a table that was never
//! analysed.

use rstest::rstest;
use sqlx::Row;

use super::*;
use crate::store::sqlite::{dispatch, due, expiry, ingest, record, settle};

#[rstest]
#[case(dispatch::FLOW_ROWS, &[
    "SEARCH n USING INDEX cdls_ready (v8l_id=? AND priority=? AND media=? AND campaign=? AND cdls_id>? AND cdls_id<?)",
    "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)",
])]
#[case(dispatch::FLOW_HEADS, &[
    "SEARCH n USING INDEX cdls_ready ((v8l_id,priority,media,campaign)>(?,?,?,?))",
    "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)",
])]
#[case(dispatch::NARROW_RANGES, &[
    "SEARCH n USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
    "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)",
])]
#[case(due::DUE, &[
    "SEARCH n USING INDEX cdls_due (partition_no=? AND <expr><?)",
    "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)",
])]
#[case(due::HELD, &["SEARCH n USING INDEX cdls_due (partition_no=? AND <expr><?)"])]
#[case(due::CLAIMED, &["SEARCH n USING INDEX cdls_due (partition_no=? AND <expr><?)"])]
#[case(expiry::WALK, &[
    "SEARCH n USING INDEX cdls_ready (v8l_id=? AND priority=? AND media=? AND campaign=? AND cdls_id>?)",
])]
#[case(ingest::BACKLOG, &["SCAN cdls USING INDEX cdls_ready", "SCAN cdls USING INDEX cdls_due"])]
#[case(record::CHANGE, &["SEARCH cdls USING INTEGER PRIMARY KEY (rowid=?)"])]
#[case(record::LATE, &["SEARCH c USING INTEGER PRIMARY KEY (rowid=?)"])]
#[case(settle::UNKNOWN, &["SEARCH c USING INDEX cdls_unknown (cdls_id>? AND cdls_id<?)"])]
#[case(record::CLAIM, &["SEARCH cdls USING INTEGER PRIMARY KEY (rowid=?)"])]
#[tokio::test]
async fn a_statement_uses_its_index(#[case] sql: &'static str, #[case] expected: &[&str]) {
    let fixture = Fixture::new().await;
    let explained = format!("explain query plan {sql}");
    let plan: Vec<String> = sqlx::query(&explained)
        .fetch_all(&fixture.store.writer)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get("detail"))
        .collect();
    // The log stands as n, c or cdls in the statements; other tables are small.
    let of_the_log = ["SEARCH n ", "SCAN n", "SEARCH c ", "SCAN c ", "SEARCH cdls", "SCAN cdls"];
    let steps: Vec<&str> = plan
        .iter()
        .map(String::as_str)
        .filter(|step| of_the_log.iter().any(|start| step.starts_with(start)))
        .collect();
    for wanted in expected {
        assert!(steps.contains(wanted), "{plan:#?}");
    }
    for step in steps {
        assert!(expected.contains(&step), "{plan:#?}");
    }
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
}
