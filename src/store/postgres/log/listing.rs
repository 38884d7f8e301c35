//! Rows of the log by filter, in order of id: the rarest filter given finds them, the others are looked at row by row.
//!
//! First the ids are read, from one index alone or from the queue, range by range of the log until there are enough; then
//! the rows. A row is listed once, whatever is written meanwhile, as its id stands in one batch only.

use std::collections::VecDeque;

use sqlx::postgres::PgRow;

use super::ranges::{self, Range, range_of, split, unless_missing};
use super::{claims, log_columns, readable, with_claims};
use crate::message::Status;
use crate::store::postgres::error::failed;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows as columns;
use crate::store::{LogRow, StoreError};

/// Ids read at a time.
const BATCH: i64 = 10_000;
/// The same where each line of an account brings as many.
const BATCH_OF_LINES: i64 = 1_000;

/// Which rows are looked for; what is `None` matches any.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    pub account: Option<i64>,
    pub line: Option<i64>,
    pub status: Option<Status>,
    pub cp_id: Option<&'a str>,
    pub msg_id: Option<&'a str>,
    pub dest: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    fn as_sql(self) -> &'static str {
        match self {
            Order::NewestFirst => "desc",
            Order::OldestFirst => "asc",
        }
    }
}

/// Where the ids are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Rows with a claim.
    Claims,
    /// Rows that wait for their turn, or for their time.
    Queue,
    /// An index of the log that begins with the account and these columns.
    Index(&'static [Column]),
    /// All lines of one account.
    Lines,
    /// Every row.
    Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    MsgId,
    Dest,
    Campaign,
    Exception,
    Line,
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Column::MsgId => "c.msg_id",
            Column::Dest => "c.dest",
            Column::Campaign => "c.cp_id",
            Column::Exception => "c.exception",
            Column::Line => "c.v8l_id",
        }
    }

    fn sql_type(self) -> &'static str {
        if self == Column::Line { "text::bigint" } else { "text" }
    }

    fn value(self, wanted: &Wanted<'_>) -> Option<String> {
        match self {
            Column::MsgId => wanted.msg_id.map(str::to_owned),
            Column::Dest => wanted.dest.map(str::to_owned),
            Column::Campaign => wanted.cp_id.map(str::to_owned),
            Column::Exception => wanted.status.map(|status| status.as_str().to_owned()),
            Column::Line => wanted.line.map(|line| line.to_string()),
        }
    }
}

impl Wanted<'_> {
    /// Rows that are SENDING or PENDING stand in the queue, and rows that left the ordinary way in an index of their own.
    fn source(&self) -> Source {
        match self {
            Wanted { status: Some(Status::Sending), .. } => Source::Claims,
            Wanted { msg_id: Some(_), .. } => Source::Index(&[Column::MsgId]),
            Wanted { dest: Some(_), .. } => Source::Index(&[Column::Dest]),
            Wanted { status: Some(Status::Pending), .. } => Source::Queue,
            Wanted { status: Some(status), cp_id, .. } if *status != Status::Ok => match cp_id {
                Some(_) => Source::Index(&[Column::Campaign, Column::Exception]),
                None => Source::Index(&[Column::Exception]),
            },
            Wanted { cp_id: Some(_), .. } => Source::Index(&[Column::Campaign]),
            Wanted { line: Some(_), .. } => Source::Index(&[Column::Line]),
            Wanted { account: Some(_), .. } => Source::Lines,
            _ => Source::Log,
        }
    }
}

/// Ids of rows that may match, batch by batch, each of one range.
pub struct Candidates<'a> {
    pool: &'a Pool,
    wanted: &'a Wanted<'a>,
    source: Source,
    order: Order,
    /// Ids above the first, up to and with the second, are left.
    left: (i64, i64),
    ranges: VecDeque<Range>,
}

