//! The rows that an operator names: in SQL, and narrowed down to ids.

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use crate::domain::RowId;
use crate::store::postgres::log::ranges::{Range, range_of, unless_missing};
use crate::store::postgres::parameters::milliseconds;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows;
use crate::store::{Matching, Selection, StoreError};

/// Rows looked at in one statement.
pub const LOOKED_AT: i64 = 10_000;

/// The selected rows of $1, as [`select`] binds it.
macro_rules! selected {
    () => {
        "c.cdls_id = any($1::bigint[]) and ($2::bigint is null or c.v8l_id = $2)
         and ($3::text is null or c.cp_id = $3) and ($4::integer is null or c.error_code = $4)
         and ($5::bigint is null or c.created_at >= now() - $5 * interval '1 millisecond')"
    };
}
pub(super) use selected;

/// Bind a selection. Planned each time: a plan that fits one id does not fit ten thousand.
pub fn select<'q>(
    sql: &'q str,
    ids: &'q [i64],
    selection: &'q Selection,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .persistent(false)
        .bind(ids)
        .bind(selection.line.map(|line| line.0))
        .bind(selection.cp_id.as_deref())
        .bind(selection.error_code)
        .bind(selection.since.map(milliseconds))
}

const NARROWED: &str = "
    select c.cdls_id from cdls_{range} c
    where c.cdls_id = any($1::bigint[]) and ($2::text is null or c.dest = $2) and ($3::text is null or c.msg_id = $3)
    order by c.cdls_id";

/// Return the rows of these ids, which are of one range, that have the recipient and the reference asked for:
/// no row ever changes them.
pub async fn narrowed(pool: &Pool, ids: Vec<i64>, selection: &Selection) -> Result<Vec<i64>, StoreError> {
    if selection.dest.is_none() && selection.msg_id.is_none() {
        return Ok(ids);
    }
    let statement = on_range(NARROWED, &ids);
    let query = sqlx::query_scalar(&statement)
        .persistent(false)
        .bind(&ids)
        .bind(selection.dest.as_deref())
        .bind(selection.msg_id.as_deref());
    unless_missing(query.fetch_all(pool).await)
}

/// Return the statement, on the range of these ids.
pub fn on_range(statement: &str, ids: &[i64]) -> String {
    let number =
        ids.first().and_then(|id| range_of(*id)).map_or_else(String::new, |range: Range| range.to_string());
    statement.replace("{range}", &number)
}

pub fn add(matching: &mut Matching, counted: Vec<PgRow>) -> Result<(), StoreError> {
    for row in &counted {
        matching.rows += rows::get::<i64>(row, "rows")?;
        matching.left_out += rows::get::<i64>(row, "left_out")?;
        let last = rows::get::<Option<i64>>(row, "last")?.unwrap_or(0);
        matching.last = matching.last.max(RowId(last));
    }
    Ok(())
}
