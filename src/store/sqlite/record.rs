//! The recorder's transaction: changes first, then claims, then the removal of ended work and claims; all or
//! none.
//!
//! One transaction writes at a time, so rows are read once and the changes that apply are decided here. A row
//! in the wrong state, with another fence or under a lost lease is an answer, not an error.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::counts::{CampaignDeltas, CounterGroup};
use super::error::{begin, commit, failed};
use super::leases::Leases;
use super::row::{get, list};
use crate::domain::{AccountId, ErrorKind, LineId, Partition, Status};
use crate::store::{Claim, Record, Recorded, RowChange, StoreError, digest};

pub(super) const CURRENT: &str = include_str!("sql/current.sql");
pub(super) const CHANGE: &str = include_str!("sql/change.sql");
pub(super) const OPEN: &str = include_str!("sql/open.sql");

/// Claim ?2; arrays ?1: id, fence, partition, deadline.
const CLAIM_ROWS: &str = "
insert into claim_row (cdls_id, fence, claim_id, partition_no, call_deadline)
select value->>0, value->>1, ?2, value->>2, value->>3 from json_each(?1)";

/// Work ?1 goes unless a row of it still waits, such as one that this version cannot read.
pub(super) const END_WORK: &str = "
delete from work where work_id in (select value from json_each(?1)) and not exists (
    select 1 from json_each(ids) i cross join cdls c
    where c.cdls_id = i.value and (
        c.status = 'PENDING'
        or (c.status = 'RETRY' and again and not exists (select 1 from cdls_open o where o.cdls_id = c.cdls_id))))";

/// The facts of the recipients of rows ?1. Now ?2.
pub(super) const WITHHELD: &str = "
select c.cdls_id, coalesce(r.window_until <= ?2, 0) as is_closed, r.unreachable_since is not null as is_unreachable
from json_each(?1) j
cross join cdls c
cross join cd_recipient r
where c.cdls_id = j.value and r.v8l_id = c.v8l_id and r.dest = c.dest";

/// The claims with numbers ?2 of worker ?1.
const END_CLAIMS: [&str; 2] = [
    "delete from claim_row where claim_id in (
         select claim_id from claim where worker = ?1 and claim_no in (select value from json_each(?2)))",
    "delete from claim where worker = ?1 and claim_no in (select value from json_each(?2))",
];

/// Write changes, then make claims; return for each whether it took place.
pub async fn record(
    writer: &SqlitePool,
    leases: &Leases,
    record: Record<'_>,
) -> Result<Recorded, StoreError> {
    let Record { changes, claims, ended_work, ended_claims, .. } = record;
    if changes.is_empty() && claims.is_empty() && ended_work.is_empty() && ended_claims.is_empty() {
        return Ok(Recorded::default());
    }
    let (mut transaction, now) = begin(writer).await?;
    // Read inside the transaction: partitions change hands only when it has ended.
    let held = leases.held(record.worker);
    let rows = current(&mut transaction, &record, now).await?;
    let withheld = withheld(&mut transaction, &record, now).await?;
    let mut plan = Plan { rows, withheld, seen: HashSet::new(), now, counts: CampaignDeltas::default() };
    let changes = plan.changes(changes.iter().map(|change| change.row()));
    let claims = plan.claims(&record, &held);
    changes.write(&mut transaction, now).await?;
    plan.counts.write(&mut transaction, now).await?;
    let claimed = claims.write(&mut transaction, &record, now).await?;
    remove_ended(&mut transaction, &record).await?;
    commit(transaction).await?;
    Ok(Recorded { changed: changes.done, claimed, late: changes.late })
}

/// A row as it is.
struct CurrentRow {
    fence: i32,
    status: String,
    account: i64,
    line: LineId,
    digest: i64,
    media: bool,
    cp_id: Option<String>,
    error: (Option<i32>, Option<i32>),
    stands_open: bool,
    line_is_theirs: bool,
    may_be_sent: bool,
    /// The worker and number of its open claim.
    claim: Option<(String, i64)>,
}

async fn current(
    connection: &mut SqliteConnection,
    record: &Record<'_>,
    now: Now,
) -> Result<HashMap<i64, CurrentRow>, StoreError> {
    let ids = record.changes.iter().map(|change| change.id).chain(record.claims.iter().map(|claim| claim.id));
    let ids: BTreeSet<i64> = ids.map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let found =
        sqlx::query(CURRENT).bind(list(ids)).bind(now.text()).fetch_all(connection).await.map_err(failed)?;
    found.iter().map(|row| Ok((get(row, "cdls_id")?, current_row(row)?))).collect()
}

