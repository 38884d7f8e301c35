//! The recorder's transaction: one statement. Changes come first, then claims; ended work and claims are
//! removed.
//!
//! A statement is composed of the parts its batch needs, as each further table costs time even where no row
//! of it is written, and names the ranges of its rows: nearly always one. The guard of a change is checked
//! again if its row is changed meanwhile, so that such a row matches nothing.

use std::collections::{BTreeSet, HashSet};

use parking_lot::Mutex;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::error::failed;
use super::log::ranges::{Range, is_missing, range_of};
use super::parameters::milliseconds;
use super::pool::Pool;
use super::{record_one, rows};
use crate::domain::{ErrorKind, Status};
use crate::store::{Change, Claim, Record, Recorded, RowChange, StoreError};

/// How many rows are remembered; there are never more in calls.
const MAX_PLAIN_ROWS: usize = 100_000;

/// Rows claimed by this process that have no campaign, so that the ends of their calls touch no counter.
#[derive(Default)]
pub struct PlainRows(Mutex<HashSet<i64>>);

impl PlainRows {
    fn has_all(&self, changes: &[RowChange]) -> bool {
        let known = self.0.lock();
        changes.iter().all(|change| known.contains(&change.id))
    }

    fn note(&self, claimed: impl Iterator<Item = i64>, changes: &[RowChange]) {
        let mut known = self.0.lock();
        for change in changes {
            known.remove(&change.id);
        }
        if known.len() >= MAX_PLAIN_ROWS {
            known.clear();
        }
        known.extend(claimed);
    }
}

/// The form in which changes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Ends of calls of rows without a campaign, which are in the queue only in their work: one update.
    Plain,
    Any,
}

/// The content of one statement.
struct RecordStatement<'a> {
    record: Record<'a>,
    changes: &'a [RowChange],
    claims: &'a [Claim],
    form: Form,
}

/// The answer of the statement.
#[derive(Default)]
struct StatementResult {
    changed: HashSet<i64>,
    late: usize,
    claimed: HashSet<i64>,
    plain: Vec<i64>,
}

pub async fn record(pool: &Pool, plain_rows: &PlainRows, record: Record<'_>) -> Result<Recorded, StoreError> {
    let changes: Vec<RowChange> = record.changes.iter().map(Change::row).collect();
    let form = if is_plain(&changes) && plain_rows.has_all(&changes) { Form::Plain } else { Form::Any };
    if let Some(recorded) = write_one(pool, plain_rows, record, &changes, form).await? {
        return Ok(recorded);
    }
    let mut written =
        write(pool, RecordStatement { record, changes: &changes, claims: record.claims, form }).await?;
    if form == Form::Plain && written.changed.len() < changes.len() {
        // Rows that others have settled meanwhile; their ended work and claims were not removed.
        let left: Vec<RowChange> =
            changes.iter().filter(|change| !written.changed.contains(&change.id)).cloned().collect();
        let rest =
            write(pool, RecordStatement { record, changes: &left, claims: &[], form: Form::Any }).await?;
        written.changed.extend(rest.changed);
        written.late += rest.late;
    }
    if record.repeated && written.changed.len() < changes.len() {
        written.changed.extend(written_before(pool, &changes).await?);
    }
    plain_rows.note(written.plain.into_iter(), &changes);
    Ok(Recorded {
        changed: changes.iter().map(|change| written.changed.contains(&change.id)).collect(),
        claimed: record.claims.iter().map(|claim| written.claimed.contains(&claim.id.0)).collect(),
        late: written.late,
    })
}

/// Try the statement for a lone claim or end of a call; `None`, if the record holds more or the row is not as
/// expected.
async fn write_one(
    pool: &Pool,
    plain_rows: &PlainRows,
    record: Record<'_>,
    changes: &[RowChange],
    form: Form,
) -> Result<Option<Recorded>, StoreError> {
    match (changes, record.claims) {
        ([change], []) if form == Form::Plain && record_one::end(pool, record, change).await? => {
            plain_rows.note(std::iter::empty(), changes);
            Ok(Some(Recorded { changed: vec![true], ..Recorded::default() }))
        }
        ([], [claim]) if !claim.in_campaign && record_one::claim(pool, record, claim).await? => {
            plain_rows.note(std::iter::once(claim.id.0), &[]);
            Ok(Some(Recorded { claimed: vec![true], ..Recorded::default() }))
        }
        _ => Ok(None),
    }
}

/// Whether the changes only end rows with the answer to their calls.
fn is_plain(changes: &[RowChange]) -> bool {
    changes.iter().all(|change| {
        matches!(change.to, Status::Ok | Status::Error)
            && change.from_fence != change.to_fence
            && change.error_kind != Some(ErrorKind::Line.as_str())
    })
}

