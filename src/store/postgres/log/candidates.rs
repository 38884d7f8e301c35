//! Ids of rows that may match a filter, in order: the rarest filter given finds them, from one index alone or
//! from the queue, range by range of the log.
//!
//! Never here: the other filters, which `matching` checks row by row.

use std::collections::VecDeque;

use super::filter::{ListFilter, Order};
use super::ranges::{self, Range, split, unless_missing};
use crate::domain::Status;
use crate::store::StoreError;
use crate::store::postgres::error::failed;
use crate::store::postgres::pool::Pool;

/// Ids read at a time.
pub const BATCH: i64 = 10_000;
/// The number of ids read at a time for each line of an account.
const BATCH_OF_LINES: i64 = 1_000;

/// The source of the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Rows with a claim.
    Claims,
    /// Rows that wait for their turn or for a time.
    Queue,
    /// The lines of a batch, as long as they are remembered.
    Batch,
    /// An index of the log that begins with the account and these columns.
    Index(&'static [IndexColumn]),
    /// All lines of one account.
    Lines,
    /// Every row.
    Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndexColumn {
    MsgId,
    Dest,
    Campaign,
    Exception,
    Line,
}

impl IndexColumn {
    fn name(self) -> &'static str {
        match self {
            IndexColumn::MsgId => "c.msg_id",
            IndexColumn::Dest => "c.dest",
            IndexColumn::Campaign => "c.cp_id",
            IndexColumn::Exception => "c.exception",
            IndexColumn::Line => "c.v8l_id",
        }
    }

    fn sql_type(self) -> &'static str {
        if self == IndexColumn::Line { "text::bigint" } else { "text" }
    }

    fn values(self, wanted: &ListFilter<'_>) -> Vec<String> {
        let text = |text: Option<&str>| -> Vec<String> { text.map(str::to_owned).into_iter().collect() };
        match self {
            IndexColumn::MsgId => wanted.msg_ids.to_vec(),
            IndexColumn::Dest => text(wanted.dest),
            IndexColumn::Campaign => text(wanted.cp_id),
            IndexColumn::Exception => {
                wanted.statuses.iter().map(|status| status.as_str().to_owned()).collect()
            }
            IndexColumn::Line => wanted.line.map(|line| line.to_string()).into_iter().collect(),
        }
    }
}

impl ListFilter<'_> {
    /// Return the source of the ids. Rows that are SENDING or PENDING are in the queue, and rows with any
    /// other status but OK in an index of their own.
    fn source(&self) -> Source {
        match self {
            ListFilter { statuses: [Status::Sending], .. } => Source::Claims,
            ListFilter { batch_id: Some(_), .. } => Source::Batch,
            ListFilter { msg_ids, .. } if !msg_ids.is_empty() => Source::Index(&[IndexColumn::MsgId]),
            ListFilter { dest: Some(_), .. } => Source::Index(&[IndexColumn::Dest]),
            ListFilter { statuses: [Status::Pending], .. } => Source::Queue,
            ListFilter { statuses: [status], cp_id, .. } if *status != Status::Ok => match cp_id {
                Some(_) => Source::Index(&[IndexColumn::Campaign, IndexColumn::Exception]),
                None => Source::Index(&[IndexColumn::Exception]),
            },
            ListFilter { cp_id: Some(_), .. } => Source::Index(&[IndexColumn::Campaign]),
            ListFilter { line: Some(_), .. } => Source::Index(&[IndexColumn::Line]),
            ListFilter { account: Some(_), .. } => Source::Lines,
            _ => Source::Log,
        }
    }
}

/// Ids of rows that may match, batch by batch, each of one range.
pub struct Candidates<'a> {
    pool: &'a Pool,
    wanted: &'a ListFilter<'a>,
    source: Source,
    order: Order,
    /// Ids above the first and up to the second, inclusive, are left.
    left: (i64, i64),
    ranges: VecDeque<Range>,
}