fn current_row(row: &SqliteRow) -> Result<CurrentRow, StoreError> {
    let worker: Option<String> = get(row, "worker")?;
    let claim_no: Option<i64> = get(row, "claim_no")?;
    let (account, line) = (get(row, "cdcs_id")?, LineId(get(row, "v8l_id")?));
    Ok(CurrentRow {
        fence: get(row, "fence")?,
        status: get(row, "status")?,
        account,
        line,
        digest: digest(AccountId(account), line, get(row, "dest")?, get(row, "mdata")?),
        media: get(row, "media")?,
        cp_id: get(row, "cp_id")?,
        error: (get(row, "error_code")?, get(row, "error_subcode")?),
        stands_open: get(row, "stands_open")?,
        line_is_theirs: get(row, "line_is_theirs")?,
        may_be_sent: get(row, "may_be_sent")?,
        claim: worker.zip(claim_no),
    })
}

impl CurrentRow {
    fn is_waiting(&self) -> bool {
        self.status == Status::Pending.as_str() || self.status == Status::Retry.as_str()
    }

    /// Whether the change applies; if so, whether as a late one, after the end of its claim.
    fn matches(&self, change: &RowChange) -> Option<bool> {
        if change.error_kind == Some(ErrorKind::Line.as_str()) && self.line_is_theirs {
            return None;
        }
        let is_unknown = self.status == Status::Unknown.as_str();
        if self.is_waiting() && self.fence == change.from_fence {
            return Some(false);
        }
        // A row that was never claimed has no success to be late.
        let had_call = change.late && change.from_fence >= 0;
        let is_late = had_call && (self.is_waiting() || is_unknown) && self.fence == change.to_fence;
        is_late.then_some(true)
    }

    fn group(&self) -> Option<CounterGroup> {
        let cp_id = self.cp_id.clone()?;
        Some(CounterGroup { account: self.account, cp_id, line: self.line.0, media: self.media })
    }
}

/// The plan of this transaction for the rows it has read.
struct Plan {
    rows: HashMap<i64, CurrentRow>,
    /// Rows that may be ended because of their recipients, each with the kind of its end.
    withheld: HashSet<(i64, &'static str)>,
    /// Rows named so far: each may be named once.
    seen: HashSet<i64>,
    now: Now,
    counts: CampaignDeltas,
}

#[derive(Default)]
struct PlannedChanges {
    done: Vec<bool>,
    late: usize,
    updates: Vec<Value>,
    opened: Vec<Value>,
    closed: Vec<i64>,
}

#[derive(Default)]
struct PlannedClaims {
    done: Vec<bool>,
    rows: Vec<Value>,
    /// The places of the claims that are made now.
    places: Vec<usize>,
}

impl Plan {
    fn changes(&mut self, wanted: impl Iterator<Item = RowChange>) -> PlannedChanges {
        let mut changes = PlannedChanges::default();
        for change in wanted {
            let row = self.rows.get(&change.id).filter(|_| self.seen.insert(change.id));
            let may_end = may_end(&self.withheld, &change);
            let matching = row.filter(|_| may_end).and_then(|row| Some((row, row.matches(&change)?)));
            changes.done.push(matching.is_some());
            let Some((row, is_late)) = matching else { continue };
            changes.late += usize::from(is_late);
            if let Some(group) = row.group() {
                if change.to == Status::Error {
                    let (code, subcode) = match change.writes_error {
                        true => (change.error_code, change.error_subcode),
                        false => row.error,
                    };
                    self.counts.erred(&group, code, subcode, change.error_kind.unwrap_or_default());
                }
                self.counts.changed(group, &row.status, change.to.as_str(), is_answered(&change));
            }
            changes.add(&change, row, is_late, self.now);
        }
        changes
    }