impl<'a> Candidates<'a> {
    /// Ids above the first of `bounds`, up to and with the second.
    pub async fn find(
        pool: &'a Pool,
        wanted: &'a Wanted<'a>,
        order: Order,
        bounds: (i64, i64),
    ) -> Result<Candidates<'a>, StoreError> {
        let source = wanted.source();
        let mut ranges = VecDeque::from(match source {
            Source::Claims | Source::Queue => Vec::new(),
            _ => ranges::all(pool).await?,
        });
        if order == Order::OldestFirst {
            ranges.make_contiguous().reverse();
        }
        ranges.retain(|range| range.last() > bounds.0 && range.first() <= bounds.1);
        Ok(Candidates { pool, wanted, source, order, left: bounds, ranges })
    }

    /// The next ids, about `at_most`; none: there are no more.
    pub async fn next(&mut self, at_most: i64) -> Result<Vec<i64>, StoreError> {
        let most = if self.source == Source::Lines { BATCH_OF_LINES } else { BATCH };
        let at_most = at_most.clamp(1, most);
        match self.source {
            Source::Claims | Source::Queue => self.next_of_queue(at_most).await,
            _ => self.next_of_log(at_most).await,
        }
    }

    async fn next_of_log(&mut self, at_most: i64) -> Result<Vec<i64>, StoreError> {
        while let Some(range) = self.ranges.front().copied() {
            let bounds = (self.left.0.max(range.first() - 1), self.left.1.min(range.last()));
            let ids = unless_missing(self.ids(&self.of_log(range), bounds, at_most).await)?;
            if (ids.len() as i64) < at_most {
                self.ranges.pop_front();
            }
            if let Some(last) = ids.last() {
                self.pass(*last);
                return Ok(ids);
            }
        }
        Ok(Vec::new())
    }

    async fn next_of_queue(&mut self, at_most: i64) -> Result<Vec<i64>, StoreError> {
        let mut ids = self.ids(&self.of_queue(), self.left, at_most).await.map_err(failed)?;
        // A row that was tried before may stand in two rows of `work`.
        ids.dedup();
        let of_one_range = split(&ids).next().map_or(0, |(_, part)| part.len());
        ids.truncate(of_one_range);
        if let Some(last) = ids.last() {
            self.pass(*last);
        }
        Ok(ids)
    }

    fn pass(&mut self, last: i64) {
        match self.order {
            Order::NewestFirst => self.left.1 = last - 1,
            Order::OldestFirst => self.left.0 = last,
        }
    }

    async fn ids(&self, statement: &str, bounds: (i64, i64), at_most: i64) -> Result<Vec<i64>, sqlx::Error> {
        if bounds.0 >= bounds.1 {
            return Ok(Vec::new());
        }
        let mut query = sqlx::query_scalar(statement)
            .bind(bounds.0)
            .bind(bounds.1)
            .bind(at_most)
            .bind(self.wanted.account);
        match self.source {
            Source::Claims => query = query.bind(self.wanted.line),
            Source::Queue => query = query.bind(self.wanted.line).bind(self.wanted.cp_id),
            Source::Index(columns) => {
                for column in columns {
                    query = query.bind(column.value(self.wanted));
                }
            }
            Source::Lines | Source::Log => {}
        }
        query.fetch_all(self.pool).await
    }

    fn of_log(&self, range: Range) -> String {
        let order = self.order.as_sql();
        // No index holds it. Rows that wait, by the hundred thousand, are passed over here, and not fetched one and all.
        let also = if self.wanted.status == Some(Status::Ok) { "and c.status = 'OK'" } else { "" };
        match self.source {
            Source::Index(columns) => of_index(range, columns, also, order),
            Source::Lines => of_lines(range, also, order),
            _ => format!(
                "select c.cdls_id from cdls_{range} c
                 where c.cdls_id > $1 and c.cdls_id <= $2 and ($4::bigint is null or c.cdcs_id = $4) {also}
                 order by c.cdls_id {order} limit $3"
            ),
        }
    }

    fn of_queue(&self) -> String {
        let order = self.order.as_sql();
        match (self.source, self.wanted) {
            (Source::Claims, _) => format!(
                "select distinct u.cdls_id from cdls_sending u
                 where u.cdls_id > $1 and u.cdls_id <= $2
                   and ($5::bigint is null or u.partition_no = ($5 % 64)::smallint)
                   and ($4::bigint is null or exists (
                       select from cd_v8_line l where l.cdcs_id = $4 and l.v8l_id % 64 = u.partition_no))
                 order by u.cdls_id {order} limit $3"
            ),
            (_, Wanted { account: Some(_), cp_id: Some(_), .. }) => of_queued_campaign(order),
            _ => of_queued_lines(order),
        }
    }
}

