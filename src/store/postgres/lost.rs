//! Commits that were not answered: whether they took place after all.
//!
//! The first row of each commit bears a mark that this process drew, so that it is known again. A transaction that was open
//! before has a number besides, which the server can be asked about (PostgreSQL, "System Information Functions":
//! `pg_xact_status`); a statement that is its own commit tells its number only with its answer.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;

use super::pool::Pool;
use super::rows;
use crate::message::{MessageId, Submission};

/// How long a commit that was cut may stay in progress before its outcome counts as unknown.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// By what a transaction is known again after its connection was lost.
pub struct Stamp {
    pub xid: String,
    /// Its first row, and the mark it bears.
    pub row: i64,
    pub mark: i64,
}

/// Whether the transaction was committed. `None`: the server cannot tell.
pub async fn took_place(pool: &Pool, stamp: &Stamp) -> Option<bool> {
    let asking = async {
        let mut tick = tokio::time::interval(ASKED_EVERY);
        let mut was_denied = false;
        loop {
            tick.tick().await;
            let found: Result<(Option<String>, bool), sqlx::Error> = sqlx::query_as(
                "select pg_xact_status($1::text::xid8),
                        exists (select from cdls where cdls_id = $2 and commit_mark = $3)",
            )
            .bind(&stamp.xid)
            .bind(stamp.row)
            .bind(stamp.mark)
            .fetch_one(pool)
            .await;
            let Ok((status, is_logged)) = found else { continue };
            match verdict(status.as_deref(), is_logged) {
                // The row is looked for as of the statement's begin, its transaction as of now: one that ended between
                // the two is asked about once more.
                Some(Some(false)) if !was_denied => was_denied = true,
                Some(answer) => return answer,
                None => {}
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, asking).await.unwrap_or(None)
}

/// The verdict of status and row on the commit; nothing yet while the transaction goes on.
///
/// The row alone proves a commit. A server that crashed before the transaction reached its disk forgets that its number
/// was given out: it may belong to another transaction by now, which was committed.
fn verdict(status: Option<&str>, is_logged: bool) -> Option<Option<bool>> {
    match status {
        _ if is_logged => Some(Some(true)),
        Some("in progress") => None,
        Some("committed" | "aborted") => Some(Some(false)),
        _ => Some(None),
    }
}

/// The ids of messages that were logged by a statement without an answer, in the order given. `None`: they were not found, and
/// may yet be logged if the statement is still on its way to the server.
pub async fn logged(pool: &Pool, submissions: &[&Submission], mark: i64) -> Option<Vec<MessageId>> {
    let first = submissions.first()?;
    let lines: BTreeSet<(i64, i64)> = submissions.iter().map(|s| (s.account.0, s.line.0)).collect();
    let (accounts, lines): (Vec<i64>, Vec<i64>) = lines.into_iter().unzip();
    let asking = async {
        let mut tick = tokio::time::interval(ASKED_EVERY);
        let mut since: Option<OffsetDateTime> = None;
        let mut was_denied = false;
        loop {
            tick.tick().await;
            let answer = sqlx::query(include_str!("sql/lost_commit.sql"))
                .bind(first.account.0)
                .bind(first.line.0)
                .bind(mark)
                .bind(&accounts)
                .bind(&lines)
                .bind(since)
                .fetch_one(pool)
                .await;
            let Ok(row) = answer else { continue };
            let ids: Vec<i64> = rows::get(&row, "ids").ok()?;
            if !ids.is_empty() {
                // Another commit to the same line may have the same time of creation: the two cannot be told apart.
                return (ids.len() == submissions.len()).then(|| ids.into_iter().map(MessageId).collect());
            }
            since = since.or(rows::get(&row, "asked_at").ok());
            if rows::get(&row, "is_running").ok()? {
                was_denied = false;
            } else if was_denied {
                return None;
            } else {
                // It may have ended between the two looks of the question.
                was_denied = true;
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, asking).await.unwrap_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::committed(Some("committed"), true, Some(Some(true)))]
    #[case::aborted(Some("aborted"), false, Some(Some(false)))]
    #[case::still_going_on(Some("in progress"), false, None)]
    #[case::too_old_to_tell(None, false, Some(None))]
    #[case::a_number_given_out_again_after_a_crash_does_not_vouch_for_rows_that_are_gone(
        Some("committed"),
        false,
        Some(Some(false))
    )]
    fn a_commit_without_an_answer(
        #[case] status: Option<&str>,
        #[case] is_logged: bool,
        #[case] answer: Option<Option<bool>>,
    ) {
        assert_eq!(verdict(status, is_logged), answer);
    }
}