    /// Plan the claims. A claim that exists already, from an earlier call whose answer was lost, counts as
    /// made.
    fn claims(&mut self, record: &Record<'_>, held: &BTreeSet<Partition>) -> PlannedClaims {
        let mut claims = PlannedClaims::default();
        for (place, claim) in record.claims.iter().enumerate() {
            let row = self.rows.get(&claim.id.0).filter(|_| self.seen.insert(claim.id.0));
            let row = row
                .filter(|row| row.is_waiting() && row.fence == claim.fence)
                .filter(|row| claim.digest.is_none_or(|digest| digest == row.digest));
            claims.done.push(row.is_some_and(|row| row.is_claimed_by(record)));
            let may_be_claimed = |row: &&CurrentRow| {
                row.claim.is_none() && row.may_be_sent && held.contains(&row.line.partition())
            };
            if let Some(row) = row.filter(may_be_claimed) {
                claims.places.push(place);
                claims.rows.push(claim_values(claim, row.line.partition(), self.now));
            }
        }
        claims
    }
}

impl CurrentRow {
    fn is_claimed_by(&self, record: &Record<'_>) -> bool {
        let claim = self.claim.as_ref();
        claim.is_some_and(|(worker, number)| worker == record.worker && *number == record.claim_no)
    }
}

/// Return the rows whose recipients are such that a change of the record may end them. Most records have no such
/// change, and ask nothing.
async fn withheld(
    connection: &mut SqliteConnection,
    record: &Record<'_>,
    now: Now,
) -> Result<HashSet<(i64, &'static str)>, StoreError> {
    let ids: Vec<i64> =
        record.changes.iter().filter(|change| change.is_withheld()).map(|change| change.id.0).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<(i64, bool, bool)> = sqlx::query_as(WITHHELD)
        .bind(list(ids))
        .bind(now.text())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut withheld = HashSet::new();
    for (id, is_closed, is_unreachable) in found {
        withheld.extend(is_closed.then_some((id, ErrorKind::Window.as_str())));
        withheld.extend(is_unreachable.then_some((id, ErrorKind::Unreachable.as_str())));
    }
    Ok(withheld)
}

/// Whether the facts that are kept of the recipient allow the change.
fn may_end(withheld: &HashSet<(i64, &'static str)>, change: &RowChange) -> bool {
    match change.error_kind.filter(|kind| kind.parse().is_ok_and(ErrorKind::is_of_recipient)) {
        Some(kind) => withheld.contains(&(change.id, kind)),
        None => true,
    }
}

/// Whether Graph's answer has ended the row: such a row counts for its campaign's rate.
fn is_answered(change: &RowChange) -> bool {
    let unasked = [ErrorKind::Expired, ErrorKind::Line, ErrorKind::Window, ErrorKind::Unreachable];
    let is_unasked = change.error_kind.is_some_and(|kind| unasked.iter().any(|own| own.as_str() == kind));
    change.to == Status::Ok || (change.to == Status::Error && !is_unasked)
}

fn claim_values(claim: &Claim, partition: Partition, now: Now) -> Value {
    json!([claim.id, claim.fence + 1, partition, now.after(claim.call_deadline)])
}

impl PlannedChanges {
    fn add(&mut self, change: &RowChange, row: &CurrentRow, is_late: bool, now: Now) {
        let milliseconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        let next_at = change.next_after_ms.map(|ms| now.after(milliseconds(ms)));
        match change.to {
            Status::Retry => self.opened.push(json!([change.id, "retry", next_at])),
            Status::Unknown => self.opened.push(json!([change.id, "unknown", null])),
            _ if change.to.is_final() && row.stands_open => self.closed.push(change.id),
            _ => {}
        }
        self.updates.push(json!([
            change.id,
            change.to,
            change.to_fence,
            change.status_code,
            change.graph_id,
            change.writes_error,
            change.error_code,
            change.error_subcode,
            change.error_kind,
            change.error_message,
            change.fbtrace_id,
            if is_late { 0 } else { change.add_attempts },
            change.add_tries,
            change.add_ambiguous,
            change.add_crashes,
            change.begun_ago_ms.map(|ms| now.before(milliseconds(ms))),
            next_at,
            change.done.then(|| now.text()),
        ]));
    }

    async fn write(&self, connection: &mut SqliteConnection, now: Now) -> Result<(), StoreError> {
        for (statement, rows) in [(CHANGE, &self.updates), (OPEN, &self.opened)] {
            if !rows.is_empty() {
                let statement = sqlx::query(statement).bind(json!(rows).to_string()).bind(now.text());
                statement.execute(&mut *connection).await.map_err(failed)?;
            }
        }
        if !self.closed.is_empty() {
            sqlx::query("delete from cdls_open where cdls_id in (select value from json_each(?1))")
                .bind(json!(self.closed).to_string())
                .execute(connection)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl PlannedClaims {
    /// Make the claims; return for each whether it exists.
    async fn write(
        self,
        connection: &mut SqliteConnection,
        record: &Record<'_>,
        now: Now,
    ) -> Result<Vec<bool>, StoreError> {
        let mut done = self.done;
        if self.rows.is_empty() {
            return Ok(done);
        }
        let claim: Option<i64> = sqlx::query_scalar(
            "insert into claim (worker, claim_no, made_at) values (?1, ?2, ?3)
             on conflict (worker, claim_no) do nothing returning claim_id",
        )
        .bind(record.worker)
        .bind(record.claim_no)
        .bind(now.text())
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
        // The number was used before: the claims of then are the answer, and none is added.
        let Some(claim) = claim else { return Ok(done) };
        sqlx::query(CLAIM_ROWS)
            .bind(Value::Array(self.rows).to_string())
            .bind(claim)
            .execute(connection)
            .await
            .map_err(failed)?;
        for place in self.places {
            done[place] = true;
        }
        Ok(done)
    }
}

async fn remove_ended(connection: &mut SqliteConnection, record: &Record<'_>) -> Result<(), StoreError> {
    if !record.ended_work.is_empty() {
        sqlx::query(END_WORK)
            .bind(list(record.ended_work.iter().map(|work| work.0)))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    if !record.ended_claims.is_empty() {
        let numbers = list(record.ended_claims.iter().copied());
        for statement in END_CLAIMS {
            let statement = sqlx::query(statement).bind(record.worker).bind(&numbers);
            statement.execute(&mut *connection).await.map_err(failed)?;
        }
    }
    Ok(())
}