/// Account $4 (NULL is any), columns $5 and on, from the index alone. The columns are compared as a row with the id, because
/// a planner that is told that they are constant takes the order of the primary key, and walks over all others' rows.
fn of_index(range: Range, columns: &[Column], also: &str, order: &str) -> String {
    let names = columns.iter().map(|column| column.name()).collect::<Vec<_>>();
    let values = columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!("${}::{}", n + 5, column.sql_type()))
        .collect::<Vec<_>>();
    let not_null = names.iter().map(|name| format!("{name} is not null")).collect::<Vec<_>>().join(" and ");
    let ordered = names.iter().map(|name| format!("{name} {order}")).collect::<Vec<_>>().join(", ");
    let (names, values) = (names.join(", "), values.join(", "));
    format!(
        "select w.cdls_id from account a cross join lateral (
             select c.cdls_id from cdls_{range} c
             where c.cdcs_id = a.cdcs_id and {not_null} {also}
               and ({names}, c.cdls_id) > ({values}, $1) and ({names}, c.cdls_id) <= ({values}, $2)
             order by {ordered}, c.cdls_id {order} limit $3) as w
         where $4::bigint is null or a.cdcs_id = $4
         order by w.cdls_id {order} limit $3"
    )
}

/// The lines are found by probing; only those with the first rows, as many as the batch is long, can contribute to it.
fn of_lines(range: Range, also: &str, order: &str) -> String {
    let of_line = |line: &str, limit: &str| {
        format!(
            "select c.cdls_id from cdls_{range} c
             where c.cdcs_id = $4 and (c.v8l_id, c.cdls_id) > ({line}, $1) and (c.v8l_id, c.cdls_id) <= ({line}, $2) {also}
             order by c.v8l_id {order}, c.cdls_id {order} limit {limit}"
        )
    };
    let (first, all) = (of_line("line.v8l_id", "1"), of_line("chosen.v8l_id", "$3"));
    format!(
        "with recursive line as (
             (select c.v8l_id from cdls_{range} c where c.cdcs_id = $4 order by c.cdcs_id, c.v8l_id limit 1)
             union all
             select (select c.v8l_id from cdls_{range} c where c.cdcs_id = $4 and c.v8l_id > line.v8l_id
                     order by c.cdcs_id, c.v8l_id limit 1)
             from line where line.v8l_id is not null),
         chosen as materialized (
             select line.v8l_id from line cross join lateral ({first}) as top order by top.cdls_id {order} limit $3)
         select w.cdls_id from chosen cross join lateral ({all}) as w order by w.cdls_id {order} limit $3"
    )
}

/// Account $4, line $5, campaign $6; NULL is any. All that waits is looked at for each batch: half a second for a million rows.
/// (Unnested in the list of columns, as a join with a function is remembered row by row.)
fn of_queued_lines(order: &str) -> String {
    format!(
        "select q.cdls_id from (
             select u.cdls_id from cd_v8_line l cross join lateral (
                 select unnest(w.ids) as cdls_id from work w
                 where w.partition_no = (l.v8l_id % 64)::smallint and w.v8l_id = l.v8l_id and w.first_id <= $2
                   and ($6::text is null or w.campaign = $6)) as u
             where ($4::bigint is null or l.cdcs_id = $4) and ($5::bigint is null or l.v8l_id = $5)
             union all
             select o.cdls_id from account a cross join lateral (
                 select o.cdls_id from cdls_open o
                 where o.cdcs_id = a.cdcs_id and o.kind = 'schedule' and o.cdls_id > $1 and o.cdls_id <= $2
                   and ($5::bigint is null or o.v8l_id = $5) and ($6::text is null or o.campaign = $6)
                 order by o.cdcs_id {order}, o.cdls_id {order} limit $3) as o
             where $4::bigint is null or a.cdcs_id = $4) as q
         where q.cdls_id > $1 and q.cdls_id <= $2
         order by q.cdls_id {order} limit $3"
    )
}