impl<'a> Candidates<'a> {
    /// Return the candidates with ids above the first of `bounds` and up to the second, inclusive.
    pub async fn find(
        pool: &'a Pool,
        wanted: &'a ListFilter<'a>,
        order: Order,
        bounds: (i64, i64),
    ) -> Result<Candidates<'a>, StoreError> {
        let source = wanted.source();
        let mut ranges = VecDeque::from(match source {
            Source::Claims | Source::Queue | Source::Batch => Vec::new(),
            _ => ranges::all(pool).await?,
        });
        if order == Order::OldestFirst {
            ranges.make_contiguous().reverse();
        }
        ranges.retain(|range| range.last() > bounds.0 && range.first() <= bounds.1);
        Ok(Candidates { pool, wanted, source, order, left: bounds, ranges })
    }

    /// Return the next ids, about `at_most`; none at the end.
    pub async fn next(&mut self, at_most: i64) -> Result<Vec<i64>, StoreError> {
        let most = if self.source == Source::Lines { BATCH_OF_LINES } else { BATCH };
        let at_most = at_most.clamp(1, most);
        match self.source {
            Source::Claims | Source::Queue | Source::Batch => self.next_of_queue(at_most).await,
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
        // A row that was tried before may be in two rows of `work`.
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
            Source::Batch => query = query.bind(self.wanted.batch_id),
            Source::Index(columns) => {
                for column in columns {
                    query = query.bind(column.values(self.wanted));
                }
            }
            Source::Lines | Source::Log => {}
        }
        query.fetch_all(self.pool).await
    }

    fn of_log(&self, range: Range) -> String {
        let order = self.order.as_sql();
        // No index holds the status OK. Waiting rows, by the hundred thousand, are skipped here instead of
        // being fetched one by one.
        let also = if matches!(self.wanted.statuses, [Status::Ok]) { "and c.status = 'OK'" } else { "" };
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
            (Source::Batch, _) => format!(
                "select l.cdls_id from batch b join batch_line l on l.batch_no = b.batch_no
                 where b.batch_id = $5::text and ($4::bigint is null or b.cdcs_id = $4)
                   and l.cdls_id > $1 and l.cdls_id <= $2
                 order by l.cdls_id {order} limit $3"
            ),
            (_, ListFilter { account: Some(_), cp_id: Some(_), .. }) => of_queued_campaign(order),
            _ => of_queued_lines(order),
        }
    }
}

/// Return the statement for account $4 (NULL is any), columns $5 and on, each a list of values, from the
/// index alone. The columns are compared as a row with the id: a planner that knows them to be constant takes
/// the order of the primary key, and walks over the rows of all others.
fn of_index(range: Range, columns: &[IndexColumn], also: &str, order: &str) -> String {
    let names = columns.iter().map(|column| column.name()).collect::<Vec<_>>();
    let values = columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!("v{n}.value::{}", column.sql_type()))
        .collect::<Vec<_>>();
    let lists = (0..columns.len())
        .map(|n| format!("cross join unnest(${}::text[]) as v{n}(value)", n + 5))
        .collect::<Vec<_>>()
        .join(" ");
    let not_null = names.iter().map(|name| format!("{name} is not null")).collect::<Vec<_>>().join(" and ");
    let ordered = names.iter().map(|name| format!("{name} {order}")).collect::<Vec<_>>().join(", ");
    let (names, values) = (names.join(", "), values.join(", "));
    format!(
        "select w.cdls_id from account a {lists} cross join lateral (
             select c.cdls_id from cdls_{range} c
             where c.cdcs_id = a.cdcs_id and {not_null} {also}
               and ({names}, c.cdls_id) > ({values}, $1) and ({names}, c.cdls_id) <= ({values}, $2)
             order by {ordered}, c.cdls_id {order} limit $3) as w
         where $4::bigint is null or a.cdcs_id = $4
         order by w.cdls_id {order} limit $3"
    )
}

/// Return the statement that finds the lines by probing; only the lines with the first rows, as many as the
/// batch is long, can contribute to it.
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

/// Return the statement for account $4, line $5, campaign $6; NULL is any. Each batch looks at all waiting
/// rows: half a second for a million rows. (Unnested in the list of columns, because a join with a function
/// is remembered row by row.)
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

/// Return the statement for a campaign of an account.
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
