//! Commits that were not answered: whether they took place after all.
//!
//! The first row of each commit bears a mark that this process drew and recognises. A transaction that was
//! open before also has a number, by which the server can be asked for its status (PostgreSQL, "System
//! Information Functions": `pg_xact_status`); a statement that is its own commit returns its number only with
//! its answer.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;

use super::pool::Pool;
use super::rows;
use crate::domain::{RowId, Submission};

/// How long a commit that was cut may stay in progress before its outcome counts as unknown.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// The marks by which a transaction is recognised after its connection was lost.
pub struct Stamp {
    pub xid: String,
    /// The transaction's first row, and the mark of that row.
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
            match commit_state(status.as_deref(), is_logged) {
                // The row is looked for as of the statement's begin, its transaction as of now: a transaction
                // that ended between the two is asked about once more.
                CommitState::RolledBack if !was_denied => was_denied = true,
                CommitState::RolledBack => return Some(false),
                CommitState::Committed => return Some(true),
                CommitState::Unknowable => return None,
                CommitState::InProgress => {}
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, asking).await.unwrap_or(None)
}

/// The state of a commit, as far as the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitState {
    Committed,
    RolledBack,
    InProgress,
    /// The server has forgotten the transaction.
    Unknowable,
}

/// Return the state of a commit by the status of its transaction and by its first row.
///
/// The row alone proves a commit. A server that crashed before the transaction reached its disk forgets that
/// its number was given out: the number may belong to another transaction by now, which was committed.
fn commit_state(status: Option<&str>, is_logged: bool) -> CommitState {
    match status {
        _ if is_logged => CommitState::Committed,
        Some("in progress") => CommitState::InProgress,
        Some("committed" | "aborted") => CommitState::RolledBack,
        _ => CommitState::Unknowable,
    }
}

/// Return the ids of messages that were logged by a statement without an answer, in the order given. `None`:
/// the messages were not found, and may yet be logged if the statement is still on its way to the server.
pub async fn logged(pool: &Pool, submissions: &[&Submission], mark: i64) -> Option<Vec<RowId>> {
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
                // Another commit to the same line may have the same time of creation: the two cannot be
                // distinguished.
                return (ids.len() == submissions.len()).then(|| ids.into_iter().map(RowId).collect());
            }
            since = since.or(rows::get(&row, "asked_at").ok());
            if rows::get(&row, "is_running").ok()? {
                was_denied = false;
            } else if was_denied {
                return None;
            } else {
                // The statement may have ended between the two looks of the question.
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
    #[case::committed(Some("committed"), true, CommitState::Committed)]
    #[case::aborted(Some("aborted"), false, CommitState::RolledBack)]
    #[case::in_progress(Some("in progress"), false, CommitState::InProgress)]
    #[case::forgotten_by_the_server(None, false, CommitState::Unknowable)]
    #[case::number_reused_after_a_crash(Some("committed"), false, CommitState::RolledBack)]
    fn finds_the_state_of_an_unanswered_commit(
        #[case] status: Option<&str>,
        #[case] is_logged: bool,
        #[case] state: CommitState,
    ) {
        assert_eq!(commit_state(status, is_logged), state);
    }
}