/// The same of an account's campaign.
fn of_queued_campaign(order: &str) -> String {
    format!(
        "select q.cdls_id from (
             select unnest(w.ids) as cdls_id from work w
             where w.cdcs_id = $4 and w.campaign = $6::text and w.campaign <> '' and w.first_id <= $2
               and ($5::bigint is null or w.v8l_id = $5)
             union all
             select o.cdls_id from cdls_open o
             where o.cdcs_id = $4 and o.campaign = $6::text and o.campaign <> '' and o.kind = 'schedule'
               and ($5::bigint is null or o.v8l_id = $5)) as q
         where q.cdls_id > $1 and q.cdls_id <= $2
         order by q.cdls_id {order} limit $3"
    )
}

/// Rows that match, in order of id, between `bounds`, at most `limit`.
pub async fn listed(
    pool: &Pool,
    wanted: &Wanted<'_>,
    order: Order,
    bounds: (i64, i64),
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let limit = limit as usize;
    let mut candidates = Candidates::find(pool, wanted, order, bounds).await?;
    let mut page = Vec::new();
    let mut at_most = limit as i64;
    while page.len() < limit {
        let ids = candidates.next(at_most).await?;
        if ids.is_empty() {
            break;
        }
        at_most = at_most.saturating_mul(4);
        let mut left = ids.as_slice();
        while !left.is_empty() && page.len() < limit {
            let asked = limit - page.len();
            let found = rows(pool, left, wanted, order, asked as i64).await?;
            page.extend(found.iter().filter_map(readable));
            left = match found.last() {
                Some(last) if found.len() == asked => behind(left, columns::get(last, "cdls_id")?),
                _ => &[],
            };
        }
    }
    Ok(page)
}

fn behind(ids: &[i64], id: i64) -> &[i64] {
    let passed = ids.iter().position(|other| *other == id).map_or(ids.len(), |place| place + 1);
    &ids[passed..]
}

/// The matching rows of these, which are of one range; in order of id, at most `limit`.
///
/// Planned each time with the ids given: a plan for any ids joins the claims row by row.
pub async fn rows(
    pool: &Pool,
    ids: &[i64],
    wanted: &Wanted<'_>,
    order: Order,
    limit: i64,
) -> Result<Vec<PgRow>, StoreError> {
    let Some(range) = ids.first().and_then(|id| range_of(*id)) else { return Ok(Vec::new()) };
    let statement = format!(
        concat!(
            "with ",
            claims!(),
            " select ",
            log_columns!(),
            " from cdls_{range} c ",
            with_claims!(),
            " where c.cdls_id = any($1::bigint[]) and ($2::bigint is null or c.cdcs_id = $2)
                and ($3::bigint is null or c.v8l_id = $3) and ($4::text is null or c.cp_id = $4)
                and ($5::text is null or c.msg_id = $5) and ($6::text is null or c.dest = $6)
                and ($7::text is null or case when s.cdls_id is null then c.status else 'SENDING' end = $7)
              order by c.cdls_id {order} limit $8"
        ),
        range = range,
        order = order.as_sql()
    );
    let found = sqlx::query(&statement)
        .persistent(false)
        .bind(ids)
        .bind(wanted.account)
        .bind(wanted.line)
        .bind(wanted.cp_id)
        .bind(wanted.msg_id)
        .bind(wanted.dest)
        .bind(wanted.status.map(Status::as_str))
        .bind(limit)
        .fetch_all(pool)
        .await;
    unless_missing(found)
}
