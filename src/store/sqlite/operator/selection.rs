//! The rows that an operator names, in SQL.

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use crate::store::sqlite::clock::Now;
use crate::store::sqlite::counts::CounterGroup;
use crate::store::sqlite::row::get;
use crate::store::{IdRange, Selection, StoreError};

/// Range and selection, as [`select`] binds them.
macro_rules! selected {
    () => {
        "c.cdls_id > ?1 and c.cdls_id <= ?2 and (?3 is null or c.v8l_id = ?3) and (?4 is null or c.cp_id = ?4)
         and (?5 is null or c.error_code = ?5) and (?6 is null or c.created_at >= ?6)
         and (?7 is null or c.dest = ?7) and (?8 is null or c.msg_id = ?8)"
    };
}
pub(super) use selected;

/// Bind a range and a selection.
pub fn select<'q>(
    sql: &'q str,
    range: IdRange,
    selection: &'q Selection,
    now: Now,
) -> Query<'q, Sqlite, SqliteArguments<'q>> {
    sqlx::query(sql)
        .bind(range.after.0)
        .bind(range.last.0)
        .bind(selection.line.map(|line| line.0))
        .bind(selection.cp_id.as_deref())
        .bind(selection.error_code)
        .bind(selection.since.map(|since| now.before(since)))
        .bind(selection.dest.as_deref())
        .bind(selection.msg_id.as_deref())
}

/// Return the group that the row is counted in, if it has a campaign.
pub fn group(row: &SqliteRow) -> Result<Option<CounterGroup>, StoreError> {
    let cp_id: Option<String> = get(row, "cp_id")?;
    let (account, line, media) = (get(row, "cdcs_id")?, get(row, "v8l_id")?, get(row, "media")?);
    Ok(cp_id.map(|cp_id| CounterGroup { account, cp_id, line, media }))
}