async fn write(pool: &Pool, batch: RecordStatement<'_>) -> Result<StatementResult, StoreError> {
    let mut ranges = batch.ranges();
    loop {
        let Some(statement) = batch.statement(&ranges) else { return Ok(StatementResult::default()) };
        match batch.bind(&statement).fetch_all(pool).await {
            Ok(rows) => return StatementResult::of(&rows),
            Err(error) if is_missing(&error) => {
                let there = existing(pool, &ranges).await?;
                if there.len() == ranges.len() {
                    return Err(failed(error));
                }
                ranges = there;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Return the rows that a transaction without an answer has changed already: each has the fence and the
/// status of its change.
async fn written_before(pool: &Pool, changes: &[RowChange]) -> Result<Vec<i64>, StoreError> {
    sqlx::query_scalar(
        "select c.cdls_id from unnest($1::bigint[], $2::integer[], $3::text[]) as w(id, fence, status)
         join cdls c on c.cdls_id = w.id and c.fence = w.fence and c.status = w.status",
    )
    .bind(changes.iter().map(|change| change.id).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.to_fence).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.to.as_str()).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .map_err(failed)
}

/// Return the ranges that exist: the rows of others are gone.
async fn existing(pool: &Pool, ranges: &BTreeSet<Range>) -> Result<BTreeSet<Range>, StoreError> {
    let mut there = BTreeSet::new();
    for range in ranges {
        let is_there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(format!("cdls_{range}"))
            .fetch_one(pool)
            .await
            .map_err(failed)?;
        if is_there {
            there.insert(*range);
        }
    }
    Ok(there)
}

impl StatementResult {
    fn of(rows: &[PgRow]) -> Result<StatementResult, StoreError> {
        let mut written = StatementResult::default();
        for row in rows {
            let id: i64 = rows::get(row, "id")?;
            let flag: bool = rows::get(row, "flag")?;
            if rows::get(row, "is_claim")? {
                written.claimed.insert(id);
                written.plain.extend(flag.then_some(id));
            } else {
                written.changed.insert(id);
                written.late += usize::from(flag);
            }
        }
        Ok(written)
    }
}

impl RecordStatement<'_> {
    fn ranges(&self) -> BTreeSet<Range> {
        let changes = self.changes.iter().map(|change| change.id);
        changes.chain(self.claims.iter().map(|claim| claim.id.0)).filter_map(range_of).collect()
    }

    fn of_changes(&self, range: Range) -> bool {
        self.changes.iter().any(|change| range_of(change.id) == Some(range))
    }

    fn of_claims(&self, range: Range) -> bool {
        self.claims.iter().any(|claim| range_of(claim.id.0) == Some(range))
    }

    /// Return the statement; `None` if there is nothing to do.
    fn statement(&self, ranges: &BTreeSet<Range>) -> Option<String> {
        let (mut parts, mut answers) = (Vec::new(), Vec::new());
        let changed: Vec<Range> = ranges.iter().copied().filter(|range| self.of_changes(*range)).collect();
        self.add_changes(&changed, &mut parts, &mut answers);
        let claimed: Vec<Range> = ranges.iter().copied().filter(|range| self.of_claims(*range)).collect();
        add_claims(&claimed, &mut parts, &mut answers);
        let if_all = if self.form == Form::Plain && !changed.is_empty() { IF_ALL } else { "" };
        if !self.record.ended_work.is_empty() {
            parts.push(format!("ended as (delete from work where work_id = any($2::bigint[]){if_all})"));
        }
        if !self.record.ended_claims.is_empty() {
            parts.push(format!("{CLOSED}{if_all})"));
        }
        if parts.is_empty() {
            return None;
        }
        let answer = if answers.is_empty() { NOTHING.to_owned() } else { answers.join("\nunion all\n") };
        Some(format!("with {}\n{answer}", parts.join(",\n")))
    }

    fn add_changes(&self, ranges: &[Range], parts: &mut Vec<String>, answers: &mut Vec<String>) {
        if ranges.is_empty() {
            return;
        }
        let update = match self.form {
            Form::Plain => include_str!("sql/record_plain.sql"),
            Form::Any => include_str!("sql/record_any.sql"),
        };
        let withheld =
            if self.changes.iter().any(is_withheld) { include_str!("sql/record_withheld.sql") } else { "" };
        let update = update
            .replace("{set}", include_str!("sql/record_set.sql"))
            .replace("{withheld}", withheld.trim_end());
        parts.push(include_str!("sql/record_changes.sql").to_owned());
        parts.extend(ranges.iter().map(|range| on(&update, *range)));
        let all: Vec<String> = ranges.iter().map(|range| format!("select * from changed_{range}")).collect();
        parts.push(format!("changed as ({})", all.join(" union all ")));
        if self.form == Form::Any {
            parts.push(include_str!("sql/record_open.sql").to_owned());
            if self.changes.iter().any(|change| change.to == Status::Error) {
                parts.push(include_str!("sql/record_errors.sql").to_owned());
            }
        }
        answers.push("select id, is_late as flag, false as is_claim from changed".to_owned());
    }

    /// Bind the parameters; a statement without changes needs none for them.
    fn bind<'q>(&'q self, statement: &'q str) -> Query<'q, sqlx::Postgres, PgArguments> {
        let Record { worker, claim_no, ended_work, ended_claims, .. } = self.record;
        let query = sqlx::query(statement)
            .bind(worker)
            .bind(ended_work.iter().map(|work| work.0).collect::<Vec<_>>())
            .bind(ended_claims)
            .bind(claim_no)
            .bind(self.claims.iter().map(|claim| claim.id.0).collect::<Vec<_>>())
            .bind(self.claims.iter().map(|claim| claim.fence).collect::<Vec<_>>())
            .bind(self.claims.iter().map(|claim| milliseconds(claim.call_deadline)).collect::<Vec<_>>())
            .bind(self.claims.iter().map(|claim| claim.digest).collect::<Vec<_>>());
        if self.changes.is_empty() { query } else { bind_changes(query, self.changes) }
    }
}

/// Whether the facts that are kept of the recipient decide about the change.
fn is_withheld(change: &RowChange) -> bool {
    let kinds = [ErrorKind::Window.as_str(), ErrorKind::Unreachable.as_str()];
    change.error_kind.is_some_and(|kind| kinds.contains(&kind))
}

/// Ended work is removed only where every change took place: a failed change may be of one of its rows.
const IF_ALL: &str = " and (select count(*) from changed) = cardinality($9)";

const CLOSED: &str = "closed as (delete from claim c using unnest($3::bigint[]) as n(claim_no)
        where c.worker = $1 and c.claim_no = n.claim_no";

const NOTHING: &str = "select 0::bigint as id, false as flag, false as is_claim where false";

/// Claims of this statement, and, if it is repeated, those made before.
const CLAIMED: &str =
    "select p.id, p.is_plain as flag, true as is_claim from passed p where exists (select from claimed)
union all
select unnest(c.ids), false, true from claim c where c.worker = $1 and c.claim_no = $4";

fn bind_changes<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    changes: &'q [RowChange],
) -> Query<'q, sqlx::Postgres, PgArguments> {
    fn all<'q, T>(changes: &'q [RowChange], of: impl Fn(&'q RowChange) -> T) -> Vec<T> {
        changes.iter().map(of).collect()
    }
    query
        .bind(all(changes, |r| r.id))
        .bind(all(changes, |r| r.from_fence))
        .bind(all(changes, |r| r.to_fence))
        .bind(all(changes, |r| r.late))
        .bind(all(changes, |r| r.to.as_str()))
        .bind(all(changes, |r| r.status_code))
        .bind(all(changes, |r| r.graph_id.as_deref()))
        .bind(all(changes, |r| r.writes_error))
        .bind(all(changes, |r| r.error_code))
        .bind(all(changes, |r| r.error_subcode))
        .bind(all(changes, |r| r.error_kind))
        .bind(all(changes, |r| r.error_message.as_deref()))
        .bind(all(changes, |r| r.fbtrace_id.as_deref()))
        .bind(all(changes, |r| r.add_attempts))
        .bind(all(changes, |r| r.add_tries))
        .bind(all(changes, |r| r.add_ambiguous))
        .bind(all(changes, |r| r.add_crashes))
        .bind(all(changes, |r| r.begun_ago_ms))
        .bind(all(changes, |r| r.next_after_ms))
        .bind(all(changes, |r| r.done))
}

fn on(statement: &str, range: Range) -> String {
    statement.replace("{range}", &range.to_string())
}

fn add_claims(ranges: &[Range], parts: &mut Vec<String>, answers: &mut Vec<String>) {
    if ranges.is_empty() {
        return;
    }
    parts.push(include_str!("sql/record_lease.sql").to_owned());
    let all: Vec<String> =
        ranges.iter().map(|range| on(include_str!("sql/record_claims.sql"), *range)).collect();
    parts.push(format!("passed as materialized (\n{})", all.join("    union all\n")));
    parts.push(include_str!("sql/record_claimed.sql").to_owned());
    answers.push(CLAIMED.to_owned());
}
