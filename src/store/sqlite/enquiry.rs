//! An account's messages by filter, newest first. Each way to find them walks one index backwards.
//!
//! Rows of an account, or of one of its campaigns, stand in the index in groups (line, medium, status). The few groups
//! are found by probing, and each adds only what is newer than the page so far. One read transaction: a row that
//! changes its status meanwhile appears once.

use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::error::failed;
use super::log::{log_row, log_select};
use super::row::list;
use crate::message::{AccountId, MessageId, Status};
use crate::store::{LogRow, MessageFilter, StoreError, Way};

/// Rows of one account or campaign that stand together in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub line: i64,
    /// Of a campaign; an account's rows are not told apart by it.
    pub media: i64,
    pub status: String,
}

/// Before the first group.
static START: Group = Group { line: i64::MIN, media: 0, status: String::new() };

macro_rules! by_column {
    ($index:literal, $column:literal, $other:literal) => {
        concat!(
            log_select!(),
            "indexed by ",
            $index,
            " where cdcs_id = ?1 and ",
            $column,
            " = ?2 and cdls_id < ?3 and (?5 is null or v8l_id = ?5) and (?6 is null or status = ?6)
              and (?7 is null or cp_id = ?7) and (?8 is null or ",
            $other,
            " = ?8)
            order by cdls_id desc limit ?4"
        )
    };
}

pub(super) const BY_MSG_ID: &str = by_column!("cdls_msg_id", "msg_id", "dest");
pub(super) const BY_DEST: &str = by_column!("cdls_dest", "dest", "msg_id");

/// The first group after line ?2 and status ?3 of account ?1. The status is given with a NUL behind it: SQLite seeks
/// "at or after" and would walk over the equals.
pub(super) const NEXT_OF_ACCOUNT: &str = "
select n.v8l_id, 0 as media, n.status from cdls n indexed by cdls_account
where n.cdcs_id = ?1 and (n.v8l_id, n.status) > (?2, ?3)
order by n.v8l_id, n.status limit 1";

/// The same of campaign ?5, after line ?2, medium ?4 and status ?3.
pub(super) const NEXT_OF_CAMPAIGN: &str = "
select n.v8l_id, n.media, n.status from cdls n indexed by cdls_campaign
where n.cdcs_id = ?1 and n.cp_id = ?5 and (n.v8l_id, n.media, n.status) > (?2, ?4, ?3)
order by n.v8l_id, n.media, n.status limit 1";

/// The newest ?6 rows of a group (line ?2, status ?3) of account ?1, above id ?4 and below ?5.
pub(super) const OF_ACCOUNT: &str = "
select n.cdls_id from cdls n indexed by cdls_account
where n.cdcs_id = ?1 and n.v8l_id = ?2 and n.status = ?3 and n.cdls_id > ?4 and n.cdls_id < ?5
order by n.cdls_id desc limit ?6";

/// The same of campaign ?7 and medium ?8.
pub(super) const OF_CAMPAIGN: &str = "
select n.cdls_id from cdls n indexed by cdls_campaign
where n.cdcs_id = ?1 and n.cp_id = ?7 and n.v8l_id = ?2 and n.media = ?8 and n.status = ?3
  and n.cdls_id > ?4 and n.cdls_id < ?5
order by n.cdls_id desc limit ?6";

pub async fn messages(
    reader: &SqlitePool,
    account: AccountId,
    filter: &MessageFilter,
    before: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let mut transaction = reader.begin().await.map_err(failed)?;
    match filter.way() {
        Way::MsgId => by_column(&mut transaction, BY_MSG_ID, account, filter, before, limit).await,
        Way::Dest => by_column(&mut transaction, BY_DEST, account, filter, before, limit).await,
        Way::Campaign | Way::Account => by_group(&mut transaction, account, filter, before, limit).await,
    }
}

async fn by_column(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    account: AccountId,
    filter: &MessageFilter,
    before: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let (column, other) = match filter.way() {
        Way::MsgId => (&filter.msg_id, &filter.dest),
        _ => (&filter.dest, &filter.msg_id),
    };
    let rows = sqlx::query(statement)
        .bind(account.0)
        .bind(column)
        .bind(before.0)
        .bind(limit)
        .bind(filter.line.map(|line| line.0))
        .bind(filter.status.map(Status::as_str))
        .bind(&filter.cp_id)
        .bind(other)
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed)?;
    rows.iter().map(log_row).collect()
}

async fn by_group(
    transaction: &mut Transaction<'_, Sqlite>,
    account: AccountId,
    filter: &MessageFilter,
    before: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let cp_id = filter.cp_id.as_deref();
    let mut page: Vec<i64> = Vec::new();
    for group in groups(transaction, account, cp_id).await? {
        let other_line = filter.line.is_some_and(|line| line.0 != group.line);
        let other_status = filter.status.is_some_and(|status| status.as_str() != group.status);
        if other_line || other_status {
            continue;
        }
        // Once the page is full, only what is newer than its last row counts.
        let above = if page.len() == limit as usize { page.last().copied() } else { None };
        let newest = sqlx::query_scalar(if cp_id.is_some() { OF_CAMPAIGN } else { OF_ACCOUNT })
            .bind(account.0)
            .bind(group.line)
            .bind(group.status)
            .bind(above.unwrap_or(i64::MIN))
            .bind(before.0)
            .bind(limit)
            .bind(cp_id)
            .bind(group.media)
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed)?;
        page.extend::<Vec<i64>>(newest);
        page.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        page.truncate(limit as usize);
    }
    let rows = sqlx::query(concat!(
        log_select!(),
        "where cdls_id in (select value from json_each(?1)) order by cdls_id desc"
    ))
    .bind(list(page))
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed)?;
    rows.iter().map(log_row).collect()
}

/// The groups of the account, or of one of its campaigns: one probe each.
pub async fn groups(
    connection: &mut SqliteConnection,
    account: AccountId,
    cp_id: Option<&str>,
) -> Result<Vec<Group>, StoreError> {
    let mut groups: Vec<Group> = Vec::new();
    loop {
        let last = groups.last().unwrap_or(&START);
        let found = sqlx::query(if cp_id.is_some() { NEXT_OF_CAMPAIGN } else { NEXT_OF_ACCOUNT })
            .bind(account.0)
            .bind(last.line)
            .bind(format!("{}\0", last.status))
            .bind(last.media)
            .bind(cp_id)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let Some(row) = found else { return Ok(groups) };
        groups.push(Group {
            line: row.try_get("v8l_id").map_err(failed)?,
            media: row.try_get("media").map_err(failed)?,
            status: row.try_get("status").map_err(failed)?,
        });
    }
}
