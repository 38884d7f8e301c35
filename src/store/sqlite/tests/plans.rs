//! Frequent statements use an index of the log and of the queue, also on tables that were never analysed.

use rstest::rstest;
use sqlx::Row;

use super::*;
use crate::store::sqlite::operator::settle;
use crate::store::sqlite::{
    campaign, claims, dispatch, doomed, due, enquiry, intake, log, receipts, recipients, record,
};

/// Statements name the log n, c or cdls, and the queue w, n, o, k and r; open claims are few, and looked at
/// one by one.
#[rstest]
#[case::read_work(dispatch::READ_WORK)]
#[case::read_flows(dispatch::READ_FLOWS)]
#[case::new_work(dispatch::NEW_WORK)]
#[case::resumed(dispatch::RESUMED)]
#[case::due(due::DUE)]
#[case::next(due::NEXT)]
#[case::held(due::HELD)]
#[case::current(record::CURRENT)]
#[case::change(record::CHANGE)]
#[case::open(record::OPEN)]
#[case::end_work(record::END_WORK)]
#[case::waiting(doomed::WAITING)]
#[case::expired_work(doomed::EXPIRED_WORK)]
#[case::cancelled_work(doomed::CANCELLED_WORK)]
#[case::cancelled_open(doomed::CANCELLED_OPEN)]
#[case::account_backlog(intake::ACCOUNT_BACKLOG)]
#[case::campaign_counts(campaign::COUNTS)]
#[case::campaign_not_before(campaign::NOT_BEFORE)]
#[case::unknown(settle::UNKNOWN)]
#[case::count_unknown(settle::COUNT_UNKNOWN)]
#[case::by_msg_id(enquiry::BY_MSG_ID[0])]
#[case::by_dest(enquiry::BY_DEST[0])]
#[case::by_campaign(enquiry::BY_CAMPAIGN[0])]
#[case::by_line(enquiry::BY_LINE[0])]
#[case::by_exception(enquiry::BY_EXCEPTION[0])]
#[case::by_campaign_exception(enquiry::BY_CAMPAIGN_EXCEPTION[0])]
#[case::next_line(enquiry::NEXT_LINE)]
#[case::dest_newest(log::DEST_NEWEST)]
#[case::msg_id_after(log::MSG_ID_AFTER)]
#[case::contacts(recipients::CONTACTS)]
#[case::recipient_counts(recipients::COUNTS)]
#[case::open_windows(recipients::WITH_OPEN_WINDOWS)]
#[case::line_backlog(recipients::BACKLOG)]
#[case::closing(recipients::CLOSING)]
#[case::withheld(record::WITHHELD)]
#[case::receipts(receipts::FOUND)]
#[case::early_receipts(receipts::OPEN)]
#[tokio::test]
async fn never_walks_over_a_table(#[case] sql: &'static str) {
    let plan = plan(sql).await;
    let scans = ["cdls", "n", "c", "w", "o", "k", "r", "work", "cdls_open"];
    for step in &plan {
        let scanned = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
        assert!(!scanned.is_some_and(|table| scans.contains(&table)), "{plan:#?}");
    }
}

/// Each plan starts at open claims, or at the queue, and finds the log's rows by id.
#[rstest]
#[case::open_claims(claims::OPEN)]
#[case::held_by_claims(claims::HELD)]
#[case::closed_claims(claims::CLOSED)]
#[case::sending(campaign::SENDING)]
#[case::open_after(log::OPEN_AFTER)]
#[case::open_newest(log::OPEN_NEWEST)]
#[case::open_rows(log::OPEN_ROWS)]
#[case::by_queue(enquiry::BY_QUEUE[0])]
#[case::ready_flows(dispatch::READY_FLOWS)]
#[case::cancelled(doomed::CANCELLED)]
#[tokio::test]
async fn does_not_walk_over_the_log(#[case] sql: &'static str) {
    let plan = plan(sql).await;
    let is_walk =
        |step: &String| step.starts_with("SCAN c ") || step == "SCAN c" || step.starts_with("SCAN cdls ");
    assert!(!plan.iter().any(is_walk), "{plan:#?}");
}

/// Rows that have not ended are found in the queue, and looked up one by one.
#[rstest]
#[case(log::OPEN_AFTER)]
#[case(log::OPEN_NEWEST)]
#[case(enquiry::BY_QUEUE[0])]
#[tokio::test]
async fn finds_the_log_rows_by_id(#[case] sql: &'static str) {
    let plan = plan(sql).await;
    let of_the_log: Vec<&String> = plan.iter().filter(|step| step.starts_with("SEARCH c ")).collect();
    assert_eq!(of_the_log, ["SEARCH c USING INTEGER PRIMARY KEY (rowid=?)"], "{plan:#?}");
}

/// The index gives the order: a page of a long list is not sorted first.
#[rstest]
#[case(enquiry::BY_MSG_ID[0])]
#[case(enquiry::BY_MSG_ID[1])]
#[case(enquiry::BY_DEST[0])]
#[case(enquiry::BY_EXCEPTION[1])]
#[case(enquiry::BY_CAMPAIGN_EXCEPTION[1])]
#[case(enquiry::BY_CAMPAIGN[0])]
#[case(enquiry::BY_LINE[0])]
#[case(enquiry::BY_EXCEPTION[0])]
#[case(enquiry::BY_CAMPAIGN_EXCEPTION[0])]
#[case(dispatch::READ_FLOWS)]
#[case(dispatch::READY_FLOWS)]
#[case(due::DUE)]
#[case(due::HELD)]
#[case(settle::UNKNOWN)]
#[tokio::test]
async fn sorts_no_rows_of_a_page(#[case] sql: &'static str) {
    let plan = plan(sql).await;
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
}

async fn plan(sql: &'static str) -> Vec<String> {
    let fixture = Fixture::new().await;
    let explained = format!("explain query plan {sql}");
    let rows = sqlx::query(&explained).fetch_all(&fixture.store.writer).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}
