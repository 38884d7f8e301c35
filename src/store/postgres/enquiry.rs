//! An account's messages by filter, newest first. Each way to find them walks one index backwards.
//!
//! Rows of one account (or of one campaign) stand in the index in groups, by line and status. The few groups are found
//! by probing; only those with the newest rows, as many as the page is long, can contribute to it, each at most a page.

use super::error::failed;
use super::pool::Pool;
use super::rows::{self, log_columns};
use crate::message::{AccountId, MessageId, Status};
use crate::store::{LogRow, MessageFilter, StoreError, Way};

/// Account $1, below id $2, at most $3 rows, lines $4 to $5, status $6, campaign $7, and the other of `msg_id` and `dest`
/// $9; NULL is any. The column that finds the rows is $8; it is compared twice for the reason told at [`by_group`].
macro_rules! by_column {
    ($column:literal, $other:literal) => {
        concat!(
            "select ",
            log_columns!(),
            " from cdls
             where cdcs_id = $1 and (",
            $column,
            ", cdls_id) < ($8, $2) and ",
            $column,
            " >= $8
               and v8l_id between $4 and $5 and ($6::text is null or status = $6)
               and ($7::text is null or cp_id = $7) and ($9::text is null or ",
            $other,
            " = $9)
             order by cdcs_id desc, ",
            $column,
            " desc, cdls_id desc limit $3"
        )
    };
}

const BY_MSG_ID: &str = by_column!("msg_id", "dest");
const BY_DEST: &str = by_column!("dest", "msg_id");

/// Account $1, below id $2, at most $3 rows, lines $4 to $5, status $6 (NULL is any), campaign $7. `$where` and `$group`,
/// whose values for a group are `$of_pair`, are the columns of the index before the status; `$newest_first` is its order
/// from the end.
///
/// The status is compared twice, because a planner that is told that it is constant takes the order of the primary key,
/// and walks over the newer rows of all other groups. `offset 0` makes each row a look-up by its id, whatever the planner
/// expects of the list.
macro_rules! by_group {
    ($where:literal, $group:literal, $of_pair:literal, $newest_first:literal) => {
        concat!(
            "with recursive pair as (
                (select ",
            $group,
            ", status from cdls where cdcs_id = $1 and ",
            $where,
            " v8l_id between $4 and $5
                 order by ",
            $group,
            ", status limit 1)
                union all
                select next.* from pair cross join lateral (
                    select ",
            $group,
            ", status from cdls
                    where cdcs_id = $1 and ",
            $where,
            " v8l_id <= $5
                      and (",
            $group,
            ", status) > (",
            $of_pair,
            ", pair.status)
                    order by ",
            $group,
            ", status limit 1) as next),
            newest as materialized (
                select pair.*, top.cdls_id from pair cross join lateral (
                    select cdls_id from cdls
                    where cdcs_id = $1 and ",
            $where,
            " (",
            $group,
            ") = (",
            $of_pair,
            ")
                      and (status, cdls_id) < (pair.status, $2) and status >= pair.status
                    order by ",
            $newest_first,
            " limit 1) as top
                where $6::text is null or pair.status = $6),
            newer as materialized (select * from newest order by cdls_id desc limit $3),
            listed as materialized (
                select id.cdls_id from newer as pair cross join lateral (
                    select cdls_id from cdls
                    where cdcs_id = $1 and ",
            $where,
            " (",
            $group,
            ") = (",
            $of_pair,
            ")
                      and (status, cdls_id) <= (pair.status, pair.cdls_id) and status >= pair.status
                    order by ",
            $newest_first,
            " limit $3) as id
                order by id.cdls_id desc limit $3)
            select c.* from listed cross join lateral (
                select ",
            log_columns!(),
            " from cdls where cdls_id = listed.cdls_id offset 0) as c
            order by c.cdls_id desc"
        )
    };
}

const BY_ACCOUNT: &str =
    by_group!("", "v8l_id", "pair.v8l_id", "cdcs_id desc, v8l_id desc, status desc, cdls_id desc");
const BY_CAMPAIGN: &str = by_group!(
    "cp_id = $7 and",
    "v8l_id, media",
    "pair.v8l_id, pair.media",
    "cdcs_id desc, cp_id desc, v8l_id desc, media desc, status desc, cdls_id desc"
);

pub async fn messages(
    pool: &Pool,
    account: AccountId,
    filter: &MessageFilter,
    before: MessageId,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let way = filter.way();
    let statement = match way {
        Way::MsgId => BY_MSG_ID,
        Way::Dest => BY_DEST,
        Way::Campaign => BY_CAMPAIGN,
        Way::Account => BY_ACCOUNT,
    };
    let query = sqlx::query(statement)
        .bind(account.0)
        .bind(before.0)
        .bind(i64::from(limit))
        .bind(filter.line.map_or(i64::MIN, |line| line.0))
        .bind(filter.line.map_or(i64::MAX, |line| line.0))
        .bind(filter.status.map(Status::as_str));
    let query = match way {
        Way::MsgId => query.bind(&filter.cp_id).bind(&filter.msg_id).bind(&filter.dest),
        Way::Dest => query.bind(&filter.cp_id).bind(&filter.dest).bind(&filter.msg_id),
        Way::Campaign => query.bind(&filter.cp_id),
        Way::Account => query,
    };
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(rows::log).collect()
}
